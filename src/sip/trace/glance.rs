//! A quick look at a message: enough to file it, and to name it in one line.

/// What filing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance<'a> {
    /// The Call-ID.
    pub call_id: &'a str,
    /// Request or response.
    pub kind: Kind<'a>,
}

/// Request or response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Request { method: &'a str },
    Response { status: u16, method: &'a str },
}

impl<'a> Glance<'a> {
    /// `None` when the start line is none of SIP or the Call-ID is missing, empty or longer than 256 octets.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head(bytes)).ok()?;
        let kind = kind(head)?;
        let call_id = header(head, "Call-ID", "i")?;
        (1..=LONGEST_CALL_ID).contains(&call_id.len()).then_some(Self { call_id, kind })
    }
}

fn kind(head: &str) -> Option<Kind<'_>> {
    let first = head.lines().next()?;
    match first.strip_prefix("SIP/2.0 ") {
        Some(rest) => {
            let status = rest.get(..3)?.parse().ok()?;
            let cseq = header(head, "CSeq", "").unwrap_or_default();
            Some(Kind::Response { status, method: cseq.split_whitespace().nth(1).unwrap_or_default() })
        }
        None => {
            let (method, _) = first.strip_suffix("SIP/2.0")?.split_once(' ')?;
            Some(Kind::Request { method })
        }
    }
}

/// The octets before the empty line. Lossy reading of other alphabets is for those who print.
pub(super) fn head(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    &bytes[..end]
}

/// The octets after the empty line.
pub(super) fn body(bytes: &[u8]) -> &[u8] {
    bytes.get(head(bytes).len() + 4..).unwrap_or_default()
}

/// The value of the first header of this name or compact form.
pub(super) fn header<'a>(head: &'a str, name: &str, compact: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let key = key.trim_end();
        let is_it =
            key.eq_ignore_ascii_case(name) || (!compact.is_empty() && key.eq_ignore_ascii_case(compact));
        is_it.then(|| value.trim())
    })
}

const LONGEST_CALL_ID: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_filed_under_their_call_id() {
        let glance = Glance::of(b"INVITE sip:a@b SIP/2.0\r\ni : x@y\r\nCSeq: 1 INVITE\r\n\r\nCall-ID: no");
        assert_eq!(glance, Some(Glance { call_id: "x@y", kind: Kind::Request { method: "INVITE" } }));
        let glance = Glance::of(b"SIP/2.0 200 OK\r\nCSeq: 2  BYE\r\ncall-id: 1\r\n\r\n");
        let kind = Kind::Response { status: 200, method: "BYE" };
        assert_eq!(glance, Some(Glance { call_id: "1", kind }));
        for wrong in [&b"\r\n\r\n"[..], b"GET / HTTP/1.1\r\nCall-ID: 1\r\n\r\n", b"SIP/2.0 2\xff0 OK", b""] {
            assert_eq!(Glance::of(wrong), None);
        }
    }
}
