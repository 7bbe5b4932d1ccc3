//! What a call asks of its SIP leg.

use std::time::Duration;

use super::refer::{Referral, ReplacesRef};
pub use crate::sip::digest::Credentials;
use crate::sip::header::reason::Reason;
use crate::sip::message::{Method, StatusCode};
use crate::sip::transport::Target;
use crate::sip::uri::Uri;

/// What a call may ask of a leg. A command that does not fit the leg's state is ignored and counted
/// (`tandem_sip_commands_ignored_total`): the leg may have ended while the command was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegCommand {
    /// Unanswered incoming call: send 180, 183 or another 101-199, with or without early media. Sent reliably
    /// (RFC 3262) when the caller requires it.
    Ring {
        /// 101 to 199.
        status: StatusCode,
        /// Early media, as an answer (or, after an INVITE without SDP, nothing).
        sdp: Option<Vec<u8>>,
    },
    /// Unanswered incoming call: 200, retransmitted until ACK. The SDP is the answer, or the offer when the INVITE
    /// brought none.
    Answer {
        /// The body.
        sdp: Vec<u8>,
    },
    /// Unanswered incoming call: a final response of 300 to 699. Ends the leg.
    Reject {
        /// 300 to 699.
        status: StatusCode,
        /// Reason phrase; absent: the standard one.
        reason: Option<String>,
        /// More headers, such as `Retry-After`, `Warning` or `Reason`. Values with CR, LF or NUL are left out.
        headers: Vec<(String, String)>,
    },
    /// Outgoing call whose INVITE had no SDP: the answer to the offer in [`super::LegEvent::Answered`].
    Acknowledge {
        /// The body of the ACK.
        sdp: Vec<u8>,
    },
    /// Answers the open [`super::LegEvent::Reinvite`] with 200 and this SDP (answer, or offer when it brought none).
    AnswerReinvite {
        /// The body.
        sdp: Vec<u8>,
    },
    /// Refuses the open [`super::LegEvent::Reinvite`]; the session stays as it was.
    RejectReinvite {
        /// 400 to 699; 488 when the media does not suit.
        status: StatusCode,
    },
    /// Offers new media in the established call. The outcome is [`super::LegEvent::ReinviteResult`]; a glare (491)
    /// is tried again by the core after the wait of RFC 3261 section 14.1.
    Reinvite {
        /// The offer.
        sdp: Vec<u8>,
    },
    /// Offers new media by UPDATE where an early dialog allows it (RFC 3311); in the established call this is
    /// [`Self::Reinvite`]. The outcome is [`super::LegEvent::ReinviteResult`].
    Update {
        /// The offer.
        sdp: Vec<u8>,
    },
    /// Answers the open [`super::LegEvent::EarlyOffer`]: 200 to the PRACK or UPDATE that brought it.
    AnswerEarly {
        /// The answer.
        sdp: Vec<u8>,
    },
    /// Refuses the open [`super::LegEvent::EarlyOffer`]; the session stays as it was.
    RejectEarly {
        /// 400 to 699; 488 when the media does not suit.
        status: StatusCode,
    },
    /// Established call: asks the peer to call somebody else (RFC 3515). What becomes of it is
    /// [`super::LegEvent::Transferring`].
    Refer(Box<Referral>),
    /// Takes the open [`super::LegEvent::Transfer`]: 202, then NOTIFY with `100 Trying`.
    AcceptTransfer,
    /// Refuses the open [`super::LegEvent::Transfer`].
    RejectTransfer {
        /// 300 to 699; 603 when it is not wanted, 403 when it is not allowed.
        status: StatusCode,
    },
    /// Tells the transferor how its transfer goes; 200 and above is the last word.
    TransferProgress {
        /// Status of the call to the transfer target.
        status: StatusCode,
        /// Its reason phrase; absent: the standard one.
        reason: Option<String>,
    },
    /// Sends a key as INFO `application/dtmf-relay`.
    SendDtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// Milliseconds.
        duration_ms: u32,
    },
    /// Ends the leg with BYE, CANCEL or a final response, as its state requires.
    Hangup {
        /// For the `Reason` header; absent: Q.850 cause 16.
        reason: Option<HangupReason>,
    },
}

/// Why we hang up, as the `Reason` header says it (RFC 3326).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangupReason {
    /// `Q.850` or `SIP`.
    pub protocol: &'static str,
    /// Cause value of the protocol.
    pub cause: u16,
    /// In words; control characters become spaces.
    pub text: String,
}

impl HangupReason {
    /// Q.850 cause 16, normal call clearing.
    pub fn normal() -> Self {
        Self { protocol: "Q.850", cause: 16, text: "Normal call clearing".into() }
    }

    pub(crate) fn to_header(&self) -> Reason {
        Reason { protocol: self.protocol.into(), cause: Some(self.cause), text: Some(self.text.clone()) }
    }
}

/// An outgoing call.
#[derive(Debug, Clone)]
pub struct OutgoingInvite {
    /// Where the INVITE is sent. `local` decides Via and Contact.
    pub target: Target,
    /// To, and the Request-URI unless `request_uri` names another.
    pub to: Uri,
    /// From URI.
    pub from: Uri,
    /// Display name in From.
    pub from_display: Option<String>,
    /// The offer; `None` asks the callee for one.
    pub sdp: Option<Vec<u8>>,
    /// Trunk the call goes over, by name; it brings credentials and admits the peer's requests.
    pub trunk: Option<String>,
    /// Answers a 401 or 407.
    pub credentials: Option<Credentials>,
    /// More headers. Values with CR, LF or NUL are left out.
    pub headers: Vec<(String, String)>,
    /// The Call-ID, when the caller chose it so that it knows it beforehand; `None`: a random one.
    pub call_id: Option<String>,
    /// Request-URI, when it is another than To.
    pub request_uri: Option<Uri>,
    /// Preloaded Route, first hop first (RFC 3261 section 8.1.2). `target` stays where the INVITE is sent.
    pub route: Vec<Uri>,
    /// Max-Forwards.
    pub max_forwards: u8,
    /// Says `Supported: 100rel` and acknowledges reliable provisional responses (RFC 3262).
    pub reliable: bool,
    /// Session interval to ask for (RFC 4028), at least 90 s; `None` asks for none.
    pub session_expires: Option<Duration>,
    /// How long the callee may ring, from now, whatever it says meanwhile. `None`: [`super::UaConfig::ring_timeout`]
    /// from its last sign of life.
    pub ring_timeout: Option<Duration>,
    /// Puts the ring timeout into `Expires`.
    pub expires: bool,
    /// The dialog the callee is to replace by this one (RFC 3891).
    pub replaces: Option<ReplacesRef>,
    /// The caller is withheld: `Privacy` is put and From is anonymous (the layer above did it), so our display
    /// name is left out as well.
    pub privacy: bool,
}

impl OutgoingInvite {
    /// A call without offer, credentials and wishes.
    pub fn new(target: Target, to: Uri, from: Uri) -> Self {
        Self {
            target,
            to,
            from,
            from_display: None,
            sdp: None,
            trunk: None,
            credentials: None,
            headers: Vec::new(),
            call_id: None,
            request_uri: None,
            route: Vec::new(),
            max_forwards: 70,
            reliable: false,
            session_expires: None,
            ring_timeout: None,
            expires: false,
            replaces: None,
            privacy: false,
        }
    }
}

/// A request of ours outside of any dialog, such as REGISTER or OPTIONS.
#[derive(Debug, Clone)]
pub struct OutRequest {
    /// Anything but INVITE, ACK and CANCEL.
    pub method: Method,
    /// Where it is sent. `local` decides Via and Contact.
    pub target: Target,
    /// Request-URI.
    pub uri: Uri,
    /// From URI.
    pub from: Uri,
    /// To URI.
    pub to: Uri,
    /// The Call-ID; `None`: a random one.
    pub call_id: Option<String>,
    /// The CSeq number; `None`: 1. A retry with credentials takes the next one: see [`super::Answer::cseq`].
    pub cseq: Option<u32>,
    /// Preloaded Route, first hop first.
    pub route: Vec<Uri>,
    /// Answers a 401 or 407.
    pub credentials: Option<Credentials>,
    /// More headers. Values with CR, LF or NUL are left out.
    pub headers: Vec<(String, String)>,
    /// What our Contact says besides the address; `None`: no Contact.
    pub contact: Option<ContactSpec>,
}

/// The parts of a Contact that the caller chooses; host and port are those we listen on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContactSpec {
    /// User part, unescaped; empty: none.
    pub user: String,
    /// Header parameters, each with its `;`, such as `;expires=300`.
    pub params: String,
}
