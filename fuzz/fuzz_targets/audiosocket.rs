//! What an AudioSocket connection sends: however the bytes are cut, the messages are the same; what was read is
//! written the same; a session holds no more than one message, and ends once.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tandem::audiosocket::codec::{Decoder, Message};
use tandem::audiosocket::link::{Link, LinkEvent, LinkSettings};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let chunk = usize::from(cut) + 1;
    assert_eq!(decode(bytes, bytes.len().max(1)), decode(bytes, chunk));
    session(bytes, chunk);
});

fn decode(bytes: &[u8], chunk: usize) -> Vec<String> {
    let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
    for mut piece in bytes.chunks(chunk) {
        while !piece.is_empty() {
            let taken = decoder.feed(piece);
            assert!(taken > 0, "there is room once everything was taken out");
            piece = &piece[taken..];
            loop {
                match decoder.message() {
                    Ok(None) => break,
                    Ok(Some(message)) => {
                        rewritten(&message);
                        seen.push(format!("{message:?}"));
                    }
                    Err(broken) => {
                        seen.push(broken.to_string());
                        return seen;
                    }
                }
            }
        }
    }
    seen.push(format!("{:?}", decoder.oddities()));
    seen
}

fn rewritten(message: &Message<'_>) {
    let (mut out, mut again) = (Vec::new(), Decoder::default());
    message.write(&mut out).expect("what was read can be written");
    let (mut rest, mut read) = (&out[..], false);
    while !read {
        rest = &rest[again.feed(rest)..];
        read = again.message().expect("no break").inspect(|same| assert_eq!(same, message)).is_some();
        assert!(read || !rest.is_empty());
    }
    assert!(again.is_between());
}

fn session(bytes: &[u8], chunk: usize) {
    let mut now = Instant::now();
    let mut link = Link::new(now, LinkSettings::default());
    let (mut payload, mut over) = (Vec::new(), false);
    for mut piece in bytes.chunks(chunk) {
        now += Duration::from_millis(20);
        while !piece.is_empty() && !over {
            let space = link.space();
            let count = space.len().min(piece.len());
            assert!(count > 0);
            space[..count].copy_from_slice(&piece[..count]);
            piece = &piece[count..];
            link.received(now, count);
            while let Some(event) = link.event(&mut payload) {
                assert!(!over, "nothing follows the end");
                match event {
                    LinkEvent::Audio { .. } => {
                        assert!(!payload.is_empty() && payload.len().is_multiple_of(2))
                    }
                    LinkEvent::Named(_) | LinkEvent::Digit(_) => {}
                    LinkEvent::Ended(_) => over = true,
                }
            }
            if link.frame(now, &[0; 320]) {
                let took = usize::from(bytes[0]).min(link.unsent().len());
                link.sent(now, took);
            }
        }
        over |= link.handle_timeout(now).is_some();
    }
    let _ = (link.counts(), link.next_timeout(), link.hang_up().map(<[u8]>::len));
}
