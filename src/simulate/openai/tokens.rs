//! Token counts, at the service's rates.

/// A token count by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Words.
    pub text: u64,
    /// Speech.
    pub audio: u64,
}

impl Tokens {
    /// About four letters each.
    pub fn text(text: &str) -> Self {
        Self { text: (text.len() as u64).div_ceil(4), audio: 0 }
    }

    /// One per 100 ms of the caller.
    pub fn heard(samples: u64, rate: u32) -> Self {
        Self { text: 0, audio: (samples * 10).div_ceil(u64::from(rate)) }
    }

    /// One per 50 ms of the assistant.
    pub fn spoken(samples: u64, rate: u32) -> Self {
        Self { text: 0, audio: (samples * 20).div_ceil(u64::from(rate)) }
    }

    /// Both kinds.
    pub const fn total(self) -> u64 {
        self.text + self.audio
    }
}

impl std::ops::Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { text: self.text + other.text, audio: self.audio + other.audio }
    }
}

impl std::iter::Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(tokens: I) -> Self {
        tokens.fold(Self::default(), std::ops::Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_costs_a_token_per_100_ms_heard_and_per_50_ms_spoken() {
        assert_eq!(Tokens::heard(24_000, 24_000).audio, 10);
        assert_eq!(Tokens::spoken(8_000, 8_000).audio, 20);
        assert_eq!(
            Tokens::text("hello there") + Tokens::spoken(24_000, 24_000),
            Tokens { text: 3, audio: 20 }
        );
    }
}
