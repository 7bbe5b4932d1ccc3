//! What goes over the far end's SIP socket, as it was sent: nothing here believes a state machine of ours.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::grid::Spread;
use crate::sip::tap::{Seen, Tap};

/// Watches every message of the far end. Used on the one task of its endpoint, so the lock is free.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Log>);

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// INVITE to the first 180.
    pub ringing: Spread,
    /// Messages that were seen before, word by word: retransmissions, ours and the server's.
    pub repeated: u64,
    /// What was repeated, the first few.
    pub examples: Vec<String>,
    /// INVITEs that wait for their 180.
    waiting: HashMap<u64, Instant>,
    seen: HashSet<u64>,
}

impl Watch {
    /// What was seen so far.
    pub fn log(&self) -> Log {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tap for Watch {
    fn message(&self, at: Instant, seen: &Seen<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(at, seen.outgoing, seen.bytes);
    }
}

impl Log {
    fn note(&mut self, at: Instant, outgoing: bool, bytes: &[u8]) {
        let head = Head::of(bytes);
        if !self.seen.insert(hash(&(outgoing, &head))) {
            self.repeated += 1;
            if self.examples.len() < TOLD {
                let direction = if outgoing { "sent" } else { "received" };
                let start = String::from_utf8_lossy(head.start);
                self.examples.push(format!("{direction} again: {}", start.escape_debug()));
            }
            return;
        }
        let call = hash(&head.call_id);
        if outgoing && head.start.starts_with(b"INVITE ") {
            self.waiting.insert(call, at);
        } else if !outgoing
            && head.start.starts_with(b"SIP/2.0 180")
            && let Some(sent) = self.waiting.remove(&call)
        {
            self.ringing.add(at.saturating_duration_since(sent));
        }
    }
}

/// By what a message is known. The branch tells a transaction from the next, as a new INVITE after a challenge.
#[derive(Debug, Default, Hash)]
struct Head<'a> {
    start: &'a [u8],
    call_id: &'a [u8],
    sequence: &'a [u8],
    via: &'a [u8],
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut lines = bytes.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii_end);
        let mut head = Self { start: lines.next().unwrap_or_default(), ..Self::default() };
        for line in lines.take_while(|line| !line.is_empty()) {
            let place = match line.split(|octet| *octet == b':').next() {
                Some(name) if name.eq_ignore_ascii_case(b"call-id") => &mut head.call_id,
                Some(name) if name.eq_ignore_ascii_case(b"cseq") => &mut head.sequence,
                Some(name) if name.eq_ignore_ascii_case(b"via") && head.via.is_empty() => &mut head.via,
                _ => continue,
            };
            *place = line;
        }
        head
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Repetitions told.
const TOLD: usize = 5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(start: &str, call: &str) -> Vec<u8> {
        format!("{start}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n\r\nCall-ID: x\r\n")
            .into_bytes()
    }

    #[test]
    fn ringing_is_timed_by_call_and_a_copy_is_a_retransmission() {
        let (mut log, start) = (Log::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        log.note(at(0), true, &message("INVITE sip:a@b SIP/2.0", "one"));
        log.note(at(2), true, &message("INVITE sip:a@b SIP/2.0", "two"));
        log.note(at(3), false, &message("SIP/2.0 180 Ringing", "two"));
        log.note(at(7), false, &message("SIP/2.0 180 Ringing", "one"));
        assert_eq!((log.ringing.figures().count, log.ringing.figures().max_ms), (2, 7.0));
        assert_eq!(log.repeated, 0);
        log.note(at(500), true, &message("INVITE sip:a@b SIP/2.0", "one"));
        assert_eq!((log.repeated, log.examples.len()), (1, 1));
    }
}
