//! Control messages and audio of an Asterisk's WebSocket channel, at any moment and in any order.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tandem::chan_websocket::protocol::Command;
use tandem::chan_websocket::session::Session;
use tandem::pbx::Coding;

// Each line is something that happens: `!` and octets of audio, `#` a slot of silence, `*` a slot of speech, `/` a
// barge-in, and everything else a control message. 20 ms pass between them.
fuzz_target!(|data: &[u8]| {
    let mut session = Session::new(Coding::Linear(16_000));
    let mut now = Instant::now();
    let mut payload = Vec::new();
    for line in data.split(|octet| *octet == b'\n') {
        now += Duration::from_millis(20);
        match line.split_first() {
            Some((b'!', octets)) => {
                if session.audio(octets, &mut payload) {
                    assert!(!payload.is_empty() && payload.len() <= octets.len());
                }
            }
            Some((b'#' | b'*', _)) => {
                let slot = session.coding().bytes_in(Duration::from_millis(20)).unwrap_or(40);
                let due = session.due(now);
                assert!(due <= 2);
                for _ in 0..due {
                    for _ in 0..session.admit(now, line[0] == b'*') {
                        if let Some((message, frames)) = session.message(&vec![0; slot]) {
                            assert!(!message.is_empty() && frames > 0);
                            session.sent(now, frames);
                        }
                    }
                }
            }
            Some((b'/', _)) => {
                let lost = session.flush(now);
                assert!(session.behind(now) <= Duration::from_millis(60) || lost.is_zero());
                session.order(Command::Answer);
            }
            _ => {
                if let Ok(text) = std::str::from_utf8(line) {
                    session.text(now, text);
                }
            }
        }
        while let Some(text) = session.poll_text() {
            assert!(!text.is_empty() && text.len() <= 128);
        }
    }
});
