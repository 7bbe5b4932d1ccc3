//! What Ultravox tells of a call that is over: who said what, how long it was, how it ended.

use std::time::Duration;

use serde_json::Value;

use crate::provider::Speaker;

/// One line of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who spoke.
    pub who: Speaker,
    /// The words.
    pub text: String,
    /// From the service's answer, where it is told.
    pub span: Option<(Duration, Duration)>,
}

/// A page of a call's messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Spoken lines; tools and what was there before the call are left out.
    pub lines: Vec<Line>,
    /// Where the next page begins.
    pub cursor: Option<String>,
}

/// Reads a page of `GET /api/calls/{id}/messages`.
pub fn read_page(page: &Value) -> Page {
    let results = page["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    Page { lines: results.iter().filter_map(read_line).collect(), cursor: cursor(page) }
}

fn read_line(message: &Value) -> Option<Line> {
    let who = match message["role"].as_str()? {
        "MESSAGE_ROLE_USER" => Speaker::Caller,
        "MESSAGE_ROLE_AGENT" => Speaker::Assistant,
        _ => return None,
    };
    let text = message["text"].as_str()?.trim();
    let moment = |name: &str| seconds(message["timespan"][name].as_str()?);
    let span = moment("start").zip(moment("end"));
    (!text.is_empty()).then(|| Line { who, text: text.to_owned(), span })
}

/// `next` is a URL of the service; only its cursor is used, so that it can lead nowhere else.
fn cursor(page: &Value) -> Option<String> {
    let (_, query) = page["next"].as_str()?.split_once('?')?;
    let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor="))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "%-_.~=".contains(c);
    (!cursor.is_empty() && cursor.len() <= 512 && cursor.chars().all(plain)).then(|| cursor.to_owned())
}

/// What a call is billed, once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// The conversation.
    pub session: Duration,
    /// The way there over SIP, where it is billed besides.
    pub sip: Option<Duration>,
}

/// Reads the bill of a Call object; `None` while it is not known.
pub fn read_bill(call: &Value) -> Option<Bill> {
    if call["billingStatus"].as_str().is_none_or(|status| status == "BILLING_STATUS_PENDING") {
        return None;
    }
    let session = call["billedDuration"].as_str().and_then(seconds)?;
    Some(Bill { session, sip: call["sipDetails"]["billedDuration"].as_str().and_then(seconds) })
}

/// `"0.384s"`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spoken_lines_are_taken_and_pages_followed() {
        let page = read_page(&json!({
            "next": "https://evil.example/api/calls/x/messages?pageSize=1&cursor=2",
            "results": [
                {"role": "MESSAGE_ROLE_USER", "text": " hello ", "timespan": {"start": "1s", "end": "1.5s"}},
                {"role": "MESSAGE_ROLE_TOOL_CALL", "text": "{}"},
                {"role": "MESSAGE_ROLE_AGENT", "text": "hi"},
                {"role": "MESSAGE_ROLE_AGENT", "text": ""},
            ],
        }));
        let said: Vec<_> = page.lines.iter().map(|line| (line.who, line.text.as_str())).collect();
        assert_eq!(said, [(Speaker::Caller, "hello"), (Speaker::Assistant, "hi")]);
        assert_eq!(page.lines[0].span, Some((Duration::from_secs(1), Duration::from_millis(1_500))));
        assert_eq!(page.cursor.as_deref(), Some("2"));
        assert_eq!(read_page(&json!({"next": null, "results": []})), Page::default());
        assert_eq!(read_page(&json!({"next": "x?cursor=a/../b"})).cursor, None);
        assert_eq!(read_page(&Value::Null), Page::default());
    }

    #[test]
    fn a_bill_is_read_once_it_is_there() {
        assert_eq!(
            read_bill(&json!({"billingStatus": "BILLING_STATUS_PENDING", "billedDuration": null})),
            None
        );
        let billed = json!({"billingStatus": "BILLING_STATUS_BILLED", "billedDuration": "66s",
                            "sipDetails": {"billedDuration": "60s"}});
        let sip = Some(Duration::from_secs(60));
        assert_eq!(read_bill(&billed), Some(Bill { session: Duration::from_secs(66), sip }));
        assert_eq!(read_bill(&json!({"billingStatus": "BILLING_STATUS_BILLED"})), None);
    }
}
