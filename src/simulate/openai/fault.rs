//! Faults on request: by configuration for all or some connections, or for one connection by
//! `fault=…` in its URL.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use crate::simulate::scope::FaultScope;
use crate::simulate::scope::read_seconds;

/// One way of misbehaving.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Answer the handshake with this HTTP status.
    Refuse {
        /// 400..=599.
        status: u16,
        /// Seconds for `Retry-After`.
        retry_after: Option<u32>,
    },
    /// Accept TCP and never answer the handshake.
    NoHandshake,
    /// Answer the handshake only after a while.
    SlowHandshake(Duration),
    /// Accept, then an `error` event `invalid_api_key` and a close.
    InvalidApiKey,
    /// Reset the connection after a while.
    Die(Duration),
    /// Reset the connection when this many appends have come.
    DieAfterAppends(u64),
    /// Reset the connection in the middle of an answer, when this many audio deltas have gone out.
    DieAfterDeltas(u64),
    /// An orderly close with code 1011 after a while.
    Close(Duration),
    /// Send a broken JSON text before each response.
    InvalidJson,
    /// Send events and fields nobody has heard of.
    UnknownEvents,
    /// Fall silent when the n-th response is due, counted from 1.
    Stall(u64),
    /// Fall silent when this many audio deltas have gone out.
    StallAfterDeltas(u64),
    /// Fall silent after a while: nothing is told any more, not even that the caller speaks.
    Mute(Duration),
    /// All audio of an answer in one delta.
    GiantDelta,
    /// Audio slower than real time, at this part of its speed.
    SlowDrip(f64),
    /// The session's time limit comes after this long.
    Expire(Duration),
    /// `response.done` with status failed and this kind of cause, at every response.
    FailResponses,
    /// `…transcription.failed` in place of each transcript.
    FailTranscription,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let (first, second, more) = (parts.next(), parts.next(), parts.next());
        let bad = || FaultError(text.to_owned());
        let number = |default: Option<u64>| match first {
            Some(text) => text.parse().map_err(|_| bad()),
            None => default.ok_or_else(bad),
        };
        let seconds = || read_seconds(first.ok_or_else(bad)?).ok_or_else(bad);
        let fault = match name {
            "refuse" => Self::Refuse {
                status: first
                    .and_then(|s| s.parse().ok())
                    .filter(|status| (400..=599).contains(status))
                    .ok_or_else(bad)?,
                retry_after: second.map(|s| s.parse().map_err(|_| bad())).transpose()?,
            },
            "no-handshake" => Self::NoHandshake,
            "slow-handshake" => Self::SlowHandshake(seconds()?),
            "invalid-api-key" => Self::InvalidApiKey,
            "die" => Self::Die(seconds()?),
            "die-after-appends" => Self::DieAfterAppends(number(None)?),
            "die-after-deltas" => Self::DieAfterDeltas(number(None)?),
            "close" => Self::Close(seconds()?),
            "invalid-json" => Self::InvalidJson,
            "unknown-events" => Self::UnknownEvents,
            "stall" => Self::Stall(number(Some(1))?.max(1)),
            "stall-after-deltas" => Self::StallAfterDeltas(number(None)?),
            "mute" => Self::Mute(seconds()?),
            "giant-delta" => Self::GiantDelta,
            "slow-drip" => {
                let speed: f64 = first.unwrap_or("0.5").parse().map_err(|_| bad())?;
                if !(0.01..1.0).contains(&speed) {
                    return Err(bad());
                }
                Self::SlowDrip(speed)
            }
            "expire" => Self::Expire(seconds()?),
            "fail-responses" => Self::FailResponses,
            "fail-transcription" => Self::FailTranscription,
            _ => return Err(bad()),
        };
        let takes = match fault {
            Self::Refuse { .. } => 2,
            Self::NoHandshake
            | Self::InvalidApiKey
            | Self::InvalidJson
            | Self::UnknownEvents
            | Self::GiantDelta
            | Self::FailResponses
            | Self::FailTranscription => 0,
            _ => 1,
        };
        let given = [first, second, more].iter().flatten().count();
        if given > takes { Err(bad()) } else { Ok(fault) }
    }
}

/// A fault nobody can commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault; give refuse:STATUS[:RETRY_AFTER], no-handshake, slow-handshake:SECONDS, \
     invalid-api-key, die:SECONDS, die-after-appends:N, die-after-deltas:N, close:SECONDS, invalid-json, \
     unknown-events, stall[:RESPONSE], stall-after-deltas:N, mute:SECONDS, giant-delta, slow-drip[:SPEED below 1], \
     expire:SECONDS, fail-responses or fail-transcription"
)]
pub struct FaultError(String);

/// The faults a session has to commit by itself, gathered from a list.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "each field is the fault of its name")]
pub struct SessionFaults {
    pub invalid_api_key: bool,
    pub die: Option<Duration>,
    pub die_after_appends: Option<u64>,
    pub die_after_deltas: Option<u64>,
    pub close: Option<Duration>,
    pub invalid_json: bool,
    pub unknown_events: bool,
    pub stall: Option<u64>,
    pub stall_after_deltas: Option<u64>,
    pub mute: Option<Duration>,
    pub giant_delta: bool,
    pub speed: Option<f64>,
    pub expire: Option<Duration>,
    pub fail_responses: bool,
    pub fail_transcription: bool,
}

impl SessionFaults {
    /// Those of a list; the faults of the handshake are the server's business.
    pub fn of(faults: &[Fault]) -> Self {
        let mut all = Self::default();
        for fault in faults {
            match *fault {
                Fault::Refuse { .. } | Fault::NoHandshake | Fault::SlowHandshake(_) => {}
                Fault::InvalidApiKey => all.invalid_api_key = true,
                Fault::Die(after) => all.die = Some(after),
                Fault::DieAfterAppends(count) => all.die_after_appends = Some(count),
                Fault::DieAfterDeltas(count) => all.die_after_deltas = Some(count),
                Fault::Close(after) => all.close = Some(after),
                Fault::InvalidJson => all.invalid_json = true,
                Fault::UnknownEvents => all.unknown_events = true,
                Fault::Stall(response) => all.stall = Some(response),
                Fault::StallAfterDeltas(count) => all.stall_after_deltas = Some(count),
                Fault::Mute(after) => all.mute = Some(after),
                Fault::GiantDelta => all.giant_delta = true,
                Fault::SlowDrip(speed) => all.speed = Some(speed),
                Fault::Expire(after) => all.expire = Some(after),
                Fault::FailResponses => all.fail_responses = true,
                Fault::FailTranscription => all.fail_transcription = true,
            }
        }
        all
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse { status, retry_after: None } => write!(f, "refuse:{status}"),
            Self::Refuse { status, retry_after: Some(s) } => write!(f, "refuse:{status}:{s}"),
            Self::NoHandshake => f.write_str("no-handshake"),
            Self::SlowHandshake(after) => write!(f, "slow-handshake:{}", after.as_secs_f64()),
            Self::InvalidApiKey => f.write_str("invalid-api-key"),
            Self::Die(after) => write!(f, "die:{}", after.as_secs_f64()),
            Self::DieAfterAppends(count) => write!(f, "die-after-appends:{count}"),
            Self::DieAfterDeltas(count) => write!(f, "die-after-deltas:{count}"),
            Self::Close(after) => write!(f, "close:{}", after.as_secs_f64()),
            Self::InvalidJson => f.write_str("invalid-json"),
            Self::UnknownEvents => f.write_str("unknown-events"),
            Self::Stall(response) => write!(f, "stall:{response}"),
            Self::StallAfterDeltas(count) => write!(f, "stall-after-deltas:{count}"),
            Self::Mute(after) => write!(f, "mute:{}", after.as_secs_f64()),
            Self::GiantDelta => f.write_str("giant-delta"),
            Self::SlowDrip(speed) => write!(f, "slow-drip:{speed}"),
            Self::Expire(after) => write!(f, "expire:{}", after.as_secs_f64()),
            Self::FailResponses => f.write_str("fail-responses"),
            Self::FailTranscription => f.write_str("fail-transcription"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_printed() {
        for text in [
            "refuse:401",
            "refuse:429:7",
            "no-handshake",
            "slow-handshake:2",
            "invalid-api-key",
            "die:1.5",
            "die-after-appends:50",
            "die-after-deltas:3",
            "close:2",
            "invalid-json",
            "unknown-events",
            "stall:2",
            "stall-after-deltas:4",
            "giant-delta",
            "slow-drip:0.5",
            "expire:3",
            "fail-responses",
            "fail-transcription",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("die:250ms".parse(), Ok(Fault::Die(Duration::from_millis(250))));
        for text in ["", "refuse", "refuse:200", "die", "slow-drip:2", "stall:1:2", "giant-delta:1"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
