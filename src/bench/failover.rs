//! Whether calls outlive their providers: each call's first provider dies at some moment of it, and another one has
//! to go on.
//!
//! The far ends are of this process: phones that say something and listen, and two simulated services, of which the
//! first fails as the address it was reached by asks for. What the caller hears is measured at the phone: silence
//! where an answer was due, from the end of what they said or of what they heard. The usual time to an answer is in
//! it. What they said must be in the record, each turn once.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::Check;
use super::child::{Server, Setup};
use super::machine::{self, Cores, Machine};
use crate::audio::level;
use crate::simulate::openai::record::Record;
use crate::simulate::openai::report::Entry;
use crate::simulate::openai::script::Script;
use crate::simulate::openai::{Behaviour, OpenAiSimulator, Running, SimConfig};
use crate::simulate::phone::{Act, CallPlan, CallReport, Phone};
use crate::sip::message::Transport;
use crate::sip::uri::Uri;
use crate::store::{CallFilter, CallRecord, Store};

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls in all; in each of them a provider dies.
    pub calls: usize,
    /// Of them at a time.
    pub parallel: usize,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Calls placed.
    pub calls: usize,
    /// Calls that were not answered, or ended by the server.
    pub dropped: usize,
    /// Sessions that went on with a call whose session had died.
    pub resumed: usize,
    /// Turns of the callers.
    pub turns: usize,
    /// Turns that are not in the record.
    pub lines_lost: usize,
    /// Lines of callers beyond their turns.
    pub lines_doubled: usize,
    /// Mistakes of the server that the simulated services noticed.
    pub violations: usize,
    /// The longest silence of each call where an answer was due.
    pub gap: Gaps,
    /// The same, by what happened to the first provider.
    pub by_fault: BTreeMap<&'static str, Gaps>,
    /// What went wrong, the first few.
    pub complaints: Vec<String>,
    /// Why the run says nothing: the phones were a bottleneck.
    pub void: Vec<String>,
    /// Whether the server stopped in good order.
    pub stopped_cleanly: bool,
    /// What it was measured on.
    pub machine: Machine,
}

/// Silence, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Gaps {
    /// How many calls.
    pub calls: usize,
    /// Half of them had less.
    pub p50_ms: f64,
    /// 19 of 20 had less.
    pub p95_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Gaps {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (all.len() as f64 * share).ceil() as usize;
            all.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { calls: all.len(), p50_ms: at(0.5), p95_ms: at(0.95), max_ms: at(1.0) }
    }
}

impl Report {
    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let gaps = |name: &str, gaps: &Gaps| {
            let Gaps { calls, p50_ms, p95_ms, max_ms } = gaps;
            format!(
                "  {name:<24} {calls:>4} calls   p50 {p50_ms:>5.0}   p95 {p95_ms:>5.0}   max {max_ms:>5.0} ms"
            )
        };
        let mut lines = vec![
            format!(
                "{} calls whose provider died: {} dropped; {} sessions went on with them",
                self.calls, self.dropped, self.resumed
            ),
            format!(
                "{} turns of the callers: {} lost, {} written twice; {} protocol violations",
                self.turns, self.lines_lost, self.lines_doubled, self.violations
            ),
            "longest silence of a call where an answer was due, the usual time to an answer included:"
                .to_owned(),
            gaps("all", &self.gap),
        ];
        lines.extend(self.by_fault.iter().map(|(fault, of)| gaps(fault, of)));
        lines.extend(self.complaints.iter().map(|complaint| format!("  ! {complaint}")));
        lines
    }

    /// The report against this server's limits.
    pub fn checks(&self) -> Vec<Check> {
        vec![
            Check::at_most("dropped calls", self.dropped as f64, 0.0, "calls"),
            Check::at_most(
                "calls nobody went on with",
                self.calls.saturating_sub(self.resumed) as f64,
                0.0,
                "calls",
            ),
            Check::at_most("silence at a fail-over, p95", self.gap.p95_ms, 1500.0, "ms"),
            Check::at_most("lost lines", self.lines_lost as f64, 0.0, "lines"),
            Check::at_most("doubled lines", self.lines_doubled as f64, 0.0, "lines"),
            Check::at_most("protocol violations", self.violations as f64, 0.0, "messages"),
        ]
    }
}

/// Runs the benchmark.
///
/// # Errors
/// When the server or a far end does not start.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    machine::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(options, remark))
}

async fn measure(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let faulty = service(1).await?;
    let sound = service(2).await?;
    let setup = setup(options, &faulty.url(), &sound.url());
    let cores = Cores::split();
    let server = Server::start(&setup, &cores).await?;
    let sip = server.sip;
    // The phones, too: they are many, and one core would hold them up.
    let all: Vec<usize> = cores.server.iter().chain(&cores.generator).copied().collect();
    cores.pin_to(&all);
    remark("the server is ready; calls are being placed");
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let phone = Arc::new(Phone::start(local, PHONE_PORTS, 2).await?);
    let told = call_all(options, &phone, sip, &remark).await;
    if let Ok(phone) = Arc::try_unwrap(phone) {
        phone.stop().await;
    }
    let goodbye = server.stop(true).await;
    let directory = goodbye.directory.context("the server's directory was to be kept")?;
    let records = records(&directory).await?;
    let reports = [faulty.stop().await?, sound.stop().await?];
    if !options.keep
        && let Err(error) = std::fs::remove_dir_all(&directory)
    {
        tracing::debug!(%error, "the server's directory stays behind");
    }
    let violations: Vec<String> = reports
        .iter()
        .flat_map(|report| report.violations())
        .map(|entry| format!("{:?}", entry.record))
        .collect();
    let machine = Machine::this(cores.server.len());
    let connected = |entry: &&Entry| matches!(entry.record, Record::Connected { .. });
    let sessions = reports.iter().flat_map(|report| &report.entries).filter(connected).count();
    let mut report = judge(options, &told, &records, machine);
    report.resumed = sessions.saturating_sub(options.calls);
    report.violations = violations.len();
    report.complaints.extend(violations.into_iter().take(TOLD));
    report.stopped_cleanly = goodbye.clean;
    Ok(report)
}

/// One call as its phone saw it.
struct Told {
    from: String,
    fault: &'static str,
    report: Option<CallReport>,
}

async fn call_all(
    options: &Options,
    phone: &Arc<Phone>,
    sip: SocketAddr,
    remark: impl Fn(&str),
) -> Vec<Told> {
    let places = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..options.calls {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let phone = Arc::clone(phone);
        calls.spawn(async move {
            let fault = FAULTS[number % FAULTS.len()];
            let from = format!("+1555{number:07}");
            let report = match plan(sip, number % FAULTS.len(), &from) {
                Some(plan) => phone.call(plan).await.ok(),
                None => None,
            };
            drop(place);
            Told { from, fault, report }
        });
        // Calls that begin together would die together.
        tokio::time::sleep(BETWEEN).await;
        if number > 0 && number.is_multiple_of(50) {
            remark(&format!("{number} calls were placed"));
        }
    }
    calls.join_all().await
}

fn plan(sip: SocketAddr, assistant: usize, from: &str) -> Option<CallPlan> {
    let target = format!("sip:{}@{sip}", FIRST_NUMBER + assistant);
    let listen = [Act::WaitForSpeech(Duration::from_millis(200)), Act::WaitForSilence(PAUSE)];
    let say = || [Act::Say(utterance())];
    let mut acts = Vec::new();
    for _ in 0..TURNS {
        acts.extend(listen.clone());
        acts.extend(say());
    }
    acts.extend(listen);
    acts.push(Act::HangUp);
    Some(CallPlan {
        target: Uri::parse(target.as_bytes()).ok()?,
        remote: sip,
        transport: Transport::Udp,
        from: from.to_owned(),
        codecs: vec![crate::audio::Codec::Pcmu],
        credentials: None,
        acts,
        limit: CALL_MAX,
    })
}

/// Nine tenths of a second that any turn detection takes for speech.
fn utterance() -> Arc<[i16]> {
    let mut pcm = Vec::new();
    crate::audio::tone::Tone::new(&[500.0], -12.0).render(crate::audio::BRIDGE_RATE, 21_600, &mut pcm);
    pcm.into()
}

async fn service(seed: u64) -> anyhow::Result<Running> {
    let script = Script::parse(SCRIPT).context("the benchmark's own script")?;
    let behaviour = Behaviour { script, ..Behaviour::default() };
    Ok(OpenAiSimulator::start(SimConfig { behaviour, seed, ..SimConfig::default() }).await?)
}

fn setup(options: &Options, faulty: &str, sound: &str) -> Setup {
    use std::fmt::Write as _;
    let provider = |name: &str, url: &str| {
        format!(
            "[providers.{name}]\nkind = \"openai\"\nurl = \"{url}\"\napi_key_env = [\"TANDEM_BENCH_KEY\"]\n"
        )
    };
    let mut config = provider("sound", sound);
    config.push_str("[routing]\nstall_after = \"2s\"\ndefault_chain = [\"sound\"]\n");
    let mut resources = "[[organization]]\nname = \"bench\"\n".to_owned();
    for (index, fault) in FAULTS.iter().enumerate() {
        config.push_str(&provider(&format!("faulty{index}"), &format!("{faulty}?fault={fault}")));
        // Writing to a String cannot fail.
        let _ = write!(
            resources,
            "[[assistant]]\norganization = \"bench\"\nname = \"a{index}\"\nchain = [\"faulty{index}\", \"sound\"]\n\
             greeting = \"Good morning, this is the number you have called.\"\n\
             [[number]]\norganization = \"bench\"\nnumber = \"{}\"\n\
             flow = [{{ step = \"assistant\", assistant = \"a{index}\" }}]\n",
            FIRST_NUMBER + index
        );
    }
    Setup { base: options.server_config.clone(), config, resources }
}

/// Every call's record and how many lines its caller has.
async fn records(directory: &std::path::Path) -> anyhow::Result<HashMap<String, (CallRecord, usize)>> {
    let store = Store::open(&format!("sqlite://{}", directory.join("tandem.db").display())).await?;
    let (mut found, mut cursor) = (HashMap::new(), None);
    loop {
        let page = store.calls(&CallFilter::default(), cursor.as_deref(), 500).await?;
        for call in page.data {
            let lines = store.transcript(call.id).await?;
            let callers = lines.iter().filter(|line| line.who == "caller").count();
            found.insert(call.from.clone(), (call, callers));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

fn judge(
    options: &Options,
    told: &[Told],
    records: &HashMap<String, (CallRecord, usize)>,
    machine: Machine,
) -> Report {
    let mut report = Report {
        calls: options.calls,
        dropped: options.calls.saturating_sub(told.len()),
        resumed: 0,
        turns: 0,
        lines_lost: 0,
        lines_doubled: 0,
        violations: 0,
        gap: Gaps::default(),
        by_fault: BTreeMap::new(),
        complaints: Vec::new(),
        void: Vec::new(),
        stopped_cleanly: false,
        machine,
    };
    let mut gaps: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut starved = 0;
    for Told { from, fault, report: heard } in told {
        let mut wrong = |what: String| {
            if report.complaints.len() < TOLD {
                report.complaints.push(format!("{fault}, {from}: {what}"));
            }
        };
        let Some(heard) = heard.as_ref().filter(|heard| heard.answered.is_some() && heard.hang_up.is_none())
        else {
            let why = heard.as_ref().and_then(|heard| heard.hang_up.as_ref());
            wrong(format!("dropped: {why:?}"));
            report.dropped += 1;
            continue;
        };
        let turns = heard.spoke.len();
        report.turns += turns;
        gaps.entry(fault).or_default().push(longest_gap_ms(heard));
        let Some((call, lines)) = records.get(from) else {
            wrong("it has no record".to_owned());
            report.lines_lost += turns;
            continue;
        };
        starved += usize::from(was_starved(call));
        // A session whose time is up is followed by another one of the same provider.
        if call.provider.as_deref() != Some("sound") && !fault.starts_with("expire") {
            wrong("no other provider went on".to_owned());
        }
        if *lines != turns {
            wrong(format!("{lines} lines of {turns} turns"));
        }
        report.lines_lost += turns.saturating_sub(*lines);
        report.lines_doubled += lines.saturating_sub(turns);
    }
    if starved > 0 {
        report.void.push(format!("the phones could not send in time in {starved} calls"));
    }
    report.gap = Gaps::of(gaps.values().flatten().copied().collect());
    report.by_fault = gaps.into_iter().map(|(fault, gaps)| (fault, Gaps::of(gaps))).collect();
    report
}

/// Whether the server had to make up what the phone did not send.
fn was_starved(call: &CallRecord) -> bool {
    call.quality.as_ref().is_some_and(|quality| quality.silence_ms + quality.concealed_ms > STARVED_MS)
}

/// The longest silence between two sounds, or between what the caller said and the first sound after it.
fn longest_gap_ms(report: &CallReport) -> f64 {
    let slot = |at: Instant| (report.position_ms(at) / SLOT_MS) as usize;
    let loud: Vec<bool> =
        report.heard.chunks(SLOT_SAMPLES).map(|chunk| level::power(chunk) > AUDIBLE).collect();
    let mut longest = 0;
    let mut from = report.answered.map_or(0, slot);
    let ends = report.spoke.iter().map(|(start, end)| (slot(*start), slot(*end)));
    for (to, next) in ends.chain(std::iter::once((loud.len(), loud.len()))) {
        let window = &loud[from.min(loud.len())..to.clamp(from.min(loud.len()), loud.len())];
        // After the last sound nothing was due.
        let due = &window[..window.iter().rposition(|loud| *loud).map_or(0, |last| last + 1)];
        longest = longest.max(due.split(|loud| *loud).map(<[bool]>::len).max().unwrap_or_default());
        from = next;
    }
    longest as f64 * SLOT_MS
}

/// What happens to the first provider: in its greeting, while nobody speaks, while the caller speaks, once they have
/// spoken, in its answer, around its tool call, in its second answer; by reset, close, expiry and silence.
const FAULTS: [&str; 16] = [
    "die-after-deltas:1",
    "die-after-deltas:4",
    "die:2.4",
    "die-after-appends:170",
    "die-after-appends:190",
    "die-after-appends:215",
    "die-after-deltas:9",
    "die-after-deltas:12",
    "die:5.5",
    "close:4.2",
    "expire:3.7",
    "die-after-appends:330",
    "die-after-deltas:17",
    "die-after-deltas:19",
    "stall:2",
    "stall-after-deltas:11",
];
const SCRIPT: &str = "speech = \"tone:600\"\n\
    [[turn]]\nsay = \"Good morning, this is the number you have called.\"\nduration_ms = 1500\n\
    [[turn]]\nsay = \"This is an answer of some length to what was said.\"\nduration_ms = 1500\n\
    [[turn]]\nsay = \"One moment.\"\nduration_ms = 700\ntool = { name = \"lookup\", arguments = { table = 4 } }\n\
    [[turn]]\nsay = \"This is what I have found out about that.\"\nduration_ms = 1500\n";
const TURNS: usize = 2;
const FIRST_NUMBER: usize = 100;
const PHONE_PORTS: (u16, u16) = (30_000, 31_999);
const BETWEEN: Duration = Duration::from_millis(137);
/// The phones speak after so much silence.
const PAUSE: Duration = Duration::from_millis(1600);
const CALL_MAX: Duration = Duration::from_secs(60);
const SLOT_MS: f64 = 20.0;
const SLOT_SAMPLES: usize = 480;
/// About -55 dBov, as a share of full scale squared.
const AUDIBLE: f32 = 3.0e-6;
/// A phone that leaves out more than this is held up.
const STARVED_MS: u64 = 400;
/// Complaints that are shown.
const TOLD: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_ranked() {
        let gaps = Gaps::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((gaps.p50_ms, gaps.p95_ms, gaps.max_ms), (50.0, 95.0, 100.0));
        assert_eq!(Gaps::of(Vec::new()).max_ms, 0.0);
    }

    #[test]
    fn the_scripts_and_faults_can_be_used() {
        assert!(Script::parse(SCRIPT).is_ok());
        for fault in FAULTS {
            assert!(fault.parse::<crate::simulate::openai::fault::Fault>().is_ok(), "{fault}");
        }
    }
}
