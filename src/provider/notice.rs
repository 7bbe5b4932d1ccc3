//! What providers have to tell their operator.

use std::time::Duration;

use super::keys::{Fingerprint, KeyFault};

/// Takes note of what happens to providers. Called from wherever it happens: it must not block.
pub trait Witness: Send + Sync {
    /// This has happened.
    fn saw(&self, notice: Notice);
}

/// Something an operator wants to know of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It failed too often: its breaker has opened and nobody tries it for a while.
    BreakerOpened {
        /// Which one.
        provider: String,
        /// The failure that was one too many.
        cause: String,
        /// How long nobody will try.
        cool_down: Duration,
    },
    /// One call tries whether it is back.
    BreakerHalfOpen {
        /// Which one.
        provider: String,
    },
    /// It answers again.
    BreakerClosed {
        /// Which one.
        provider: String,
    },
    /// One of its keys is not used for a while.
    KeyRested {
        /// Whose key.
        provider: String,
        /// The organization that owns the key; `None`: the installation.
        organization: Option<String>,
        /// Which key.
        key: Fingerprint,
        /// Why.
        fault: KeyFault,
    },
}
