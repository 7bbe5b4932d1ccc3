//! The door with real connections, and a far end that knows nothing but bytes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec::{AudioKind, Decoder, HANGUP, Message, Oddities};
use super::link::LinkSettings;
use super::server::{self, Settings};
use crate::pbx::{
    Announcement, Announcements, Awaited, Coding, Lobby, PendingMedia, Uuid, Visitor, Wire, WireEnd,
    WireEvent,
};

const UUID: Uuid = Uuid([0x42; 16]);

struct Door {
    address: SocketAddr,
    visitors: mpsc::Receiver<Visitor>,
    announcements: Announcements,
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Door {
    /// Open to this machine, for whoever comes.
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            allow: vec!["127.0.0.0/8".parse().expect("a network")],
            number: Some("100".to_owned()),
            link: LinkSettings::default(),
            max_calls: 10,
        };
        change(&mut settings);
        let (tell, visitors) = mpsc::channel(2);
        let announcements = Announcements::new(StdRng::seed_from_u64(3));
        let (drain, stop, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let lobby = Lobby {
            visitors: tell,
            announcements: announcements.clone(),
            drain: drain.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let address = server::start(settings, lobby);
        Self { address: address.await.expect("a free port"), visitors, announcements, drain, stop, tasks }
    }

    async fn connect(&self) -> Far {
        Far::over(TcpStream::connect(self.address).await.expect("the door is open"))
    }

    /// A connection that has named itself.
    async fn call(&self) -> Far {
        let mut far = self.connect().await;
        far.say(&[Message::Uuid(UUID)]).await;
        far
    }

    async fn visitor(&mut self) -> Visitor {
        self.visitors.recv().await.expect("somebody comes")
    }
}

/// The far end.
struct Far {
    socket: TcpStream,
    decoder: Decoder,
}

#[derive(Debug, PartialEq)]
enum Heard {
    Audio(AudioKind, Vec<u8>),
    Hangup,
    Closed,
}

impl Far {
    fn over(socket: TcpStream) -> Self {
        Self { socket, decoder: Decoder::default() }
    }

    async fn say(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.write(&mut bytes).expect("fits"));
        self.socket.write_all(&bytes).await.expect("taken");
    }

    async fn hear(&mut self) -> Heard {
        loop {
            match self.decoder.message().expect("the protocol") {
                Some(Message::Audio(kind, samples)) => return Heard::Audio(kind, samples.to_vec()),
                Some(Message::Hangup) => return Heard::Hangup,
                Some(other) => panic!("{other:?} is not for Asterisk"),
                None => {}
            }
            match self.socket.read(self.decoder.space()).await {
                Ok(0) | Err(_) => return Heard::Closed,
                Ok(count) => self.decoder.filled(count),
            }
        }
    }

    /// What comes when the silence is over.
    async fn hear_behind_silence(&mut self) -> Heard {
        loop {
            match self.hear().await {
                Heard::Audio(_, samples) if samples.iter().all(|byte| *byte == 0) => {}
                other => return other,
            }
        }
    }
}

async fn take(mut visitor: Visitor) -> Box<dyn Wire> {
    let Some(PendingMedia::Wire(wire)) = visitor.leg.media.recv().await else { panic!("a connection") };
    wire.attach().expect("a socket")
}

async fn next(wire: &mut Box<dyn Wire>, payload: &mut Vec<u8>) -> WireEvent {
    poll_fn(|cx| wire.poll(cx, payload)).await
}

#[tokio::test]
async fn who_was_not_announced_is_for_the_configured_number_and_hears_silence_until_taken() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    for _ in 0..4 {
        assert_eq!(far.hear().await, Heard::Audio(AudioKind::Slin, vec![0; 320]));
    }
    let visitor = door.visitor().await;
    assert_eq!(
        (visitor.door, visitor.called.as_str(), visitor.caller.as_ref()),
        ("audiosocket", "100", None)
    );
    assert_eq!(visitor.reference, UUID.to_string());
    assert!(visitor.leg.up && visitor.leg.control.is_none());
}

#[tokio::test]
async fn audio_goes_both_ways_at_the_rate_of_the_far_end_and_the_goodbye_arrives() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    let mut wire = take(door.visitor().await).await;
    assert_eq!(wire.coding(), Coding::Linear(8_000));
    let slot = [[1, 2]; 480].concat();
    far.say(&[Message::Audio(AudioKind::Slin24, &slot)]).await;
    let mut payload = Vec::new();
    assert!(matches!(next(&mut wire, &mut payload).await, WireEvent::Audio { .. }));
    assert_eq!((wire.coding(), &payload), (Coding::Linear(24_000), &slot));
    wire.send(Instant::now(), &[7; 960], true);
    assert_eq!(far.hear_behind_silence().await, Heard::Audio(AudioKind::Slin24, vec![7; 960]));
    // What the server has not read must not reset the connection.
    far.say(&[Message::Audio(AudioKind::Slin24, &slot), Message::Audio(AudioKind::Slin24, &slot)]).await;
    wire.hang_up();
    drop(wire);
    assert_eq!(far.hear().await, Heard::Hangup);
    assert_eq!(far.hear().await, Heard::Closed);
    far.say(&[Message::Audio(AudioKind::Slin24, &slot)]).await;
    drop(far);
    door.stop.cancel();
    door.tasks.close();
    door.tasks.wait().await;
}

#[tokio::test]
async fn a_wire_goes_on_on_another_worker() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    let wire = take(door.visitor().await).await;
    far.say(&[Message::Digit('4')]).await;
    let mut wire = wire.detach().expect("it is given back").attach().expect("a socket");
    let mut payload = Vec::new();
    assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Digit('4'));
    wire.send(Instant::now(), &[9; 320], true);
    assert_eq!(far.hear_behind_silence().await, Heard::Audio(AudioKind::Slin, vec![9; 320]));
}

#[tokio::test]
async fn a_wire_that_is_lost_between_two_workers_hangs_up() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    let wire = take(door.visitor().await).await;
    drop(wire.detach().expect("it is given back"));
    assert_eq!(far.hear_behind_silence().await, Heard::Hangup);
    assert_eq!(far.hear().await, Heard::Closed);
}

#[tokio::test]
async fn little_waits_for_a_network_that_stands_still() {
    let mut door = Door::open().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // The far end's system takes some of it; a network takes none.
    socket.set_recv_buffer_size(4_096).expect("small");
    let mut far = Far::over(socket.connect(door.address).await.expect("the door is open"));
    far.say(&[Message::Uuid(UUID)]).await;
    let mut wire = take(door.visitor().await).await;
    let start = Instant::now();
    for _ in 0..500 {
        wire.send(start, &[7; 320], true);
    }
    wire.hang_up();
    let mut waited = 0;
    while let Heard::Audio(_, samples) = far.hear_behind_silence().await {
        assert_eq!(samples, [7; 320]);
        waited += 1;
    }
    eprintln!("{waited} slots waited");
    assert!(waited < 30, "{waited} slots were kept for later");
}

#[tokio::test]
async fn a_key_pressed_while_nobody_has_the_call_is_not_lost() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    far.say(&[Message::Audio(AudioKind::Slin, &[1; 320]), Message::Digit('#')]).await;
    let visitor = door.visitor().await;
    for _ in 0..5 {
        far.hear().await;
    }
    let mut wire = take(visitor).await;
    let mut payload = Vec::new();
    let event = loop {
        match next(&mut wire, &mut payload).await {
            // On a slow machine it was taken before the keeper looked.
            WireEvent::Audio { .. } => {}
            event => break event,
        }
    };
    assert_eq!(event, WireEvent::Digit('#'));
}

#[tokio::test]
async fn a_caller_who_left_before_the_call_had_him_has_hung_up() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    far.hear().await;
    drop(far);
    let mut wire = take(door.visitor().await).await;
    let mut payload = Vec::new();
    assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Closed(WireEnd::HungUp));
}

#[tokio::test]
async fn a_visitor_whom_nobody_takes_is_sent_away_politely() {
    let mut door = Door::open().await;
    let mut far = door.call().await;
    drop(door.visitor().await);
    assert_eq!(far.hear_behind_silence().await, Heard::Hangup);
    assert_eq!(far.hear().await, Heard::Closed);
}

#[tokio::test]
async fn announced_calls_and_legs_are_found_and_others_refused() {
    let mut door = Door::with(|settings| settings.number = None).await;
    let mut far = door.call().await;
    assert_eq!(far.hear().await, Heard::Hangup, "nobody announced it");
    assert_eq!(far.hear().await, Heard::Closed);

    let (now, ttl) = (Instant::now(), Duration::from_secs(9));
    let who = Awaited::Call { called: "200".to_owned(), caller: Some("+15550100".to_owned()) };
    let announced = Announcement { rate: Some(16_000), ..Announcement::new(who, ttl) };
    door.announcements.expect(now, Some(&UUID.to_string()), announced).expect("room");
    let mut far = door.call().await;
    assert_eq!(far.hear().await, Heard::Audio(AudioKind::Slin, vec![0; 640]), "of the announced rate");
    let visitor = door.visitor().await;
    assert_eq!((visitor.called.as_str(), visitor.caller.as_deref()), ("200", Some("+15550100")));

    let (sender, mut media) = mpsc::channel(1);
    let leg = Announcement::new(Awaited::Leg(sender), ttl);
    let other = Uuid([0x43; 16]);
    door.announcements.expect(now, Some(&other.to_string()), leg).expect("room");
    let mut far = door.connect().await;
    far.say(&[Message::Uuid(other), Message::Digit('1')]).await;
    let Some(PendingMedia::Wire(wire)) = media.recv().await else { panic!("a connection") };
    let mut payload = Vec::new();
    assert_eq!(next(&mut wire.attach().expect("a socket"), &mut payload).await, WireEvent::Digit('1'));

    // One use.
    assert_eq!(door.call().await.hear().await, Heard::Hangup);
}

#[tokio::test]
async fn a_server_that_drains_takes_the_media_of_its_legs_and_no_calls() {
    let mut door = Door::open().await;
    let (now, ttl) = (Instant::now(), Duration::from_secs(9));
    let (sender, mut media) = mpsc::channel(1);
    let key = door.announcements.expect(now, None, Announcement::new(Awaited::Leg(sender), ttl));
    let leg: Uuid = key.expect("room").parse().expect("a UUID");
    let who = Awaited::Call { called: "200".to_owned(), caller: None };
    let key = door.announcements.expect(now, None, Announcement::new(who, ttl)).expect("room");
    door.drain.cancel();
    for uuid in [UUID, key.parse().expect("a UUID")] {
        let mut far = door.connect().await;
        far.say(&[Message::Uuid(uuid)]).await;
        assert_eq!(far.hear().await, Heard::Hangup);
    }
    assert!(door.visitors.try_recv().is_err());
    let mut far = door.connect().await;
    far.say(&[Message::Uuid(leg)]).await;
    assert!(matches!(media.recv().await, Some(PendingMedia::Wire(_))));
    // Nobody at all from here on.
    door.stop.cancel();
    door.tasks.close();
    drop((far, media));
    door.tasks.wait().await;
    assert!(TcpStream::connect(door.address).await.is_err());
}

#[tokio::test]
async fn a_connection_whose_leg_gave_up_is_no_call_for_the_default_number() {
    let mut door = Door::open().await;
    let (sender, _media) = mpsc::channel(1);
    let leg = Announcement::new(Awaited::Leg(sender), Duration::from_secs(9));
    door.announcements.expect(Instant::now(), Some(&UUID.to_string()), leg).expect("room");
    assert!(door.announcements.cancel(Instant::now(), &UUID.to_string()));
    assert_eq!(door.call().await.hear().await, Heard::Hangup);
    assert!(door.visitors.try_recv().is_err());
}

#[tokio::test]
async fn strangers_crowds_and_those_who_say_nothing_are_closed() {
    let door = Door::with(|settings| settings.allow = vec!["192.0.2.0/24".parse().expect("a network")]).await;
    assert_eq!(door.connect().await.hear().await, Heard::Closed);

    let door = Door::with(|settings| settings.max_calls = 1).await;
    let mut first = door.call().await;
    first.hear().await;
    assert_eq!(door.connect().await.hear().await, Heard::Closed);

    let door = Door::with(|settings| settings.link.uuid_timeout = Duration::from_millis(50)).await;
    assert_eq!(door.connect().await.hear().await, Heard::Closed);
    let mut web = door.connect().await;
    web.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("taken");
    assert_eq!(web.hear().await, Heard::Closed);
}

#[tokio::test]
async fn callers_who_cannot_be_placed_are_refused() {
    let door = Door::open().await;
    let (mut first, mut second) = (door.call().await, door.call().await);
    first.hear().await;
    second.hear().await;
    let mut third = door.call().await;
    assert_eq!(third.hear_behind_silence().await, Heard::Hangup);
}

#[tokio::test]
async fn a_far_end_that_stops_reading_gets_whole_frames_only_and_is_given_up() {
    let mut door = Door::open().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("small");
    let mut far = Far::over(socket.connect(door.address).await.expect("the door is open"));
    far.say(&[Message::Uuid(UUID)]).await;
    let mut wire = take(door.visitor().await).await;
    let start = Instant::now();
    let idle = wire.next_timeout().expect("idle at the latest");
    let mut sent = 0;
    while wire.next_timeout() == Some(idle) {
        wire.send(start, &[7; 3_840], true);
        sent += 1;
        assert!(sent < 10_000, "the connection takes everything");
    }
    let stalled = start + Duration::from_secs(5);
    assert_eq!(wire.next_timeout(), Some(stalled));
    for _ in 0..50 {
        wire.send(start, &[8; 3_840], true);
    }
    assert_eq!(wire.handle_timeout(stalled - Duration::from_millis(1)), None);

    // It reads again before it is too late: everything is in whole frames.
    let mut heard = 0;
    while heard < sent - 1 {
        let mut payload = Vec::new();
        tokio::select! {
            event = next(&mut wire, &mut payload) => panic!("{event:?}"),
            message = far.hear_behind_silence() => {
                assert_eq!(message, Heard::Audio(AudioKind::Slin, vec![7; 3_840]));
                heard += 1;
            }
        }
    }
    wire.send(start, &[9; 320], true);
    let last = loop {
        match far.hear().await {
            Heard::Audio(_, samples) if samples[0] == 7 => {}
            other => break other,
        }
    };
    assert_eq!(last, Heard::Audio(AudioKind::Slin, vec![9; 320]));
    assert_eq!(far.decoder.oddities(), Oddities::default());
    assert_eq!(wire.next_timeout(), Some(idle));

    while wire.next_timeout() == Some(idle) {
        wire.send(start, &[7; 3_840], true);
    }
    let end = wire.handle_timeout(stalled);
    assert_eq!(end, Some(WireEnd::Lost("the PBX has taken no audio for 5s".to_owned())));
}

#[tokio::test]
async fn a_goodbye_is_three_zeros() {
    assert_eq!(HANGUP, [0, 0, 0]);
    let mut door = Door::open().await;
    let mut far = door.call().await;
    let mut wire = take(door.visitor().await).await;
    wire.hang_up();
    let mut all = Vec::new();
    far.socket.read_to_end(&mut all).await.expect("closed in order");
    assert!(all.ends_with(&HANGUP), "{all:?}");
    assert_eq!((all.len() - 3) % 323, 0, "whole frames before it");
}
