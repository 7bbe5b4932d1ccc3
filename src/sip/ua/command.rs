//! What a call asks of its SIP leg.

pub use crate::sip::digest::Credentials;
use crate::sip::header::reason::Reason;
use crate::sip::message::StatusCode;
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
    /// Request-URI and To.
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
}
