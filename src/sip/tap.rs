//! A tap on signalling: sees every message, and never holds one up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};

use super::message::Transport;
use super::trace::hep::{Capture, encode};
use super::trace::{Kept, Trace, TraceLimits, Traces};
use crate::time::UnixMs;

/// Somebody who watches the wire. Called on the endpoint's own task, once for every message in and out.
pub trait Tap: Send + Sync {
    /// A message has come in, or is about to leave. Never blocks, and allocates no more than the copy it keeps.
    fn message(&self, at: Instant, seen: &Seen<'_>);

    /// Whether messages of sources outside every trunk and registration are wanted too. They are not, unless said
    /// otherwise: a scanner must not be able to push calls out of the memory.
    fn wants_strangers(&self) -> bool {
        false
    }
}

/// One message on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// From us to the peer.
    pub outgoing: bool,
    /// How it travels.
    pub transport: Transport,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The octets as they are on the wire, without the framing of WebSocket.
    pub bytes: &'a [u8],
}

/// What a [`Recorder`] is made with.
#[derive(Debug, Clone, Default)]
pub struct RecorderConfig {
    /// How much is kept for `tandem call trace`; `None` keeps nothing.
    pub keep: Option<TraceLimits>,
    /// Messages of strangers too.
    pub strangers: bool,
    /// A capture server that gets a copy of everything.
    pub hep: Option<HepTarget>,
}

/// A capture server that takes HEP3 over UDP.
#[derive(Debug, Clone)]
pub struct HepTarget {
    /// Where.
    pub address: SocketAddr,
    /// The number of this node at the server.
    pub capture_id: u32,
    /// The server's password, if it wants one. It travels in clear: that is HEP.
    pub password: Option<SecretString>,
}

/// The tap that remembers and exports. Cheap to clone.
///
/// Messages go through a bounded queue to one task, which takes the secrets out, keeps them and sends them on. When the
/// queue is full, messages are lost to the trace and counted (`tandem_trace_dropped_total`); signalling does not wait.
#[derive(Debug, Clone)]
pub struct Recorder {
    heard: mpsc::Sender<Heard>,
    asks: mpsc::Sender<Ask>,
    strangers: bool,
    keeps: bool,
}

/// A message on its way to the memory.
#[derive(Debug)]
struct Heard {
    at: Instant,
    outgoing: bool,
    transport: Transport,
    local: SocketAddr,
    remote: SocketAddr,
    bytes: Bytes,
}

#[derive(Debug)]
struct Ask {
    call_ids: Vec<String>,
    answer: oneshot::Sender<Vec<Trace>>,
}

impl Recorder {
    /// Starts the task; it ends when the last handle is gone.
    ///
    /// # Errors
    /// When no socket towards the capture server can be had.
    pub fn start(config: RecorderConfig) -> io::Result<Self> {
        let export = config.hep.as_ref().map(Export::open).transpose()?;
        let (heard, from_wire) = mpsc::channel(HEARD_QUEUE);
        let (asks, from_people) = mpsc::channel(ASK_QUEUE);
        let keeper = Keeper {
            epoch: (tokio::time::Instant::now().into_std(), UnixMs::now()),
            traces: config.keep.map(Traces::new),
            export,
        };
        tokio::spawn(keeper.run(from_wire, from_people));
        Ok(Self { heard, asks, strangers: config.strangers, keeps: config.keep.is_some() })
    }

    /// Whether anything is kept that could be asked for.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// What is kept of these Call-IDs; those that are unknown are left out.
    pub async fn traces(&self, call_ids: Vec<String>) -> Vec<Trace> {
        let (answer, answered) = oneshot::channel();
        match self.asks.send(Ask { call_ids, answer }).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

impl Tap for Recorder {
    fn message(&self, at: Instant, seen: &Seen<'_>) {
        // What cannot be a message (keep-alives, noise) is nobody's call.
        if seen.bytes.len() < SHORTEST_MESSAGE {
            return;
        }
        let heard = Heard {
            at,
            outgoing: seen.outgoing,
            transport: seen.transport,
            local: seen.local,
            remote: seen.remote,
            bytes: Bytes::copy_from_slice(seen.bytes),
        };
        if self.heard.try_send(heard).is_err() {
            metrics::counter!("tandem_trace_dropped_total").increment(1);
        }
    }

    fn wants_strangers(&self) -> bool {
        self.strangers
    }
}

/// What the task owns.
struct Keeper {
    epoch: (Instant, UnixMs),
    traces: Option<Traces>,
    export: Option<Export>,
}

impl Keeper {
    async fn run(mut self, mut heard: mpsc::Receiver<Heard>, mut asks: mpsc::Receiver<Ask>) {
        loop {
            tokio::select! {
                // Who asks sees everything that came before.
                biased;
                message = heard.recv() => match message {
                    Some(message) => self.take(&message),
                    None => return,
                },
                Some(ask) = asks.recv() => {
                    let found = ask.call_ids.iter().filter_map(|id| self.traces.as_ref()?.of(id)).collect();
                    // Who asked may have gone.
                    let _gone = ask.answer.send(found);
                }
            }
        }
    }

    fn take(&mut self, heard: &Heard) {
        let seen = Seen {
            outgoing: heard.outgoing,
            transport: heard.transport,
            local: heard.local,
            remote: heard.remote,
            bytes: &heard.bytes,
        };
        let message = Kept::new(self.epoch, heard.at, &seen);
        if let Some(export) = &self.export {
            export.send(&message);
        }
        if let Some(traces) = &mut self.traces {
            traces.keep(message);
        }
    }
}

/// The socket towards a capture server.
struct Export {
    socket: UdpSocket,
    target: HepTarget,
}

impl Export {
    fn open(target: &HepTarget) -> io::Result<Self> {
        let any: SocketAddr = match target.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target.address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, target: target.clone() })
    }

    /// Never waits: what the system does not take at once is lost and counted.
    fn send(&self, message: &Kept) {
        let password = self.target.password.as_ref().map(ExposeSecret::expose_secret);
        let capture = Capture { id: self.target.capture_id, password };
        // A server that is down says so by ICMP about an earlier packet; this one is lost with it.
        let sent = encode(message, &capture).is_some_and(|packet| self.socket.send(&packet).is_ok());
        if !sent {
            metrics::counter!("tandem_hep_dropped_total").increment(1);
        }
    }
}

/// As the endpoint takes it.
pub type SharedTap = Arc<dyn Tap>;

/// Messages between the wire and the memory: two seconds of a very busy node.
const HEARD_QUEUE: usize = 4_096;
/// People who wait for a trace.
const ASK_QUEUE: usize = 64;
/// Below it there is no start line with a version.
const SHORTEST_MESSAGE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: &[u8]) -> Seen<'_> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5060));
        Seen { outgoing: true, transport: Transport::Udp, local: address, remote: address, bytes }
    }

    const PING: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n\r\n";

    #[tokio::test]
    async fn who_asks_sees_what_was_said_before() {
        let config = RecorderConfig { keep: Some(TraceLimits::default()), ..RecorderConfig::default() };
        let recorder = Recorder::start(config).expect("no socket is needed");
        recorder.message(Instant::now(), &seen(PING));
        recorder.message(Instant::now(), &seen(b"\r\n\r\n"));
        let found = recorder.traces(vec!["c1".into(), "unknown".into()]).await;
        assert_eq!(found.iter().map(|trace| trace.messages.len()).collect::<Vec<_>>(), [1]);
        assert!(recorder.keeps() && !recorder.wants_strangers());
    }

    #[tokio::test]
    async fn a_capture_server_gets_every_message() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("it is bound");
        let hep = Some(HepTarget { address, capture_id: 7, password: None });
        let config = RecorderConfig { keep: None, strangers: true, hep };
        let recorder = Recorder::start(config).expect("loopback is there");
        recorder.message(Instant::now(), &seen(PING));
        let mut packet = [0; 2_048];
        let length = server.recv(&mut packet).await.expect("a packet");
        assert!(packet[..length].starts_with(b"HEP3") && packet[..length].ends_with(PING));
        assert!(recorder.traces(vec!["c1".into()]).await.is_empty());
    }
}
