//! Keys in INFO bodies: `application/dtmf-relay` and `application/dtmf`.

/// A key in an INFO body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DtmfInfo {
    pub(crate) digit: char,
    pub(crate) duration_ms: Option<u32>,
}

/// Reads `Signal=5` and `Duration=160` lines. Spaces around `=` and letters in any case are taken.
pub(crate) fn read_dtmf_relay(body: &[u8]) -> Option<DtmfInfo> {
    let text = std::str::from_utf8(body).ok()?;
    let field = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    Some(DtmfInfo {
        digit: digit(field("Signal")?)?,
        duration_ms: field("Duration").and_then(|d| d.parse().ok()),
    })
}

/// Reads a body that is the key.
pub(crate) fn read_dtmf(body: &[u8]) -> Option<DtmfInfo> {
    let digit = digit(std::str::from_utf8(body).ok()?.trim())?;
    Some(DtmfInfo { digit, duration_ms: None })
}

/// The body for a key; `None` for what is no key.
pub(crate) fn dtmf_relay(key: char, duration_ms: u32) -> Option<Vec<u8>> {
    let digit = digit(key.encode_utf8(&mut [0; 4]))?;
    Some(format!("Signal={digit}\r\nDuration={duration_ms}\r\n").into_bytes())
}

/// One key; 10 and 11 are also written for `*` and `#` (RFC 4733 codes).
fn digit(text: &str) -> Option<char> {
    match text {
        "10" => return Some('*'),
        "11" => return Some('#'),
        _ => {}
    }
    let mut chars = text.chars();
    let digit = chars.next()?.to_ascii_uppercase();
    (chars.next().is_none() && matches!(digit, '0'..='9' | 'A'..='D' | '*' | '#')).then_some(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_bodies_are_read_as_phones_write_them() {
        let key = |digit, duration_ms| Some(DtmfInfo { digit, duration_ms });
        assert_eq!(read_dtmf_relay(b"Signal=5\r\nDuration=160\r\n"), key('5', Some(160)));
        assert_eq!(read_dtmf_relay(b"signal = *\nduration = 100"), key('*', Some(100)));
        assert_eq!(read_dtmf_relay(b"Signal=11\r\n"), key('#', None));
        assert_eq!(read_dtmf_relay(b"Signal=55\r\n"), None);
        assert_eq!(read_dtmf_relay(b"\xff\xfe"), None);
    }

    #[test]
    fn plain_bodies_are_one_key() {
        assert_eq!(read_dtmf(b" d\r\n").map(|key| key.digit), Some('D'));
        assert_eq!(read_dtmf(b"12"), None);
        assert_eq!(read_dtmf(b""), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let body = dtmf_relay('a', 100).expect("a key");
        assert_eq!(read_dtmf_relay(&body), Some(DtmfInfo { digit: 'A', duration_ms: Some(100) }));
        assert_eq!(dtmf_relay('x', 100), None);
    }
}
