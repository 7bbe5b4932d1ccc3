//! Scripted sessions through the provider's face.

use super::*;
use crate::provider::{CloseReason, Speaker};
use std::future::poll_fn;

#[test]
fn the_built_in_scripts_are_usable() {
    for (name, _) in BUILT_IN {
        assert_eq!(check_script(name), Ok(()));
    }
    assert!(check_script("/no/such/script.toml").unwrap_err().contains("`default` and `demo`"));
}

#[tokio::test]
async fn a_session_greets_says_what_it_is_told_and_closes() {
    // Short words, because they are sent in real time.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.toml");
    std::fs::write(&path, "greeting = \"Hi.\"").unwrap();
    let script = Some(path.to_str().unwrap().to_owned());
    let mut session = open(SessionSpec { script, ..SessionSpec::default() }).await;
    session.send(Command::Respond { instructions: Some("Greet the caller.".into()) });
    assert_eq!(spoken(session.as_mut()).await, "Hi.");
    session.send(Command::Say("Hold.".into()));
    assert_eq!(spoken(session.as_mut()).await, "Hold.");
    assert!(session.stats().audio_received_ms > 200);
    session.send(Command::Close);
    let closed = poll_fn(|cx| session.poll_event(cx)).await;
    assert_eq!(closed, Event::Closed { reason: CloseReason::Requested });
    assert!(futures_util::poll!(poll_fn(|cx| session.poll_event(cx))).is_pending());
}

#[tokio::test]
async fn audio_between_two_polls_wakes_the_task() {
    let session = std::cell::RefCell::new(open(SessionSpec::default()).await);
    let heard = poll_fn(|cx| session.borrow_mut().poll_event(cx));
    let speech: Vec<i16> = (0..480).map(|n| if n % 24 < 12 { 8_000 } else { -8_000 }).collect();
    let speak = async {
        for _ in 0..50 {
            session.borrow_mut().send_audio(&speech);
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let event = tokio::select! { event = heard => event, () = speak => unreachable!("it waits for ever") };
    assert!(matches!(event, Event::SpeechStarted { .. }));
}

#[tokio::test]
async fn a_script_that_cannot_be_used_is_named() {
    let provider = Scripted::new(&ScriptedConfig { name: "scripted".into(), script: None });
    let spec = SessionSpec { script: Some("/no/such/script.toml".into()), ..SessionSpec::default() };
    let Err(error) = provider.open(spec).await else { panic!("it opened") };
    assert!(error.to_string().contains("/no/such/script.toml"), "{error}");
}

#[test]
fn a_changed_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.toml");
    let name = path.to_str().unwrap();
    let library = Library::default();
    let greeting = |library: &Library| library.get(name).unwrap().greeting.as_ref().unwrap().text.to_string();
    std::fs::write(&path, "greeting = \"One\"").unwrap();
    let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    assert_eq!(greeting(&library), "One");
    std::fs::write(&path, "greeting = \"Two\"").unwrap();
    assert_eq!(greeting(&library), "Two");
}

async fn open(spec: SessionSpec) -> Box<dyn Session> {
    let provider = Scripted::new(&ScriptedConfig { name: "scripted".into(), script: None });
    provider.open(spec).await.map_err(|error| error.to_string()).unwrap().settle().unwrap()
}

/// The words of the next response.
async fn spoken(session: &mut dyn Session) -> String {
    let mut words = String::new();
    loop {
        match poll_fn(|cx| session.poll_event(cx)).await {
            Event::TranscriptFinal { who: Speaker::Assistant, text, .. } => words = text,
            Event::TurnDone { .. } => return words,
            _ => {}
        }
    }
}
