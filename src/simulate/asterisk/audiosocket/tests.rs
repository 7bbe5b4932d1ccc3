//! The simulated client against servers that behave, and servers that do not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::link::message;
use super::*;

/// A call and the server's end of it, with the UUID read.
async fn call(setup: Setup) -> (AudioSocketCall, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let uuid = Uuid([7; 16]);
    let (call, accepted) = tokio::join!(AudioSocketCall::connect(to, uuid, setup), listener.accept());
    let mut server = accepted.unwrap().0;
    server.set_nodelay(true).unwrap();
    let mut hello = [0; 19];
    server.read_exact(&mut hello).await.unwrap();
    assert_eq!((&hello[..3], &hello[3..]), (&[1, 0, 16][..], &[7; 16][..]));
    (call.unwrap(), server)
}

fn audio(kind: u8, bytes: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    message(kind, &vec![1; bytes], &mut frame);
    frame
}

async fn read_message(server: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 3];
    server.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; usize::from(u16::from_be_bytes([header[1], header[2]]))];
    server.read_exact(&mut payload).await.unwrap();
    (header[0], payload)
}

#[tokio::test]
async fn audio_and_digits_go_both_ways_and_the_server_hangs_up() {
    let (call, mut server) = call(Setup::channel(24_000)).await;
    call.say(vec![1_000; 480], 24_000);
    call.press('5');
    let (mut loud, mut digits) = (0, Vec::new());
    while loud == 0 || digits.is_empty() {
        match read_message(&mut server).await {
            (0x13, payload) => {
                assert_eq!(payload.len(), 960);
                loud += u32::from(payload.chunks(2).any(|pair| pair == 1_000i16.to_le_bytes()));
            }
            (3, payload) => digits = payload,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((loud, &digits[..]), (1, &b"5"[..]));
    server.write_all(&audio(0x13, 960)).await.unwrap();
    server.write_all(&[0, 0, 0]).await.unwrap();
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::ServerHungUp), "{report:?}");
    assert!(report.dialplan_goes_on && report.violations.is_empty() && report.pace.frames == 1);
    assert_eq!(call.person().tape().pcm.len(), 480);
}

#[tokio::test]
async fn what_asterisk_does_not_take_ends_the_call() {
    let headers = Release::Headers;
    for (release, bytes, says) in [
        (headers, audio(0x03, 1), "kind 0x03"),
        (headers, audio(0x01, 16), "kind 0x01"),
        (headers, audio(0xff, 1), "kind 0xff"),
        (headers, audio(0x10, 0), "without audio"),
        (Release::Pieces, audio(0x12, 640), "kind 0x12"),
        (headers, audio(0x10, 320)[..200].to_vec(), "stood still"),
    ] {
        let (call, mut server) = call(Setup::default().release(release)).await;
        server.write_all(&bytes).await.unwrap();
        let report = call.ended().await;
        let Some(How::Broken(why)) = &report.ended else { panic!("{report:?}") };
        assert!(why.contains(says) && report.violations == [why.clone()], "{why}");
        assert!(!report.dialplan_goes_on);
    }
}

#[tokio::test]
async fn what_asterisk_takes_is_told_all_the_same() {
    let (call, mut server) = call(Setup::channel(16_000)).await;
    for bytes in [audio(0x12, 641), audio(0x13, 960)] {
        server.write_all(&bytes).await.unwrap();
    }
    drop(server);
    let report = call.ended().await;
    // Unread audio of ours may make the close a reset.
    assert!(matches!(report.ended, Some(How::ServerClosed | How::Reset(_))), "{report:?}");
    let told = report.violations.join("; ");
    for says in ["half a sample", "kind 0x13 where 0x12"] {
        assert!(told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn a_header_in_pieces_is_misread_by_older_releases() {
    let (listener, frame) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), audio(0x10, 320));
    for (release, broken) in [(Release::Rates, true), (Release::Early, true), (Release::Headers, false)] {
        let (stream, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut link, mut server) = (Link::new(stream.unwrap(), release).unwrap(), accepted.unwrap().0);
        server.write_all(&frame[..1]).await.unwrap();
        link.readable().await.unwrap();
        {
            // It takes the first byte and wants more.
            let mut reading = Box::pin(link.receive());
            let first = std::future::poll_fn(|cx| std::task::Poll::Ready(reading.as_mut().poll(cx))).await;
            server.write_all(&frame[1..]).await.unwrap();
            let received =
                if let std::task::Poll::Ready(received) = first { received } else { reading.await };
            assert_eq!(received != link::Received::Audio(0x10), broken, "{release}: {received:?}");
        }
        assert_eq!(link.split_headers, 1);
    }
}

#[tokio::test]
async fn a_silent_server_starves_the_channel() {
    let (call, mut server) = call(Setup { starved: true, ..Setup::channel(8_000) }).await;
    let heard = tokio::time::timeout(Duration::from_millis(200), read_message(&mut server)).await;
    assert!(heard.is_err(), "nothing is sent before the server has spoken");
    server.write_all(&audio(0x10, 320)).await.unwrap();
    assert_eq!(read_message(&mut server).await.0, 0x10);
    call.hang_up();
    assert_eq!(call.ended().await.ended, Some(How::HungUp));
}

#[tokio::test]
async fn a_held_caller_and_a_silent_server_end_the_application_after_two_seconds() {
    let (call, _server) = call(Setup::default()).await;
    call.person().mute(true);
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::Silent));
    assert!(report.lasted_ms >= 1_990.0 && report.violations.len() == 1, "{report:?}");
}

#[tokio::test]
async fn a_server_that_does_not_read_loses_the_call() {
    let (call, server) = call(Setup::channel(192_000)).await;
    let report = call.ended().await;
    assert!(matches!(report.ended, Some(How::NotRead(_))), "{report:?}");
    drop(server);
}
