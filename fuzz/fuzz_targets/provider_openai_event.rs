//! Text frames of a service that speaks the OpenAI Realtime protocol, one per line, with commands of the
//! call in between. The sound of an item never exceeds what its frames carried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::provider::openai::map::Mapper;
use tandem::provider::{Command, Event, ItemId};

fuzz_target!(|input: &[u8]| {
    let mut mapper = Mapper::new("be kind".to_owned(), "m".into());
    let mut samples = 0;
    let mut closed = false;
    for line in String::from_utf8_lossy(input).split('\n').take(64) {
        match line.strip_prefix('!') {
            Some(command) => mapper.command(command_of(command)),
            None => mapper.handle_text(line),
        }
        while let Some(event) = mapper.poll_event() {
            assert!(!closed, "nothing follows the end");
            match event {
                Event::Audio { pcm, .. } => samples += pcm.len(),
                Event::Closed { .. } => closed = true,
                _ => {}
            }
        }
        while mapper.poll_message().is_some() {}
    }
    assert!(samples <= input.len(), "two octets of base64 hold no more than a sample");
});

fn command_of(text: &str) -> Command {
    let rest = text.get(1..).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'r') => Command::Respond { instructions: None },
        Some(b'i') => Command::Respond { instructions: Some(rest.to_owned()) },
        Some(b's') => Command::Say(rest.to_owned()),
        Some(b't') => Command::CallerText(rest.to_owned()),
        Some(b'o') => {
            Command::ToolResult { id: rest.to_owned(), output: "{}".to_owned(), ok: true, respond: true }
        }
        Some(b'u') => Command::Truncate { item: ItemId::from(rest), audio_end_ms: 120 },
        Some(b'c') => Command::CancelResponse,
        _ => Command::Close,
    }
}
