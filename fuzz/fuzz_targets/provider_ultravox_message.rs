//! Frames of a service that speaks Ultravox's protocol, one per line: texts, audio (`#…`), time that passes (`~`)
//! and commands of the call (`!…`). The sound of the agent never exceeds what its frames carried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::provider::ultravox::CallSettings;
use tandem::provider::ultravox::map::Mapper;
use tandem::provider::{Command, Event, SessionSpec};

fuzz_target!(|input: &[u8]| {
    let mut mapper = Mapper::new(&SessionSpec::default(), &CallSettings::default(), "m".into());
    let (mut samples, mut closed, mut now_ms) = (0, false, 0);
    for line in input.split(|octet| *octet == b'\n').take(128) {
        match line.split_first() {
            Some((b'#', audio)) => mapper.handle_audio(audio),
            Some((b'~', _)) => {
                now_ms += 700;
                mapper.tick(now_ms);
            }
            Some((b'!', command)) => mapper.command(command_of(&String::from_utf8_lossy(command))),
            _ => mapper.handle_text(&String::from_utf8_lossy(line)),
        }
        while let Some(event) = mapper.poll_event() {
            assert!(!closed, "nothing follows the end");
            match event {
                Event::Audio { pcm, .. } => samples += pcm.len(),
                Event::Closed { .. } => closed = true,
                _ => {}
            }
        }
        while let Some(message) = mapper.poll_message() {
            assert!(message.starts_with("{\"type\":\""), "{message}");
        }
    }
    assert!(samples <= input.len(), "a sample is two octets");
});

fn command_of(text: &str) -> Command {
    let rest = text.get(1..).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'r') => Command::Respond { instructions: None },
        Some(b'i') => Command::Respond { instructions: Some(rest.to_owned()) },
        Some(b's') => Command::Say(rest.to_owned()),
        Some(b't') => Command::CallerText(rest.to_owned()),
        Some(b'n') => Command::Note(rest.to_owned()),
        Some(b'l') => Command::Update { instructions: None, language: Some(rest.to_owned()), tools: None },
        Some(b'o') => {
            Command::ToolResult { id: rest.to_owned(), output: "{}".to_owned(), ok: true, respond: true }
        }
        Some(b'e') => {
            Command::ToolResult { id: rest.to_owned(), output: "no".to_owned(), ok: false, respond: false }
        }
        Some(b'c') => Command::CancelResponse,
        _ => Command::Close,
    }
}
