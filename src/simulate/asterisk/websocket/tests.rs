//! The simulated channel against a media server of a few lines.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Asked, Response};

use super::*;

/// A call and the server's end of it; what was asked for.
async fn call(setup: Setup) -> (WebSocketCall, WebSocketStream<TcpStream>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/media", listener.local_addr().unwrap());
    let server = async {
        let stream = listener.accept().await.unwrap().0;
        let mut asked = String::new();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let judge = |request: &Asked, mut response: Response| {
            let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            asked = format!("{} {:?}", request.uri(), header("authorization"));
            let protocol = header("sec-websocket-protocol").unwrap().parse().unwrap();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        (accept_hdr_async(stream, judge).await.unwrap(), asked)
    };
    let (call, (ws, asked)) = tokio::join!(WebSocketCall::connect(&url, setup), server);
    (call.unwrap(), ws, asked)
}

async fn text(ws: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        if let Message::Text(text) = ws.next().await.unwrap().unwrap() {
            return text.to_string();
        }
    }
}

#[tokio::test]
async fn what_is_played_is_what_was_not_flushed() {
    let login = Some(("pbx".to_owned(), "secret".to_owned()));
    let setup = Setup { query: "exten=100".into(), login, ..Setup::of(Coding::Linear(8_000)) };
    let (call, mut ws, asked) = call(setup).await;
    assert_eq!(asked, "/media?exten=100 Some(\"Basic cGJ4OnNlY3JldA==\")");
    assert!(text(&mut ws).await.starts_with("MEDIA_START connection_id:ai1 "));
    call.press('7');
    assert!(text(&mut ws).await.starts_with("DTMF_END digit:7 "));
    ws.send(Message::binary(vec![1; 320 * 50])).await.unwrap();
    ws.send(Message::text("MARK_MEDIA end")).await.unwrap();
    assert!(call.person().until(|tape| tape.pcm.len() >= 160 * 5).await);
    ws.send(Message::text("FLUSH_MEDIA")).await.unwrap();
    ws.send(Message::text("GET_STATUS")).await.unwrap();
    assert!(text(&mut ws).await.contains("queue_length:0"));
    ws.send(Message::text("HANGUP")).await.unwrap();
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::ToldToHangUp), "{report:?}");
    assert_eq!(report.counts.played + report.counts.flushed, 50);
    assert_eq!(call.person().tape().pcm.len() as u64, report.counts.played * 160);
    assert!(report.violations.is_empty() && report.flushed_at.is_some(), "{report:?}");
}

#[tokio::test]
async fn keys_pressed_before_the_channel_runs_are_told() {
    // The runtime has one thread: the channel's task has not begun when its keys are pressed.
    for _ in 0..8 {
        let (call, mut ws, _) = call(Setup::default()).await;
        for key in ['1', '#', 'D'] {
            call.press(key);
        }
        assert!(text(&mut ws).await.starts_with("MEDIA_START "));
        for key in ["1", "#", "D"] {
            assert!(text(&mut ws).await.starts_with(&format!("DTMF_END digit:{key} ")), "{key}");
        }
    }
}

#[tokio::test]
async fn a_coded_tone_arrives_at_its_pitch_both_ways() {
    for coding in [Coding::Ulaw, Coding::G722, Coding::Linear(24_000)] {
        let (call, mut ws, _) = call(Setup { no_answer: true, ..Setup::of(coding).json() }).await;
        let start: Value = serde_json::from_str(&text(&mut ws).await).unwrap();
        assert_eq!(start["format"], coding.asterisk().unwrap());
        assert!(!call.report().answered);
        ws.send(Message::text(r#"{"command":"ANSWER"}"#)).await.unwrap();
        let tone: Vec<i16> =
            (0..24_000).map(|n| crate::simulate::speech::tone_sample(500.0, 24_000, n)).collect();
        call.say(tone, 24_000);
        // What comes is sent back.
        let echo = async {
            while let Some(Ok(message)) = ws.next().await {
                if message.is_binary() {
                    ws.send(message).await.unwrap();
                }
            }
        };
        let heard = async {
            assert!(call.person().until(|tape| tape.length() > Duration::from_millis(1_200)).await);
            call.hang_up();
        };
        tokio::join!(echo, heard);
        let tape = call.person().tape();
        let tone = crate::simulate::asterisk::measure::tone(&tape.pcm, tape.rate).unwrap();
        assert!((tone.hz - 500.0).abs() < 1.0 && (tone.dbov + 15.3).abs() < 0.5, "{coding}: {tone:?}");
        assert_eq!(call.ended().await.ended, Some(How::HungUp));
    }
}

#[tokio::test]
async fn an_application_that_does_not_read_is_cut() {
    let (call, ws, _) = call(Setup::of(Coding::Linear(192_000))).await;
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::NotRead));
    drop(ws);
}
