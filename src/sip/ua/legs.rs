//! Legs: the state of one call by SIP, and the book-keeping all states share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;

use super::checks::session_description;
use super::command::{LegCommand, OutgoingInvite};
use super::event::{EndedBy, LegEvent, UaEvent};
use super::prack::HeldPrack;
use super::refer::{TransferIn, TransferOut};
use super::reliable::ReliableProvisional;
use super::reply::takes;
use super::session_timer::SessionTimer;
use super::{UserAgent, dropped};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::digest::{Challenged, DigestClient};
use crate::sip::headers::HeaderValue;
use crate::sip::message::{Method, Request};
use crate::sip::transaction::{Resend, TxId};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;

/// Finds the leg of a request inside a dialog: Call-ID and our tag. The peer's tag is checked by the leg, because an
/// outgoing call may have several before it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DialogKey {
    pub(super) call_id: String,
    pub(super) local_tag: String,
}

/// One call by SIP.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) trunk: Option<Arc<Trunk>>,
    /// Where the peer is, when nothing in the dialog says otherwise.
    pub(super) peer: Target,
    pub(super) key: DialogKey,
    /// Answers challenges, if we have credentials.
    pub(super) digest: Option<DigestClient>,
    /// The call has heard its last event; what is left is politeness.
    pub(super) over: bool,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// An INVITE from the peer without our final response.
    Incoming(Box<IncomingCall>),
    /// An INVITE of ours without a 2xx.
    Outgoing(Box<OutgoingCall>),
    /// A 2xx was sent or received.
    Established(Box<Established>),
}

#[derive(Debug)]
pub(super) struct IncomingCall {
    pub(super) tx: TxId,
    pub(super) invite: Request,
    pub(super) dialog: Dialog,
    /// 480 at this moment (ring timeout), or 487 when the INVITE's Expires says so.
    pub(super) give_up: Instant,
    pub(super) expires: bool,
    /// Present when 18x are to be sent reliably.
    pub(super) reliable: Option<ReliableProvisional>,
    /// A reliable 18x carried our answer.
    pub(super) answered_early: bool,
    /// A reliable 18x carried our offer, because the INVITE brought none; its answer comes in a PRACK.
    pub(super) offered_early: Option<Vec<u8>>,
    pub(super) early: Early,
}

/// Offers in one early dialog, after the first one (RFC 3262 section 5, RFC 3311).
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The first offer has its answer, reliably: from here on both sides may offer anew.
    pub(super) settled: bool,
    /// The peer's PRACK or UPDATE whose offer the call has to answer.
    pub(super) offered: Option<Offered>,
    /// Our UPDATE with an offer.
    pub(super) pending: Option<TxId>,
    /// What we last answered.
    pub(super) local_sdp: Option<Vec<u8>>,
}

impl Early {
    /// Whether we may offer.
    pub(super) fn is_free(&self) -> bool {
        self.settled && self.offered.is_none() && self.pending.is_none()
    }
}

impl IncomingCall {
    /// The INVITE brought no description: ours is the offer.
    pub(super) fn is_late_offer(&self) -> bool {
        !matches!(session_description(&self.invite.headers, &self.invite.body), Ok(Some(_)))
    }

    /// Whether the next response must wait: for a PRACK, or for an open offer.
    pub(super) fn is_busy(&self) -> bool {
        let offers = self.early.offered.is_some() || self.early.pending.is_some();
        offers || self.reliable.as_ref().is_some_and(ReliableProvisional::is_busy)
    }

    pub(super) fn takes_update(&self) -> bool {
        takes(&self.invite.headers, &Method::Update)
    }
}

#[derive(Debug)]
pub(super) struct OutgoingCall {
    pub(super) tx: TxId,
    pub(super) invite: OutgoingInvite,
    /// The challenges the INVITE has met.
    pub(super) met: Challenged,
    /// How often a session interval was too small for somebody.
    pub(super) intervals: u8,
    pub(super) forks: Vec<Fork>,
    /// A CANCEL is wanted, and perhaps sent.
    pub(super) cancel: Option<Cancel>,
    /// When we stop waiting: renewed by each sign of life (timer C, RFC 3261 section 16.6 item 11).
    pub(super) give_up: Instant,
    /// How long the callee may ring at all.
    pub(super) ring_until: Option<Instant>,
}

impl OutgoingCall {
    /// When it is enough.
    pub(super) fn deadline(&self) -> Instant {
        let ring_until = self.ring_until.filter(|_| self.cancel.is_none());
        ring_until.map_or(self.give_up, |at| at.min(self.give_up))
    }
}

/// An early dialog of an outgoing call.
#[derive(Debug)]
pub(super) struct Fork {
    pub(super) dialog: Dialog,
    /// The RSeq that was taken last.
    pub(super) last_rseq: Option<u32>,
    /// Whether the peer takes UPDATE.
    pub(super) takes_update: bool,
    pub(super) early: Early,
    pub(super) held: Option<HeldPrack>,
}

#[derive(Debug)]
pub(super) struct Cancel {
    pub(super) reason: HeaderValue,
    pub(super) sent: bool,
}

#[derive(Debug)]
pub(super) struct Established {
    pub(super) dialog: Dialog,
    /// Whether the Call-ID is ours: decides the wait after a glare (RFC 3261 section 14.1).
    pub(super) caller: bool,
    /// A 2xx of ours that waits for its ACK.
    pub(super) unacked: Option<Unacked>,
    /// The peer's re-INVITE or UPDATE that the call has to answer.
    pub(super) offered: Option<Offered>,
    /// Our own re-INVITE.
    pub(super) reoffer: Reoffer,
    /// The INVITE whose 2xx brought an offer that the call has to answer.
    pub(super) awaiting_answer: Option<TxId>,
    /// BYE as soon as the ACK is here (RFC 3261 section 15).
    pub(super) hang_up: Option<HeaderValue>,
    pub(super) session: Option<SessionTimer>,
    /// The smallest session interval that somebody on the way takes, as far as we were told (RFC 4028 section 7.4).
    pub(super) min_interval: Option<Duration>,
    /// Whether the peer takes UPDATE.
    pub(super) peer_takes_update: bool,
    /// What we last put into a 2xx or an offer; a session refresh by re-INVITE repeats it.
    pub(super) local_sdp: Option<Vec<u8>>,
    /// A transfer the peer asks for.
    pub(super) transfer_in: Option<TransferIn>,
    /// A transfer we asked for.
    pub(super) transfer_out: Option<TransferOut>,
    /// REFERs of the peer so far.
    pub(super) refers: u32,
}

/// A 2xx to INVITE, sent again by us on every transport until its ACK (RFC 3261 section 13.3.1.4).
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) cseq: u32,
    pub(super) response: Bytes,
    pub(super) target: Target,
    pub(super) resend: Resend,
    pub(super) give_up: Instant,
    /// Of the first INVITE, not of a re-INVITE.
    pub(super) first: bool,
    /// The 2xx carried the offer, so the ACK must bring the answer.
    pub(super) offered: bool,
}

/// An open re-INVITE or UPDATE of the peer.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) tx: TxId,
    pub(super) request: Request,
    pub(super) give_up: Instant,
}

/// Our own offers, one at a time.
#[derive(Debug)]
pub(super) enum Reoffer {
    None,
    /// Waits for its turn: until the moment after a glare, or until something open is done.
    Waiting {
        sdp: Vec<u8>,
        not_before: Option<Instant>,
        tries: u8,
    },
    /// Sent.
    Pending {
        tx: TxId,
        sdp: Vec<u8>,
        tries: u8,
        met: Challenged,
    },
}

impl Established {
    pub(super) fn new(dialog: Dialog, caller: bool) -> Self {
        Self {
            dialog,
            caller,
            unacked: None,
            offered: None,
            reoffer: Reoffer::None,
            awaiting_answer: None,
            hang_up: None,
            session: None,
            min_interval: None,
            peer_takes_update: false,
            local_sdp: None,
            transfer_in: None,
            transfer_out: None,
            refers: 0,
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|unacked| unacked.resend.at().min(unacked.give_up));
        let offered = self.offered.as_ref().map(|offered| offered.give_up);
        let reoffer = match &self.reoffer {
            Reoffer::Waiting { not_before, .. } => *not_before,
            Reoffer::None | Reoffer::Pending { .. } => None,
        };
        let session = self.session.as_ref().map(SessionTimer::next_timeout);
        let transfer_in = self.transfer_in.as_ref().map(TransferIn::next_timeout);
        let transfer_out = self.transfer_out.as_ref().and_then(TransferOut::next_timeout);
        [unacked, offered, reoffer, session, transfer_in, transfer_out].into_iter().flatten().min()
    }
}

impl Leg {
    fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Incoming(call) => {
                let reliable = call.reliable.as_ref().and_then(ReliableProvisional::next_timeout);
                let offered = call.early.offered.as_ref().map(|offered| offered.give_up);
                [Some(call.give_up), reliable, offered].into_iter().flatten().min()
            }
            State::Outgoing(call) => {
                let offers = call.forks.iter().filter_map(|fork| fork.early.offered.as_ref());
                offers.map(|offered| offered.give_up).chain([call.deadline()]).min()
            }
            State::Established(call) => call.next_timeout(),
        }
    }
}

impl UserAgent {
    pub(super) fn leg_command(&mut self, now: Instant, id: LegId, command: LegCommand) {
        let Some(leg) = self.legs.get(&id).filter(|leg| !leg.over) else { return ignored() };
        match (&leg.state, command) {
            (State::Incoming(_), LegCommand::Ring { status, sdp }) => self.ring(now, id, status, sdp),
            (State::Incoming(_), LegCommand::Answer { sdp }) => self.answer(now, id, sdp),
            (State::Incoming(_), LegCommand::Reject { status, reason, headers }) => {
                self.reject(now, id, status, reason, &headers);
            }
            (State::Incoming(_), LegCommand::Hangup { reason }) => self.decline(now, id, reason),
            (State::Outgoing(_), LegCommand::Hangup { reason }) => self.give_up(now, id, reason),
            (State::Established(_), LegCommand::Acknowledge { sdp }) => self.acknowledge(now, id, sdp),
            (State::Established(_), LegCommand::AnswerReinvite { sdp }) => self.answer_reinvite(now, id, sdp),
            (State::Established(_), LegCommand::RejectReinvite { status }) => {
                self.reject_reinvite(now, id, status);
            }
            (State::Established(_), LegCommand::Reinvite { sdp } | LegCommand::Update { sdp }) => {
                self.reinvite(now, id, sdp);
            }
            (_, LegCommand::Update { sdp }) => self.offer_early(now, id, sdp),
            (State::Established(_), LegCommand::AnswerEarly { sdp }) => self.answer_reinvite(now, id, sdp),
            (State::Established(_), LegCommand::RejectEarly { status }) => {
                self.reject_reinvite(now, id, status);
            }
            (_, LegCommand::AnswerEarly { sdp }) => self.answer_early(now, id, sdp),
            (_, LegCommand::RejectEarly { status }) => self.reject_early(now, id, status),
            (State::Established(_), LegCommand::Refer(referral)) => self.refer(now, id, &referral),
            (State::Established(_), LegCommand::AcceptTransfer) => self.accept_transfer(now, id),
            (State::Established(_), LegCommand::RejectTransfer { status }) => {
                self.reject_transfer(now, id, status);
            }
            (State::Established(_), LegCommand::TransferProgress { status, reason }) => {
                self.transfer_progress(now, id, status, reason);
            }
            (State::Established(_), LegCommand::SendDtmf { digit, duration_ms }) => {
                self.send_dtmf(now, id, digit, duration_ms);
            }
            (State::Established(_), LegCommand::Hangup { reason }) => self.hang_up(now, id, reason),
            (State::Incoming(_) | State::Outgoing(_) | State::Established(_), _) => ignored(),
        }
        self.rearm(id);
    }

    pub(super) fn leg_timeout(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        match leg.state {
            State::Incoming(_) => self.incoming_timeout(now, id),
            State::Outgoing(_) => self.outgoing_timeout(now, id),
            State::Established(_) => self.established_timeout(now, id),
        }
        self.rearm(id);
    }

    /// Sets the leg's deadline after it changed.
    pub(super) fn rearm(&mut self, id: LegId) {
        let at = self.legs.get(&id).and_then(Leg::next_timeout);
        self.deadlines.set(id, at);
    }

    /// Tells the call; the last event makes the leg deaf.
    pub(super) fn tell_leg(&mut self, id: LegId, event: LegEvent) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.over {
            return;
        }
        leg.over =
            matches!(event, LegEvent::Cancelled { .. } | LegEvent::Failed { .. } | LegEvent::Ended { .. });
        self.tell(UaEvent::Leg(id, event));
    }

    /// Tells the call that it is over, and forgets the leg.
    pub(super) fn end_leg(&mut self, id: LegId, by: EndedBy, reason: Option<String>) {
        self.tell_leg(id, LegEvent::Ended { by, reason, cause: None });
        self.forget_leg(id);
    }

    pub(super) fn new_leg_id(&mut self, now: Instant) -> LegId {
        let unix_ms = self.config.epoch.map_or(0, |(at, unix)| {
            let since = i64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or_default();
            u64::try_from(unix.get() + since).unwrap_or_default()
        });
        LegId::from_parts(unix_ms, self.rng.random())
    }

    pub(super) fn add_leg(&mut self, id: LegId, leg: Leg) {
        self.dialogs.insert(leg.key.clone(), id);
        self.legs.insert(id, leg);
        metrics::gauge!("tandem_sip_legs").set(self.legs.len() as f64);
        self.rearm(id);
    }

    pub(super) fn forget_leg(&mut self, id: LegId) {
        self.deadlines.set(id, None);
        if let Some(leg) = self.legs.remove(&id) {
            self.expect_late_2xx(&leg);
            self.dialogs.remove(&leg.key);
            self.remember_ended(&leg);
            if let State::Incoming(call) = leg.state {
                self.incoming.remove(&call.tx);
            }
        }
        metrics::gauge!("tandem_sip_legs").set(self.legs.len() as f64);
    }

    pub(super) fn incoming_call(&mut self, id: LegId) -> Option<&mut IncomingCall> {
        match &mut self.legs.get_mut(&id)?.state {
            State::Incoming(call) => Some(call),
            State::Outgoing(_) | State::Established(_) => None,
        }
    }

    pub(super) fn outgoing_call(&mut self, id: LegId) -> Option<&mut OutgoingCall> {
        match &mut self.legs.get_mut(&id)?.state {
            State::Outgoing(call) => Some(call),
            State::Incoming(_) | State::Established(_) => None,
        }
    }

    pub(super) fn established(&mut self, id: LegId) -> Option<&mut Established> {
        match &mut self.legs.get_mut(&id)?.state {
            State::Established(call) => Some(call),
            State::Incoming(_) | State::Outgoing(_) => None,
        }
    }
}

fn ignored() {
    metrics::counter!("tandem_sip_commands_ignored_total").increment(1);
}

/// A request inside a dialog that is not ours to answer.
pub(super) fn stray() {
    dropped("stray_request");
}
