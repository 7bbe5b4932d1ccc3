//! Phones in plain text: every header and every packet is the test's own, so that dialogs can be named in
//! `Replaces` and streams followed number by number.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::support::{LOCALHOST, PATIENCE, within};

/// A phone: one SIP socket, any number of dialogs.
pub struct Wire {
    sip: UdpSocket,
    pub address: SocketAddr,
    name: &'static str,
    seen: HashSet<String>,
    unread: Vec<String>,
    count: u32,
}

/// A dialog of a [`Wire`], with its sound.
pub struct Talk {
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: String,
    /// Our From or To and theirs, as they stand in requests of ours.
    local: String,
    remote: String,
    contact: String,
    server: SocketAddr,
    cseq: u32,
    pub line: Line,
    /// The INVITE that began it.
    pub invite: String,
}

impl Wire {
    pub async fn open(name: &'static str) -> Self {
        let sip = UdpSocket::bind((LOCALHOST, 0)).await.expect("a socket");
        let address = sip.local_addr().expect("its address");
        Self { sip, address, name, seen: HashSet::new(), unread: Vec::new(), count: 0 }
    }

    /// Calls `number` and is answered.
    pub async fn call(&mut self, server: SocketAddr, number: &str) -> Talk {
        self.call_with(server, number, "", "0 101").await.expect("the call is answered")
    }

    /// Calls `number` with more headers and these payload types; `Err` is the refusal.
    pub async fn call_with(
        &mut self,
        server: SocketAddr,
        number: &str,
        headers: &str,
        types: &str,
    ) -> Result<Talk, u16> {
        let (mut talk, offer) = self.dialling(server, number, types).await;
        let text = self.invite(&talk, number, headers, &offer);
        self.send(&text, server).await;
        let (call_id, cseq) = (talk.call_id.clone(), talk.cseq);
        let answer = self.until("the INVITE is answered", |m| is_final(m, &call_id, cseq)).await;
        let status = status(&answer);
        talk.remote_tag = tag(&header(&answer, "To"));
        talk.remote = header(&answer, "To");
        if status >= 300 {
            self.send(&talk.ack(number, self.address), server).await;
            return Err(status);
        }
        talk.contact = uri(&header(&answer, "Contact"));
        self.send(&talk.ack("", self.address), server).await;
        talk.line.towards(media_of(&answer));
        Ok(talk)
    }

    async fn dialling(&mut self, server: SocketAddr, number: &str, types: &str) -> (Talk, String) {
        self.count += 1;
        let line = Line::open().await;
        let offer = sdp(line.port, types, "sendrecv");
        let local_tag = format!("{}{}", self.name, self.count);
        let talk = Talk {
            call_id: format!("{}-{}@wire", self.name, self.count),
            local: format!("<sip:{}@{}>;tag={local_tag}", self.name, self.address),
            local_tag,
            remote_tag: String::new(),
            remote: format!("<sip:{number}@{server}>"),
            contact: format!("sip:{number}@{server}"),
            server,
            cseq: 1,
            line,
            invite: String::new(),
        };
        (talk, offer)
    }

    fn invite(&self, talk: &Talk, number: &str, headers: &str, offer: &str) -> String {
        let server = talk.server;
        request(talk, "INVITE", &format!("sip:{number}@{server}"), self.address, headers, offer)
    }

    /// Waits for a call, rings and answers it with these payload types.
    pub async fn pick_up(&mut self, types: &str) -> Talk {
        let (invite, server) = self.ringing().await;
        self.take(invite, server, types).await
    }

    /// Waits for a call and lets it ring.
    pub async fn ringing(&mut self) -> (String, SocketAddr) {
        let invite = self.until("a call comes in", |m| m.starts_with("INVITE ")).await;
        let server = via_address(&invite);
        let answer = response(&invite, "180 Ringing", &self.tag_of(&invite), "", "");
        self.send(&answer, server).await;
        (invite, server)
    }

    /// Calls `number`, which may take so many hops, and is refused with this response.
    pub async fn refused(&mut self, server: SocketAddr, number: &str, hops: u8) -> String {
        let (talk, offer) = self.dialling(server, number, "0 101").await;
        let invite = self.invite(&talk, number, "", &offer);
        let invite = invite.replace("Max-Forwards: 70", &format!("Max-Forwards: {hops}"));
        self.send(&invite, server).await;
        let (call_id, cseq) = (talk.call_id.clone(), talk.cseq);
        self.until("the refusal", |m| is_final(m, &call_id, cseq)).await
    }

    /// Offers this direction anew, by UPDATE.
    pub async fn update(&mut self, talk: &mut Talk, types: &str, direction: &str) -> String {
        let body = sdp(talk.line.port, types, direction);
        self.ask(talk, "UPDATE", "", &body).await
    }

    /// Refuses a call.
    pub async fn refuse(&mut self, invite: &str, server: SocketAddr, status: &str) {
        self.refuse_with(invite, server, status, "").await;
    }

    /// Refuses a call, with more headers.
    pub async fn refuse_with(&mut self, invite: &str, server: SocketAddr, status: &str, headers: &str) {
        let answer = response(invite, status, &self.tag_of(invite), headers, "");
        self.send(&answer, server).await;
        self.until("the refusal is acknowledged", |m| m.starts_with("ACK ")).await;
    }

    /// Answers a call.
    pub async fn take(&mut self, invite: String, server: SocketAddr, types: &str) -> Talk {
        let line = Line::open().await;
        line.towards(media_of(&invite));
        let local_tag = self.tag_of(&invite);
        let contact = format!("Contact: <sip:{}@{}>\r\n", self.name, self.address);
        let answer = sdp(line.port, types, "sendrecv");
        self.send(&response(&invite, "200 OK", &local_tag, &contact, &answer), server).await;
        let call_id = header(&invite, "Call-ID");
        self.until("the answer is acknowledged", |m| {
            m.starts_with("ACK ") && header(m, "Call-ID") == call_id
        })
        .await;
        Talk {
            call_id,
            remote_tag: tag(&header(&invite, "From")),
            local: format!("{};tag={local_tag}", header(&invite, "To")),
            local_tag,
            remote: header(&invite, "From"),
            contact: uri(&header(&invite, "Contact")),
            server,
            cseq: 100,
            line,
            invite,
        }
    }

    fn tag_of(&self, invite: &str) -> String {
        format!("{}-{}", self.name, header(invite, "Call-ID").chars().take(12).collect::<String>())
    }

    /// Sends a request inside a dialog and waits for its final response.
    pub async fn ask(&mut self, talk: &mut Talk, method: &str, headers: &str, body: &str) -> String {
        talk.cseq += 1;
        let text = request(talk, method, &talk.contact.clone(), self.address, headers, body);
        self.send(&text, talk.server).await;
        let (call_id, cseq) = (talk.call_id.clone(), talk.cseq);
        let answer = self.until(method, |m| is_final(m, &call_id, cseq)).await;
        if method == "INVITE" {
            let ack = talk.ack("", self.address);
            self.send(&ack, talk.server).await;
            if status(&answer) < 300 && answer.contains("m=audio") {
                talk.line.towards(media_of(&answer));
            }
        }
        answer
    }

    /// Offers this direction anew.
    pub async fn offer(&mut self, talk: &mut Talk, types: &str, direction: &str) -> String {
        let body = sdp(talk.line.port, types, direction);
        self.ask(talk, "INVITE", "", &body).await
    }

    /// Asks for a transfer; the status of the answer.
    pub async fn refer(&mut self, talk: &mut Talk, to: &str) -> u16 {
        let answer = self.ask(talk, "REFER", &format!("Refer-To: <{to}>\r\n"), "").await;
        status(&answer)
    }

    /// Sends INFO with a key; the status of the answer.
    pub async fn info(&mut self, talk: &mut Talk, body: &str) -> u16 {
        let answer = self.ask(talk, "INFO", "Content-Type: application/dtmf-relay\r\n", body).await;
        status(&answer)
    }

    /// Answers a REFER and tells of these statuses, as somebody who calls by itself.
    pub async fn answer_refer(&mut self, refer: &str, talk: &mut Talk, answer: &str, news: &[u16]) {
        self.send(&response(refer, answer, "", "", ""), talk.server).await;
        for status in news {
            let state = if *status < 200 { "active;expires=60" } else { "terminated;reason=noresource" };
            let headers = format!(
                "Event: refer\r\nSubscription-State: {state}\r\n\
                 Content-Type: message/sipfrag;version=2.0\r\n"
            );
            self.ask(talk, "NOTIFY", &headers, &format!("SIP/2.0 {status} News\r\n")).await;
        }
    }

    pub async fn bye(&mut self, talk: &mut Talk) {
        self.ask(talk, "BYE", "", "").await;
    }

    /// The fragments of NOTIFYs about a transfer in that dialog, until a final one.
    pub async fn news(&mut self, talk: &Talk) -> Vec<u16> {
        let mut all = Vec::new();
        loop {
            let call_id = talk.call_id.clone();
            let notify = self
                .until("news of the transfer", |m| {
                    m.starts_with("NOTIFY ") && header(m, "Call-ID") == call_id
                })
                .await;
            let body = notify.split("\r\n\r\n").nth(1).unwrap_or_default();
            let status: u16 = body.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a fragment");
            all.push(status);
            if status >= 200 {
                assert!(header(&notify, "Subscription-State").starts_with("terminated"), "{notify}");
                return all;
            }
        }
    }

    /// Waits until the server hangs up that dialog.
    pub async fn hung_up(&mut self, talk: &Talk) -> String {
        let call_id = talk.call_id.clone();
        self.until("BYE", |m| m.starts_with("BYE ") && header(m, "Call-ID") == call_id).await
    }

    /// Whether the server has hung up that dialog by now.
    pub async fn is_hung_up(&mut self, talk: &Talk) -> bool {
        while let Some(text) = self.look().await {
            self.unread.push(text);
        }
        self.unread.iter().any(|m| m.starts_with("BYE ") && header(m, "Call-ID") == talk.call_id)
    }

    async fn look(&mut self) -> Option<String> {
        tokio::time::timeout(Duration::from_millis(20), self.receive()).await.ok()
    }

    /// The next message of this kind; what else comes meanwhile waits.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        if let Some(at) = self.unread.iter().position(|m| wanted(m)) {
            return self.unread.remove(at);
        }
        let search = async {
            loop {
                let text = self.receive().await;
                if wanted(&text) {
                    return text;
                }
                self.unread.push(text);
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("{} waits in vain for {what}; unread: {:#?}", self.name, self.unread),
        }
    }

    /// A message that has not come before. Requests that want no decision are answered at once.
    async fn receive(&mut self) -> String {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, source) = self.sip.recv_from(&mut buffer).await.expect("a datagram");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let method = text.split(' ').next().unwrap_or_default().to_owned();
            if ["BYE", "NOTIFY", "OPTIONS", "CANCEL", "UPDATE", "INFO"].contains(&method.as_str()) {
                self.send(&response(&text, "200 OK", "", "", ""), source).await;
            }
            if method == "CANCEL" {
                let call_id = header(&text, "Call-ID");
                let invites: Vec<String> =
                    self.seen.iter().filter(|m| m.starts_with("INVITE ")).cloned().collect();
                if let Some(invite) = invites.into_iter().find(|m| header(m, "Call-ID") == call_id) {
                    let answer = response(&invite, "487 Request Terminated", &self.tag_of(&invite), "", "");
                    self.send(&answer, source).await;
                }
            }
            if self.seen.insert(text.clone()) {
                return text;
            }
        }
    }

    async fn send(&self, text: &str, to: SocketAddr) {
        self.sip.send_to(text.as_bytes(), to).await.expect("loopback takes it");
    }
}

impl Talk {
    /// The dialog of a call that rings at this phone, named to the server.
    pub fn replaces_ringing(phone: &Wire, invite: &str) -> String {
        let (call_id, theirs) = (header(invite, "Call-ID"), tag(&header(invite, "From")));
        format!("{call_id};to-tag={theirs};from-tag={}", phone.tag_of(invite))
    }

    /// This dialog as a Replaces of somebody else names it to the server.
    pub fn replaces(&self) -> String {
        format!("{};to-tag={};from-tag={}", self.call_id, self.remote_tag, self.local_tag)
    }

    /// The same behind the `?` of a Refer-To.
    pub fn replaces_escaped(&self) -> String {
        self.replaces().replace('@', "%40").replace(';', "%3B").replace('=', "%3D")
    }

    fn ack(&self, number: &str, own: SocketAddr) -> String {
        let to =
            if number.is_empty() { self.contact.clone() } else { format!("sip:{number}@{}", self.server) };
        // Of a refusal it belongs to the INVITE's transaction.
        request(self, "ACK", &to, own, "", "")
    }
}

fn request(talk: &Talk, method: &str, to: &str, own: SocketAddr, headers: &str, body: &str) -> String {
    let typed = body.is_empty() || headers.contains("Content-Type");
    let kind = if typed { "" } else { "Content-Type: application/sdp\r\n" };
    let branch = if method == "ACK" && to.ends_with(&talk.server.to_string()) && talk.remote_tag.is_empty() {
        "INVITE"
    } else {
        method
    };
    format!(
        "{method} {to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{}{branch}{};rport\r\n\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\n\
         Contact: <sip:wire@{own}>\r\n{headers}{kind}Content-Length: {}\r\n\r\n{body}",
        talk.call_id.replace('@', ""),
        talk.cseq,
        talk.local,
        talk.remote,
        talk.call_id,
        talk.cseq,
        body.len(),
    )
}

fn response(request: &str, status: &str, to_tag: &str, headers: &str, body: &str) -> String {
    let copied: String = ["Via", "From", "Call-ID", "CSeq", "Record-Route"]
        .iter()
        .flat_map(|name| {
            let rows = request.lines().filter(move |line| line.starts_with(&format!("{name}: ")));
            rows.map(|row| format!("{row}\r\n"))
        })
        .collect();
    let to = header(request, "To");
    let to = if to.contains("tag=") || to_tag.is_empty() { to } else { format!("{to};tag={to_tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {status}\r\n{copied}To: {to}\r\n{headers}{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A session description with these payload types.
pub fn sdp(port: u16, types: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=- 1 {port} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {types}\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n\
         a={direction}\r\n"
    )
}

pub fn header(message: &str, name: &str) -> String {
    let start = format!("{name}: ");
    let row = message.lines().find(|line| line.starts_with(&start));
    row.map(|row| row[start.len()..].trim().to_owned()).unwrap_or_default()
}

pub fn status(message: &str) -> u16 {
    message.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
}

fn is_final(message: &str, call_id: &str, cseq: u32) -> bool {
    message.starts_with("SIP/2.0 ")
        && status(message) >= 200
        && header(message, "Call-ID") == call_id
        && header(message, "CSeq").starts_with(&format!("{cseq} "))
}

fn tag(address: &str) -> String {
    address.split(";tag=").nth(1).unwrap_or_default().split(';').next().unwrap_or_default().to_owned()
}

fn uri(address: &str) -> String {
    address.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or(address).to_owned()
}

fn via_address(request: &str) -> SocketAddr {
    let via = header(request, "Via");
    let host = via.split(' ').nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
    host.parse().expect("an address")
}

fn media_of(message: &str) -> SocketAddr {
    let port = message.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
    let port = port.and_then(|port| port.parse().ok()).expect("a media line");
    SocketAddr::new(LOCALHOST, port)
}

/// The sound of a dialog: says a packet of PCMU every 20 ms and keeps what comes.
pub struct Line {
    pub port: u16,
    state: Arc<Mutex<Sound>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Sound {
    remote: Option<SocketAddr>,
    quiet: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    keys: std::collections::VecDeque<u8>,
    heard: Vec<Packet>,
}

/// A packet that came.
#[derive(Debug, Clone)]
pub struct Packet {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

impl Packet {
    /// Whether there is sound in it.
    pub fn is_loud(&self) -> bool {
        self.payload_type == 0 && self.payload.iter().filter(|byte| **byte & 0x7f < 0x40).count() > 20
    }
}

impl Line {
    async fn open() -> Self {
        let socket = Arc::new(UdpSocket::bind((LOCALHOST, 0)).await.expect("a socket"));
        let port = socket.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(Sound { sequence: 1000, timestamp: 50_000, ..Sound::default() }));
        let tasks = [
            tokio::spawn(speak(Arc::clone(&socket), Arc::clone(&state), u32::from(port))),
            tokio::spawn(listen(socket, Arc::clone(&state))),
        ];
        Self { port, state, tasks }
    }

    fn towards(&self, remote: SocketAddr) {
        self.lock().remote = Some(remote);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sound> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says silence from here on, or sound again.
    pub fn hush(&self, quiet: bool) {
        self.lock().quiet = quiet;
    }

    /// Says its packets under this payload type.
    pub fn switch(&self, payload_type: u8) {
        self.lock().payload_type = payload_type;
    }

    /// Presses a key, as one telephone event of three packets and two repetitions of its end.
    pub fn press(&self, key: u8) {
        self.lock().keys.extend([key; 5]);
    }

    /// All that came so far.
    pub fn heard(&self) -> Vec<Packet> {
        self.lock().heard.clone()
    }

    /// Waits for `count` more packets that `wanted` likes.
    pub async fn hears(&self, count: usize, what: &str, wanted: impl Fn(&Packet) -> bool) {
        let from = self.lock().heard.len();
        within(60, what, async || {
            let found = self.lock().heard[from..].iter().filter(|packet| wanted(packet)).count();
            (found >= count).then_some(())
        })
        .await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn speak(socket: Arc<UdpSocket>, state: Arc<Mutex<Sound>>, ssrc: u32) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let (packet, remote) = {
            let mut sound = state.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(remote) = sound.remote else { continue };
            (sound.packet(ssrc), remote)
        };
        // An ICMP error of an earlier packet.
        let _lost = socket.send_to(&packet, remote).await;
    }
}

impl Sound {
    fn packet(&mut self, ssrc: u32) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let key = self.keys.pop_front();
        // The timestamp of an event stays while it lasts.
        let left = self.keys.len() as u32 % 5;
        if key.is_none() || left == 4 {
            self.timestamp = self.timestamp.wrapping_add(160);
        }
        let payload_type = if key.is_some() { 101 } else { self.payload_type };
        let mut packet = vec![0x80, payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        match key {
            Some(key) => {
                let end = if left < 3 { 0x80 } else { 0 };
                let duration = (5 - left.max(2)) * 160;
                packet.extend([key, end | 10, (duration >> 8) as u8, duration as u8]);
            }
            None if self.quiet => packet.extend([0xff; 160]),
            // A loud 500 Hz.
            None => packet.extend((0..160).map(|n| if n / 8 % 2 == 0 { 0x10 } else { 0x90 })),
        }
        packet
    }
}

async fn listen(socket: Arc<UdpSocket>, state: Arc<Mutex<Sound>>) {
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        if length < 12 {
            continue;
        }
        let word =
            |at: usize| u32::from_be_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
        let packet = Packet {
            payload_type: buffer[1] & 0x7f,
            sequence: u16::from_be_bytes([buffer[2], buffer[3]]),
            timestamp: word(4),
            ssrc: word(8),
            payload: buffer[12..length].to_vec(),
        };
        state.lock().unwrap_or_else(PoisonError::into_inner).heard.push(packet);
    }
}
