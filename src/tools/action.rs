//! What a call can do for its assistant.

use std::time::Duration;

/// What a well-formed call of a built-in tool asks of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Hang up once what is being said has been heard.
    EndCall {
        /// The model's reason, for the record.
        reason: String,
    },
    /// Press keys towards the far end.
    SendDtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`; upper case.
        digits: String,
    },
    /// Move the call to one of the assistant's destinations.
    Transfer {
        /// Its name.
        to: String,
    },
    /// Music for the caller, until they or the assistant speak, or the time is over.
    Hold {
        /// The longest.
        span: Duration,
    },
    /// Take the keys the caller presses as one entry.
    CollectDigits(Collect),
    /// Leave out of the recording what follows.
    PauseRecording,
    /// Record again.
    ResumeRecording,
    /// Go on in another language.
    SetLanguage {
        /// BCP 47.
        language: String,
    },
    /// Mark the call.
    AddTag {
        /// A word.
        tag: String,
    },
    /// Note something about the call.
    AddNote {
        /// In words.
        text: String,
    },
}

/// When an entry of keys is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    /// At so many keys; `None`: at the terminator or after the pause.
    pub count: Option<usize>,
    /// This key ends the entry and is no part of it.
    pub terminator: Option<char>,
    /// For the first key.
    pub first: Duration,
    /// Between keys.
    pub pause: Duration,
}
