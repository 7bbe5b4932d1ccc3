//! Both ways of connecting, against an Asterisk that is a few lines long.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{ClientSettings, ConnectError, connect};
use super::connector::{CannotFetch, Connector, Waiting};
use super::request::Rules;
use super::server::{Settings, start};
use super::{DOOR, door};
use crate::pbx::announce::Announcement;
use crate::pbx::door::Refusal;
use crate::pbx::{
    Announcements, Awaited, ChannelEvent, Coding, Door, Lobby, PendingMedia, PendingWire, Uuid, Visitor,
    Wire, WireEnd, WireEvent,
};

const PLAIN: &str = "MEDIA_START connection_id:pbx channel:WebSocket/pbx/0x1 channel_id:176.7 format:ulaw optimal_frame_size:160 ptime:20";
const JSON: &str = r#"{"event":"MEDIA_START","connection_id":"pbx","channel":"WebSocket/pbx/0x1","channel_id":"176.7","format":"slin16","optimal_frame_size":640,"ptime":20,"channel_variables":{}}"#;
const PATIENCE: Duration = Duration::from_secs(10);

type Peer = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A door, and who came through it.
struct Lab {
    address: SocketAddr,
    door: Arc<Door>,
    visitors: mpsc::Receiver<Visitor>,
    announcements: Announcements,
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Lab {
    async fn open(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_places(10, change).await
    }

    async fn with_places(places: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            rules: Rules::new("/media", None),
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            number: None,
            fallback: Coding::Linear(16_000),
        };
        change(&mut settings);
        let (sender, visitors) = mpsc::channel(8);
        let announcements = Announcements::new(StdRng::seed_from_u64(5));
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let lobby = Lobby {
            visitors: sender,
            announcements: announcements.clone(),
            drain: drain.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let door = Arc::new(door(places, lobby));
        let address = start(settings, Arc::clone(&door)).await.expect("a free port");
        Self { address, door, visitors, announcements, drain, stop, tasks }
    }

    async fn dial(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Peer, tungstenite::Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }

    async fn call(&self, path: &str, start: &str) -> Peer {
        let mut peer = self.dial(path, &[MEDIA]).await.expect("the door is open");
        peer.send(Message::text(start)).await.unwrap();
        peer
    }

    async fn visitor(&mut self) -> Visitor {
        in_time(self.visitors.recv()).await.expect("the door is open")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const MEDIA: (&str, &str) = ("sec-websocket-protocol", "media");

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

fn wire_of(visitor: &mut Visitor) -> Box<dyn Wire> {
    match visitor.leg.media.try_recv().expect("it comes with its media") {
        PendingMedia::Wire(wire) => wire.attach().expect("a worker"),
        PendingMedia::Rtp(_) => panic!("a wire"),
    }
}

async fn next(wire: &mut Box<dyn Wire>, payload: &mut Vec<u8>) -> WireEvent {
    in_time(poll_fn(|cx| wire.poll(cx, payload))).await
}

/// The next text; audio before it is counted.
async fn text(peer: &mut Peer, audio: &mut usize) -> Option<String> {
    loop {
        match in_time(peer.next()).await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Binary(octets)) => *audio += octets.len(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn a_call_comes_with_its_names_its_audio_and_its_keys() {
    let mut lab = Lab::open(|_| ()).await;
    let mut peer = lab.dial("/media?to=100&from=%2B49301234", &[MEDIA]).await.unwrap();
    // Under load, audio is earlier than the news of it.
    peer.send(Message::binary(vec![7; 640])).await.unwrap();
    peer.send(Message::text(JSON)).await.unwrap();
    let mut visitor = lab.visitor().await;
    assert_eq!((visitor.door, visitor.called.as_str()), (DOOR, "100"));
    assert_eq!(visitor.caller.as_deref(), Some("+49301234"));
    assert_eq!(visitor.reference, "176.7");
    assert!(visitor.leg.up && visitor.leg.control.is_none());

    let mut wire = wire_of(&mut visitor);
    assert_eq!(wire.coding(), Coding::Linear(16_000));
    let mut payload = Vec::new();
    assert!(matches!(next(&mut wire, &mut payload).await, WireEvent::Audio { .. }));
    assert_eq!(payload, [7; 640]);
    peer.send(Message::text(r#"{"event":"DTMF_END","channel_id":"176.7","digit":"5"}"#)).await.unwrap();
    assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Digit('5'));

    // Marks and questions travel with the audio, in JSON as it was begun.
    let now = Instant::now();
    assert_eq!(wire.due(now), 1);
    wire.send(now, &[1; 640], true);
    let mut audio = 0;
    let mut said = Vec::new();
    while said.len() < 2 {
        said.push(text(&mut peer, &mut audio).await.unwrap());
    }
    said.sort();
    assert_eq!(said, [r#"{"command":"GET_STATUS"}"#, r#"{"command":"MARK_MEDIA","correlation_id":"1"}"#]);
    assert!(matches!(in_time(peer.next()).await, Some(Ok(Message::Binary(octets))) if octets.len() == 640));
    assert_eq!(wire.flush(now), Duration::from_millis(20));
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some(r#"{"command":"FLUSH_MEDIA"}"#));

    // What is not read of ours does not take our goodbye back.
    peer.send(Message::binary(vec![7; 640])).await.unwrap();
    wire.hang_up();
    drop(wire);
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some(r#"{"command":"GET_STATUS"}"#));
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some(r#"{"command":"HANGUP"}"#));
    assert!(
        matches!(in_time(peer.next()).await, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1000)
    );
}

#[tokio::test]
async fn its_end_is_told_for_what_it_is() {
    let mut lab = Lab::open(|settings| settings.number = Some("100".into())).await;
    for (code, end) in [
        (Some(1000), WireEnd::HungUp),
        (Some(1001), WireEnd::HungUp),
        (None, WireEnd::HungUp),
        (Some(1011), WireEnd::Lost("Asterisk closed the connection with code 1011".into())),
    ] {
        let mut peer = lab.call("/media", PLAIN).await;
        let mut visitor = lab.visitor().await;
        let mut wire = wire_of(&mut visitor);
        let frame =
            code.map(|code: u16| tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() });
        peer.close(frame).await.unwrap();
        assert_eq!(next(&mut wire, &mut Vec::new()).await, WireEvent::Closed(end));
    }
    // Gone without a word.
    let peer = lab.call("/media", PLAIN).await;
    let mut visitor = lab.visitor().await;
    let mut wire = wire_of(&mut visitor);
    drop(peer);
    assert!(matches!(next(&mut wire, &mut Vec::new()).await, WireEvent::Closed(WireEnd::Lost(_))));
}

#[tokio::test]
async fn of_what_came_while_nobody_read_the_latest_is_heard() {
    let mut lab = Lab::open(|settings| settings.number = Some("100".into())).await;
    let mut peer = lab.call("/media", PLAIN).await;
    let mut visitor = lab.visitor().await;
    for index in 0..50 {
        peer.send(Message::binary(vec![index; 160])).await.unwrap();
    }
    peer.send(Message::text("DTMF_END digit:7")).await.unwrap();
    // It is old by then.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let mut wire = wire_of(&mut visitor);
    let (mut payload, mut heard) = (Vec::new(), Vec::new());
    assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Digit('7'), "keys are not lost");
    while heard.last() != Some(&49) {
        assert!(matches!(next(&mut wire, &mut payload).await, WireEvent::Audio { .. }));
        heard.push(payload[0]);
    }
    assert_eq!(heard, (40..50).collect::<Vec<_>>(), "200 ms of a second");
    peer.send(Message::binary(vec![50; 160])).await.unwrap();
    assert!(matches!(next(&mut wire, &mut payload).await, WireEvent::Audio { .. }));
    assert_eq!(payload, [50; 160]);
}

#[tokio::test]
async fn the_door_waits_until_the_goodbye_is_read() {
    let mut lab = Lab::open(|settings| settings.number = Some("100".into())).await;
    let mut peer = lab.call("/media", PLAIN).await;
    let mut visitor = lab.visitor().await;
    let Ok(PendingMedia::Wire(wire)) = visitor.leg.media.try_recv() else { panic!("a wire") };
    // On a runtime of a worker, which ends before the far end has read.
    std::thread::spawn(move || {
        let worker = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        worker.block_on(async { wire.attach().unwrap().hang_up() });
    })
    .join()
    .unwrap();
    lab.stop.cancel();
    lab.tasks.close();
    let early = tokio::time::timeout(Duration::from_millis(50), lab.tasks.wait()).await;
    assert!(early.is_err(), "somebody still says goodbye");
    assert_eq!(text(&mut peer, &mut 0).await.as_deref(), Some("HANGUP"));
    assert_eq!(text(&mut peer, &mut 0).await, None);
    drop(peer);
    in_time(lab.tasks.wait()).await;
}

#[tokio::test]
async fn xoff_is_obeyed_until_xon() {
    let mut lab = Lab::open(|settings| settings.number = Some("100".into())).await;
    let mut peer = lab.call("/media", PLAIN).await;
    let mut visitor = lab.visitor().await;
    let mut wire = wire_of(&mut visitor);
    let mut now = Instant::now();
    let mut payload = Vec::new();
    for (event, due) in [("MEDIA_XOFF", 0), ("MEDIA_XON", 1)] {
        peer.send(Message::text(event)).await.unwrap();
        // A key behind it shows that it has been read.
        peer.send(Message::text("DTMF_END digit:1")).await.unwrap();
        assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Digit('1'));
        now += Duration::from_millis(20);
        assert_eq!(wire.due(now), due, "{event}");
        wire.send(now, &[1; 160], true);
    }
    let mut audio = 0;
    while text(&mut peer, &mut audio).await.is_some_and(|text| !text.starts_with("MARK_MEDIA")) {
        assert_eq!(audio, 0, "nothing is sent between the two");
    }
    assert!(matches!(in_time(peer.next()).await, Some(Ok(Message::Binary(octets))) if octets.len() == 160));
}

#[tokio::test]
async fn a_channel_dialled_with_n_is_answered_when_it_is_to_be() {
    let mut lab = Lab::open(|_| ()).await;
    let mut peer = lab.call("/media/100?answer=manual", PLAIN).await;
    let mut visitor = lab.visitor().await;
    assert!(!visitor.leg.up);
    let mut wire = wire_of(&mut visitor);
    let mut control = visitor.leg.control.take().expect("it can be answered");
    assert!(!control.is_apart());
    control.answer();
    assert_eq!(visitor.leg.events.try_recv(), Ok(ChannelEvent::Up));
    // The wire reads its orders when it is polled.
    peer.send(Message::binary(vec![1; 160])).await.unwrap();
    assert!(matches!(next(&mut wire, &mut Vec::new()).await, WireEvent::Audio { .. }));
    let mut audio = 0;
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some("ANSWER"));
}

#[tokio::test]
async fn who_may_not_come_in_hears_why() {
    let credentials = Rules::new("/media", Some(("pbx1", "secret")));
    let lab = Lab::open(move |settings| settings.rules = credentials).await;
    let right = ("authorization", "Basic cGJ4MTpzZWNyZXQ=");
    for (path, headers, status) in [
        ("/media/100", vec![MEDIA], 401),
        ("/media/100", vec![MEDIA, ("authorization", "Basic cGJ4MTpzZWNyZXg=")], 401),
        ("/other", vec![MEDIA, right], 404),
        ("/media/100", vec![right], 400),
        ("/media/1%0a", vec![MEDIA, right], 400),
    ] {
        let refused = lab.dial(path, &headers).await;
        let Err(tungstenite::Error::Http(answer)) = refused else { panic!("{path}: {refused:?}") };
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers().contains_key("www-authenticate"), status == 401);
    }
    assert!(lab.dial("/media/100", &[MEDIA, right]).await.is_ok());
}

#[tokio::test]
async fn strangers_the_unannounced_and_the_too_many_are_turned_away() {
    let lab = Lab::open(|settings| settings.allow = vec!["192.0.2.0/24".parse().unwrap()]).await;
    assert!(lab.dial("/media/100", &[MEDIA]).await.is_err());

    // Nobody to call.
    let mut lab = Lab::with_places(1, |_| ()).await;
    let mut peer = lab.call("/media", PLAIN).await;
    let mut audio = 0;
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some("HANGUP"));
    assert_eq!(text(&mut peer, &mut audio).await, None);
    drop(peer);

    // One is enough; its place is free again when it is gone. The one before may not have gone yet.
    let peer = loop {
        if let Ok(peer) = lab.dial("/media/100", &[MEDIA]).await {
            break peer;
        }
        tokio::task::yield_now().await;
    };
    let mut peer = peer;
    peer.send(Message::text(PLAIN)).await.unwrap();
    let visitor = lab.visitor().await;
    assert!(lab.dial("/media/100", &[MEDIA]).await.is_err());
    drop(visitor);
    assert_eq!(text(&mut peer, &mut audio).await.as_deref(), Some("HANGUP"));
    drop(peer);
    in_time(async {
        while lab.dial("/media/100", &[MEDIA]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_announced_goes_to_who_announced_it() {
    let mut lab = Lab::open(|_| ()).await;
    let (sender, mut media) = mpsc::channel(1);
    let leg = Announcement::new(Awaited::Leg(sender), Duration::from_secs(30));
    lab.announcements.expect(Instant::now(), Some("176.7"), leg).unwrap();
    let _peer = lab.call("/media", PLAIN).await;
    assert!(matches!(in_time(media.recv()).await, Some(PendingMedia::Wire(_))));

    let who = Awaited::Call { called: "200".into(), caller: Some("300".into()) };
    let call = Announcement::new(who, Duration::from_secs(30));
    let key = lab.announcements.expect(Instant::now(), None, call).unwrap();
    let path = format!("/media?id={key}&to=100");
    let _peer = lab.call(&path, PLAIN).await;
    let visitor = lab.visitor().await;
    assert_eq!((visitor.called.as_str(), visitor.caller.as_deref()), ("200", Some("300")));
    assert_eq!(visitor.reference, key);
    // It is good once.
    let mut again = lab.call(&path, PLAIN).await;
    assert_eq!(text(&mut again, &mut 0).await.as_deref(), Some("HANGUP"));
}

#[tokio::test]
async fn a_channels_id_finds_no_call_and_a_server_that_drains_takes_none() {
    let mut lab = Lab::open(|_| ()).await;
    // Somebody else's announcement under an id that Asterisk will give.
    let who = Awaited::Call { called: "200".into(), caller: None };
    let theirs = Announcement::new(who, Duration::from_secs(30));
    lab.announcements.expect(Instant::now(), Some("176.7"), theirs).unwrap();
    let _peer = lab.call("/media/100", PLAIN).await;
    assert_eq!(lab.visitor().await.called, "100");
    assert!(lab.announcements.cancel(Instant::now(), "176.7"), "it is not used up");

    let (sender, mut media) = mpsc::channel(1);
    let leg = Announcement::new(Awaited::Leg(sender), Duration::from_secs(30));
    let key = lab.announcements.expect(Instant::now(), None, leg).unwrap();
    lab.drain.cancel();
    let mut peer = lab.call("/media/100", PLAIN).await;
    assert_eq!(text(&mut peer, &mut 0).await.as_deref(), Some("HANGUP"));
    assert!(lab.visitors.try_recv().is_err());
    let _peer = lab.call(&format!("/media?id={key}"), PLAIN).await;
    assert!(matches!(in_time(media.recv()).await, Some(PendingMedia::Wire(_))));
}

/// The id of a channel that waits behind a proxy, which wants to know who asks.
const WAITS: &str = "40325ec2-5efd-4bd3-805f-53576e581d13";

/// An Asterisk to connect to: `wait` is known, `taken` is in use.
async fn asterisk() -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the handshake's own type")]
            let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                let offered = request.headers().get("sec-websocket-protocol").cloned();
                let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                let status = match request.uri().path() {
                    path if path == format!("/media/{WAITS}") && shown != Some("Basic cGJ4MTpzZWNyZXQ=") => {
                        401
                    }
                    path if (path == "/media/wait" || path == format!("/media/{WAITS}"))
                        && offered.as_ref().is_some_and(|name| name == "media") =>
                    {
                        response.headers_mut().insert("sec-websocket-protocol", "media".parse().unwrap());
                        return Ok(response);
                    }
                    "/media/taken" => 409,
                    "/media/broken" => 500,
                    _ => 404,
                };
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = status.try_into().unwrap();
                Err(refusal)
            };
            let Ok(mut peer) = tokio_tungstenite::accept_hdr_async(socket, agree).await else { continue };
            peer.send(Message::text(PLAIN)).await.unwrap();
            peer.send(Message::binary(vec![9; 160])).await.unwrap();
            let mut heard = Vec::new();
            while let Some(Ok(message)) = peer.next().await {
                match message {
                    Message::Text(text) => {
                        heard.push(text.to_string());
                        // Something to wait for.
                        let _gone = peer.send(Message::text("DTMF_END digit:5")).await;
                    }
                    Message::Binary(octets) => heard.push(format!("{} octets", octets.len())),
                    _ => {}
                }
            }
            return heard;
        }
    });
    (address, served)
}

#[tokio::test]
async fn we_connect_to_a_channel_that_waits() {
    let (address, served) = asterisk().await;
    let settings = ClientSettings::new(format!("ws://{address}/media/"));
    let connected = in_time(connect(&settings, "wait")).await.unwrap();
    let start = connected.start.expect("it was told");
    assert_eq!((start.format.as_str(), start.connection_id.as_str()), ("ulaw", "pbx"));
    let mut wire = (Box::new(connected.wire) as Box<dyn PendingWire>).attach().unwrap();
    let mut payload = Vec::new();
    assert!(matches!(next(&mut wire, &mut payload).await, WireEvent::Audio { .. }));
    assert_eq!((payload.len(), wire.coding()), (160, Coding::Ulaw));
    // From one worker to another in mid-call.
    let mut wire = wire.detach().unwrap().attach().unwrap();
    // A socket that has just come to a runtime takes something when it has looked at it.
    wire.send(Instant::now(), &[3; 160], true);
    assert_eq!(next(&mut wire, &mut payload).await, WireEvent::Digit('5'));
    wire.send(Instant::now(), &[3; 160], true);
    wire.hang_up();
    let heard = in_time(served).await.unwrap();
    assert_eq!(heard.first().map(String::as_str), Some("GET_STATUS"));
    assert!(heard.contains(&"160 octets".to_owned()), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("HANGUP"));
}

#[tokio::test]
async fn why_there_is_no_connection_is_said() {
    let (address, _served) = asterisk().await;
    let settings = ClientSettings::new(format!("ws://{address}/media"));
    assert!(matches!(in_time(connect(&settings, "gone")).await, Err(ConnectError::Unknown)));
    assert!(matches!(in_time(connect(&settings, "taken")).await, Err(ConnectError::Taken)));
    assert!(matches!(in_time(connect(&settings, "broken")).await, Err(ConnectError::Refused(500))));
    assert!(matches!(in_time(connect(&settings, "a/../b")).await, Err(ConnectError::Unknown)));
    let nobody = ClientSettings::new("ws://127.0.0.1:1/media");
    assert!(matches!(in_time(connect(&nobody, "wait")).await, Err(ConnectError::Unreachable(_))));
    let wrong = ClientSettings::new("http://127.0.0.1:8088/media");
    assert!(matches!(in_time(connect(&wrong, "wait")).await, Err(ConnectError::Address(_))));

    // One that never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut settings = ClientSettings::new(format!("ws://{}/media", silent.local_addr().unwrap()));
    settings.connect_timeout = Duration::from_millis(50);
    assert!(matches!(in_time(connect(&settings, "wait")).await, Err(ConnectError::Timeout(_))));
}

#[tokio::test]
async fn a_call_that_waits_is_fetched_by_its_id_and_has_a_place_of_the_door() {
    let (address, served) = asterisk().await;
    let mut lab = Lab::with_places(1, |_| ()).await;
    let mut settings = ClientSettings::new(format!("ws://{address}/media"));
    let connector = |settings: &ClientSettings| Connector::new(settings.clone(), Arc::clone(&lab.door));
    let waiting = |connection: &str| Waiting {
        connection: connection.parse().unwrap(),
        called: "100".into(),
        caller: Some("300".into()),
        answer_later: false,
    };
    let known = waiting(WAITS);
    let unknown = Waiting { connection: Uuid([7; 16]), ..known.clone() };
    let refused = in_time(connector(&settings).fetch(unknown)).await;
    assert!(matches!(refused, Err(CannotFetch::Connect(ConnectError::Unknown))), "{refused:?}");
    let refused = in_time(connector(&settings).fetch(known.clone())).await;
    assert!(matches!(refused, Err(CannotFetch::Connect(ConnectError::Refused(401)))), "{refused:?}");

    settings.credentials = Some(("pbx1".into(), "secret".into()));
    let connector = connector(&settings);
    let fetched = in_time(connector.fetch(known.clone())).await.unwrap();
    assert_eq!(fetched.channel, Some(("WebSocket/pbx/0x1".into(), "176.7".into())));
    let mut visitor = lab.visitor().await;
    assert_eq!((visitor.call, visitor.door), (fetched.call, DOOR));
    assert_eq!((visitor.called.as_str(), visitor.caller.as_deref()), ("100", Some("300")));
    assert_eq!(visitor.reference, WAITS);
    assert!(visitor.leg.up && visitor.leg.control.is_none());

    // The door has one place, whichever way a connection came.
    let refused = in_time(connector.fetch(known.clone())).await;
    assert!(matches!(refused, Err(CannotFetch::Full(1))), "{refused:?}");
    assert!(lab.dial("/media/100", &[MEDIA]).await.is_err());
    wire_of(&mut visitor).hang_up();
    assert_eq!(in_time(served).await.unwrap().last().map(String::as_str), Some("HANGUP"));
    lab.drain.cancel();
    let refused = in_time(connector.fetch(known)).await;
    assert!(matches!(refused, Err(CannotFetch::Refused(Refusal::Stopping))), "{refused:?}");
}

#[tokio::test]
async fn a_fetched_channel_that_was_dialled_with_n_is_answered_by_its_flow() {
    let (address, _served) = asterisk().await;
    let mut lab = Lab::open(|_| ()).await;
    let mut settings = ClientSettings::new(format!("ws://{address}/media"));
    settings.credentials = Some(("pbx1".into(), "secret".into()));
    let connector = Connector::new(settings, Arc::clone(&lab.door));
    let connection = WAITS.parse().unwrap();
    let waiting = Waiting { connection, called: "100".into(), caller: None, answer_later: true };
    in_time(connector.fetch(waiting)).await.unwrap();
    let visitor = lab.visitor().await;
    assert!(!visitor.leg.up && visitor.leg.control.is_some());
}
