//! A session on its socket: what goes up, what comes down, how it ends.

use std::time::Instant;

use serde_json::json;

use super::super::*;
use super::service::{Service, hear, next, tell};
use crate::provider::{CloseReason, Command, Event, Usage};

#[tokio::test]
async fn audio_leaves_in_real_time_and_texts_between_it() {
    let service = Service::start().await;
    let (mut session, mut socket) = service.connect(SessionSpec::default()).await;
    session.send(Command::Say("Good morning.".into()));
    let began = Instant::now();
    let listen = async {
        let (said, _) = hear(&mut socket).await;
        assert_eq!(
            said,
            json!({"type": "forced_agent_message", "content": "Good morning.", "urgency": "immediate"})
        );
        let mut octets = 0;
        while octets < 25 * 960 {
            match socket.next().await {
                Some(Ok(Message::Binary(audio))) => {
                    assert_eq!(audio.len(), 960);
                    octets += audio.len();
                }
                other => panic!("no audio but {other:?}"),
            }
        }
        // Half a second of it takes half a second, but for what left during the opening.
        assert!(began.elapsed() > Duration::from_millis(350), "{:?}", began.elapsed());
    };
    // More than real time goes in; it does not come out.
    session.send_audio(&[700; 24_000]);
    tokio::select! {
        () = listen => {}
        event = next(session.as_mut()) => panic!("an event in between: {event:?}"),
    }
    assert_eq!(session.stats().audio_dropped_ms, 800);
}

#[tokio::test]
async fn what_comes_down_is_audio_and_words() {
    let service = Service::start().await;
    let (mut session, mut socket) = service.connect(SessionSpec::default()).await;
    tell(&mut socket, json!({"type": "state", "state": "speaking"})).await;
    socket.send(Message::binary(vec![1; 1920])).await.unwrap();
    tell(&mut socket, json!({"type": "playback_clear_buffer"})).await;
    assert_eq!(next(session.as_mut()).await, Event::TurnStarted);
    let Event::Audio { item, pcm } = next(session.as_mut()).await else { panic!("audio") };
    assert_eq!(pcm, [0x0101; 960]);
    assert_eq!(next(session.as_mut()).await, Event::AudioDone { item });
    assert!(matches!(next(session.as_mut()).await, Event::SpeechStarted { .. }));
    assert_eq!(session.stats().audio_received_ms, 40);
}

#[tokio::test]
async fn when_the_service_closes_the_call_is_asked_why() {
    for (object, expected) in [
        (
            json!({"callId": "c1", "endReason": "agent_hangup", "billedDuration": "12s", "billingStatus": "BILLING_STATUS_BILLED"}),
            CloseReason::HungUp,
        ),
        (json!({"callId": "c1", "endReason": "timeout"}), CloseReason::Expired),
    ] {
        let service = Service::start().await;
        let (mut session, mut socket) = service.connect(SessionSpec::default()).await;
        let billed = object.get("billedDuration").is_some();
        let serve = async {
            socket.close(None).await.unwrap();
            let early = service.answer("200 OK", r#"{"callId":"c1","endReason":null}"#).await;
            service.answer("200 OK", &object.to_string()).await;
            early
        };
        let mut bill = 0;
        let ended = async {
            loop {
                match std::future::poll_fn(|cx| session.poll_event(cx)).await {
                    Event::Used(Usage::Session { billed_ms, .. }) => bill = billed_ms,
                    event => return event,
                }
            }
        };
        let (asked, event) = tokio::join!(serve, ended);
        assert_eq!((asked.line.as_str(), asked.key.as_deref()), ("GET /api/calls/c1", Some("key.1")));
        assert_eq!(event, Event::Closed { reason: expected });
        assert_eq!(bill, if billed { 12_000 } else { 6_000 });
    }
}

#[tokio::test]
async fn a_service_that_cannot_say_why_is_not_waited_for() {
    let service = Service::start().await;
    let (mut session, mut socket) = service.connect(SessionSpec::default()).await;
    let serve = async {
        socket.close(None).await.unwrap();
        service.answer("404 Not Found", "{}").await;
    };
    let ((), event) = tokio::join!(serve, next(session.as_mut()));
    assert!(matches!(event, Event::Closed { reason: CloseReason::ByService { .. } }), "{event:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_at_once() {
    let service = Service::start().await;
    let (mut session, socket) = service.connect(SessionSpec::default()).await;
    drop(socket);
    let event = next(session.as_mut()).await;
    assert!(matches!(event, Event::Closed { reason: CloseReason::ConnectionLost(_) }), "{event:?}");
}

#[tokio::test]
async fn closing_closes_the_socket() {
    let service = Service::start().await;
    let (mut session, mut socket) = service.connect(SessionSpec::default()).await;
    tokio::select! {
        audio = socket.next() => assert!(matches!(audio, Some(Ok(Message::Binary(_)))), "{audio:?}"),
        event = next(session.as_mut()) => panic!("an event in between: {event:?}"),
    }
    session.send(Command::Close);
    assert_eq!(next(session.as_mut()).await, Event::Closed { reason: CloseReason::Requested });
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(_))) => {}
            other => {
                assert!(matches!(other, Some(Ok(Message::Close(_)))), "{other:?}");
                break;
            }
        }
    }
    session.send_audio(&[0; 480]);
}
