//! The server under test: a process of its own, and what it uses of the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::machine::{self, Cores, of_ticks};
use super::marker;

/// What a server under test is started with.
#[derive(Debug, Default)]
pub struct Setup {
    /// The user's configuration, below what the benchmark decides.
    pub base: Option<PathBuf>,
    /// Sections of the benchmark: providers, trunks, limits.
    pub config: String,
    /// `resources.toml`.
    pub resources: String,
}

/// The server under test. It dies with this value.
pub struct Server {
    /// Where it takes calls.
    pub sip: SocketAddr,
    http: SocketAddr,
    child: Child,
    directory: PathBuf,
}

/// What a process has used so far, or uses now.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Of it, in the kernel.
    pub system: Duration,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open files.
    pub files: usize,
    /// By thread name, numbers left out: processor time.
    pub threads: BTreeMap<String, Duration>,
    /// Whether every media worker has real-time scheduling.
    pub realtime: bool,
}

/// How the server ended.
#[derive(Debug, Clone, Default)]
pub struct Goodbye {
    /// It ended by itself, with code 0, after SIGTERM.
    pub clean: bool,
    /// Lines of its log at WARN or above.
    pub complaints: Vec<String>,
    /// Where its files are, when they are kept.
    pub directory: Option<PathBuf>,
}

impl Server {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; with the end of its log.
    pub async fn start(setup: &Setup, cores: &Cores) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("tandem-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let sip = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = config(setup, &directory, sip, http)?;
        let (config_file, resources) = (directory.join("tandem.toml"), directory.join("resources.toml"));
        std::fs::write(&config_file, config)?;
        std::fs::write(&resources, &setup.resources)?;
        let log = std::fs::File::create(directory.join("server.log"))?;
        machine::pin(&cores.server);
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .args(["serve".as_ref(), "--config".as_ref(), config_file.as_os_str()])
            .args(["--apply".as_ref(), resources.as_os_str()])
            .env("TANDEM_BENCH_KEY", "bench")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        machine::pin(&cores.signalling);
        let mut server = Self { sip, http, child: child.context("starting the server")?, directory };
        server.until_ready(http).await?;
        Ok(server)
    }

    /// What it uses; `None` once it has died.
    pub fn usage(&self) -> Option<Usage> {
        usage(self.child.id()?)
    }

    /// A metric of its own, without labels; `None` when it does not tell.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let ask = async {
            let mut stream = TcpStream::connect(self.http).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<String, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), ask).await.ok()?.ok()?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<f64>().ok().map(|value| value as u64)
    }

    /// Tells it to stop, and waits.
    pub async fn stop(mut self, keep: bool) -> Goodbye {
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            tracing::debug!(%error, "the server has gone already");
        }
        let ended = tokio::time::timeout(STOPPED_WITHIN, self.child.wait()).await;
        let clean = matches!(ended, Ok(Ok(status)) if status.success());
        let log = self.log();
        let complaints =
            log.lines().filter(|line| ["WARN", "ERROR"].iter().any(|level| line.contains(level)));
        let complaints = complaints.map(str::to_owned).collect();
        if !keep && let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "the server's directory stays behind");
        }
        Goodbye { clean, complaints, directory: keep.then_some(self.directory) }
    }

    async fn until_ready(&mut self, http: SocketAddr) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..READY_LOOKS {
            look.tick().await;
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}; it said:\n{}", self.last_words());
            }
            if is_ready(http).await {
                return Ok(());
            }
        }
        bail!("the server was not ready within 30 s; it said:\n{}", self.last_words())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

async fn is_ready(http: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<bool, std::io::Error>(answer.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}

/// The user's configuration, with what the benchmark must decide itself.
fn config(setup: &Setup, directory: &Path, sip: SocketAddr, http: SocketAddr) -> anyhow::Result<String> {
    let mut config = match &setup.base {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            text.parse::<toml::Table>().with_context(|| format!("in {}", file.display()))?
        }
        None => toml::Table::new(),
    };
    let ours = format!(
        "[node]\ndata_dir = {data:?}\n\
         [sip]\nlisten = [\"udp://{sip}\"]\nmax_calls = {calls}\n\
         [media]\nrtp_ports = \"20000-29999\"\n\
         [http]\nlisten = \"{http}\"\n\
         [store]\nurl = {store:?}\n",
        data = directory.display().to_string(),
        store = format!("sqlite://{}", directory.join("tandem.db").display()),
        calls = marker::CALLS_MAX,
    );
    merge(&mut config, ours.parse().context("the benchmark's own configuration")?);
    merge(&mut config, setup.config.parse().context("the benchmark's own configuration")?);
    Ok(config.to_string())
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

fn usage(pid: u32) -> Option<Usage> {
    let read = |path: &str| std::fs::read_to_string(format!("/proc/{pid}/{path}")).ok();
    let stat = Stat::parse(&read("stat")?)?;
    let status = read("status")?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
    let mut usage = Usage {
        cpu: of_ticks(stat.user + stat.system),
        system: of_ticks(stat.system),
        rss_bytes: kilobytes * 1024,
        files: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: BTreeMap::new(),
        realtime: true,
    };
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let Some(stat) = std::fs::read_to_string(task.path().join("stat")).ok().and_then(|s| Stat::parse(&s))
        else {
            continue;
        };
        usage.realtime &= !stat.name.starts_with("media-") || stat.policy == FIFO;
        let name = stat.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        *usage.threads.entry(name).or_default() += of_ticks(stat.user + stat.system);
    }
    Some(usage)
}

/// What is of interest in `/proc/…/stat` (proc_pid_stat(5)).
struct Stat {
    name: String,
    user: u64,
    system: u64,
    policy: u32,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything.
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_whitespace().collect();
        // The third field of the manual page is the first here.
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            name,
            user: field(14)?.parse().ok()?,
            system: field(15)?.parse().ok()?,
            policy: field(41)?.parse().ok()?,
        })
    }
}

/// In words, for the report: `media 1234 ms, tandem 56 ms`.
pub fn threads_in_words(threads: &BTreeMap<String, f64>) -> String {
    let mut sorted: Vec<_> = threads.iter().filter(|(_, ms)| **ms > 0.0).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(a.1));
    let mut words = String::new();
    for (name, ms) in sorted {
        let comma = if words.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(words, "{comma}{name} {ms:.3}");
    }
    words
}

/// `SCHED_FIFO`.
const FIFO: u32 = 1;
/// 50 ms apart.
const READY_LOOKS: u32 = 600;
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let rest: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("42 (a) b (c) {}", rest.join(" "))).unwrap();
        assert_eq!((stat.name.as_str(), stat.user, stat.system, stat.policy), ("a) b (c", 14, 15, 41));
        assert!(Stat::parse("42 (x) S 1").is_none());
    }

    #[test]
    fn what_the_benchmark_decides_goes_over_the_file() {
        let mut base: toml::Table = "[media]\nworkers = 1\nrtp_ports = \"1-2\"".parse().unwrap();
        merge(&mut base, "[media]\nrtp_ports = \"3-4\"\n[http]\nlisten = \"x\"".parse().unwrap());
        assert_eq!(base["media"]["workers"].as_integer(), Some(1));
        assert_eq!(base["media"]["rtp_ports"].as_str(), Some("3-4"));
        assert_eq!(base["http"]["listen"].as_str(), Some("x"));
    }
}
