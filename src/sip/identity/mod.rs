//! Who calls whom, as trunks write it and as they want it written.
//!
//! `incoming` reads an INVITE of a peer: the numbers in E.164 where they can be told, diversions, the verdict on
//! the caller's number, and the headers that may be passed on. `outgoing` writes the addresses and headers of an
//! INVITE of ours. Both are pure, and nothing that comes out of `outgoing` can begin a header of its own.

mod diversion;
mod incoming;
mod numbers;
mod outgoing;
mod passing;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use super::headers::HeaderValue;
use super::uri::Uri;

pub use diversion::Diverted;
pub use incoming::incoming;
pub use numbers::{NumberError, NumberPolicy, e164, write};
pub use outgoing::outgoing;
pub use passing::{HeaderPolicy, may_be_set};

/// Who calls whom, as an INVITE of a trunk says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncomingIdentity {
    /// The number or user dialled, as written but without escapes and separators; empty when there is none.
    pub called: String,
    /// The caller's number or user from the place the profile trusts; `None` when it is withheld or absent.
    pub caller: Option<String>,
    /// The caller's display name; `None` when the number is withheld.
    pub caller_name: Option<String>,
    /// `called` in E.164 with `+`, when the trunk's number plan tells.
    pub called_e164: Option<String>,
    /// `caller` in E.164 with `+`, when the trunk's number plan tells.
    pub caller_e164: Option<String>,
    /// What the trunk says the caller's number is worth (STIR), such as `TN-Validation-Passed-A`.
    pub verstat: Option<String>,
    /// Who sent the call on, the last first. A diversion from the called number itself is left out.
    pub diversions: Vec<Diverted>,
    /// The `Identity` headers (RFC 8224) as they came.
    pub identity: Vec<HeaderValue>,
    /// Headers the trunk may pass on: at most 32 of at most 1024 octets.
    pub passed: Vec<(String, String)>,
    /// Whether the caller asks for privacy (RFC 3323, RFC 3325).
    pub privacy: bool,
}

/// What a call of ours says about its parties.
#[derive(Debug, Clone, Copy)]
pub struct CallIdentity<'a> {
    /// The number or user to dial.
    pub called: &'a str,
    /// The caller's number. Absent: the one of `from_inbound`.
    pub caller: Option<&'a str>,
    /// The caller's name.
    pub caller_name: Option<&'a str>,
    /// Whether the number is to be withheld from the callee.
    pub withheld: bool,
    /// The call this one carries on.
    pub from_inbound: Option<&'a IncomingIdentity>,
    /// Headers asked for by whoever started the call.
    pub extra: &'a [(String, String)],
}

/// Addresses and headers of an INVITE of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingIdentity {
    /// The Request-URI.
    pub request_uri: Uri,
    /// To.
    pub to: Uri,
    /// From.
    pub from: Uri,
    /// Display name of From.
    pub from_display: Option<String>,
    /// Further headers, in order; names are tokens and values hold no control octets.
    pub headers: Vec<(String, String)>,
    /// Whether `Privacy: id` is among them and From is anonymous.
    pub privacy: bool,
}

/// What the far end is told about the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CallerPolicy {
    /// The caller's own number, or the one the call was started with.
    #[default]
    Pass,
    /// Always this number.
    Own(String),
    /// Nothing.
    Withhold,
}

/// Text that is no caller policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no caller policy; write pass, withhold or own:+15550100")]
pub struct CallerPolicyError(String);

impl FromStr for CallerPolicy {
    type Err = CallerPolicyError;

    fn from_str(text: &str) -> Result<Self, CallerPolicyError> {
        match (text, text.strip_prefix("own:")) {
            ("pass", _) => Ok(Self::Pass),
            ("withhold", _) => Ok(Self::Withhold),
            (_, Some(number)) if numbers::is_user(number) => Ok(Self::Own(number.to_owned())),
            _ => Err(CallerPolicyError(text.to_owned())),
        }
    }
}
