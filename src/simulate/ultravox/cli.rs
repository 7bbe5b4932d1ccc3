//! `tandem simulate ultravox`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::create::Callback;
use super::fault::{Fault, FaultScope};
use super::record::Summary;
use super::server::{Running, SimConfig, UltravoxSimulator};
use super::session::Behaviour;
use super::sip::SipConfig;
use crate::simulate::options::{CHECK_FOUND_PROBLEMS, seconds, speed};
use crate::simulate::script::Script;
use crate::simulate::speech::Speech;

/// An Ultravox server on this machine, for tests and load.
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateUltravoxArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8788")]
    pub listen: SocketAddr,

    /// TOML file with what the model says and does (`[[turn]]` say, tool, duration_ms, ...).
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// How the assistant sounds: `tone[:HZ]`, `sweep[:HZ-HZ]`, `voice`, `wav:FILE` or `echo`.
    #[arg(long, value_name = "KIND", default_value = "voice")]
    pub speech: Speech,

    /// Length of an answer that is a tone or a sweep.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0, value_parser = seconds)]
    pub answer: f64,

    /// Generation speed as a multiple of real time; `inf` sends all at once.
    #[arg(long, value_name = "FACTOR", default_value_t = 6.0, value_parser = speed)]
    pub speed: f64,

    /// About this much audio in one frame, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub frame: u32,

    /// All frames of the same length.
    #[arg(long)]
    pub even_frames: bool,

    /// Time from the end of the caller's turn to the first output, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    pub latency: u64,

    /// Time from the end of the caller's turn to its transcript, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub transcription_latency: u64,

    /// How far the client's audio may be from real time, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 400)]
    pub slack: u64,

    /// Time from the end of a call to its bill, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub billing_delay: u64,

    /// Address to answer calls to agents on, by SIP over UDP and TCP.
    #[arg(long, value_name = "ADDRESS")]
    pub sip: Option<SocketAddr>,

    /// First port of RTP for those calls; a thousand are taken.
    #[arg(long, value_name = "PORT", default_value_t = 30_000, requires = "sip",
        value_parser = clap::value_parser!(u16).range(1024..=64_000))]
    pub rtp_from: u16,

    /// Address to send webhooks of all calls to.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,

    /// Signs those webhooks; repeatable.
    #[arg(
        long = "webhook-secret",
        value_name = "SECRET",
        requires = "webhook",
        env = "TANDEM_SIMULATE_WEBHOOK_SECRET",
        hide_env_values = true
    )]
    pub webhook_secrets: Vec<String>,

    /// Something that goes wrong, such as refuse:429:7, die:5 or stall:2; repeatable.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,

    /// Which calls the faults are for: all, first:N or every:N.
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub fault_on: FaultScope,

    /// The only key to accept; without it any key will do.
    #[arg(long, value_name = "KEY", env = "TANDEM_SIMULATE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// Calls at once; further ones are answered 429.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub calls: usize,

    /// Seed of all ids.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// File for one JSON object a line: protocol violations, speech starts, interruptions, sums.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Folder for a WAV file per call of the audio received.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,

    /// End by itself after so many calls.
    #[arg(long, value_name = "N")]
    pub until: Option<u64>,

    /// Exit with code 7 if a client broke the protocol.
    #[arg(long)]
    pub strict: bool,
}

impl SimulateUltravoxArgs {
    /// The simulator's settings.
    ///
    /// # Errors
    /// When the script cannot be read.
    pub fn config(&self) -> anyhow::Result<SimConfig> {
        let script = match &self.script {
            None => Script::builtin(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                Script::parse(&text).with_context(|| format!("in {}", path.display()))?
            }
        };
        let hook = |url: &String| Callback { url: url.clone(), secrets: self.webhook_secrets.clone() };
        Ok(SimConfig {
            listen: self.listen,
            behaviour: Behaviour {
                script,
                speech: self.speech.clone(),
                answer_ms: (self.answer * 1_000.0) as u32,
                speed: self.speed,
                chunk_ms: self.frame,
                vary_chunks: !self.even_frames,
                response_latency: Duration::from_millis(self.latency),
                transcription_latency: Duration::from_millis(self.transcription_latency),
                uplink_slack: Duration::from_millis(self.slack),
                billing_delay: Duration::from_millis(self.billing_delay),
                ..Behaviour::default()
            },
            faults: self.faults.clone(),
            fault_scope: self.fault_on,
            api_keys: self.api_key.iter().cloned().collect(),
            calls_max: self.calls,
            sip: self.sip.map(|listen| SipConfig { listen, rtp_ports: (self.rtp_from, self.rtp_from + 999) }),
            webhooks: self.webhook.iter().map(hook).collect(),
            seed: self.seed,
            report: self.report.clone(),
            record_dir: self.record.clone(),
            ..SimConfig::default()
        })
    }
}

/// Serves until a signal, or until `--until` calls have ended; then prints the sums. With `json` they go to
/// stdout as one document. Code 7 with `--strict` and a violation.
///
/// # Errors
/// When the simulator cannot start or its report not be written.
#[expect(clippy::print_stdout, reason = "the summary is what the command is for")]
pub async fn run(args: SimulateUltravoxArgs, json: bool) -> anyhow::Result<ExitCode> {
    let running = UltravoxSimulator::start(args.config()?).await?;
    eprintln!("Ultravox simulator on {}; Ctrl-C ends it", running.url());
    if let Some(sip) = running.sip_addr() {
        eprintln!("agents are called at sip:agent_1@{sip}");
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = ended(&running, args.until) => {}
    }
    let summary = running.stop().await.context("writing the report")?.summary;
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        eprint!("{}", text(&summary));
    }
    let broken = args.strict && summary.violations > 0;
    Ok(if broken { ExitCode::from(CHECK_FOUND_PROBLEMS) } else { ExitCode::SUCCESS })
}

/// Waits until so many calls have ended.
async fn ended(running: &Running, calls: Option<u64>) {
    let Some(calls) = calls else { return std::future::pending().await };
    running.wait_until(|report| report.summary.ended >= calls).await;
}

fn text(summary: &Summary) -> String {
    format!(
        "calls {}, refused {}, joined {}, turns {}, responses {} ({} interrupted), webhooks {}\n\
         heard {:.1} s in {} frames, longest gap {} ms; said {:.1} s; protocol violations {}\n",
        summary.calls,
        summary.refused,
        summary.joined,
        summary.turns,
        summary.responses,
        summary.interrupted,
        summary.webhooks,
        summary.appended_ms as f64 / 1_000.0,
        summary.appends,
        summary.append_gap_max_ms,
        summary.generated_ms as f64 / 1_000.0,
        summary.violations,
    )
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateUltravoxArgs,
    }

    #[test]
    fn options_become_settings() {
        Line::command().debug_assert();
        let line =
            "simulate --speech tone:440 --speed inf --fault refuse:429:7 --fault die:2 --fault-on first:3";
        let config = Line::try_parse_from(line.split(' ')).unwrap().args.config().unwrap();
        assert_eq!(config.behaviour.speech, Speech::Tone { hz: 440.0 });
        assert_eq!(config.behaviour.speed, f64::INFINITY);
        assert_eq!(config.faults.len(), 2);
        assert_eq!(config.fault_scope, FaultScope::First(3));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_give() {
        let refused = Line::try_parse_from(["simulate", "--fault", "explode"]).unwrap_err().to_string();
        assert!(refused.contains("no-handshake"), "{refused}");
        assert!(Line::try_parse_from(["simulate", "--speed", "0"]).is_err());
    }
}
