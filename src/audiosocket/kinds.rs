//! Which kind of audio a connection has, when frames of several come.

use std::time::{Duration, Instant};

use super::codec::AudioKind;

/// Which kind of audio it is. Each change makes all that waits to be heard anew: a frame that strayed in must not.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// Some audio has come.
    begun: bool,
    /// Another kind than the present one, and how often in a row it came.
    other: Option<(AudioKind, u32)>,
    /// Since when changes are counted, and how many there were.
    changes: Option<(Instant, u32)>,
    /// Frames that were passed over.
    pub(super) unsettled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kind of this frame is the connection's from here on.
    Settled,
    /// The frame is passed over.
    Doubtful,
    /// It changes too often.
    Restless,
}

impl Kinds {
    /// A frame of this kind came.
    pub(super) fn hear(&mut self, now: Instant, present: AudioKind, kind: AudioKind) -> Kind {
        if !std::mem::replace(&mut self.begun, true) || kind == present {
            self.other = None;
            return Kind::Settled;
        }
        let row = self.other.filter(|(other, _)| *other == kind).map_or(1, |(_, row)| row + 1);
        if row < KIND_ROW {
            self.other = Some((kind, row));
            self.unsettled += 1;
            return Kind::Doubtful;
        }
        self.other = None;
        let recent = self.changes.filter(|(since, _)| now.saturating_duration_since(*since) < CHANGES_WITHIN);
        let (since, count) = recent.unwrap_or((now, 0));
        self.changes = Some((since, count + 1));
        if count < CHANGES_MOST { Kind::Settled } else { Kind::Restless }
    }
}

/// Frames of another kind in a row that make it the connection's.
const KIND_ROW: u32 = 3;

/// More changes of the kind than these in so much time are no call.
pub(super) const CHANGES_MOST: u32 = 10;
const CHANGES_WITHIN: Duration = Duration::from_secs(10);
