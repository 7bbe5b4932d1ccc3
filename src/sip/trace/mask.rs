//! Takes secrets out of a message without changing its length.
//!
//! What goes: the proof in digest credentials (whoever has it can try passwords offline), other credentials whole,
//! keys of SRTP and passwords of ICE in SDP, and digits pressed in INFO, which may be a card's.

use bytes::Bytes;

/// A copy in which every secret is stars.
pub fn masked(message: &[u8]) -> Bytes {
    let mut copy = message.to_vec();
    let mut in_head = true;
    let mut secret_header = false;
    let mut at = 0;
    while at < copy.len() {
        let end = copy[at..].iter().position(|octet| *octet == b'\n').map_or(copy.len(), |n| at + n + 1);
        let line = &mut copy[at..end];
        let text = line.trim_ascii_end().len();
        let line = &mut line[..text];
        if in_head && line.is_empty() {
            in_head = false;
        } else if in_head {
            let folded = line.first().is_some_and(|first| matches!(first, b' ' | b'\t'));
            secret_header = if folded { secret_header } else { is_secret_header(line) };
            if secret_header {
                mask_credentials(line, folded);
            }
        } else {
            mask_body_line(line);
        }
        at = end;
    }
    copy.into()
}

fn is_secret_header(line: &[u8]) -> bool {
    let name = line.split(|octet| *octet == b':').next().unwrap_or_default().trim_ascii_end();
    [&b"Authorization"[..], b"Proxy-Authorization", b"Authentication-Info", b"Proxy-Authentication-Info"]
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Digest keeps who and where, which people look for; of another scheme nothing is known, so nothing stays.
fn mask_credentials(line: &mut [u8], folded: bool) {
    let value = if folded { 0 } else { position(line, b":").map_or(line.len(), |at| at + 1) };
    let is_info = !folded && line.to_ascii_lowercase().starts_with(b"authentication-info")
        || line.to_ascii_lowercase().starts_with(b"proxy-authentication-info");
    let digest = line[value..].trim_ascii_start().to_ascii_lowercase().starts_with(b"digest");
    if !(digest || folded || is_info) {
        return stars(&mut line[value..]);
    }
    for name in [&b"response"[..], b"rspauth", b"cnonce", b"password"] {
        mask_parameter(&mut line[value..], name);
    }
}

fn mask_parameter(text: &mut [u8], name: &[u8]) {
    let lower = text.to_ascii_lowercase();
    let mut from = 0;
    while let Some(found) = position(&lower[from..], name).map(|at| from + at) {
        from = found + name.len();
        let starts = found == 0 || matches!(lower[found - 1], b' ' | b',' | b'\t');
        let rest = lower[from..].trim_ascii_start();
        if !starts || rest.first() != Some(&b'=') {
            continue;
        }
        let value = lower.len() - rest.len() + 1;
        let value = lower.len() - lower[value..].trim_ascii_start().len();
        let end = if lower.get(value) == Some(&b'"') {
            let close = lower[value + 1..].iter().position(|octet| *octet == b'"');
            (value + 1, close.map_or(lower.len(), |at| value + 1 + at))
        } else {
            let close = lower[value..].iter().position(|octet| matches!(octet, b',' | b' ' | b'\t'));
            (value, close.map_or(lower.len(), |at| value + at))
        };
        stars(&mut text[end.0..end.1]);
        from = end.1;
    }
}

fn mask_body_line(line: &mut [u8]) {
    let lower = line.to_ascii_lowercase();
    if lower.starts_with(b"a=crypto:") {
        // The key ends before a lifetime or MKI; several keys are joined by `;`.
        let mut from = 0;
        while let Some(at) = position(&lower[from..], b"inline:").map(|at| from + at + 7) {
            let ends = |octet: &u8| matches!(octet, b'|' | b';' | b' ' | b'\t');
            let end = lower[at..].iter().position(ends).map_or(lower.len(), |n| at + n);
            stars(&mut line[at..end]);
            from = end;
        }
    } else if lower.starts_with(b"k=") {
        stars(&mut line[2..]);
    } else if lower.starts_with(b"a=ice-pwd:") {
        stars(&mut line[10..]);
    } else if lower.starts_with(b"a=key-mgmt:") {
        stars(&mut line[11..]);
    } else if lower.starts_with(b"signal") {
        if let Some(at) = position(&lower, b"=") {
            stars(&mut line[at + 1..]);
        }
    } else if line.len() == 1 && matches!(line[0], b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D') {
        // A body of `application/dtmf` is the digit alone.
        stars(line);
    }
}

fn stars(text: &mut [u8]) {
    text.fill(b'*');
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: &str) {
        let out = masked(message.as_bytes());
        assert_eq!(out.len(), message.len(), "the length stays");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn of_digest_credentials_the_proof_goes() {
        check(
            "INVITE sip:a SIP/2.0\r\nauthorization : Digest username=\"bob\", response=\"0123\", nonce=\"n\"\r\n\r\n",
            "INVITE sip:a SIP/2.0\r\nauthorization : Digest username=\"bob\", response=\"****\", nonce=\"n\"\r\n\r\n",
        );
        check(
            "A\r\nProxy-Authorization: Digest cnonce=ab,\r\n  response = \"0123\"\r\nFrom: response=\"x\"\r\n\r\n",
            "A\r\nProxy-Authorization: Digest cnonce=**,\r\n  response = \"****\"\r\nFrom: response=\"x\"\r\n\r\n",
        );
        check(
            "A\r\nAuthentication-Info: qop=auth,rspauth=\"ff\"\r\n\r\n",
            "A\r\nAuthentication-Info: qop=auth,rspauth=\"**\"\r\n\r\n",
        );
    }

    #[test]
    fn other_credentials_go_whole() {
        check("A\r\nAuthorization: Bearer abc\r\n\r\n", "A\r\nAuthorization:***********\r\n\r\n");
    }

    #[test]
    fn keys_in_sdp_and_digits_in_info_go() {
        check(
            "A\r\n\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abcd|2^31|1:1 X\r\nk=clear:x\r\na=ice-pwd:pw\r\n",
            "A\r\n\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:****|2^31|1:1 X\r\nk=*******\r\na=ice-pwd:**\r\n",
        );
        check("A\r\n\r\nSignal= 5\r\nDuration=160\r\n", "A\r\n\r\nSignal=**\r\nDuration=160\r\n");
        check("A\r\n\r\n5", "A\r\n\r\n*");
    }

    #[test]
    fn an_unclosed_quote_masks_to_the_end() {
        check("A\r\nAuthorization: Digest response=\"01", "A\r\nAuthorization: Digest response=\"**");
    }
}
