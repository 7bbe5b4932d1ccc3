//! Credentials and challenges. `@nonce@` stands for a nonce the server really made; without the password
//! nothing is accepted.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tandem::sip::digest::{Challenge, Challenged, Credentials, DigestClient, DigestServer, Verdict};
use tandem::sip::{HeaderName, HeaderValue, Headers};

fuzz_target!(|octets: &[u8]| {
    let now = Instant::now();
    let mut server = DigestServer::new("tandem", [7; 32], Duration::from_secs(60), now);
    let challenge = server.challenge(now, 1, false);
    let known = Challenge::read_row(challenge[0].as_bytes());
    let nonce = &known[0].nonce;
    let row = replaced(octets, b"@nonce@", nonce.as_bytes());
    let verdict =
        server.verify(now, [&row[..]].into_iter(), "INVITE", b"", |_| Some("no one knows this".to_owned()));
    assert!(!matches!(verdict, Verdict::Accepted { .. }), "accepted without the password");

    let _ = Challenge::read_row(octets);
    let mut headers = Headers::new();
    headers.push(HeaderName::WwwAuthenticate, HeaderValue::cleaned(octets));
    let credentials = Credentials { username: "carol".to_owned(), password: "secret".to_owned().into() };
    let mut client = DigestClient::new(credentials);
    if client.challenged(&headers, &mut Challenged::default()).is_ok() {
        for (_, value) in client.authorize("INVITE", "sip:a@b", b"v=0", "0a4f113b") {
            assert!(!value.as_bytes().iter().any(|octet| matches!(octet, b'\r' | b'\n')));
        }
    }
});

fn replaced(text: &[u8], mark: &[u8], with: &[u8]) -> Vec<u8> {
    match text.windows(mark.len()).position(|window| window == mark) {
        Some(at) => [&text[..at], with, &text[at + mark.len()..]].concat(),
        None => text.to_vec(),
    }
}
