//! The phones' signalling: real SIP calls, placed at an even rate and all hung up at the end.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::generator::{Command, Commands};
use super::grid::Spread;
use crate::id::LegId;
use crate::sip::endpoint::{Endpoint, EndpointConfig, EndpointHandle, Listener};
use crate::sip::message::Transport;
use crate::sip::sdp::Sdp;
use crate::sip::trunk::Trunks;
use crate::sip::ua::{HangupReason, LegCommand, LegEvent, OutgoingInvite, UaConfig, UaEvent};
use crate::sip::uri::Uri;

/// All phones of the run.
pub struct Calls {
    endpoint: EndpointHandle,
    events: mpsc::Receiver<UaEvent>,
    server: SocketAddr,
    generator: Commands,
    legs: HashMap<LegId, Leg>,
    outcome: Outcome,
}

/// What became of the calls.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Calls placed.
    pub placed: usize,
    /// INVITE to 200.
    pub setup: Spread,
    /// Calls that were refused, not answered, or ended before they should; why.
    pub failures: Vec<String>,
    /// Calls hung up by us whose end the server confirmed.
    pub ended: usize,
}

struct Leg {
    call: usize,
    dialled: Instant,
    state: State,
}

enum State {
    Calling {
        rtp: UdpSocket,
        rtcp: UdpSocket,
    },
    /// The RTCP socket is open so that reports arrive somewhere; they are not read.
    Talking {
        _rtcp: UdpSocket,
    },
    Leaving,
}

impl Calls {
    /// Opens the phones' SIP socket.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn start(server: SocketAddr, generator: Commands) -> anyhow::Result<Self> {
        let (tell, events) = mpsc::channel(QUEUE);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = vec![Listener { transport: Transport::Udp, address }];
        let mut config = EndpointConfig::new(listen, Trunks::default());
        let legs_max = super::marker::CALLS_MAX;
        config.ua = UaConfig { user_agent: "Tandem bench".to_owned(), legs_max, ..UaConfig::default() };
        let endpoint = Endpoint::start(config, tell).await.context("opening the phones' SIP socket")?;
        Ok(Self { endpoint, events, server, generator, legs: HashMap::new(), outcome: Outcome::default() })
    }

    /// Places `count` calls, `rate` a second, and waits until each is answered or has failed.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn place(&mut self, count: usize, rate: f64) -> anyhow::Result<()> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        while self.outcome.placed < count {
            tokio::select! {
                _ = pace.tick() => self.dial()?,
                Some(event) = self.events.recv() => self.event(event).await,
            }
        }
        let patience = tokio::time::Instant::now() + ANSWERED_WITHIN;
        while self.legs.values().any(|leg| matches!(leg.state, State::Calling { .. })) {
            match tokio::time::timeout_at(patience, self.events.recv()).await {
                Ok(Some(event)) => self.event(event).await,
                Ok(None) | Err(_) => break,
            }
        }
        self.give_up_unanswered();
        Ok(())
    }

    /// Lets the calls go on.
    pub async fn run_for(&mut self, span: Duration) {
        let until = tokio::time::Instant::now() + span;
        while let Ok(Some(event)) = tokio::time::timeout_at(until, self.events.recv()).await {
            self.event(event).await;
        }
    }

    /// Calls that are up.
    pub fn live(&self) -> usize {
        self.legs.values().filter(|leg| matches!(leg.state, State::Talking { .. })).count()
    }

    /// Why calls failed, for an error message.
    pub fn failures_in_words(&self) -> String {
        self.outcome.failures.first().cloned().unwrap_or_else(|| "nobody knows why".to_owned())
    }

    /// Hangs up every call and waits for the server's answers.
    pub async fn hang_up(mut self) -> Outcome {
        for (id, leg) in &mut self.legs {
            leg.state = State::Leaving;
            let _gone = self.generator.send(Command::Remove(leg.call)).await;
            self.endpoint.command(*id, LegCommand::Hangup { reason: Some(HangupReason::normal()) });
        }
        let patience = tokio::time::Instant::now() + GOODBYE;
        while !self.legs.is_empty() {
            match tokio::time::timeout_at(patience, self.events.recv()).await {
                Ok(Some(event)) => self.event(event).await,
                Ok(None) | Err(_) => break,
            }
        }
        self.endpoint.stop(GOODBYE).await;
        self.outcome
    }

    fn dial(&mut self) -> anyhow::Result<()> {
        let call = self.outcome.placed;
        let (rtp, rtcp) = (socket()?, socket()?);
        let sdp = offer(call, rtp.local_addr()?.port(), rtcp.local_addr()?.port());
        let target = self.endpoint.target(Transport::Udp, self.server)?;
        let uri = |text: String| {
            Uri::parse(text.as_bytes()).map_err(|error| anyhow::anyhow!("`{text}` is no SIP URI: {error}"))
        };
        let to = uri(format!("sip:100@{}", self.server))?;
        let from = uri(format!("sip:bench-{call}@{}", target.local))?;
        let invite = OutgoingInvite { sdp: Some(sdp.into_bytes()), ..OutgoingInvite::new(target, to, from) };
        let id = LegId::fresh();
        self.endpoint.invite(id, invite)?;
        self.legs.insert(id, Leg { call, dialled: Instant::now(), state: State::Calling { rtp, rtcp } });
        self.outcome.placed += 1;
        Ok(())
    }

    async fn event(&mut self, event: UaEvent) {
        let UaEvent::Leg(id, event) = event else { return };
        match event {
            LegEvent::Answered { sdp } => self.answered(id, sdp.as_deref()).await,
            LegEvent::Failed { status, reason, .. } => {
                self.failed(id, format!("{} {reason}", status.get())).await
            }
            LegEvent::Ended { by, reason, .. } => {
                if self.legs.get(&id).is_some_and(|leg| matches!(leg.state, State::Leaving)) {
                    self.legs.remove(&id);
                    self.outcome.ended += 1;
                } else {
                    let reason = reason.unwrap_or_default();
                    self.failed(id, format!("ended in mid-call by {by:?}: {reason}")).await;
                }
            }
            LegEvent::Cancelled { .. }
            | LegEvent::Acked { .. }
            | LegEvent::Progress { .. }
            | LegEvent::EarlyOffer { .. }
            | LegEvent::EarlyAnswer { .. }
            | LegEvent::Transfer(_)
            | LegEvent::Transferring(_)
            | LegEvent::Reinvite { .. }
            | LegEvent::ReinviteAcked { .. }
            | LegEvent::ReinviteResult { .. }
            | LegEvent::Dtmf { .. } => {}
        }
    }

    async fn answered(&mut self, id: LegId, sdp: Option<&[u8]>) {
        let Some(remote) = sdp.and_then(audio_address) else {
            self.endpoint.command(id, LegCommand::Hangup { reason: None });
            return self.failed(id, "the answer has no audio".to_owned()).await;
        };
        let Some(leg) = self.legs.remove(&id) else { return };
        let State::Calling { rtp, rtcp } = leg.state else { return };
        self.outcome.setup.add(leg.dialled.elapsed());
        let add = Command::Add { call: leg.call, socket: rtp, remote };
        // A generator that has died is noticed at the end.
        let _gone = self.generator.send(add).await;
        self.legs.insert(id, Leg { state: State::Talking { _rtcp: rtcp }, ..leg });
    }

    async fn failed(&mut self, id: LegId, why: String) {
        if let Some(leg) = self.legs.remove(&id) {
            let _gone = self.generator.send(Command::Remove(leg.call)).await;
            self.outcome.failures.push(why);
        }
    }

    fn give_up_unanswered(&mut self) {
        let calling = self.legs.extract_if(|_, leg| matches!(leg.state, State::Calling { .. }));
        let late: Vec<LegId> = calling.map(|(id, _)| id).collect();
        for id in late {
            self.endpoint.command(id, LegCommand::Hangup { reason: None });
            self.outcome.failures.push("no answer within 10 s".to_owned());
        }
    }
}

fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no more sockets; raise `ulimit -n`")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn offer(call: usize, rtp: u16, rtcp: u16) -> String {
    format!(
        "v=0\r\no=- {call} 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {rtp} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\na=rtcp:{rtcp}\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

fn audio_address(sdp: &[u8]) -> Option<SocketAddr> {
    let sdp = Sdp::parse(sdp).ok()?;
    let media = sdp.media.iter().find(|media| media.kind == "audio" && media.port > 0)?;
    let ip = sdp.connection_of(media)?.ip()?;
    Some(SocketAddr::new(ip, media.port))
}

const QUEUE: usize = 4096;
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(10);
