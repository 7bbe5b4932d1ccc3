//! Headers that travel with a call: which may be passed on, which may be asked for, and the guard on both.

use crate::sip::headers::{HeaderName, HeaderValue, Headers};

/// Headers put into and taken from the INVITEs of a trunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// Put into every INVITE to the trunk.
    pub add: Vec<(String, String)>,
    /// Names that headers which come in go on under: theirs and ours.
    pub rename: Vec<(String, String)>,
    /// What may be carried to and from the other leg, `*` at the end for every ending. Absent: the profile's.
    pub pass: Option<Vec<String>>,
}

/// The headers of a message that these patterns let pass: at most 32, those above 1024 octets left out.
pub(super) fn passed(
    headers: &Headers,
    patterns: &[String],
    rename: &[(String, String)],
) -> Vec<(String, String)> {
    let named = |name: &str| rename.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(name));
    let rows = headers.iter().filter(|(name, _)| may_pass(name, patterns) || named(name).is_some());
    let short = rows.filter(|(_, value)| value.len() <= VALUE_OCTETS_MAX);
    let text = |value: &[u8]| HeaderValue::new(value).ok().map(|value| value.to_text().into_owned());
    let ours = |name: &str| named(name).map_or(name, |(_, ours)| ours).to_owned();
    short.filter_map(|(name, value)| Some((ours(name), text(value)?))).take(ROWS_MAX).collect()
}

/// Whether a header of this name is covered by the patterns and is none that signalling itself needs.
pub(super) fn may_pass(name: &str, patterns: &[String]) -> bool {
    is_free(name) && patterns.iter().any(|pattern| matches(name, pattern))
}

/// Whether somebody may ask for this header: a token that we do not write ourselves, and a value of one line.
pub fn may_be_set(name: &str, value: &str) -> bool {
    let token = !name.is_empty()
        && name.len() <= NAME_OCTETS_MAX
        && crate::sip::header::token(name.as_bytes()).is_some();
    token && is_free(name) && value.len() <= VALUE_OCTETS_MAX && HeaderValue::new(value).is_ok()
}

/// Unknown headers are free, but for those that would change who calls or how; of the known ones only those that
/// speak to the far end's user.
fn is_free(name: &str) -> bool {
    match HeaderName::lookup(name.as_bytes()) {
        Some(known) => FREE.contains(&known),
        None => !RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)),
    }
}

fn matches(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

const FREE: &[HeaderName] = &[
    HeaderName::AlertInfo,
    HeaderName::CallInfo,
    HeaderName::Organization,
    HeaderName::Priority,
    HeaderName::SessionId,
    HeaderName::Subject,
    HeaderName::UserToUser,
];
/// Headers without a name in our table that are not a user's to set.
const RESERVED: &[&str] =
    &["P-Called-Party-ID", "P-Charge-Info", "P-Charging-Vector", "Target-Dialog", "Join"];
const ROWS_MAX: usize = 32;
const VALUE_OCTETS_MAX: usize = 1024;
const NAME_OCTETS_MAX: usize = 64;
