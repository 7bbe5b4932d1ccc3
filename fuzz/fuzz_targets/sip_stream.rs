//! A TCP connection at the SIP port: however the octets are cut, the frames are the same, and no more is
//! held than one message and one chunk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::sip::Limits;
use tandem::sip::framing::{Frame, StreamFramer};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, octets)) = input.split_first() else { return };
    let chunk = usize::from(cut) + 1;
    assert_eq!(frames(octets, octets.len().max(1)), frames(octets, chunk));
});

fn frames(octets: &[u8], chunk: usize) -> Vec<String> {
    let limits = Limits::default();
    let most = limits.message_bytes + octets.len();
    let mut framer = StreamFramer::new(limits);
    let mut seen = Vec::new();
    for piece in octets.chunks(chunk) {
        framer.feed(piece);
        while let Some(frame) = framer.next_frame() {
            seen.push(match frame {
                Frame::Message(message) => format!("{:?}", message.to_bytes()),
                Frame::Malformed(error) => format!("malformed: {error}"),
                Frame::Ping => "ping".to_owned(),
                Frame::Broken(error) => format!("broken: {error}"),
            });
        }
        let _ = framer.is_idle();
        assert!(framer.buffered() <= most);
    }
    seen
}
