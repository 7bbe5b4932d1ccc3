//! `scheme name=value, name="value", ...`: challenges and credentials.

use crate::sip::header::{end_of_quoted, is_token_byte, trim, unquote};

/// One scheme and its parameters, quotes and escapes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthParams {
    pub(super) scheme: String,
    params: Vec<(String, String)>,
}

impl AuthParams {
    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Everything in one header row; several challenges may stand in it. Reading stops at what cannot be
    /// understood; what came before counts.
    pub(super) fn read_row(row: &[u8]) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut rest = trim(row);
        while !rest.is_empty() && found.len() <= MAX_CHALLENGES {
            if rest[0] == b',' {
                rest = trim(&rest[1..]);
                continue;
            }
            let end = rest.iter().position(|b| !is_token_byte(*b)).unwrap_or(rest.len());
            let word = String::from_utf8_lossy(&rest[..end]).into_owned();
            let after = trim(&rest[end..]);
            if word.is_empty() {
                break;
            }
            let Some((b'=', value)) = after.split_first() else {
                found.push(Self { scheme: word, params: Vec::new() });
                rest = after;
                continue;
            };
            let Some((value, after)) = read_value(trim(value)) else { break };
            match found.last_mut() {
                Some(last) if last.params.len() < MAX_PARAMS => last.params.push((word, value)),
                _ => break,
            }
            rest = after;
        }
        found
    }
}

/// A quoted string or everything up to the next comma or space.
fn read_value(text: &[u8]) -> Option<(String, &[u8])> {
    let end = match text.first() {
        Some(b'"') => end_of_quoted(text, 0)?,
        _ => text.iter().position(|b| matches!(b, b',' | b' ' | b'\t')).unwrap_or(text.len()),
    };
    let value = String::from_utf8_lossy(&unquote(&text[..end])).into_owned();
    Some((value, trim(&text[end..])))
}

const MAX_CHALLENGES: usize = 16;
const MAX_PARAMS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_challenges_in_one_row_are_told_apart() {
        let found = AuthParams::read_row(
            b"Digest realm=\"a, b=\\\"c\\\"\" ,nonce=abc==,qop=\"auth,auth-int\", Basic realm=x,Digest nonce=\"2\"",
        );
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["Digest", "Basic", "Digest"]);
        assert_eq!(found[0].get("REALM"), Some("a, b=\"c\""));
        assert_eq!(found[0].get("nonce"), Some("abc=="));
        assert_eq!(found[2].get("nonce"), Some("2"));
    }

    #[test]
    fn what_cannot_be_understood_ends_the_reading() {
        assert!(AuthParams::read_row(b"").is_empty());
        assert!(AuthParams::read_row(b"=x").is_empty());
        assert_eq!(AuthParams::read_row(b"Digest nonce=\"open").len(), 1);
        assert!(AuthParams::read_row(b"realm=x, nonce=y").is_empty());
    }
}
