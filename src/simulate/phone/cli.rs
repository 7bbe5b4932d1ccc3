//! `tandem simulate phone`: places and takes calls from the command line.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Act, AnswerPlan, CallPlan, CallReport, Phone, Registration, Script, Secrecy, Stage};
use crate::audio::wav::{self, Wav};
use crate::audio::{BRIDGE_RATE, Codec, voice};
use crate::routing::switchboard::codecs;
use crate::sip::leg::HangUpCause;
use crate::sip::message::Transport;
use crate::sip::tls::{TlsFiles, TlsRoots};
use crate::sip::trunk::SrtpPolicy;
use crate::sip::ua::{Credentials, TransferNews};
use crate::sip::uri::Uri;

/// A phone that places calls, or with --answer takes them.
#[derive(Debug, Clone, Args)]
pub struct SimulatePhoneArgs {
    /// Whom to call: `sip:USER@HOST[:PORT][;transport=tcp|tls]`.
    /// With --register the host may be left out.
    #[arg(required_unless_present_any = ["answer", "register", "script"])]
    target: Option<String>,
    /// Take calls instead, as many as --calls says, each within --limit.
    #[arg(long, conflicts_with = "target")]
    answer: bool,
    /// With --answer: ring this long before taking the call.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.2)]
    ring: f64,
    /// With --answer: the SIP port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Register this address of record first: `sip:USER@HOST[:PORT][;transport=tcp|tls]`. It is taken back at the end.
    #[arg(long, value_name = "URI")]
    register: Option<String>,
    /// Do what this file says, act by act, over as many calls as it names, instead of what the options say:
    /// `[[act]]` tables whose `act` is register, unregister, call {to}, answer {ring_s, within_s}, and within a call
    /// say {text}, play {file}, wait {seconds}, wait_for_speech {seconds}, wait_for_silence {seconds}, hold, unhold,
    /// dtmf {keys}, transfer {to}, hang_up.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "answer", "calls"])]
    script: Option<PathBuf>,
    /// Put the other side on hold for this long after speaking and pressing keys.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<f64>,
    /// Ask the other side to call this URI instead, after all else (REFER).
    #[arg(long, value_name = "URI")]
    transfer: Option<String>,
    /// What the caller says once the other side has been silent for a moment: a WAV file. May be repeated.
    #[arg(long, value_name = "FILE")]
    wav: Vec<PathBuf>,
    /// What the caller says, spoken by the built-in voice. May be repeated; comes after the WAV files.
    #[arg(long, value_name = "TEXT")]
    say: Vec<String>,
    /// Keys to press after speaking.
    #[arg(long, value_name = "DIGITS")]
    dtmf: Option<String>,
    /// Silence of the other side after which the caller speaks.
    #[arg(long, value_name = "MS", default_value_t = 800)]
    pause_ms: u64,
    /// Speak over the other side this long after it began, from the second line on.
    #[arg(long, value_name = "MS")]
    barge_in_ms: Option<u64>,
    /// Hang up this long after the last act; without it the other side hangs up.
    #[arg(long, value_name = "SECONDS")]
    hang_up_after: Option<f64>,
    /// Give up and hang up after this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    limit: f64,
    /// Record the call here as a stereo WAV: the caller left, what it heard right. With several calls a
    /// number is put before the ending.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Codecs offered, best first: pcmu, pcma, g722, opus, l16.
    #[arg(long, value_name = "LIST", default_value = "pcmu", value_delimiter = ',')]
    codecs: Vec<String>,
    /// The caller's number [default: tester, or the user of --register].
    #[arg(long)]
    from: Option<String>,
    /// How many calls.
    #[arg(long, default_value_t = 1)]
    calls: usize,
    /// New calls a second.
    #[arg(long, value_name = "CPS", default_value_t = 10.0)]
    rate: f64,
    /// The phone's own address; found by itself if left out.
    #[arg(long, value_name = "IP")]
    local: Option<IpAddr>,
    /// The phone's RTP ports.
    #[arg(long, value_name = "FIRST-LAST", default_value = "40000-49999")]
    rtp_ports: String,
    /// Speak TLS: as if `;transport=tls` stood in the URI. The server must prove its host name or address.
    #[arg(long)]
    tls: bool,
    /// Believe the authorities of this PEM file over TLS, and no others.
    #[arg(long, value_name = "FILE")]
    tls_roots: Option<PathBuf>,
    /// The phone's own certificate, PEM: to take calls over TLS on the port after --port, and for servers that ask for
    /// one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of --tls-certificate.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Encrypt media by SRTP with keys in the SDP: required (the default of the bare option), optional (when it is
    /// offered), opportunistic (offered beside plain RTP).
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "required")]
    srtp: Option<Srtp>,
    /// For a challenge [default with --register: its user].
    #[arg(long, visible_alias = "user")]
    username: Option<String>,
    /// For a challenge. Others on this machine can see it here; the variable TANDEM_PHONE_PASSWORD keeps it from them.
    #[arg(long, env = "TANDEM_PHONE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

/// Places the calls; exits with 0 when all were answered and ended in the ordinary way.
///
/// # Errors
/// When an argument makes no sense, a file cannot be read or written, or no socket can be had.
pub async fn run(args: SimulatePhoneArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let registration = args.register.as_deref().map(|address| registration(&args, address)).transpose()?;
    let plan = args.target.as_deref().map(|target| plan(&args, target)).transpose()?;
    let towards = plan.as_ref().map(|plan| plan.remote).or(registration.as_ref().map(|r| r.registrar));
    let script = args.script.as_deref().map(Script::load).transpose()?;
    let answers = args.answer || script.as_ref().is_some_and(Script::answers);
    let local = match (args.local, towards) {
        (Some(local), _) => local,
        (None, Some(remote)) => super::line::towards(remote).context("finding the own address")?,
        (None, None) => bail!("without --register the phone needs its own address: --local IP"),
    };
    let ports = port_range(&args.rtp_ports)?;
    let answers_at = answers.then_some(args.port);
    let phone = Phone::start_secretive(local, answers_at, ports, 1, secrecy(&args)).await?;
    let phone = Arc::new(phone);
    // A script says itself when it registers.
    let by_script = script.as_ref().is_some_and(Script::registers);
    if let Some(registration) = registration.as_ref().filter(|_| !by_script) {
        register(&phone, registration).await?;
    }
    let reports = match plan {
        _ if script.is_some() => {
            let stage = stage(&phone, &args, registration.clone())?;
            let reports = stage.perform(&script.unwrap_or_default()).await?;
            reports.into_iter().map(Ok).collect()
        }
        Some(plan) => place(&phone, &plan, args.calls, args.rate).await,
        None if args.answer => take(&phone, &args).await?,
        None => Vec::new(),
    };
    if let Some(mut registration) = registration.filter(|_| !by_script) {
        registration.expires = Duration::ZERO;
        register(&phone, &registration).await?;
    }
    let count = reports.len();
    let mut all_good = true;
    let mut documents = Vec::new();
    for (number, report) in reports.into_iter().enumerate() {
        let report = report?;
        all_good &= is_good(&report);
        if let Some(file) = &args.record {
            write_recording(&numbered(file, number, count), &report)?;
        }
        documents.push(document(&report));
    }
    if let Some(phone) = Arc::into_inner(phone) {
        phone.stop().await;
    }
    print(&documents, as_json)?;
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn place(
    phone: &Arc<Phone>,
    plan: &CallPlan,
    calls: usize,
    rate: f64,
) -> Vec<anyhow::Result<CallReport>> {
    let mut running = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.clamp(0.01, 1000.0)));
    for _ in 0..calls {
        pace.tick().await;
        let (phone, plan) = (Arc::clone(phone), plan.clone());
        running.spawn(async move { phone.call(plan).await });
    }
    let mut reports = Vec::with_capacity(calls);
    while let Some(report) = running.join_next().await {
        reports.push(report.unwrap_or_else(|error| Err(error.into())));
    }
    reports
}

/// Registers, or says why that failed.
pub(super) async fn register(phone: &Phone, registration: &Registration) -> anyhow::Result<()> {
    let status = phone.register(registration).await?;
    let advice = match status.get() {
        200..=299 => return Ok(()),
        401 | 407 => "check --username, and the password in TANDEM_PHONE_PASSWORD",
        403 => "the user of --register must be the one that logs in",
        408 => "nothing came back: check the address and the domain, and that phones may register there",
        _ => "see the registrar's log",
    };
    bail!("{} is not registered: the registrar says {}; {advice}", registration.address, status.get())
}

fn registration(args: &SimulatePhoneArgs, address: &str) -> anyhow::Result<Registration> {
    let (address, text) = uri(address)?;
    let (registrar, transport) = resolve(&text, args.tls)?;
    let credentials = credentials(args)?;
    Ok(Registration { address, registrar, transport, credentials, expires: REGISTERED })
}

/// Takes the calls that come, one task each.
async fn take(
    phone: &Arc<Phone>,
    args: &SimulatePhoneArgs,
) -> anyhow::Result<Vec<anyhow::Result<CallReport>>> {
    let plan = answer_plan(args)?;
    let mut running = JoinSet::new();
    for _ in 0..args.calls {
        let (phone, plan) = (Arc::clone(phone), plan.clone());
        running.spawn(async move { phone.answer(plan).await });
    }
    let mut reports = Vec::with_capacity(args.calls);
    while let Some(report) = running.join_next().await {
        reports.push(report.unwrap_or_else(|error| Err(error.into())));
    }
    Ok(reports)
}

fn stage<'a>(
    phone: &'a Arc<Phone>,
    args: &'a SimulatePhoneArgs,
    registration: Option<Registration>,
) -> anyhow::Result<Stage<'a>> {
    Ok(Stage {
        phone,
        registration,
        call: Box::new(|to| plan(args, to)),
        target: Box::new(|to| Ok(uri(&at_registrar(args, to))?.0)),
        answer: answer_plan(args)?,
    })
}

/// A bare user is one of the registrar's.
fn at_registrar(args: &SimulatePhoneArgs, target: &str) -> String {
    match args.register.as_deref().and_then(|address| address.rsplit_once('@')) {
        Some((_, host)) if !target.contains(['@', ':']) => format!("sip:{target}@{host}"),
        _ => target.to_owned(),
    }
}

/// A URI as people write it: `sip:` may be left out.
fn uri(text: &str) -> anyhow::Result<(Uri, String)> {
    let text = if text.contains(':') { text.to_owned() } else { format!("sip:{text}") };
    let uri = Uri::parse(text.as_bytes()).map_err(|e| anyhow::anyhow!("`{text}` is no SIP URI: {e}"))?;
    Ok((uri, text))
}

fn plan(args: &SimulatePhoneArgs, target: &str) -> anyhow::Result<CallPlan> {
    let (target, text) = uri(&at_registrar(args, target))?;
    let (remote, transport) = resolve(&text, args.tls)?;
    Ok(CallPlan {
        target,
        remote,
        transport,
        from: args.from.clone().or_else(|| registered_user(args)).unwrap_or_else(|| "tester".to_owned()),
        codecs: offered(args)?,
        credentials: credentials(args)?,
        acts: acts(args)?,
        limit: Duration::from_secs_f64(args.limit.clamp(1.0, 86_400.0)),
    })
}

fn offered(args: &SimulatePhoneArgs) -> anyhow::Result<Vec<Codec>> {
    let mut offered: Vec<Codec> = Vec::new();
    for name in &args.codecs {
        let known = codecs(name);
        if known.is_empty() {
            bail!("`{name}` is no codec; known: pcmu, pcma, g722, opus, l16, l16/8000, l16/16000, l16/24000");
        }
        offered.extend(known);
    }
    Ok(offered)
}

fn credentials(args: &SimulatePhoneArgs) -> anyhow::Result<Option<Credentials>> {
    let username = args.username.clone().or_else(|| registered_user(args));
    match (username, args.password.clone()) {
        (Some(username), Some(password)) => Ok(Some(Credentials { username, password: password.into() })),
        (Some(_), None) if args.username.is_some() => {
            bail!("--username needs the password, best in the variable TANDEM_PHONE_PASSWORD")
        }
        _ => Ok(None),
    }
}

fn registered_user(args: &SimulatePhoneArgs) -> Option<String> {
    let (address, _) = uri(args.register.as_deref()?).ok()?;
    address.user_decoded().map(|user| user.into_owned())
}

fn answer_plan(args: &SimulatePhoneArgs) -> anyhow::Result<AnswerPlan> {
    Ok(AnswerPlan {
        ring: Duration::from_secs_f64(args.ring.clamp(0.0, 600.0)),
        codecs: offered(args)?,
        acts: acts(args)?,
        limit: Duration::from_secs_f64(args.limit.clamp(1.0, 86_400.0)),
    })
}

fn acts(args: &SimulatePhoneArgs) -> anyhow::Result<Vec<Act>> {
    let mut lines: Vec<Arc<[i16]>> = Vec::new();
    for file in &args.wav {
        let opened = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let wav = Wav::read(opened, LONGEST_WAV).with_context(|| format!("reading {}", file.display()))?;
        lines.push(wav.to_bridge().into());
    }
    lines.extend(args.say.iter().map(|text| Arc::from(voice::speak(text))));
    let mut acts = Vec::new();
    for (number, line) in lines.into_iter().enumerate() {
        match args.barge_in_ms {
            Some(after) if number > 0 => acts.push(Act::WaitForSpeech(Duration::from_millis(after))),
            Some(_) | None => acts.push(Act::WaitForSilence(Duration::from_millis(args.pause_ms))),
        }
        acts.push(Act::Say(line));
    }
    if let Some(digits) = &args.dtmf {
        acts.push(Act::Press(digits.to_ascii_uppercase()));
    }
    if let Some(seconds) = args.hold {
        let span = Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0));
        acts.extend([Act::Hold, Act::Wait(span), Act::Unhold]);
    }
    if let Some(to) = &args.transfer {
        acts.push(Act::Transfer(uri(&at_registrar(args, to))?.0));
    }
    if let Some(seconds) = args.hang_up_after {
        acts.push(Act::Wait(Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))));
        acts.push(Act::HangUp);
    }
    Ok(acts)
}

/// Encryption of media, as written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Srtp {
    Required,
    Optional,
    Opportunistic,
}

fn secrecy(args: &SimulatePhoneArgs) -> Secrecy {
    let files = args.tls_certificate.as_ref().zip(args.tls_key.as_ref());
    let certificate =
        files.map(|(certificate, key)| TlsFiles { to_servers: true, ..TlsFiles::new(certificate, key) });
    let uris = [&args.target, &args.register].into_iter().flatten();
    Secrecy {
        srtp: args.srtp.map_or(SrtpPolicy::Off, |wanted| match wanted {
            Srtp::Required => SrtpPolicy::Required,
            Srtp::Optional => SrtpPolicy::Optional,
            Srtp::Opportunistic => SrtpPolicy::Opportunistic,
        }),
        tls: args.tls || certificate.is_some() || uris.into_iter().any(|uri| asks_for_tls(uri)),
        certificate,
        roots: args.tls_roots.clone().map_or(TlsRoots::WebPki, TlsRoots::File),
    }
}

fn asks_for_tls(uri: &str) -> bool {
    let uri = uri.to_ascii_lowercase();
    uri.starts_with("sips:") || uri.contains("transport=tls")
}

/// Where a SIP URI leads: its host and port, and `transport=`. Names are looked up by the system.
fn resolve(text: &str, tls: bool) -> anyhow::Result<(SocketAddr, Transport)> {
    let (address, parameters) = text.split_once(';').unwrap_or((text, ""));
    let host = address
        .rsplit_once('@')
        .map_or_else(|| address.split_once(':').map_or(address, |(_, host)| host), |(_, host)| host);
    let transport = if tls || asks_for_tls(text) {
        Transport::Tls
    } else if parameters.to_ascii_lowercase().contains("transport=tcp") {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        && (!host.starts_with('[') || host.contains("]:"));
    let with_port = if has_port { host.to_owned() } else { format!("{host}:{}", transport.default_port()) };
    let mut found = with_port.to_socket_addrs().with_context(|| format!("looking up `{host}`"))?;
    let Some(remote) = found.next() else { bail!("`{host}` has no address") };
    Ok((remote, transport))
}

fn port_range(text: &str) -> anyhow::Result<(u16, u16)> {
    let parsed =
        text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    parsed.with_context(|| format!("`{text}` is no port range such as 40000-49999"))
}

fn is_good(report: &CallReport) -> bool {
    let ended_well = report.hang_up.as_ref().is_none_or(|hang_up| hang_up.cause == HangUpCause::Peer);
    report.answered.is_some() && ended_well
}

fn document(report: &CallReport) -> Value {
    let since = |at: Option<std::time::Instant>| at.map(|at| (at - report.dialled).as_secs_f64() * 1000.0);
    json!({
        "answered": report.answered.is_some(),
        "ringing_ms": since(report.ringing),
        "answered_ms": since(report.answered),
        "duration_ms": since(Some(report.ended)),
        "ended_by": if report.hang_up.is_some() { "far_end" } else { "phone" },
        "status": report.hang_up.as_ref().map(|hang_up| hang_up.status),
        "reason": report.hang_up.as_ref().map(|hang_up| hang_up.reason.clone()),
        "codec": report.codec.map(|codec| codec.to_string()),
        "encrypted": report.encrypted,
        "transfer": report.transfer.as_ref().map(transfer),
        "keys": report.digits,
        "speech_ms": speech_ms(&report.heard),
        "heard_ms": report.heard.len() as u64 * 1000 / u64::from(BRIDGE_RATE),
        "quality": report.quality,
    })
}

/// How much of it is louder than line noise.
fn speech_ms(heard: &[i16]) -> usize {
    let loud = |chunk: &&[i16]| chunk.iter().any(|sample| sample.unsigned_abs() > AUDIBLE);
    heard.chunks(BRIDGE_RATE as usize / 100).filter(loud).count() * 10
}

/// The last word about a transfer: a status, or what happened instead.
fn transfer(news: &TransferNews) -> Value {
    match news {
        TransferNews::Accepted => "accepted".into(),
        TransferNews::Progress(status) | TransferNews::Done(status) => (*status).into(),
        TransferNews::Refused(status) => format!("refused with {status}").into(),
        TransferNews::Lost => "no news".into(),
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn print(documents: &[Value], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(&json!({"calls": documents}))?);
        return Ok(());
    }
    for call in documents {
        println!(
            "{}, {} ms long, {}{}, heard {} ms of sound{}{}, ended by {}: {}",
            call["answered_ms"]
                .as_f64()
                .map_or("not answered".to_owned(), |ms| format!("answered after {ms:.0} ms")),
            call["duration_ms"].as_f64().unwrap_or_default().round(),
            call["codec"].as_str().unwrap_or("no media"),
            if call["encrypted"] == true { " (SRTP)" } else { "" },
            call["speech_ms"],
            match call["keys"].as_str() {
                Some(keys) if !keys.is_empty() => format!(", keys {keys}"),
                _ => String::new(),
            },
            match &call["transfer"] {
                Value::Null => String::new(),
                word => format!(", transfer: {word}"),
            },
            call["ended_by"].as_str().unwrap_or_default(),
            call["reason"].as_str().unwrap_or(if call["answered"] == true {
                "done"
            } else {
                "no answer within --limit; check the address, and that the server admits this source"
            }),
        );
    }
    Ok(())
}

/// Writes what the caller said (left) and heard (right).
///
/// # Errors
/// When the file cannot be written.
pub fn write_recording(file: &Path, report: &CallReport) -> anyhow::Result<()> {
    let length = report.heard.len().max(report.said.len());
    let at = |side: &[i16], index: usize| side.get(index).copied().unwrap_or(0);
    let interleaved: Vec<i16> =
        (0..length).flat_map(|index| [at(&report.said, index), at(&report.heard, index)]).collect();
    let out = std::fs::File::create(file).with_context(|| format!("creating {}", file.display()))?;
    let mut writer = wav::StereoWriter::new(std::io::BufWriter::new(out), BRIDGE_RATE)?;
    writer.write(&interleaved)?;
    writer.finish().with_context(|| format!("writing {}", file.display()))
}

fn numbered(file: &Path, number: usize, calls: usize) -> PathBuf {
    if calls == 1 {
        return file.to_owned();
    }
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    file.with_file_name(format!("{stem}-{}.wav", number + 1))
}

/// How long a registration holds.
const REGISTERED: Duration = Duration::from_secs(3_600);
/// About -40 dB of full scale.
const AUDIBLE: u16 = 330;
pub(super) const LONGEST_WAV: u64 = 64 << 20;
