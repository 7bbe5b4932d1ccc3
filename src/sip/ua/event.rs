//! What a SIP leg tells its call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::refer::{TransferAsked, TransferNews};
use crate::id::LegId;
use crate::sip::NameAddr;
use crate::sip::header::reason::Reason;
use crate::sip::identity::IncomingIdentity;
use crate::sip::message::{Request, Response, StatusCode, Transport};
use crate::sip::trunk::Trunk;

/// What the user agent tells the layer above.
#[derive(Debug)]
pub enum UaEvent {
    /// A new call. 100 is already sent; the layer above rings, answers or rejects `leg`.
    Invite(Box<IncomingInvite>),
    /// Something on a leg.
    Leg(LegId, LegEvent),
    /// The outcome of an OPTIONS ping.
    Pong(Pong),
    /// The outcome of [`super::UserAgent::request`].
    Answer {
        /// As given to `request`.
        id: u64,
        /// What came of it.
        answer: Box<Answer>,
    },
    /// A phone came or went.
    Phone(PhoneNews),
}

/// The outcome of a request outside of any dialog.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The final status; 408 for a timeout and 503 for a transport error (RFC 3261 section 8.1.3.1).
    pub status: StatusCode,
    /// The response; `None` when the status is made up.
    pub response: Option<Response>,
    /// The CSeq number of the last try.
    pub cseq: u32,
    /// From the first transmission of the last try to the answer.
    pub round_trip: Duration,
    /// Our address, as the request's Contact showed it.
    pub local: SocketAddr,
}

/// A registered phone came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneNews {
    /// It has this many contacts now.
    Registered {
        /// The phone's user name.
        user: String,
        /// At least 1.
        contacts: usize,
    },
    /// Its last contact is gone.
    Unregistered {
        /// The phone's user name.
        user: String,
    },
}

/// A new incoming call.
#[derive(Debug, Clone)]
pub struct IncomingInvite {
    /// The leg; every command and event of the call carries it.
    pub leg: LegId,
    /// The trunk whose allow-list (and credentials) admitted the call.
    pub trunk: Arc<Trunk>,
    /// The SIP Call-ID.
    pub call_id: String,
    /// From, as sent.
    pub from: NameAddr,
    /// To, as sent.
    pub to: NameAddr,
    /// The number or user dialled, from the place the profile names, unescaped; empty when the URI has no user.
    pub called: String,
    /// The caller's number or user, from the place the profile trusts, unescaped; `None` when anonymous.
    pub caller: Option<String>,
    /// The caller's display name, if any.
    pub caller_name: Option<String>,
    /// The whole INVITE.
    pub request: Request,
    /// The SDP offer; `None`: the answer to our offer comes with the ACK.
    pub offer: Option<Vec<u8>>,
    /// Where it came from.
    pub source: SocketAddr,
    /// Our address it came to, or the advertised one: the host to put into SDP.
    pub local: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// The leg of ours whose place this call is to take (RFC 3891).
    pub replaces: Option<LegId>,
    /// Max-Forwards as received; a call made because of this one gets one less.
    pub max_forwards: u8,
    /// The registered phone that calls, by its user name.
    pub phone: Option<String>,
    /// Numbers in E.164, diversions, the verdict on the caller, and what may be passed on.
    pub identity: Box<IncomingIdentity>,
}

/// What happens on a leg. `Cancelled`, `Failed` and `Ended` are last: after one of them the leg is forgotten,
/// and each leg gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegEvent {
    /// Incoming call: the caller gave up before an answer (487 is sent).
    Cancelled {
        /// The caller's `Reason` header, if any.
        reason: Option<String>,
    },
    /// Incoming call: the first ACK of our 200. The call is established.
    Acked {
        /// The answer, when our 200 carried the offer.
        answer: Option<Vec<u8>>,
    },
    /// Outgoing call: 101-199.
    Progress {
        /// 101 to 199.
        status: StatusCode,
        /// Early media, if the response describes it.
        sdp: Option<Vec<u8>>,
        /// Which early dialog: 0 for the first, counted up for each fork.
        fork: u16,
        /// What `P-Early-Media` says: whether the callee may send media before the answer (RFC 5009).
        early_media_authorized: Option<bool>,
    },
    /// The peer offers media before the call is answered, by PRACK or UPDATE. Wants
    /// [`super::LegCommand::AnswerEarly`] or [`super::LegCommand::RejectEarly`].
    EarlyOffer {
        /// The offer.
        offer: Vec<u8>,
    },
    /// Incoming call without an offer of its own: the answer to the offer in our reliable provisional response.
    EarlyAnswer {
        /// The answer.
        answer: Vec<u8>,
    },
    /// Established call: the peer asks us to call somebody else. Wants [`super::LegCommand::AcceptTransfer`] or
    /// [`super::LegCommand::RejectTransfer`].
    Transfer(Box<TransferAsked>),
    /// What becomes of our [`super::LegCommand::Refer`].
    Transferring(TransferNews),
    /// Outgoing call: 2xx. The ACK is sent, unless the INVITE had no SDP: then the call must answer the offer
    /// with [`super::LegCommand::Acknowledge`].
    Answered {
        /// The answer, or the offer.
        sdp: Option<Vec<u8>>,
    },
    /// Outgoing call: refused, not reachable, or not answered in time.
    Failed {
        /// The final response; 408 for a timeout and 503 for a transport error (RFC 3261 section 8.1.3.1).
        status: StatusCode,
        /// Its reason phrase.
        reason: String,
        /// Seconds of `Retry-After`, if any.
        retry_after: Option<Duration>,
        /// What else the refusal said.
        details: Box<Failure>,
    },
    /// The peer wants to change the session: answer with `AnswerReinvite` or `RejectReinvite`.
    Reinvite {
        /// The offer; `None`: our answer must be an offer of everything we can.
        offer: Option<Vec<u8>>,
    },
    /// The peer's answer to the offer we made in `AnswerReinvite` (the re-INVITE brought no SDP).
    ReinviteAcked {
        /// The answer; `None`: the peer broke the rules and the session stays as it was.
        answer: Option<Vec<u8>>,
    },
    /// The outcome of our `Reinvite`, or of a session refresh that carried SDP.
    ReinviteResult {
        /// The final status; 2xx means that the new session holds.
        status: StatusCode,
        /// The answer.
        sdp: Option<Vec<u8>>,
    },
    /// A key by INFO.
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// Milliseconds; `None` when the peer did not say.
        duration_ms: Option<u32>,
    },
    /// The leg is over.
    Ended {
        /// Who ended it.
        by: EndedBy,
        /// The peer's or our `Reason` header, or a description.
        reason: Option<String>,
        /// The Q.850 cause in the peer's `Reason`, if it gave one.
        cause: Option<u16>,
    },
}

/// What a refusal of an outgoing call said besides its status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// Where a 3xx points (section 8.1.3.4), the best first, each with its `q` in thousandths. At most 16.
    pub contacts: Vec<(NameAddr, u16)>,
    /// Its `Reason` values.
    pub causes: Vec<Reason>,
    /// Nobody answered: the status is made up.
    pub timed_out: bool,
    /// The transport failed: the status is made up.
    pub transport_failed: bool,
    /// Its `X-`, `Warning` and `Identity-Info` rows as text: at most 16, of at most 256 octets each.
    pub headers: Vec<(String, String)>,
}

/// Who ended a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// We did, by command.
    Us,
    /// The peer sent BYE.
    Peer,
    /// Our 2xx was never acknowledged (RFC 3261 section 13.3.1.4).
    NoAck,
    /// The session timer ran out (RFC 4028 section 10).
    SessionExpired,
    /// An in-dialog request got 408 or 481, or no answer at all.
    Lost,
    /// The peer did not keep to the protocol so that the session cannot go on, such as an ACK without the answer.
    ProtocolError,
}

/// The outcome of an OPTIONS ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// As given to [`super::UserAgent::ping`].
    pub id: u64,
    /// Any final status means that the peer lives; `None`: no answer.
    pub status: Option<StatusCode>,
    /// From the first transmission to the answer.
    pub round_trip: Duration,
}
