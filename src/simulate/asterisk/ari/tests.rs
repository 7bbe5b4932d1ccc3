//! The simulated PBX against an application of a few lines.

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::*;

const LOGIN: &str = "Basic dGFuZGVtOnNlY3JldA==";

type Events = WebSocketStream<TcpStream>;

async fn app(pbx: &Asterisk, name: &str) -> Events {
    let mut request = format!("ws://{}/ari/events?app={name}", pbx.addr()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", LOGIN.parse().unwrap());
    let stream = TcpStream::connect(pbx.addr()).await.unwrap();
    let events = tokio_tungstenite::client_async(request, stream).await.unwrap().0;
    pbx.until_app(name).await;
    events
}

/// The next event of this kind; others are passed over.
async fn event(events: &mut Events, kind: &str) -> Value {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let message = message.unwrap_or_else(|_| panic!("waited in vain for {kind}")).unwrap().unwrap();
        let event: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if event["type"] == kind {
            return event;
        }
    }
}

async fn ask(pbx: &Asterisk, method: &str, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(pbx.addr()).await.unwrap();
    let request = format!(
        "{method} /ari/{path} HTTP/1.1\r\nhost: a\r\nauthorization: {LOGIN}\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (answer[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_call_is_answered_bridged_heard_and_sent_back_to_the_dialplan() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let mut events = app(&pbx, "ai").await;
    let caller = pbx.call_with("ai", &["x", "y"], "100", "201");
    let start = event(&mut events, "StasisStart").await;
    assert_eq!((&start["args"], &start["channel"]["state"]), (&json!(["x", "y"]), &json!("Ring")));
    assert_eq!(start["channel"]["dialplan"]["app_data"], "ai,x,y");
    assert_eq!(ask(&pbx, "POST", &format!("channels/{}/answer", caller.id())).await.0, 204);
    assert_eq!(event(&mut events, "ChannelStateChange").await["channel"]["state"], "Up");
    let media = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = media.local_addr().unwrap();
    let path = format!("channels/externalMedia?app=ai&channelId=em-1&format=slin16&external_host={to}");
    let (status, made) = ask(&pbx, "POST", &path).await;
    assert_eq!((status, &made["state"]), (200, &json!("Down")));
    assert_eq!(event(&mut events, "StasisStart").await["channel"]["id"], "em-1");
    assert_eq!(ask(&pbx, "POST", "bridges/br?type=mixing").await.0, 200);
    assert_eq!(
        ask(&pbx, "POST", &format!("bridges/br/addChannel?channel={},em-1", caller.id())).await.0,
        204
    );
    event(&mut events, "ChannelEnteredBridge").await;
    caller.say(vec![0x0102; 320], 16_000);
    let mut packet = [0; 2_048];
    let local: SocketAddr =
        format!("127.0.0.1:{}", made["channelvars"]["UNICASTRTP_LOCAL_PORT"].as_str().unwrap())
            .parse()
            .unwrap();
    loop {
        let (length, from) = media.recv_from(&mut packet).await.unwrap();
        assert_eq!((length, from, packet[1]), (652, local, 118));
        if packet[12] != 0 {
            // Big endian on RTP.
            assert_eq!(packet[12..14], [1, 2]);
            break;
        }
    }
    media.send_to(&packet[..652], local).await.unwrap();
    assert_eq!(caller.hear(Duration::from_millis(10)).await[0], 0x0102);
    caller.press('5');
    assert_eq!(event(&mut events, "ChannelDtmfReceived").await["digit"], "5");
    let path = format!("channels/{}/continue?context=internal&extension=200&priority=1", caller.id());
    assert_eq!(ask(&pbx, "POST", &path).await.0, 204);
    event(&mut events, "ChannelLeftBridge").await;
    event(&mut events, "StasisEnd").await;
    let went = Went { context: "internal".into(), extension: "200".into(), priority: 1 };
    assert_eq!(caller.fate().await.fate, Fate::WentOn(went));
    assert_eq!(pbx.report().left_over, ["em-1", "br"]);
    assert_eq!(ask(&pbx, "DELETE", "channels/em-1").await.0, 204);
    assert_eq!(event(&mut events, "ChannelDestroyed").await["channel"]["id"], "em-1");
    assert_eq!(ask(&pbx, "DELETE", "channels/em-1").await.0, 404);
    assert_eq!(ask(&pbx, "DELETE", "bridges/br").await.0, 204);
    let report = pbx.report();
    assert!(report.violations.is_empty() && report.left_over.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_asterisk_refuses_is_refused_with_its_status() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let _events = app(&pbx, "ai").await;
    let caller = pbx.call("ai", "100", "201");
    let id = caller.id();
    let uuid = "40325ec2-5efd-4bd3-805f-53576e581d13";
    for (method, path, status) in [
        ("POST", "channels/nix/answer".to_owned(), 404),
        ("POST", "bridges/nix/addChannel?channel=x".to_owned(), 404),
        (
            "POST",
            "channels/externalMedia?app=ai&external_host=127.0.0.1:9&format=slin&transport=tcp".to_owned(),
            400,
        ),
        ("POST", "channels/externalMedia?app=ai&external_host=nowhere&format=slin".to_owned(), 400),
        ("POST", "channels/externalMedia?app=ai&external_host=127.0.0.1:9".to_owned(), 400),
        (
            "POST",
            format!(
                "channels/externalMedia?app=ai&external_host=127.0.0.1:9&format=slin&encapsulation=audiosocket\
                 &transport=tcp&data={uuid}"
            ),
            500,
        ),
        (
            "POST",
            "channels/externalMedia?app=ai&external_host=127.0.0.1:9&format=slin&encapsulation=none"
                .to_owned(),
            501,
        ),
        ("POST", format!("channels/{id}/redirect?endpoint=SIP/1"), 422),
        ("GET", format!("channels/{id}/variable?variable=NIX"), 404),
        ("DELETE", format!("channels/{id}?reason=because"), 400),
        ("POST", "channels?endpoint=PJSIP/1".to_owned(), 400),
        ("PATCH", "channels".to_owned(), 405),
        ("GET", "nix".to_owned(), 404),
    ] {
        assert_eq!(ask(&pbx, method, &path).await.0, status, "{method} {path}");
    }
    let out = ask(&pbx, "POST", "channels/create?endpoint=PJSIP/1&app=ai&channelId=out").await;
    assert_eq!(out.0, 200);
    assert_eq!(ask(&pbx, "POST", "channels/out/answer").await.0, 412);
    assert!(pbx.report().violations.len() >= 10, "{:?}", pbx.report().violations);
}

#[tokio::test]
async fn calls_out_ring_and_are_answered_or_not() {
    let endpoints =
        vec![("PJSIP/busy".to_owned(), Endpoint::Busy), ("PJSIP/no".to_owned(), Endpoint::Unknown)];
    let pbx = Asterisk::start(Settings { endpoints, ..Settings::default() }).await.unwrap();
    let mut events = app(&pbx, "ai").await;
    let (status, made) =
        ask(&pbx, "POST", "channels?endpoint=PJSIP/300@x&app=ai&appArgs=a&channelId=o1").await;
    assert_eq!((status, &made["id"]), (200, &json!("o1")));
    assert_eq!(event(&mut events, "ChannelStateChange").await["channel"]["state"], "Ringing");
    assert_eq!(event(&mut events, "StasisStart").await["args"], json!(["a"]));
    let party = pbx.party("o1").unwrap();
    party.hang_up();
    assert_eq!(event(&mut events, "ChannelHangupRequest").await["cause"], 16);
    event(&mut events, "StasisEnd").await;
    event(&mut events, "ChannelDestroyed").await;
    assert_eq!(ask(&pbx, "POST", "channels?endpoint=PJSIP/busy&app=ai&channelId=o2").await.0, 200);
    assert_eq!(event(&mut events, "ChannelDestroyed").await["cause"], 17);
    assert_eq!(ask(&pbx, "POST", "channels?endpoint=PJSIP/no&app=ai").await.0, 500);
}

#[tokio::test]
async fn sockets_are_replaced_cut_and_refused_and_a_restart_forgets_everything() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let caller = pbx.call("ai", "100", "201");
    assert_eq!(caller.fate().await.fate, Fate::NotTaken);
    let mut first = app(&pbx, "ai").await;
    let mut second = app(&pbx, "ai").await;
    event(&mut first, "ApplicationReplaced").await;
    let caller = pbx.call("ai", "100", "201");
    event(&mut second, "StasisStart").await;
    pbx.cut_events();
    assert!(second.next().await.is_none_or(|message| message.is_err()));
    // The channel stays; the application does not.
    assert_eq!(caller.state().as_deref(), Some("Ring"));
    let _third = app(&pbx, "ai").await;
    pbx.go_down();
    assert_eq!(caller.fate().await.fate, Fate::HungUp { cause: 27, by_app: false });
    pbx.come_up();
    assert_eq!(ask(&pbx, "GET", "channels").await, (200, json!([])));
    let stream = TcpStream::connect(pbx.addr()).await.unwrap();
    let refused =
        tokio_tungstenite::client_async(format!("ws://{}/ari/events?app=ai", pbx.addr()), stream).await;
    assert!(refused.is_err());
    assert!(pbx.report().violations.iter().any(|what| what.contains("401")), "{:?}", pbx.report());
}

#[tokio::test]
async fn an_application_that_does_not_read_its_events_is_cut() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let _events = app(&pbx, "ai").await;
    let noise = json!({"type": "ChannelVarset", "value": "x".repeat(10_000)});
    let told = async {
        while !pbx.report().violations.iter().any(|what| what.contains("in time")) {
            pbx.tell("ai", noise.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
}

#[tokio::test]
async fn a_media_socket_finds_its_channel_once() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let mut events = app(&pbx, "ai").await;
    let path = "channels/externalMedia?app=ai&channelId=em&format=slin16&encapsulation=none&transport=websocket\
                &connection_type=server";
    let (_, made) = ask(&pbx, "POST", path).await;
    let id = made["channelvars"]["MEDIA_WEBSOCKET_CONNECTION_ID"].as_str().unwrap();
    let connect = async |id: &str| {
        let mut request = format!("{}/{id}", pbx.media_url()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "media".parse().unwrap());
        let stream = TcpStream::connect(pbx.addr()).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    assert!(connect("nix").await.is_err());
    let (mut ws, _) = connect(id).await.unwrap();
    assert!(ws.next().await.unwrap().unwrap().to_text().unwrap().starts_with("MEDIA_START "));
    assert_eq!(event(&mut events, "StasisStart").await["channel"]["id"], "em");
    let refused = connect(id).await.unwrap_err().to_string();
    assert!(refused.contains("409"), "{refused}");
    drop(ws);
    event(&mut events, "ChannelDestroyed").await;
}

#[tokio::test]
async fn a_snoop_hears_both_people() {
    let pbx = Asterisk::start(Settings::default()).await.unwrap();
    let mut events = app(&pbx, "ai").await;
    let [one, two] = pbx.conversation("ai", "talk", ["201", "202"]);
    let media = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = media.local_addr().unwrap();
    let path = format!("channels/externalMedia?app=ai&channelId=em&format=slin24&external_host={to}");
    assert_eq!(ask(&pbx, "POST", &path).await.0, 200);
    assert_eq!(ask(&pbx, "POST", &format!("channels/{}/snoop/sn?app=ai&spy=both", one.id())).await.0, 200);
    assert_eq!(ask(&pbx, "POST", "bridges/ears").await.0, 200);
    assert_eq!(ask(&pbx, "POST", "bridges/ears/addChannel?channel=sn,em").await.0, 204);
    one.say(vec![1_000; 24_000], 24_000);
    two.say(vec![200; 24_000], 24_000);
    let mut packet = [0; 2_048];
    let (mut heard, mut sum) = (Vec::new(), false);
    while !sum {
        let length = media.recv_from(&mut packet).await.unwrap().0;
        heard.extend(packet[12..length].chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])));
        sum = heard.contains(&1_200);
    }
    assert!(two.person().until(|tape| tape.pcm.contains(&1_000)).await);
    assert_eq!(ask(&pbx, "DELETE", "channels/sn").await.0, 204);
    event(&mut events, "StasisEnd").await;
}
