//! `tandem simulate audiosocket` and `tandem simulate asterisk`: the doors of a PBX from the command line.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ari::{Asterisk, Caller, Fate, Settings};
use super::audiosocket::{self, AudioSocketCall, Door};
use super::measure::{ms, tone};
use super::person::Person;
use super::release::Release;
use super::uuid::Uuid;
use super::websocket::{self, WebSocketCall};
use crate::pbx::Coding;
use crate::simulate::options::{CHECK_FOUND_PROBLEMS, seconds};
use crate::simulate::recorder::Recorder;
use crate::simulate::sound;
use crate::simulate::speech::tone_sample;

/// What callers do.
#[derive(Debug, Clone, Args)]
struct CallerArgs {
    /// How many calls.
    #[arg(long, default_value_t = 1)]
    calls: usize,
    /// New calls a second.
    #[arg(long, value_name = "CPS", default_value_t = 10.0)]
    cps: f64,
    /// Hang up this long after the call began, if nobody else has.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// What the caller says: a WAV file. May be repeated.
    #[arg(long, value_name = "FILE")]
    wav: Vec<PathBuf>,
    /// What the caller says, spoken by the built-in voice. May be repeated; comes after the WAV files.
    #[arg(long, value_name = "TEXT")]
    say: Vec<String>,
    /// A tone from the beginning to the end, after all else that is said.
    #[arg(long, value_name = "HZ")]
    tone: Option<f64>,
    /// Keys to press once everything but the tone is said.
    #[arg(long, value_name = "DIGITS")]
    dtmf: Option<String>,
    /// Folder for a WAV file per call of what was heard.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Exit with code 7 if the server broke the protocol.
    #[arg(long)]
    strict: bool,
}

/// Calls an AudioSocket server, as an Asterisk does.
#[derive(Debug, Clone, Args)]
pub struct SimulateAudioSocketArgs {
    /// The server: HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    to: String,
    /// Sample rate of an AudioSocket channel, `c(slin24)` being 24000. Without it: the application, which is 8000.
    #[arg(long, value_name = "HZ")]
    rate: Option<u32>,
    /// The call's UUID; only for one call. Without it each draws its own.
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Behave as this release: what it lacked, and what it did wrong.
    #[arg(long, default_value = "23.4.1")]
    release: Release,
    /// As in one call of four on a real Asterisk: nothing is sent before the server has sent something.
    #[arg(long)]
    starved: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// A PBX with callers: ARI, and calls by AudioSocket and WebSocket.
#[derive(Debug, Clone, Args)]
pub struct SimulateAsteriskArgs {
    /// Address of its HTTP server (ARI at /ari, media sockets at /media); port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    http: SocketAddr,
    /// User of ari.conf.
    #[arg(long, default_value = "tandem")]
    username: String,
    /// Password of ari.conf.
    #[arg(long, env = "TANDEM_SIMULATE_PASSWORD", hide_env_values = true, default_value = "secret")]
    password: String,
    /// Call into this Stasis application, once it is there. Without it and without --audiosocket and --websocket the
    /// PBX only waits.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Extension that is called.
    #[arg(long, value_name = "EXTENSION", default_value = "100")]
    extension: String,
    /// The caller's number.
    #[arg(long, value_name = "NUMBER", default_value = "201")]
    from: String,
    /// Call this AudioSocket server: HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    audiosocket: Option<String>,
    /// Call this media server over a WebSocket: the `uri` of websocket_client.conf.
    #[arg(long, value_name = "URL")]
    websocket: Option<String>,
    /// Format of calls by --audiosocket and --websocket: Asterisk's name.
    #[arg(long, value_name = "NAME", default_value = "slin24")]
    format: String,
    /// With --websocket: control messages are JSON.
    #[arg(long)]
    json_control: bool,
    /// With --websocket: USER:PASSWORD of websocket_client.conf. The variable keeps it from others on this machine.
    #[arg(long, value_name = "USER:PASSWORD", env = "TANDEM_SIMULATE_LOGIN", hide_env_values = true)]
    login: Option<String>,
    /// Extensions there are: EXTENSION@CONTEXT; repeatable. Without it 100 and 200 of `internal`.
    #[arg(long, value_name = "EXTEN@CONTEXT")]
    dialplan: Vec<String>,
    /// External media are starved by a server that does not speak first.
    #[arg(long)]
    starved: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// One call of whatever kind.
enum Line {
    AudioSocket(AudioSocketCall),
    WebSocket(WebSocketCall),
    Ari(Caller),
}

impl Line {
    fn person(&self) -> &Arc<Person> {
        match self {
            Self::AudioSocket(call) => call.person(),
            Self::WebSocket(call) => call.person(),
            Self::Ari(caller) => caller.person(),
        }
    }

    fn press(&self, digit: char) {
        match self {
            Self::AudioSocket(call) => call.press(digit),
            Self::WebSocket(call) => call.press(digit),
            Self::Ari(caller) => caller.press(digit),
        }
    }

    fn hang_up(&self) {
        match self {
            Self::AudioSocket(call) => call.hang_up(),
            Self::WebSocket(call) => call.hang_up(),
            Self::Ari(caller) => caller.hang_up(),
        }
    }

    /// Waits for the end; the call's document, and its violations.
    async fn ended(&self) -> anyhow::Result<(Value, usize)> {
        Ok(match self {
            Self::AudioSocket(call) => {
                let report = call.ended().await;
                let count = report.violations.len();
                (document("audiosocket", serde_json::to_value(report)?), count)
            }
            Self::WebSocket(call) => {
                let report = call.ended().await;
                let count = report.violations.len();
                (document("websocket", serde_json::to_value(report)?), count)
            }
            Self::Ari(caller) => {
                let how = match caller.fate().await.fate {
                    Fate::HungUp { cause, by_app } => {
                        json!({"hung_up": {"cause": cause, "by": if by_app { "application" } else { "caller" }}})
                    }
                    Fate::WentOn(went) => json!({ "went_on": went }),
                    Fate::Redirected(to) => json!({ "redirected": to }),
                    Fate::NotTaken => json!("not_taken"),
                };
                (document("ari", json!({"channel": caller.id(), "ended": how})), 0)
            }
        })
    }
}

/// `report` with the door in front.
fn document(door: &str, mut report: Value) -> Value {
    report["door"] = json!(door);
    report
}

/// Calls; prints what is to be told of them.
///
/// # Errors
/// When an argument makes no sense, a file cannot be read or written, or the server is not to be reached.
pub async fn run_audiosocket(args: SimulateAudioSocketArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    if args.uuid.is_some() && args.caller.calls > 1 {
        bail!("--uuid names one call; leave it out for {} calls", args.caller.calls);
    }
    let to = resolve(&args.to)?;
    let door = args.rate.map_or(Door::Application, Door::Channel);
    let (release, starved) = (args.release, args.starved);
    let plan = Arc::new(plan(&args.caller)?);
    let (calls, count) = place(&args.caller, &plan, |person| {
        let uuid = args.uuid.unwrap_or_else(Uuid::random);
        let setup = audiosocket::Setup { door, release, starved, person: Some(person), ..Default::default() };
        async move {
            let call = AudioSocketCall::connect(to, uuid, setup).await;
            Ok(Line::AudioSocket(call.with_context(|| format!("calling {to}"))?))
        }
    })
    .await?;
    finish(&args.caller, &calls, None, count, as_json)
}

/// Is a PBX; prints what is to be told of it.
///
/// # Errors
/// As [`run_audiosocket`], and when the address cannot be had.
pub async fn run_asterisk(args: SimulateAsteriskArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let coding = Coding::from_asterisk(&args.format).with_context(|| {
        format!(
            "`{}` is no format; known: slin, slin12, slin16, slin24, slin48, ulaw, alaw, g722",
            args.format
        )
    })?;
    let pbx =
        Asterisk::start(settings(&args)?).await.with_context(|| format!("listening on {}", args.http))?;
    eprintln!(
        "Asterisk simulator: ARI at {}, media sockets at {}; Ctrl-C ends it",
        pbx.url(),
        pbx.media_url()
    );
    let plan = Arc::new(plan(&args.caller)?);
    let (mut calls, mut count) = (Vec::new(), 0);
    let work = async {
        if let Some(to) = &args.audiosocket {
            let to = resolve(to)?;
            let Coding::Linear(rate) = coding else {
                bail!("an AudioSocket carries linear audio only: --format slin24")
            };
            let (more, wrong) = place(&args.caller, &plan, |person| {
                let setup = audiosocket::Setup {
                    starved: args.starved,
                    person: Some(person),
                    ..audiosocket::Setup::channel(rate)
                };
                async move {
                    let call = AudioSocketCall::connect(to, Uuid::random(), setup).await;
                    Ok(Line::AudioSocket(call.with_context(|| format!("calling {to}"))?))
                }
            })
            .await?;
            calls.extend(more);
            count += wrong;
        }
        if let Some(url) = &args.websocket {
            let (more, wrong) = place(&args.caller, &plan, |person| {
                let login = args.login.as_deref().and_then(|login| login.split_once(':'));
                let setup = websocket::Setup {
                    json: args.json_control,
                    query: format!("to={}", args.extension),
                    login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
                    person: Some(person),
                    ..websocket::Setup::of(coding)
                };
                let url = url.clone();
                async move {
                    let call = WebSocketCall::connect(&url, setup).await;
                    Ok(Line::WebSocket(call.with_context(|| format!("calling {url}"))?))
                }
            })
            .await?;
            calls.extend(more);
            count += wrong;
        }
        if let Some(app) = &args.app {
            pbx.until_app(app).await;
            let (more, wrong) = place(&args.caller, &plan, |person| {
                let caller = pbx.call_as(app, &[], &args.extension, &args.from, person);
                async move { Ok(Line::Ari(caller)) }
            })
            .await?;
            calls.extend(more);
            count += wrong;
        }
        if args.app.is_none() && args.audiosocket.is_none() && args.websocket.is_none() {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    tokio::select! {
        done = work => done?,
        ended = tokio::signal::ctrl_c() => ended?,
    }
    // The application may be clearing up after the last call.
    let _ = tokio::time::timeout(CLEAR_UP, pbx.until(|report| report.left_over.is_empty())).await;
    let report = pbx.report();
    let violations = count + report.violations.len() + report.left_over.len();
    let told = json!({
        "requests": report.requests.len(), "event_sockets": report.sockets, "went": report.went,
        "left_over": report.left_over, "violations": report.violations,
    });
    finish(&args.caller, &calls, Some(told), violations, as_json)
}

fn settings(args: &SimulateAsteriskArgs) -> anyhow::Result<Settings> {
    let mut settings = Settings {
        listen: args.http,
        username: args.username.clone(),
        password: args.password.clone(),
        starved: args.starved,
        websocket_clients: HashMap::new(),
        ..Settings::default()
    };
    if !args.dialplan.is_empty() {
        let place = |text: &String| match text.split_once('@') {
            Some((extension, context)) => Ok((context.to_owned(), extension.to_owned())),
            None => bail!("`{text}` is no extension: write 200@internal"),
        };
        settings.dialplan = args.dialplan.iter().map(place).collect::<anyhow::Result<_>>()?;
    }
    Ok(settings)
}

/// What every caller says and presses.
struct Plan {
    lines: Vec<(Arc<[i16]>, u32)>,
    tone: Option<Arc<[i16]>>,
    keys: Vec<char>,
    length: Duration,
}

fn plan(args: &CallerArgs) -> anyhow::Result<Plan> {
    let mut lines = Vec::new();
    for file in &args.wav {
        let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let (pcm, rate) = sound::read_wav(&bytes)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("reading {}", file.display()))?;
        lines.push((pcm.into(), rate));
    }
    lines.extend(args.say.iter().map(|text| (sound::speak(text, TONE_RATE).into(), TONE_RATE)));
    let keys: Vec<char> =
        args.dtmf.iter().flat_map(|keys| keys.to_ascii_uppercase().chars().collect::<Vec<_>>()).collect();
    if let Some(wrong) = keys.iter().find(|key| !"0123456789*#ABCD".contains(**key)) {
        bail!("`{wrong}` is no key; there are 0-9, *, #, A-D");
    }
    let tone = args.tone.map(|hz| {
        let samples = (args.seconds * f64::from(TONE_RATE)) as u64;
        (0..samples).map(|n| tone_sample(hz, TONE_RATE, n)).collect()
    });
    if let Some(hz) = args.tone.filter(|hz| !(1.0..12_000.0).contains(hz)) {
        bail!("a tone of {hz} Hz is not to be heard; give 1 to 12000");
    }
    Ok(Plan { lines, tone, keys, length: Duration::from_secs_f64(args.seconds) })
}

/// Places the calls and sees them to their ends: their documents, and the count of violations.
async fn place<F>(
    args: &CallerArgs,
    plan: &Arc<Plan>,
    mut dial: impl FnMut(Arc<Person>) -> F,
) -> anyhow::Result<(Vec<Value>, usize)>
where
    F: Future<Output = anyhow::Result<Line>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / args.cps.clamp(0.01, 1_000.0)));
    for number in 0..args.calls {
        pace.tick().await;
        let person = Person::with_memory(args.record.is_none().then_some(KEPT));
        let (call, plan, record) = (dial(person), plan.clone(), args.record.clone());
        running.spawn(async move {
            let began = Instant::now();
            let line = call.await?;
            let (mut document, violations) = live(&line, &plan).await?;
            let tape = line.person().tape();
            document["heard"] = json!({
                "seconds": tape.length().as_secs_f64(),
                "rate": tape.rate,
                "first_sound_ms": tape.first_loud(LOUD).map(|at| ms(at.saturating_duration_since(began))),
                "tone": tone(&tape.pcm, tape.rate),
            });
            if let Some(folder) = record {
                write(&folder, number, &tape.pcm, tape.rate)?;
            }
            anyhow::Ok((number, document, violations))
        });
    }
    let (mut documents, mut count) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        let (number, document, violations) = done??;
        documents.push((number, document));
        count += violations;
    }
    documents.sort_by_key(|(number, _)| *number);
    Ok((documents.into_iter().map(|(_, document)| document).collect(), count))
}

async fn live(line: &Line, plan: &Plan) -> anyhow::Result<(Value, usize)> {
    let acts = async {
        let person = line.person();
        plan.lines.iter().for_each(|(pcm, rate)| person.say(pcm.clone(), *rate));
        if !plan.keys.is_empty() {
            person.said().await;
            for key in &plan.keys {
                tokio::time::sleep(BETWEEN_KEYS).await;
                line.press(*key);
            }
        }
        if let Some(tone) = &plan.tone {
            person.say(tone.clone(), TONE_RATE);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = line.ended() => return ended,
        () = acts => {}
        () = tokio::time::sleep(plan.length) => {}
    }
    line.hang_up();
    line.ended().await
}

fn write(folder: &Path, number: usize, pcm: &[i16], rate: u32) -> anyhow::Result<()> {
    let told = || format!("writing to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(told)?;
    let mut recorder = Recorder::new(folder, &format!("call-{}", number + 1));
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    recorder.write(&bytes, rate.max(8_000)).and_then(|()| recorder.finish()).with_context(told)
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn finish(
    args: &CallerArgs,
    calls: &[Value],
    pbx: Option<Value>,
    violations: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if as_json {
        let mut all = json!({"calls": calls, "violations": violations});
        if let Some(pbx) = pbx {
            all["pbx"] = pbx;
        }
        println!("{}", serde_json::to_string(&all)?);
    } else {
        calls.iter().for_each(|call| eprintln!("{}", line(call)));
        if let Some(pbx) = pbx {
            eprintln!("PBX: {} requests, {} event sockets", pbx["requests"], pbx["event_sockets"]);
            for (what, of) in [("left over", &pbx["left_over"]), ("violation", &pbx["violations"])] {
                of.as_array().into_iter().flatten().for_each(|one| eprintln!("  {what}: {one}"));
            }
        }
        eprintln!("{} calls, {violations} violations", calls.len());
    }
    let broken = args.strict && violations > 0;
    Ok(if broken { ExitCode::from(CHECK_FOUND_PROBLEMS) } else { ExitCode::SUCCESS })
}

/// A call in a line or more, for people.
fn line(call: &Value) -> String {
    let heard = &call["heard"];
    let mut text = format!(
        "{} call: ended {}, heard {:.1} s",
        call["door"].as_str().unwrap_or_default(),
        call["ended"],
        heard["seconds"].as_f64().unwrap_or_default(),
    );
    if let (Some(hz), Some(dbov)) = (heard["tone"]["hz"].as_f64(), heard["tone"]["dbov"].as_f64()) {
        text.push_str(&format!(", loudest at {hz:.0} Hz and {dbov:.1} dBov"));
    }
    if let Some(gap) = call["pace"]["gap_max_ms"].as_f64() {
        text.push_str(&format!(", longest gap {gap:.0} ms"));
    }
    call["violations"]
        .as_array()
        .into_iter()
        .flatten()
        .for_each(|one| text.push_str(&format!("\n  violation: {one}")));
    text
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    let mut found = text.to_socket_addrs().with_context(|| format!("`{text}` is no HOST:PORT"))?;
    found.next().with_context(|| format!("`{text}` has no address"))
}

const TONE_RATE: u32 = 24_000;
const BETWEEN_KEYS: Duration = Duration::from_millis(250);
/// How much of what is heard is kept for measurement, when it is not recorded.
const KEPT: Duration = Duration::from_secs(30);
/// About -46 dBov.
const LOUD: u16 = 160;
const CLEAR_UP: Duration = Duration::from_secs(2);
