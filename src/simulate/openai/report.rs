//! The sums of an OpenAI simulator, and who can see things as they happen.

use std::time::Instant;

use serde::Serialize;

use super::format::AudioFormat;
use super::record::{Record, Totals};
use crate::simulate::report::{self, Recorded};

/// One record with where and when.
pub type Entry = report::Entry<Record>;
/// Everything recorded so far.
pub type Report = report::Report<Record>;
/// Where the connections' tasks leave their records.
pub type Collector = report::Collector<Record>;

/// Sees things as they happen, for measurements in the same process. Called from the connections' tasks:
/// must not block.
pub trait Observer: Send + Sync {
    /// An append was read; `audio` is in `format`.
    fn appended(&self, _connection: u64, _at: Instant, _audio: &[u8], _format: AudioFormat) {}

    /// An audio delta was handed to the socket: `samples` samples of `item` from `first_sample` on.
    fn delta_sent(&self, _connection: u64, _at: Instant, _item: &str, _first_sample: u64, _samples: u64) {}

    /// A record was made.
    fn recorded(&self, _entry: &Entry) {}
}

/// Sums over all connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Connections that got a session.
    pub sessions: u64,
    /// Connections that did not.
    pub refused: u64,
    /// Connections that have ended.
    pub ended: u64,
    /// Append events of ended connections.
    pub appends: u64,
    /// Caller audio of ended connections.
    pub appended_ms: u64,
    /// The longest time between two appends of one connection.
    pub append_gap_max_ms: u64,
    /// Responses begun.
    pub responses: u64,
    /// Responses cancelled.
    pub cancelled: u64,
    /// Speech starts.
    pub turns: u64,
    /// Truncations accepted.
    pub truncations: u64,
    /// Assistant audio generated.
    pub generated_ms: u64,
    /// Mistakes of clients that no race excuses.
    pub violations: u64,
    /// Records not kept because there were too many; the file has them all.
    pub records_dropped: u64,
}

impl Summary {
    fn add(&mut self, totals: &Totals) {
        self.ended += 1;
        self.appends += totals.appends;
        self.appended_ms += totals.appended_ms;
        self.append_gap_max_ms = self.append_gap_max_ms.max(totals.append_gap_max_ms);
        self.responses += totals.responses;
        self.cancelled += totals.cancelled;
        self.turns += totals.turns;
        self.truncations += totals.truncations;
        self.generated_ms += totals.generated_ms;
    }
}

impl Recorded for Record {
    type Summary = Summary;
    type Observer = dyn Observer;

    fn sum(&self, summary: &mut Summary) {
        match self {
            Self::Connected { .. } => summary.sessions += 1,
            Self::Refused { .. } => summary.refused += 1,
            Self::Violation { harmless: false, .. } => summary.violations += 1,
            Self::Disconnected(totals) => summary.add(totals),
            Self::Violation { harmless: true, .. }
            | Self::Configured { .. }
            | Self::SpeechStarted { .. }
            | Self::SpeechStopped { .. }
            | Self::Truncation { .. }
            | Self::ResponseStarted { .. }
            | Self::ResponseDone { .. }
            | Self::ToolCalled { .. }
            | Self::ToolAnswered { .. } => {}
        }
    }

    fn dropped(summary: &mut Summary) {
        summary.records_dropped += 1;
    }

    fn is_violation(&self) -> bool {
        matches!(self, Self::Violation { harmless: false, .. })
    }

    fn show(entry: &Entry, observer: &Self::Observer) {
        observer.recorded(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_json_lines_and_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.jsonl");
        let now = Instant::now();
        let collector = Collector::new(now, Some(&path), None).unwrap();
        let refused = Record::Refused { status: 429, reason: "fault".into() };
        collector.add(1, now, refused);
        collector.add(2, now, Record::Truncation { item: "i".into(), audio_end_ms: 5, generated_ms: 9 });
        collector.add(2, now, Record::Disconnected(Totals { truncations: 1, ..Totals::default() }));
        collector.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[1]["type"], "truncation");
        assert_eq!(lines[1]["audio_end_ms"], 5);
        assert_eq!(lines[3]["type"], "summary");
        assert_eq!((lines[3]["refused"].as_u64(), lines[3]["truncations"].as_u64()), (Some(1), Some(1)));
    }
}
