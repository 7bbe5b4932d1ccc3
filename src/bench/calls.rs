//! The phones' signalling: real SIP calls, placed at an even rate and all hung up at the end. A benchmark of calls
//! that go through the server has its phones take calls as well.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::generator::{Command, Commands};
use super::grid::Spread;
use crate::id::LegId;
use crate::sip::endpoint::{Endpoint, EndpointConfig, EndpointHandle, Listener};
use crate::sip::message::{StatusCode, Transport};
use crate::sip::profile::Profile;
use crate::sip::sdp::Sdp;
use crate::sip::tap::Tap;
use crate::sip::trunk::{Trunk, Trunks};
use crate::sip::ua::{HangupReason, IncomingInvite, LegCommand, LegEvent, OutgoingInvite, UaConfig, UaEvent};
use crate::sip::uri::Uri;

/// All phones of the run.
pub struct Calls {
    endpoint: EndpointHandle,
    events: mpsc::Receiver<UaEvent>,
    server: SocketAddr,
    numbers: Vec<&'static str>,
    generator: Commands,
    /// Lines of the generator that no call has.
    free: Vec<usize>,
    legs: HashMap<LegId, Leg>,
    /// Calls of ours that were answered, the oldest first.
    answered: VecDeque<LegId>,
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
    /// Its line of the generator.
    call: usize,
    /// The server called us.
    incoming: bool,
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
    /// Opens the phones' SIP socket, for up to `lines` legs at a time. They call `numbers` of the server in turn, and
    /// take every call that comes.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn start(
        server: SocketAddr,
        numbers: &[&'static str],
        lines: usize,
        generator: Commands,
    ) -> anyhow::Result<Self> {
        let (endpoint, events) = open(Ipv4Addr::LOCALHOST, None).await?;
        Ok(Self::over(endpoint, events, server, numbers, lines, generator))
    }

    /// As [`start`](Self::start), on a socket that is open already: the server was told of it.
    pub fn over(
        endpoint: EndpointHandle,
        events: mpsc::Receiver<UaEvent>,
        server: SocketAddr,
        numbers: &[&'static str],
        lines: usize,
        generator: Commands,
    ) -> Self {
        Self {
            endpoint,
            events,
            server,
            numbers: numbers.to_vec(),
            generator,
            free: (0..lines).rev().collect(),
            legs: HashMap::new(),
            answered: VecDeque::new(),
            outcome: Outcome::default(),
        }
    }

    /// Places `count` calls, `rate` a second, and waits until each is answered or has failed.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn place(&mut self, count: usize, rate: f64) -> anyhow::Result<()> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        let count = self.outcome.placed + count;
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

    /// For `span`, `rate` times a second: the oldest call is hung up, and another placed.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn churn(&mut self, span: Duration, rate: f64) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + span;
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                _ = pace.tick() => {
                    if let Some(oldest) = self.answered.pop_front() {
                        self.leave(oldest).await;
                        self.dial()?;
                    }
                }
                Some(event) = self.events.recv() => self.event(event).await,
            }
        }
    }

    /// Calls of ours that are up.
    pub fn live(&self) -> usize {
        let up = |leg: &&Leg| !leg.incoming && matches!(leg.state, State::Talking { .. });
        self.legs.values().filter(up).count()
    }

    /// Why calls failed, for an error message.
    pub fn failures_in_words(&self) -> String {
        self.outcome.failures.first().cloned().unwrap_or_else(|| "nobody knows why".to_owned())
    }

    /// Hangs up every call and waits for the server's answers.
    pub async fn hang_up(mut self) -> Outcome {
        let ours = self.legs.iter().filter(|(_, leg)| !leg.incoming).map(|(id, _)| *id);
        for id in ours.collect::<Vec<_>>() {
            self.leave(id).await;
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

    async fn leave(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.state = State::Leaving;
        let _gone = self.generator.send(Command::Remove(leg.call)).await;
        self.endpoint.command(id, LegCommand::Hangup { reason: Some(HangupReason::normal()) });
    }

    fn dial(&mut self) -> anyhow::Result<()> {
        let call = self.free.pop().context("more calls than the generator has lines for")?;
        let number = self.numbers[self.outcome.placed % self.numbers.len()];
        let (rtp, rtcp) = (socket()?, socket()?);
        let sdp = offer(call, rtp.local_addr()?.port(), rtcp.local_addr()?.port());
        let target = self.endpoint.target(Transport::Udp, self.server)?;
        let uri = |text: String| {
            Uri::parse(text.as_bytes()).map_err(|error| anyhow::anyhow!("`{text}` is no SIP URI: {error}"))
        };
        let to = uri(format!("sip:{number}@{}", self.server))?;
        let from = uri(format!("sip:bench-{call}@{}", target.local))?;
        let invite = OutgoingInvite { sdp: Some(sdp.into_bytes()), ..OutgoingInvite::new(target, to, from) };
        let id = LegId::fresh();
        self.endpoint.invite(id, invite)?;
        let state = State::Calling { rtp, rtcp };
        self.legs.insert(id, Leg { call, incoming: false, dialled: Instant::now(), state });
        self.outcome.placed += 1;
        Ok(())
    }

    /// Rings and answers.
    async fn take(&mut self, invite: &IncomingInvite) {
        let (id, busy) = (invite.leg, StatusCode::BUSY_HERE);
        let remote = invite.offer.as_deref().and_then(audio_address);
        let (Some(remote), Some(call)) = (remote, self.free.pop()) else {
            let reject = LegCommand::Reject { status: busy, reason: None, headers: Vec::new() };
            return self.endpoint.command(id, reject);
        };
        let (Ok(rtp), Ok(rtcp)) = (socket(), socket()) else { return self.free.push(call) };
        let ports = (rtp.local_addr(), rtcp.local_addr());
        let (Ok(rtp_port), Ok(rtcp_port)) = (ports.0.map(|a| a.port()), ports.1.map(|a| a.port())) else {
            return self.free.push(call);
        };
        self.endpoint.command(id, LegCommand::Ring { status: StatusCode::RINGING, sdp: None });
        let sdp = offer(call, rtp_port, rtcp_port).into_bytes();
        self.endpoint.command(id, LegCommand::Answer { sdp });
        let _gone = self.generator.send(Command::Add { call, socket: rtp, remote }).await;
        let state = State::Talking { _rtcp: rtcp };
        self.legs.insert(id, Leg { call, incoming: true, dialled: Instant::now(), state });
    }

    /// A leg is over.
    fn forget(&mut self, id: LegId) -> Option<Leg> {
        let leg = self.legs.remove(&id)?;
        self.free.push(leg.call);
        self.answered.retain(|answered| *answered != id);
        Some(leg)
    }

    async fn event(&mut self, event: UaEvent) {
        let (id, event) = match event {
            UaEvent::Leg(id, event) => (id, event),
            UaEvent::Invite(invite) => return self.take(&invite).await,
            UaEvent::Pong(_) | UaEvent::Answer { .. } | UaEvent::Phone(_) => return,
        };
        match event {
            LegEvent::Answered { sdp } => self.answered(id, sdp.as_deref()).await,
            LegEvent::Failed { status, reason, .. } => {
                self.failed(id, format!("{} {reason}", status.get())).await
            }
            LegEvent::Ended { by, reason, .. } => {
                let leg = self.legs.get(&id);
                if leg.is_some_and(|leg| matches!(leg.state, State::Leaving)) {
                    self.forget(id);
                    self.outcome.ended += 1;
                } else if leg.is_some_and(|leg| leg.incoming) {
                    // Its caller has left, or tells why the call failed.
                    if let Some(leg) = self.forget(id) {
                        let _gone = self.generator.send(Command::Remove(leg.call)).await;
                    }
                } else {
                    let reason = reason.unwrap_or_default();
                    self.failed(id, format!("ended in mid-call by {by:?}: {reason}")).await;
                }
            }
            LegEvent::Cancelled { .. } => {
                if let Some(leg) = self.forget(id) {
                    let _gone = self.generator.send(Command::Remove(leg.call)).await;
                }
            }
            LegEvent::Acked { .. }
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
        self.answered.push_back(id);
    }

    async fn failed(&mut self, id: LegId, why: String) {
        if let Some(leg) = self.forget(id) {
            let _gone = self.generator.send(Command::Remove(leg.call)).await;
            self.outcome.failures.push(why);
        }
    }

    fn give_up_unanswered(&mut self) {
        let calling = self.legs.iter().filter(|(_, leg)| matches!(leg.state, State::Calling { .. }));
        for id in calling.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
            self.endpoint.command(id, LegCommand::Hangup { reason: None });
            self.outcome.failures.push("no answer within 10 s".to_owned());
        }
    }
}

/// Opens the far end's SIP socket at this address: one that takes calls from whoever reaches it.
///
/// # Errors
/// When there is none to be had.
pub async fn open(
    ip: Ipv4Addr,
    tap: Option<Arc<dyn Tap>>,
) -> anyhow::Result<(EndpointHandle, mpsc::Receiver<UaEvent>)> {
    let (tell, events) = mpsc::channel(QUEUE);
    let listen = vec![Listener { transport: Transport::Udp, address: SocketAddr::from((ip, 0)) }];
    let mut everybody = Trunk::new("everybody", Profile::builtin("generic").context("the generic profile")?);
    everybody.allow.push("0.0.0.0/0".parse().context("every address")?);
    let mut config = EndpointConfig::new(listen, Trunks::new([everybody]));
    let legs_max = 2 * super::marker::CALLS_MAX;
    config.ua = UaConfig { user_agent: "Tandem bench".to_owned(), legs_max, ..UaConfig::default() };
    config.tap = tap;
    let endpoint = Endpoint::start(config, tell).await.context("opening the phones' SIP socket")?;
    Ok((endpoint, events))
}

fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no more sockets; raise `ulimit -n`")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// PCMU and telephone events; as an offer, and as an answer to one that has both.
pub fn offer(call: usize, rtp: u16, rtcp: u16) -> String {
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
