//! Packet numbers beyond 16 bits, each taken once (RFC 3711 sections 3.3.1 and 3.3.2).

/// The highest number so far, and which of the 128 up to it were taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    highest: u64,
    /// Bit n: `highest - n` was taken. All zero before the first.
    taken: u128,
}

impl Window {
    /// The number of a packet by its lower 16 bits: the one nearest to the highest so far.
    pub(super) fn estimate(&self, sequence: u16) -> u64 {
        if self.taken == 0 {
            return u64::from(sequence);
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let behind = u64::from(ahead.wrapping_neg());
        match ahead < 0x8000 {
            true => (self.highest + u64::from(ahead)) & INDEX,
            // Before the very first cycle there is none: take it as one of this cycle.
            false => self.highest.checked_sub(behind).unwrap_or(u64::from(sequence)),
        }
    }

    /// Whether a number was not taken, as far as the window reaches.
    pub(super) fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(behind) => behind < 128 && self.taken & 1 << behind == 0,
        }
    }

    /// Takes a number.
    pub(super) fn take(&mut self, index: u64) {
        if self.taken == 0 {
            (self.highest, self.taken) = (index, 1);
        } else if index > self.highest {
            let steps = index - self.highest;
            self.taken = if steps < 128 { self.taken << steps | 1 } else { 1 };
            self.highest = index;
        } else if self.highest - index < 128 {
            self.taken |= 1 << (self.highest - index);
        }
    }
}

/// 48 bits.
const INDEX: u64 = (1 << 48) - 1;
