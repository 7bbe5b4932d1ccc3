//! A phone in a browser: SIP over a WebSocket (RFC 7118), whose registration is bound to its connection.

use futures_util::{SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use tandem::config::{SipListen, SipTransport};
use tandem::simulate::phone::Act;
use tandem::sip::digest::{Challenged, DigestClient};
use tandem::sip::message::{Message, Request, Response, Transport};
use tandem::sip::ua::Credentials;
use tandem::sip::{HeaderName, Limits, parse_datagram};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::PORTS;
use super::phones::{PASSWORD, add, dials, registered};
use super::support::{Lab, PATIENCE, Setup, ms, within};

struct Browser {
    socket: WebSocketStream<TcpStream>,
    digest: DigestClient,
    cseq: u32,
}

impl Browser {
    async fn connect(lab: &Lab, user: &str) -> Self {
        let listeners = lab.server.sip_addresses();
        let at = listeners.iter().find(|l| l.transport == Transport::Ws).expect("it listens").address;
        let mut request = format!("ws://{at}/").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", "sip".parse().expect("a value"));
        let stream = TcpStream::connect(at).await.expect("it listens");
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a handshake");
        let password = SecretString::from(PASSWORD.to_owned());
        let digest = DigestClient::new(Credentials { username: user.to_owned(), password });
        Self { socket, digest, cseq: 0 }
    }

    async fn send(&mut self, text: &str) {
        self.socket.send(Frame::text(text.replace('\n', "\r\n"))).await.expect("the server reads");
    }

    async fn next(&mut self) -> Message {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            match frame.expect("the connection is open").expect("a frame") {
                Frame::Text(text) => {
                    return parse_datagram(text.as_bytes(), &Limits::default()).expect("SIP");
                }
                Frame::Binary(octets) => return parse_datagram(&octets, &Limits::default()).expect("SIP"),
                _ => {}
            }
        }
    }

    async fn response(&mut self) -> Response {
        match self.next().await {
            Message::Response(response) => response,
            Message::Request(request) => panic!("a request: {request:?}"),
        }
    }

    async fn request(&mut self) -> Request {
        match self.next().await {
            Message::Request(request) => request,
            Message::Response(response) => panic!("a response: {response:?}"),
        }
    }

    async fn register(&mut self, user: &str) -> Response {
        self.cseq += 1;
        let cseq = self.cseq;
        let authorization = match cseq {
            1 => String::new(),
            _ => {
                let rows = self.digest.authorize("REGISTER", "sip:127.0.0.1", b"", "cnonce");
                rows.iter().map(|(name, value)| format!("{name}: {}\n", value.to_text())).collect()
            }
        };
        let text = format!(
            "REGISTER sip:127.0.0.1 SIP/2.0\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKr{cseq}\n\
             Max-Forwards: 70\nFrom: <sip:{user}@127.0.0.1>;tag=b\nTo: <sip:{user}@127.0.0.1>\nCall-ID: browser\n\
             CSeq: {cseq} REGISTER\nContact: <sip:{user}@df7jal23ls0d.invalid;transport=ws>\n{authorization}\
             Content-Length: 0\n\n"
        );
        self.send(&text).await;
        self.response().await
    }

    async fn answer(&mut self, request: &Request, status: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\n");
        for name in
            [HeaderName::Via, HeaderName::RecordRoute, HeaderName::From, HeaderName::CallId, HeaderName::CSeq]
        {
            for row in request.headers.rows(name) {
                text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(row)));
            }
        }
        let to = request.headers.to().expect("a To");
        let tag = if to.tag().is_some() { "" } else { ";tag=theirs" };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
        let contact = "Contact: <sip:201@df7jal23ls0d.invalid;transport=ws>\n";
        text.push_str(&format!("To: {to}{tag}\n{contact}{kind}Content-Length: {}\n\n", body.len()));
        let text = text.replace('\n', "\r\n") + body;
        self.socket.send(Frame::text(text)).await.expect("the server reads");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_a_browser_on_its_own_connection_and_no_longer_than_it_lives() {
    let setup = Setup::default().configure(|config| {
        config.sip.registrar.enabled = true;
        let address = config.sip.listen[0].address;
        config.sip.listen.push(SipListen { transport: SipTransport::Ws, address });
    });
    let lab = Lab::open(PORTS, setup).await;
    add(&lab, &["101", "201"]).await;
    let mut browser = Browser::connect(&lab, "201").await;
    let challenge = browser.register("201").await;
    assert_eq!(challenge.status.get(), 401);
    browser.digest.challenged(&challenge.headers, &mut Challenged::default()).expect("a challenge");
    assert_eq!(browser.register("201").await.status.get(), 200);
    let ann = registered(&lab, "101", 0).await;
    let caller = std::sync::Arc::clone(&ann);
    let plan = dials(&lab, "101", "201", vec![Act::Wait(ms(200)), Act::HangUp]);
    let call = tokio::spawn(async move { caller.call(plan).await.expect("the phone can try") });
    let invite = browser.request().await;
    assert_eq!(invite.uri.to_string(), "sip:201@df7jal23ls0d.invalid;transport=ws");
    assert!(invite.headers.via_top().expect("a Via").to_string().contains("WS"));
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40998 RTP/AVP 0\r\n";
    browser.answer(&invite, "200 OK", sdp).await;
    assert_eq!(browser.request().await.method.as_str(), "ACK");
    let bye = browser.request().await;
    assert_eq!(bye.method.as_str(), "BYE");
    browser.answer(&bye, "200 OK", "").await;
    let report = call.await.expect("ann");
    assert!(report.answered.is_some(), "{:?} {:?}", report.hang_up, bye.headers.get_str(HeaderName::Reason));
    let token = lab.token().await;
    let (_, shown) = lab.http("GET", "/api/v1/phones/201", &token, "").await;
    assert_eq!(shown["contacts"][0]["transport"], "ws", "{shown}");
    drop(browser);
    within(60, "the browser is gone", async || {
        let (_, shown) = lab.http("GET", "/api/v1/phones/201", &token, "").await;
        (shown["registered"] == false).then_some(())
    })
    .await;
    let report = ann.call(dials(&lab, "101", "201", Vec::new())).await.expect("the phone can try");
    assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(480));
    lab.close().await;
}
