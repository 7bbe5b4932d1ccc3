//! A phone that places and takes calls: real SIP, real RTP, and ears.
//!
//! A [`Phone`] is a user agent of its own with its own media thread. [`Phone::call`] places one call,
//! does what its [`Act`]s say and returns what was heard, sample by sample, with the moments that
//! matter. The demo, the tests and `tandem simulate phone` use it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use crate::audio::{BRIDGE_RATE, Codec, FRAME, FRAME_SAMPLES};
use crate::call::worker::{Surroundings, Workers};
use crate::event::Quality;
use crate::id::LegId;
use crate::rtp::{ItemKey, LatchPolicy, PortPool, PortPoolConfig};
use crate::sip::endpoint::EndpointHandle;
use crate::sip::leg::{HangUp, LegMedia, LegSignal, SipLeg};
use crate::sip::message::{StatusCode, Transport};
use crate::sip::negotiation::{Capabilities, Preference};
use crate::sip::tls::{TlsFiles, TlsRoots};
use crate::sip::transport::Target;
use crate::sip::trunk::SrtpPolicy;
use crate::sip::ua::{
    Credentials, HangupReason, IncomingInvite, LegCommand, LegEvent, OutgoingInvite, Referral, TransferNews,
    UaEvent,
};
use crate::sip::uri::Uri;

mod answer;
pub mod cli;
mod ears;
mod line;
mod script;

pub use answer::{AnswerPlan, Registration};
pub use ears::Ears;
pub use script::{Line, Script, Stage};

/// What the person on the phone does next. Each act begins when the one before is done.
#[derive(Debug, Clone)]
pub enum Act {
    /// Says this, 24 kHz, and goes on when it is said.
    Say(Arc<[i16]>),
    /// Waits.
    Wait(Duration),
    /// Waits until the other side has spoken for this long without a longer pause.
    WaitForSpeech(Duration),
    /// Waits until the other side has been silent for this long.
    WaitForSilence(Duration),
    /// Sends no RTP for this long, as a phone does that is muted or detects silence (DTX).
    Mute(Duration),
    /// Presses keys, as RFC 4733 events where those were agreed on.
    Press(String),
    /// Presses keys by SIP INFO.
    PressByInfo(String),
    /// Puts the other side on hold by re-INVITE.
    Hold,
    /// Takes the other side back from hold.
    Unhold,
    /// Asks the other side to call somebody else (REFER), and goes on when the last word about that has come.
    Transfer(Uri),
    /// Hangs up.
    HangUp,
}

/// One call to place.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// Whom to call.
    pub target: Uri,
    /// Where the INVITE goes.
    pub remote: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The caller's user part.
    pub from: String,
    /// Codecs offered, best first.
    pub codecs: Vec<Codec>,
    /// For a challenge.
    pub credentials: Option<Credentials>,
    /// What to do once the call is answered; it then lasts until somebody hangs up.
    pub acts: Vec<Act>,
    /// The phone hangs up after this long at the latest.
    pub limit: Duration,
}

/// What became of a call.
#[derive(Debug, Clone)]
pub struct CallReport {
    /// When the INVITE was handed over.
    pub dialled: Instant,
    /// First 101-199.
    pub ringing: Option<Instant>,
    /// 2xx.
    pub answered: Option<Instant>,
    /// The end.
    pub ended: Instant,
    /// How the far end ended it; `None` when the phone hung up.
    pub hang_up: Option<HangUp>,
    /// Codec in use.
    pub codec: Option<Codec>,
    /// Whether media was encrypted.
    pub encrypted: bool,
    /// All that was heard, 24 kHz.
    pub heard: Vec<i16>,
    /// All that was said, 24 kHz, sample-aligned with `heard`.
    pub said: Vec<i16>,
    /// When sample 0 of `heard` and `said` was.
    pub origin: Instant,
    /// When each `Say` began and ended.
    pub spoke: Vec<(Instant, Instant)>,
    /// Keys the far end pressed, in order.
    pub digits: String,
    /// The last word about [`Act::Transfer`].
    pub transfer: Option<TransferNews>,
    /// RTP statistics of the phone's side.
    pub quality: Option<Quality>,
}

impl CallReport {
    /// Milliseconds from the first sample to `at`.
    pub fn position_ms(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.origin).as_secs_f64() * 1000.0
    }
}

/// How a phone keeps what it says to itself.
#[derive(Debug, Clone, Default)]
pub struct Secrecy {
    /// Encryption of media.
    pub srtp: SrtpPolicy,
    /// Speaks TLS, too. Without a certificate it makes connections and takes none.
    pub tls: bool,
    /// What it proves itself with over TLS.
    pub certificate: Option<TlsFiles>,
    /// Whom it believes over TLS.
    pub roots: TlsRoots,
}

/// A user agent that places calls.
pub struct Phone {
    endpoint: EndpointHandle,
    local: IpAddr,
    ports: PortPool,
    workers: Workers,
    lines: Lines,
    srtp: SrtpPolicy,
    /// Calls that came in and nobody has taken yet.
    arriving: tokio::sync::Mutex<mpsc::Receiver<Arrival>>,
    _switch: tokio::task::JoinHandle<()>,
}

type Lines = Arc<Mutex<HashMap<LegId, mpsc::Sender<LegEvent>>>>;

impl Phone {
    /// A phone on this address, on a free port, with RTP ports of this range. It listens over UDP and TCP.
    ///
    /// # Errors
    /// When sockets or threads cannot be had.
    pub async fn start(local: IpAddr, rtp_ports: (u16, u16), threads: usize) -> anyhow::Result<Self> {
        Self::open(local, None, rtp_ports, threads, Secrecy::default()).await
    }

    /// A phone that also takes calls, from anybody, on this port; 0 takes a free one. See [`Phone::answer`].
    ///
    /// # Errors
    /// As [`Phone::start`].
    pub async fn start_answering(
        local: IpAddr,
        port: u16,
        rtp_ports: (u16, u16),
        threads: usize,
    ) -> anyhow::Result<Self> {
        Self::open(local, Some(port), rtp_ports, threads, Secrecy::default()).await
    }

    /// A phone with TLS and SRTP; it takes calls when it has an `answers_at` port.
    ///
    /// # Errors
    /// As [`Phone::start`], and when the files of TLS cannot be used.
    pub async fn start_secretive(
        local: IpAddr,
        answers_at: Option<u16>,
        rtp_ports: (u16, u16),
        threads: usize,
        secrecy: Secrecy,
    ) -> anyhow::Result<Self> {
        Self::open(local, answers_at, rtp_ports, threads, secrecy).await
    }

    async fn open(
        local: IpAddr,
        answers_at: Option<u16>,
        rtp_ports: (u16, u16),
        threads: usize,
        secrecy: Secrecy,
    ) -> anyhow::Result<Self> {
        let srtp = secrecy.srtp;
        let (events, inbox) = mpsc::channel(QUEUE);
        let endpoint = line::open(local, answers_at, secrecy, events)
            .await
            .context("opening the phone's SIP sockets")?;
        let lines = Lines::default();
        let (arrived, arriving) = mpsc::channel(ARRIVALS);
        let switch = tokio::spawn(switch(inbox, Arc::clone(&lines), arrived, endpoint.clone()));
        let ports = PortPool::new(PortPoolConfig {
            first: rtp_ports.0,
            last: rtp_ports.1,
            quarantine: Duration::from_secs(1),
            ..PortPoolConfig::default()
        })?;
        let workers = Workers::start(threads, 0)?;
        let arriving = tokio::sync::Mutex::new(arriving);
        Ok(Self { endpoint, local, ports, workers, lines, srtp, arriving, _switch: switch })
    }

    /// Places a call and sees it to its end.
    ///
    /// # Errors
    /// When it could not even be tried: no port, no thread.
    pub async fn call(&self, plan: CallPlan) -> anyhow::Result<CallReport> {
        let id = LegId::fresh();
        let (line, events) = mpsc::channel(64);
        self.lines().insert(id, line);
        let (tell, told) = oneshot::channel();
        let settings = self.settings(&plan.codecs, plan.remote.ip());
        let handle = self.endpoint.clone();
        let target = line::target(&handle, plan.transport, plan.remote, &plan.target)?;
        self.workers.place(move |around| async move {
            let report = live(id, handle, events, around, settings, plan, target).await;
            // Whoever asked has gone away: nobody wants the report.
            let _unwanted = tell.send(report);
        })?;
        let report = told.await.context("the phone's thread stopped")?;
        self.lines().remove(&id);
        report
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.workers.stop(Duration::from_secs(2)).await;
        self.endpoint.stop(Duration::from_secs(2)).await;
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<LegId, mpsc::Sender<LegEvent>>> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn settings(&self, codecs: &[Codec], peer: IpAddr) -> LegMedia {
        LegMedia {
            ports: self.ports.clone(),
            address: self.local,
            peer,
            capabilities: Capabilities {
                codecs: codecs.to_vec(),
                preference: Preference::Theirs,
                srtp: self.srtp,
                ..Capabilities::default()
            },
            latch: LatchPolicy { allowed: vec![peer.into()], ..LatchPolicy::default() },
            inband_dtmf: false,
            reorder_wait: Duration::from_millis(30),
            playout_limit: Duration::from_secs(600),
            media_timeout: None,
            dtmf: crate::sip::profile::DtmfMethod::TelephoneEvent,
        }
    }
}

/// Hands each event to its call, and each new call to whoever answers.
async fn switch(
    mut inbox: mpsc::Receiver<UaEvent>,
    lines: Lines,
    arrived: mpsc::Sender<Arrival>,
    endpoint: EndpointHandle,
) {
    let lines = || lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    while let Some(event) = inbox.recv().await {
        match event {
            UaEvent::Leg(leg, event) => {
                let line = lines().get(&leg).cloned();
                if let Some(line) = line
                    && line.try_send(event).is_err()
                {
                    tracing::debug!("an event came for a call that is over");
                }
            }
            UaEvent::Invite(invite) => {
                let leg = invite.leg;
                let (line, events) = mpsc::channel(64);
                lines().insert(leg, line);
                if arrived.try_send(Arrival { invite, events }).is_err() {
                    lines().remove(&leg);
                    let status = StatusCode::BUSY_HERE;
                    endpoint.command(leg, LegCommand::Reject { status, reason: None, headers: Vec::new() });
                }
            }
            UaEvent::Pong(_) | UaEvent::Answer { .. } | UaEvent::Phone(_) => {}
        }
    }
}

/// A call that came in.
pub struct Arrival {
    /// Who calls whom.
    pub invite: Box<IncomingInvite>,
    events: mpsc::Receiver<LegEvent>,
}

async fn live(
    id: LegId,
    handle: EndpointHandle,
    events: mpsc::Receiver<LegEvent>,
    around: Surroundings,
    settings: LegMedia,
    plan: CallPlan,
    target: Target,
) -> anyhow::Result<CallReport> {
    let dialled = Instant::now();
    let (leg, sdp) = SipLeg::outgoing(id, handle.clone(), events, around.pacer, settings)?;
    let from = Uri::parse(format!("sip:{}@{}", plan.from, target.local).as_bytes())
        .map_err(|error| anyhow::anyhow!("`{}` cannot be a caller: {error}", plan.from))?;
    handle.invite(
        id,
        OutgoingInvite {
            sdp: Some(sdp),
            credentials: plan.credentials.clone(),
            ..OutgoingInvite::new(target, plan.target.clone(), from)
        },
    )?;
    Ok(OnCall::new(leg, plan, dialled).run().await)
}

/// How far the present [`Act::Say`] is.
enum Speech {
    NotBegun,
    Going { item: ItemKey, began: Instant },
    Done,
}

/// The state of a call on the phone.
struct OnCall {
    leg: SipLeg,
    acts: std::collections::VecDeque<Act>,
    ears: Ears,
    limit: Instant,
    report: CallReport,
    speech: Speech,
    said_count: u32,
    /// The REFER of the present act is out.
    referring: bool,
    act_began: Instant,
    /// Media has begun: both tapes run.
    rolling: bool,
    scratch: Vec<i16>,
}

impl OnCall {
    fn new(leg: SipLeg, plan: CallPlan, dialled: Instant) -> Self {
        Self {
            leg,
            acts: plan.acts.into(),
            ears: Ears::default(),
            limit: dialled + plan.limit,
            report: CallReport {
                dialled,
                ringing: None,
                answered: None,
                ended: dialled,
                hang_up: None,
                codec: None,
                encrypted: false,
                heard: Vec::new(),
                said: Vec::new(),
                origin: dialled,
                spoke: Vec::new(),
                digits: String::new(),
                transfer: None,
                quality: None,
            },
            speech: Speech::NotBegun,
            said_count: 0,
            referring: false,
            act_began: dialled,
            rolling: false,
            scratch: Vec::new(),
        }
    }

    async fn run(mut self) -> CallReport {
        loop {
            let wait = std::future::poll_fn(|cx| self.leg.poll(cx));
            match tokio::time::timeout_at(self.limit.into(), wait).await {
                Ok(LegSignal::HungUp(hang_up)) => {
                    self.report.hang_up = Some(hang_up);
                    break;
                }
                Ok(signal) => self.signal(signal),
                Err(_) => {
                    self.leg.hang_up(HangupReason::normal());
                    break;
                }
            }
            if self.report.answered.is_some() && self.act() {
                break;
            }
        }
        self.report.ended = Instant::now();
        self.report.codec = self.leg.codec();
        self.report.encrypted = self.leg.is_encrypted();
        self.report.quality = self.leg.quality();
        self.report
    }

    fn signal(&mut self, signal: LegSignal) {
        let now = Instant::now();
        match signal {
            LegSignal::Ringing { .. } => drop(self.report.ringing.get_or_insert(now)),
            LegSignal::Established => {
                self.report.answered.get_or_insert(now);
                self.act_began = now;
            }
            LegSignal::Audio { .. } => {
                self.scratch.clear();
                self.leg.take_audio(&mut self.scratch);
                if !self.scratch.is_empty() {
                    self.hear(now);
                }
            }
            LegSignal::Sent { due, .. } => {
                self.scratch.clear();
                self.leg.sent_frame(&mut self.scratch);
                if !self.rolling {
                    self.roll(due);
                }
                // Slots that a busy machine missed have passed all the same.
                let passed = due.saturating_duration_since(self.report.origin) + FRAME / 2;
                let slots = (passed.as_nanos() / FRAME.as_nanos()) as usize;
                self.report.said.resize(self.report.said.len().max(slots * FRAME_SAMPLES), 0);
                self.report.said.extend_from_slice(&self.scratch);
            }
            LegSignal::ItemFinished { item, .. } => {
                if let Speech::Going { item: going, began } = &self.speech
                    && *going == item
                {
                    self.report.spoke.push((*began, now));
                    self.speech = Speech::Done;
                }
            }
            LegSignal::ItemStarted(item) => {
                if let Speech::Going { item: going, began } = &mut self.speech
                    && *going == item
                {
                    *began = now;
                }
            }
            LegSignal::Dtmf { digit, .. } => self.report.digits.push(digit),
            LegSignal::Transferring(news) => self.report.transfer = Some(news),
            LegSignal::MediaChanged { .. }
            | LegSignal::DtmfSent
            | LegSignal::CodecHeard(_)
            | LegSignal::EarlyMedia
            | LegSignal::Trying
            | LegSignal::Transfer(_)
            | LegSignal::HungUp(_) => {}
        }
    }

    /// The first audio of the other side is put where the clock says; after it its own count is the clock.
    fn hear(&mut self, now: Instant) {
        if !self.rolling {
            self.roll(now);
        }
        if self.report.heard.is_empty() {
            let until_now = now.saturating_duration_since(self.report.origin).as_secs_f64();
            let samples = (until_now * f64::from(BRIDGE_RATE)) as usize;
            self.report.heard.resize(samples.saturating_sub(self.scratch.len()), 0);
        }
        self.report.heard.extend_from_slice(&self.scratch);
        self.ears.hear(now, &self.scratch);
    }

    fn roll(&mut self, origin: Instant) {
        self.rolling = true;
        self.report.origin = origin;
    }

    /// Begins the next act if the present one is done; `true` once the phone has hung up.
    fn act(&mut self) -> bool {
        let now = Instant::now();
        while let Some(act) = self.acts.front() {
            match act {
                Act::Say(pcm) => match self.speech {
                    Speech::NotBegun => {
                        self.said_count += 1;
                        let item = ItemKey::from(format!("say-{}", self.said_count).as_str());
                        self.leg.play(&item, pcm);
                        self.leg.end_item(&item);
                        self.speech = Speech::Going { item, began: now };
                        return false;
                    }
                    Speech::Going { .. } => return false,
                    Speech::Done => {}
                },
                Act::Wait(span) if now < self.act_began + *span => return false,
                Act::Mute(span) if now < self.act_began + *span => {
                    self.leg.mute(true);
                    return false;
                }
                Act::Mute(_) => self.leg.mute(false),
                Act::WaitForSpeech(span) if !self.ears.speaking_for(*span) => return false,
                Act::WaitForSilence(span) if !self.ears.silent_for(now, *span) => return false,
                Act::Press(digits) => {
                    let digits = digits.clone();
                    self.leg.send_dtmf(&digits);
                }
                Act::PressByInfo(digits) => self.leg.send_dtmf_by_info(digits),
                Act::Hold => self.leg.hold(true),
                Act::Unhold => self.leg.hold(false),
                Act::Transfer(to) => {
                    if !std::mem::replace(&mut self.referring, true) {
                        self.leg.refer(Referral { to: to.clone(), replaces: None, referred_by: None });
                        return false;
                    }
                    if let None | Some(TransferNews::Accepted | TransferNews::Progress(_)) =
                        self.report.transfer
                    {
                        return false;
                    }
                    self.referring = false;
                }
                Act::HangUp => {
                    self.leg.hang_up(HangupReason::normal());
                    return true;
                }
                Act::Wait(_) | Act::WaitForSpeech(_) | Act::WaitForSilence(_) => {}
            }
            self.acts.pop_front();
            self.speech = Speech::NotBegun;
            self.ears.begin(now);
            self.act_began = now;
        }
        false
    }
}

const QUEUE: usize = 4096;
/// Calls that may wait to be answered; further ones hear that the phone is busy.
const ARRIVALS: usize = 64;
