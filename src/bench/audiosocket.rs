//! How many calls this machine carries that come by AudioSocket: as [`super::run`], but the callers are
//! connections of an Asterisk that sends linear audio, and there is no SIP.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use super::calls::Outcome;
use super::child::{Server, Setup};
use super::generator::{Command, Generator, Talk};
use super::machine::Cores;
use super::report::{Medium, Raw};
use super::service::Service;
use super::{Options, Report, Snapshot, marker, on_far_end};
use crate::audiosocket::codec::{AudioKind, Message};
use crate::pbx::Uuid;

/// Runs the benchmark on the calling thread and threads of its own. `rate`: of the audio, in Hz.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, rate: u32, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let kind = AudioKind::from_rate(rate).with_context(|| {
        format!("AudioSocket has no audio of {rate} Hz; use 8000, 12000, 16000, 24000, 32000, 44100 or 48000")
    })?;
    on_far_end(async |cores| measure(options, kind, &cores, remark).await)
}

async fn measure(
    options: &Options,
    kind: AudioKind,
    cores: &Cores,
    remark: impl Fn(&str),
) -> anyhow::Result<Report> {
    let service = Service::start(options, cores.simulator.clone())?;
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let server = Server::start(&setup(options, &service.url, door), cores).await?;
    let idle = server.usage().context("reading /proc of the server")?;
    remark("the server is ready; calls are being placed");
    let generator = Generator::start(options.calls, Talk::Markers, cores.generator.clone())?;
    let mut rng: StdRng = rand::make_rng();
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / options.rate));
    for call in 0..options.calls {
        pace.tick().await;
        let since = Instant::now();
        let socket = connect(door, &mut rng).with_context(|| format!("connecting to {door}"))?;
        let add = Command::AddAudioSocket { call, socket, kind, since };
        generator.commands().send(add).await.context("the generator stopped by itself")?;
    }
    tokio::time::sleep(marker::SETTLED).await;
    let live = alive(&generator).await?;
    anyhow::ensure!(live > 0, "no call was taken; the server's log is in its directory (--keep)");

    remark(&format!("{live} calls are up; measuring for {} s", options.span.as_secs()));
    let before = Snapshot::take(&server, Some(&service), &generator)?;
    generator.measure(true).await;
    tokio::time::sleep(options.span).await;
    generator.measure(false).await;
    let after = Snapshot::take(&server, Some(&service), &generator)?;
    // What was sent last is still under way.
    tokio::time::sleep(marker::LIMIT).await;

    let left = alive(&generator).await?;
    let heard = generator.stop().await?;
    let service = service.stop().await?;
    let goodbye = server.stop(options.keep).await;
    let failures = vec!["closed by the server".to_owned(); options.calls - left];
    let setup = heard.begun.clone();
    let signalling = Outcome { placed: options.calls, setup, failures, ended: left };
    let medium = Medium::AudioSocket;
    let raw = Raw { options, medium, cores, live, idle, before, after, heard, service, signalling, goodbye };
    Ok(Report::of(raw))
}

/// How many calls are up.
async fn alive(generator: &Generator) -> anyhow::Result<usize> {
    let (tell, told) = oneshot::channel();
    let _gone = generator.commands().send(Command::Alive(tell)).await;
    told.await.context("the generator stopped by itself")
}

/// As Asterisk connects.
fn connect(door: SocketAddr, rng: &mut StdRng) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(door)?;
    socket.set_nodelay(true)?;
    let mut name = Vec::new();
    // Only audio can be unfit to be written.
    let _fits = Message::Uuid(Uuid::random(rng)).write(&mut name);
    socket.write_all(&name)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn setup(options: &Options, service: &str, door: SocketAddr) -> Setup {
    let setup = super::setup(options, service);
    let listener =
        format!("[audiosocket]\nlisten = \"{door}\"\nnumber = \"100\"\nmax_calls = {}\n", marker::CALLS_MAX);
    Setup { config: format!("{}{listener}", setup.config), ..setup }
}
