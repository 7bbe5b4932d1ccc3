//! Faults on request: what this service can do wrong, on REST, on the media socket and in its webhooks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use crate::simulate::scope::FaultScope;
use crate::simulate::scope::read_seconds;

/// One way of misbehaving.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Answer the request for a call with this HTTP status.
    Refuse {
        /// 400..=599.
        status: u16,
        /// Seconds for `Retry-After`.
        retry_after: Option<u32>,
    },
    /// Never answer the request for a call.
    NoHandshake,
    /// Answer the request for a call only after a while.
    SlowHandshake(Duration),
    /// Refuse the media socket of a call that was created.
    Unjoinable,
    /// Accept the media socket's TCP connection and never answer its handshake.
    NoJoin,
    /// Say `call_started` only after a while.
    SlowStart(Duration),
    /// Reset the media socket after a while.
    Die(Duration),
    /// Reset the media socket when this many audio frames have come.
    DieAfterAppends(u64),
    /// Reset the media socket when this many audio frames have gone out.
    DieAfterDeltas(u64),
    /// Close the media socket with 1011 after a while.
    Close(Duration),
    /// Send a broken JSON text before each response.
    InvalidJson,
    /// Send messages, states and fields nobody has heard of.
    UnknownEvents,
    /// Fall silent when the n-th response is due, counted from 1.
    Stall(u64),
    /// Fall silent when this many audio frames have gone out.
    StallAfterDeltas(u64),
    /// All audio of an answer in one frame, whatever the client can buffer.
    GiantDelta,
    /// Audio slower than real time, at this part of its speed.
    SlowDrip(f64),
    /// The call's time limit comes after this long.
    Expire(Duration),
    /// The agent hangs up after its n-th response.
    HangUp(u64),
    /// What the call cost is known only after a while.
    BillLate(Duration),
    /// What the call cost is never known.
    BillNever,
    /// Every webhook comes twice.
    WebhooksTwice,
    /// No webhook carries a signature that is right.
    WebhooksForged,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let bad = || FaultError(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let seconds = |text: &str| read_seconds(text).ok_or_else(bad);
        let count = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(bad);
        let refuse = |status: &str, retry_after| match status.parse() {
            Ok(status) if (400..=599).contains(&status) => Ok(Self::Refuse { status, retry_after }),
            _ => Err(bad()),
        };
        match parts.as_slice() {
            ["refuse", status] => refuse(status, None),
            ["refuse", status, after] => refuse(status, Some(after.parse().map_err(|_| bad())?)),
            ["invalid-api-key"] => Ok(Self::Refuse { status: 401, retry_after: None }),
            ["no-handshake"] => Ok(Self::NoHandshake),
            ["slow-handshake", after] => Ok(Self::SlowHandshake(seconds(after)?)),
            ["unjoinable"] => Ok(Self::Unjoinable),
            ["no-join"] => Ok(Self::NoJoin),
            ["slow-start", after] => Ok(Self::SlowStart(seconds(after)?)),
            ["die", after] => Ok(Self::Die(seconds(after)?)),
            ["die-after-appends", n] => Ok(Self::DieAfterAppends(count(n)?)),
            ["die-after-deltas", n] => Ok(Self::DieAfterDeltas(count(n)?)),
            ["close", after] => Ok(Self::Close(seconds(after)?)),
            ["invalid-json"] => Ok(Self::InvalidJson),
            ["unknown-events"] => Ok(Self::UnknownEvents),
            ["stall"] => Ok(Self::Stall(1)),
            ["stall", n] => Ok(Self::Stall(count(n)?)),
            ["stall-after-deltas", n] => Ok(Self::StallAfterDeltas(count(n)?)),
            ["giant-delta"] => Ok(Self::GiantDelta),
            ["slow-drip"] => Ok(Self::SlowDrip(0.5)),
            ["slow-drip", speed] => match speed.parse() {
                Ok(speed) if (0.01..1.0).contains(&speed) => Ok(Self::SlowDrip(speed)),
                _ => Err(bad()),
            },
            ["expire", after] => Ok(Self::Expire(seconds(after)?)),
            ["hang-up"] => Ok(Self::HangUp(1)),
            ["hang-up", n] => Ok(Self::HangUp(count(n)?)),
            ["bill-late", after] => Ok(Self::BillLate(seconds(after)?)),
            ["bill-never"] => Ok(Self::BillNever),
            ["webhooks-twice"] => Ok(Self::WebhooksTwice),
            ["webhooks-forged"] => Ok(Self::WebhooksForged),
            _ => Err(bad()),
        }
    }
}

/// A fault nobody can commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault; give refuse:STATUS[:RETRY_AFTER], invalid-api-key, no-handshake, \
     slow-handshake:SECONDS, unjoinable, no-join, slow-start:SECONDS, die:SECONDS, die-after-appends:N, \
     die-after-deltas:N, close:SECONDS, invalid-json, unknown-events, stall[:RESPONSE], \
     stall-after-deltas:N, giant-delta, slow-drip[:SPEED below 1], expire:SECONDS, hang-up[:RESPONSE], \
     bill-late:SECONDS, bill-never, webhooks-twice or webhooks-forged"
)]
pub struct FaultError(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse { status, retry_after: None } => write!(f, "refuse:{status}"),
            Self::Refuse { status, retry_after: Some(s) } => write!(f, "refuse:{status}:{s}"),
            Self::NoHandshake => f.write_str("no-handshake"),
            Self::SlowHandshake(after) => write!(f, "slow-handshake:{}", after.as_secs_f64()),
            Self::Unjoinable => f.write_str("unjoinable"),
            Self::NoJoin => f.write_str("no-join"),
            Self::SlowStart(after) => write!(f, "slow-start:{}", after.as_secs_f64()),
            Self::Die(after) => write!(f, "die:{}", after.as_secs_f64()),
            Self::DieAfterAppends(n) => write!(f, "die-after-appends:{n}"),
            Self::DieAfterDeltas(n) => write!(f, "die-after-deltas:{n}"),
            Self::Close(after) => write!(f, "close:{}", after.as_secs_f64()),
            Self::InvalidJson => f.write_str("invalid-json"),
            Self::UnknownEvents => f.write_str("unknown-events"),
            Self::Stall(n) => write!(f, "stall:{n}"),
            Self::StallAfterDeltas(n) => write!(f, "stall-after-deltas:{n}"),
            Self::GiantDelta => f.write_str("giant-delta"),
            Self::SlowDrip(speed) => write!(f, "slow-drip:{speed}"),
            Self::Expire(after) => write!(f, "expire:{}", after.as_secs_f64()),
            Self::HangUp(n) => write!(f, "hang-up:{n}"),
            Self::BillLate(after) => write!(f, "bill-late:{}", after.as_secs_f64()),
            Self::BillNever => f.write_str("bill-never"),
            Self::WebhooksTwice => f.write_str("webhooks-twice"),
            Self::WebhooksForged => f.write_str("webhooks-forged"),
        }
    }
}

/// The faults of one media session.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names are those of the faults")]
pub struct SessionFaults {
    pub slow_start: Option<Duration>,
    pub die: Option<Duration>,
    pub die_after_appends: Option<u64>,
    pub die_after_deltas: Option<u64>,
    pub close: Option<Duration>,
    pub invalid_json: bool,
    pub unknown_events: bool,
    pub stall: Option<u64>,
    pub stall_after_deltas: Option<u64>,
    pub giant_delta: bool,
    pub speed: Option<f64>,
    pub expire: Option<Duration>,
    pub hang_up: Option<u64>,
}

impl SessionFaults {
    /// Those of a list; the others are the server's business.
    pub fn of(faults: &[Fault]) -> Self {
        let mut all = Self::default();
        for fault in faults {
            match *fault {
                Fault::SlowStart(after) => all.slow_start = Some(after),
                Fault::Die(after) => all.die = Some(after),
                Fault::DieAfterAppends(n) => all.die_after_appends = Some(n),
                Fault::DieAfterDeltas(n) => all.die_after_deltas = Some(n),
                Fault::Close(after) => all.close = Some(after),
                Fault::InvalidJson => all.invalid_json = true,
                Fault::UnknownEvents => all.unknown_events = true,
                Fault::Stall(n) => all.stall = Some(n),
                Fault::StallAfterDeltas(n) => all.stall_after_deltas = Some(n),
                Fault::GiantDelta => all.giant_delta = true,
                Fault::SlowDrip(speed) => all.speed = Some(speed),
                Fault::Expire(after) => all.expire = Some(after),
                Fault::HangUp(n) => all.hang_up = Some(n),
                Fault::Refuse { .. }
                | Fault::NoHandshake
                | Fault::SlowHandshake(_)
                | Fault::Unjoinable
                | Fault::NoJoin
                | Fault::BillLate(_)
                | Fault::BillNever
                | Fault::WebhooksTwice
                | Fault::WebhooksForged => {}
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_printed() {
        let all = "refuse:402 refuse:429:7 no-handshake slow-handshake:2 unjoinable no-join slow-start:1.5 \
                   die:1.5 die-after-appends:50 die-after-deltas:3 close:2 invalid-json unknown-events \
                   stall:2 stall-after-deltas:4 giant-delta slow-drip:0.5 expire:3 hang-up:2 bill-late:4 \
                   bill-never webhooks-twice webhooks-forged";
        for text in all.split_whitespace() {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("invalid-api-key".parse(), Ok(Fault::Refuse { status: 401, retry_after: None }));
        for text in ["", "refuse", "refuse:200", "die", "slow-drip:2", "stall:1:2", "giant-delta:1"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
