//! A source that sends far more INVITEs than anybody wants: plain datagrams, without a user agent that could give in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::machine;

/// A flood under way.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Tally>>,
}

/// What was sent, and what came for it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// INVITEs, each of another call.
    pub sent: u64,
    /// First final answers, by status.
    pub finals: BTreeMap<u16, u64>,
}

impl Tally {
    /// Calls whose final answer is one of these.
    pub fn answered(&self, which: impl Fn(u16) -> bool) -> u64 {
        self.finals.iter().filter(|(status, _)| which(**status)).map(|(_, count)| count).sum()
    }

    /// Calls that were never answered.
    pub fn silent(&self) -> u64 {
        self.sent.saturating_sub(self.answered(|_| true))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} INVITEs sent", self.sent)?;
        for (status, count) in &self.finals {
            write!(f, ", {status} for {count}")?;
        }
        write!(f, ", nothing for {}", self.silent())
    }
}

impl Flood {
    /// Sends `rate` INVITEs a second for the number `busy` from this address, until it is stopped.
    ///
    /// # Errors
    /// When there is no socket or thread to be had.
    pub fn start(from: Ipv4Addr, server: SocketAddr, rate: u32, cores: Vec<usize>) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("opening a socket at {from}"))?;
        socket.connect(server)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            machine::pin(&cores);
            send(&socket, server, rate, &stopped)
        };
        let thread = std::thread::Builder::new().name("bench-flood".to_owned()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Ends it, and waits a little for late answers.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn stop(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let tally = self.thread.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))?;
        tally.context("the flood's socket failed")
    }
}

fn send(socket: &UdpSocket, server: SocketAddr, rate: u32, stop: &AtomicBool) -> std::io::Result<Tally> {
    let local = socket.local_addr()?;
    let mut tally = Tally::default();
    let mut answered = Vec::new();
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while tally.sent < due {
            // A full buffer costs this INVITE, which then counts as unanswered.
            let _lost = socket.send(invite(tally.sent, local, server).as_bytes());
            answered.push(false);
            tally.sent += 1;
        }
        listen(socket, Duration::from_millis(1), &mut answered, &mut tally)?;
    }
    let end = Instant::now() + LATE;
    while Instant::now() < end {
        listen(socket, Duration::from_millis(10), &mut answered, &mut tally)?;
    }
    Ok(tally)
}

/// Takes answers for so long, and acknowledges them.
fn listen(
    socket: &UdpSocket,
    span: Duration,
    answered: &mut [bool],
    tally: &mut Tally,
) -> std::io::Result<()> {
    let until = Instant::now() + span;
    let mut bytes = [0; 2048];
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let Ok(length) = socket.recv(&mut bytes) else { return Ok(()) };
        let Some(answer) = std::str::from_utf8(&bytes[..length]).ok().and_then(Answer::of) else { continue };
        let Some(known) = answered.get_mut(answer.call).filter(|_| answer.status >= 200) else { continue };
        if !std::mem::replace(known, true) {
            *tally.finals.entry(answer.status).or_default() += 1;
        }
        // A lost ACK is asked for again.
        let _lost = socket.send(answer.ack(socket.peer_addr()?).as_bytes());
    }
    Ok(())
}

fn invite(call: u64, local: SocketAddr, server: SocketAddr) -> String {
    let sdp = format!(
        "v=0\r\no=- {call} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n",
        ip = local.ip()
    );
    format!(
        "INVITE sip:busy@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKflood{call}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:flood@{local}>;tag=f{call}\r\nTo: <sip:busy@{server}>\r\n\
         Call-ID: flood-{call}\r\nCSeq: 1 INVITE\r\nContact: <sip:flood@{local}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// What the flood reads of a response.
struct Answer<'a> {
    status: u16,
    call: usize,
    via: &'a str,
    from: &'a str,
    to: &'a str,
}

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let header = |name: &str| {
            text.lines().find_map(|line| {
                let (written, value) = line.split_once(':')?;
                written.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        Some(Self {
            status: text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?,
            call: header("Call-ID")?.strip_prefix("flood-")?.parse().ok()?,
            via: header("Via")?,
            from: header("From")?,
            to: header("To")?,
        })
    }

    fn ack(&self, server: SocketAddr) -> String {
        let Self { via, from, to, call, .. } = self;
        format!(
            "ACK sip:busy@{server} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\n\
             Call-ID: flood-{call}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

/// How long after the last INVITE answers are waited for.
const LATE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_call_and_acknowledged_in_its_transaction() {
        let text = "SIP/2.0 503 Service Unavailable\r\nVia: SIP/2.0/UDP 127.0.0.2:9;branch=z9hG4bKflood7\r\n\
                    From: <sip:f@a>;tag=f7\r\nTo: <sip:busy@b>;tag=x\r\nCall-ID: flood-7\r\nCSeq: 1 INVITE\r\n\r\n";
        let answer = Answer::of(text).unwrap();
        assert_eq!((answer.status, answer.call), (503, 7));
        let ack = answer.ack("127.0.0.1:5060".parse().unwrap());
        assert!(ack.contains("branch=z9hG4bKflood7\r\n") && ack.contains("To: <sip:busy@b>;tag=x\r\n"));
        assert!(Answer::of("SIP/2.0 200 OK\r\nCall-ID: other\r\n\r\n").is_none());
    }

    #[test]
    fn what_was_not_answered_is_silence() {
        let tally = Tally { sent: 10, finals: BTreeMap::from([(486, 2), (503, 7)]) };
        assert_eq!((tally.silent(), tally.answered(|status| status != 503)), (1, 2));
        assert_eq!(tally.to_string(), "10 INVITEs sent, 486 for 2, 503 for 7, nothing for 1");
    }
}
