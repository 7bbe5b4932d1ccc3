//! Webhooks of Ultravox: which are genuine, and what they tell.

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::time::UnixMs;

/// What a webhook tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// `call.joined`, `call.ended`, `call.billed`, …
    pub event: String,
    /// The Call object.
    pub call: Value,
}

impl Webhook {
    /// The service's name of the call.
    pub fn call_id(&self) -> Option<&str> {
        self.call["callId"].as_str().filter(|id| !id.is_empty() && id.len() <= ID_LONGEST)
    }

    /// Whether the call carries this mark: in its metadata, its template context or its SIP details.
    pub fn is_marked(&self, mark: &str) -> bool {
        let places = ["metadata", "templateContext", "sipDetails"];
        places
            .iter()
            .filter_map(|place| self.call[place].as_object())
            .flatten()
            .any(|(_, value)| value == mark)
    }

    /// The caller as the service saw it.
    pub fn caller(&self) -> Option<&str> {
        self.call["metadata"]["ultravox.sip.caller_id"].as_str()
    }
}

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A header is missing.
    #[error("the timestamp or the signature is missing")]
    Unsigned,
    /// Not a moment, or one too long ago or ahead.
    #[error("the timestamp is not of the last minute; is the clock right?")]
    Stale,
    /// Nobody who knows a secret has sent this.
    #[error("no signature fits a secret of webhook_secret_env")]
    Forged,
    /// No JSON of the documented form.
    #[error("the body is no event of a call")]
    Unreadable,
}

/// Reads a webhook that somebody who knows one of `secrets` has signed within the last minute.
///
/// # Errors
/// Why it is not believed.
pub fn verify(
    timestamp: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    secrets: &[SecretString],
    now: UnixMs,
) -> Result<Webhook, Rejected> {
    let (Some(timestamp), Some(signature)) = (timestamp, signature) else { return Err(Rejected::Unsigned) };
    let at = chrono::DateTime::parse_from_rfc3339(timestamp).map_err(|_| Rejected::Stale)?;
    if now.get().abs_diff(at.timestamp_millis()) > AGE_MAX_MS {
        return Err(Rejected::Stale);
    }
    let signed = [body, timestamp.as_bytes()].concat();
    let genuine = signature.split(',').take(SIGNATURES_MAX).filter_map(|hex| unhex(hex.trim())).any(|tag| {
        secrets.iter().any(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().trim().as_bytes());
            // Compares in constant time.
            hmac::verify(&key, &signed, &tag).is_ok()
        })
    });
    if !genuine {
        return Err(Rejected::Forged);
    }
    let mut body: Value = serde_json::from_slice(body).map_err(|_| Rejected::Unreadable)?;
    let event = body["event"].as_str().ok_or(Rejected::Unreadable)?.to_owned();
    let webhook = Webhook { event, call: body["call"].take() };
    if webhook.call_id().is_none() { Err(Rejected::Unreadable) } else { Ok(webhook) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return None;
    }
    let octets =
        digits.chunks(2).map(|pair| std::str::from_utf8(pair).ok().map(|t| u8::from_str_radix(t, 16)));
    octets.map(|octet| octet?.ok()).collect()
}

const AGE_MAX_MS: u64 = 60_000;
const SIGNATURES_MAX: usize = 8;
const ID_LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(secret: &str, body: &str, timestamp: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{body}{timestamp}").as_bytes());
        tag.as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn only_what_is_signed_and_fresh_is_believed() {
        let secrets: Vec<SecretString> = vec!["new".into(), "old".into()];
        let (fresh, stale) = ("2026-11-18T10:26:40.000000Z", "2026-11-18T10:25:00Z");
        let at = chrono::DateTime::parse_from_rfc3339(fresh).unwrap().timestamp_millis();
        let now = UnixMs::new(at + 20_000);
        let body = r#"{"event":"call.ended","call":{"callId":"c","metadata":{"a":"mark"}}}"#;
        let check = |stamp: Option<&str>, signature: Option<&str>, body: &str| {
            verify(stamp, signature, body.as_bytes(), &secrets, now)
        };
        let good = sign("old", body, fresh);
        let two = format!("{},{good}", sign("other", body, fresh));
        let webhook = check(Some(fresh), Some(&two), body).unwrap();
        assert!(webhook.event == "call.ended" && webhook.is_marked("mark") && !webhook.is_marked("m"));
        assert_eq!(check(None, Some(&good), body), Err(Rejected::Unsigned));
        assert_eq!(check(Some(fresh), None, body), Err(Rejected::Unsigned));
        assert_eq!(check(Some(stale), Some(&sign("old", body, stale)), body), Err(Rejected::Stale));
        assert_eq!(check(Some("yesterday"), Some(&good), body), Err(Rejected::Stale));
        assert_eq!(check(Some(fresh), Some(&sign("other", body, fresh)), body), Err(Rejected::Forged));
        assert_eq!(check(Some(fresh), Some("zz"), body), Err(Rejected::Forged));
        assert_eq!(check(Some(fresh), Some(&good), &body.replace("ended", "billed")), Err(Rejected::Forged));
        let odd = r#"{"event":"call.ended","call":{}}"#;
        assert_eq!(check(Some(fresh), Some(&sign("new", odd, fresh)), odd), Err(Rejected::Unreadable));
    }
}
