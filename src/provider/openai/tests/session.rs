//! Open sessions: what is carried, what is given up, and how they end.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::*;
use super::server::{Server, Service, hear, heard_while_polled, next, say, tell};
use crate::provider::{CloseReason, Command, Event, HistoryItem, Session, Speaker, TurnStatus};

#[tokio::test]
async fn a_call_goes_both_ways() {
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    converse(session.as_mut(), &mut service).await;
    assert_eq!(session.stats().audio_sent_ms, 20);
    assert_eq!(session.stats().audio_received_ms, 100);
}

#[test]
fn a_session_moves_from_the_runtime_that_opened_it_to_the_one_of_its_worker() {
    for tls in [false, true] {
        let ordinary =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (opened, mut service) = ordinary.block_on(async {
            let server = if tls { Server::start_tls().await } else { Server::start().await };
            let provider = server.provider();
            let opening = tokio::spawn(async move { provider.open(SessionSpec::default()).await });
            let (mut service, _) = server.accept_session().await;
            let opened = opening.await.unwrap().map_err(|error| error.to_string()).unwrap();
            // Sent before the move: it waits in the kernel or in a layer above, and must not be lost.
            tell(&mut service, json!({"type": "response.created", "response": {"id": "early"}})).await;
            (opened, service)
        });
        let (to_worker, from_worker) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(async {
                let mut session = opened.settle().unwrap();
                assert_eq!(next(session.as_mut()).await, Event::TurnStarted);
                session.send(Command::CallerText("moved".into()));
                session.send_audio(&[1; 480]);
                to_worker.send(()).unwrap();
                loop {
                    if let Event::Closed { .. } = next(session.as_mut()).await {
                        return session.stats();
                    }
                }
            })
        });
        ordinary.block_on(async {
            assert_eq!(hear(&mut service).await["type"], "conversation.item.create");
            assert_eq!(hear(&mut service).await["type"], "input_audio_buffer.append");
            audio(&mut service, "a1", 40).await;
            service.close(None).await.unwrap();
            // Read on, so that the close handshake of both sides completes.
            while let Some(Ok(_)) = service.next().await {}
        });
        let stats = worker.join().unwrap();
        assert_eq!((stats.audio_sent_ms, stats.audio_received_ms), (20, 40), "tls: {tls}");
        assert!(from_worker.recv().is_ok());
    }
}

#[tokio::test]
async fn the_session_is_configured_as_asked_and_told_the_conversation_so_far() {
    let server = Server::start().await;
    let provider = server.provider();
    let history = vec![HistoryItem::said(Speaker::Assistant, "Hello.")];
    let spec = SessionSpec { instructions: "Be brief.".into(), history, ..SessionSpec::default() };
    let (opened, (mut service, update)) = tokio::join!(provider.open(spec), server.accept_session());
    assert_eq!(update["session"]["instructions"], "Be brief.");
    assert_eq!(update["session"]["type"], "realtime");
    let mut session = opened.map_err(|error| error.to_string()).unwrap().settle().unwrap();
    let replayed = heard_while_polled(session.as_mut(), &mut service).await;
    assert_eq!(replayed["item"]["content"], json!([{"type": "output_text", "text": "Hello."}]));
}

#[tokio::test]
async fn audio_is_gathered_into_messages_of_the_uplink_interval() {
    let server = Server::start().await;
    let provider = OpenAi::new(OpenAiConfig { uplink_interval_ms: 60, ..server.config() }).unwrap();
    let (opened, (mut service, _)) =
        tokio::join!(provider.open(SessionSpec::default()), server.accept_session());
    let mut session = opened.map_err(|error| error.to_string()).unwrap().settle().unwrap();
    for n in 0..7 {
        session.send_audio(&[n; 480]);
    }
    for first in [0, 3] {
        let message = heard_while_polled(session.as_mut(), &mut service).await;
        assert_eq!(message["type"], "input_audio_buffer.append");
        let pcm = base64_simd::STANDARD.decode_to_vec(message["audio"].as_str().unwrap()).unwrap();
        assert_eq!((pcm.len(), pcm[0]), (60 * 48, first));
    }
    assert_eq!(session.stats().audio_sent_ms, 120, "the seventh frame waits for two more");
}

#[tokio::test]
async fn garbage_is_survived_and_much_of_it_ends_the_session() {
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    service.send(Message::text("{\"type\":")).await.unwrap();
    service.send(Message::binary(vec![0u8; 10])).await.unwrap();
    service.send(Message::Ping(vec![1, 2].into())).await.unwrap();
    tell(&mut service, json!({"type": "response.created", "response": {"id": "r"}})).await;
    assert!(matches!(next(session.as_mut()).await, Event::Warning { .. }));
    assert!(matches!(next(session.as_mut()).await, Event::Warning { .. }));
    assert_eq!(next(session.as_mut()).await, Event::TurnStarted);
    for _ in 0..5 {
        service.send(Message::text("?")).await.unwrap();
    }
    loop {
        match next(session.as_mut()).await {
            Event::Warning { .. } => {}
            Event::Closed { reason: CloseReason::Protocol(_) } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(session.stats().unknown_events, 7);
    // The ping was answered, and we closed as we should.
    let pong = service.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(vec![1, 2].into()));
    assert!(matches!(service.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_frame_that_is_no_utf8_ends_the_session_as_a_protocol_error() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    let frame = Frame::message(vec![0xff, 0xfe, 0x80], OpCode::Data(Data::Text), true);
    service.send(Message::Frame(frame)).await.unwrap();
    let end = next(session.as_mut()).await;
    assert!(matches!(end, Event::Closed { reason: CloseReason::Protocol(_) }), "{end:?}");
}

#[tokio::test]
async fn a_giant_delta_arrives_whole() {
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    let sending = async {
        audio(&mut service, "a1", 60_000).await;
        service
    };
    let (event, _service) = tokio::join!(next(session.as_mut()), sending);
    assert!(matches!(event, Event::Audio { pcm, .. } if pcm.len() == 60_000 * 24));
}

#[tokio::test]
async fn every_way_to_end_is_told_apart() {
    for (frame, expected) in [
        (Some((1001, "Your session hit the maximum duration of 60 minutes.")), CloseReason::Expired),
        (Some((1011, "oops")), CloseReason::ByService { code: Some(1011), reason: "oops".into() }),
        (None, CloseReason::ByService { code: None, reason: String::new() }),
    ] {
        let server = Server::start().await;
        let (mut session, mut service) = server.connect(SessionSpec::default()).await;
        let frame =
            frame.map(|(code, reason): (u16, &str)| CloseFrame { code: code.into(), reason: reason.into() });
        service.close(frame).await.unwrap();
        assert_eq!(next(session.as_mut()).await, Event::Closed { reason: expected });
        assert!(futures_util::poll!(Box::pin(next(session.as_mut()))).is_pending(), "closed once");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost() {
    let server = Server::start().await;
    let (mut session, service) = server.connect(SessionSpec::default()).await;
    drop(service);
    let end = next(session.as_mut()).await;
    assert!(matches!(end, Event::Closed { reason: CloseReason::ConnectionLost(_) }), "{end:?}");
    session.send(say("to nobody"));
    session.send_audio(&[0; 480]);
    assert_eq!(session.stats().audio_sent_ms, 0);
}

#[tokio::test]
async fn we_close_politely_when_asked() {
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    session.send(Command::CallerText("so long".into()));
    heard_while_polled(session.as_mut(), &mut service).await;
    session.send(Command::Close);
    assert_eq!(next(session.as_mut()).await, Event::Closed { reason: CloseReason::Requested });
    assert!(matches!(service.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_service_that_does_not_read_costs_the_oldest_audio_and_no_command() {
    let server = Server::start().await;
    let (mut session, mut service) = server.connect(SessionSpec::default()).await;
    session.send(Command::CallerText("before".into()));
    // Two minutes: far more than both kernels' buffers and our queue hold.
    let seconds = 120;
    for second in 0..seconds {
        for _ in 0..50 {
            session.send_audio(&[second; 480]);
            assert!(futures_util::poll!(Box::pin(next(session.as_mut()))).is_pending());
        }
    }
    session.send(Command::CallerText("after".into()));
    let stats = session.stats();
    let queued_ms = 120_000 - stats.audio_sent_ms - stats.audio_dropped_ms;
    assert!(stats.audio_dropped_ms > 60_000, "{stats:?}");
    assert!((1900..=2000).contains(&queued_ms), "{queued_ms} ms wait");

    // Once it reads, it gets the commands, and the newest audio, in order.
    let mut texts = Vec::new();
    let mut last = 0;
    while texts.len() < 2 {
        let message = heard_while_polled(session.as_mut(), &mut service).await;
        match message["audio"].as_str() {
            Some(audio) => {
                let second = base64_simd::STANDARD.decode_to_vec(audio).unwrap()[0];
                assert!(second >= last);
                last = second;
            }
            None => texts.push(message["item"]["content"][0]["text"].clone()),
        }
    }
    assert_eq!(texts, ["before", "after"]);
    assert_eq!(i16::from(last), seconds - 1);
}

/// One turn each way, with a tool.
async fn converse(session: &mut dyn Session, service: &mut Service) {
    session.send(Command::Respond { instructions: Some("Greet.".into()) });
    assert_eq!(heard_while_polled(session, service).await["response"]["instructions"], "Greet.");
    tell(service, json!({"type": "response.created", "response": {"id": "r1"}})).await;
    audio(service, "a1", 100).await;
    tell(
        service,
        json!({"type": "response.function_call_arguments.done", "response_id": "r1", "item_id": "f1",
                         "call_id": "c1", "name": "end_call", "arguments": "{}"}),
    )
    .await;
    assert_eq!(next(session).await, Event::TurnStarted);
    assert!(matches!(next(session).await, Event::Audio { pcm, .. } if pcm.len() == 2400));
    assert!(matches!(next(session).await, Event::ToolCall { .. }));
    session.send_audio(&[7; 480]);
    session.send(Command::ToolResult { id: "c1".into(), output: "ok".into(), ok: true, respond: true });
    session.send(Command::Truncate { item: "a1".into(), audio_end_ms: 60 });
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(heard_while_polled(session, service).await["type"].clone());
    }
    let expected = ["input_audio_buffer.append", "conversation.item.create", "conversation.item.truncate"];
    assert_eq!(kinds, expected.map(Value::from));
    tell(service, json!({"type": "response.done", "response": {"id": "r1", "status": "completed"}})).await;
    assert_eq!(next(session).await, Event::AudioDone { item: "a1".into() });
    assert!(matches!(next(session).await, Event::TurnDone { status: TurnStatus::Completed, .. }));
    assert_eq!(heard_while_polled(session, service).await["type"], "response.create");
}

async fn audio(service: &mut Service, item: &str, ms: usize) {
    let delta = base64_simd::STANDARD.encode_to_string(vec![0; ms * 48]);
    tell(
        service,
        json!({"type": "response.output_audio.delta", "response_id": "r1", "item_id": item,
                         "output_index": 0, "content_index": 0, "delta": delta}),
    )
    .await;
}
