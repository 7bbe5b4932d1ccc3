//! Requests of ours inside dialogs other than INVITE and BYE, and their answers: with credentials when they are
//! challenged (RFC 3261 sections 12.2.1, 22.2).

use std::time::Instant;

use super::legs::{Leg, State};
use super::outgoing::renumber;
use super::{Purpose, UserAgent};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::digest::Challenged;
use crate::sip::headers::HeaderName;
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::TxId;
use crate::sip::transport::Target;

/// A request on its way, kept to be sent again with credentials.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) leg: LegId,
    /// The peer's tag: an outgoing call may have several dialogs.
    pub(super) tag: String,
    pub(super) what: What,
    request: Request,
    target: Target,
    met: Challenged,
}

/// What such a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// An INFO; a failed one says nothing about the call (RFC 5057).
    Info,
    /// Acknowledges a reliable provisional response; a failed one is left to the callee's patience.
    Prack,
    /// An UPDATE that refreshes the session.
    Refresh,
    /// An UPDATE with an offer in an early dialog.
    EarlyOffer { sdp: Vec<u8> },
    /// Asks the peer for a transfer.
    Refer,
    /// Tells the transferor how it goes.
    Notify,
}

impl UserAgent {
    /// The next request of one dialog of a leg, and where it goes.
    pub(super) fn request_in(&mut self, id: LegId, tag: &str, method: Method) -> Option<(Request, Target)> {
        let request = self.legs.get_mut(&id)?.dialog_mut(tag)?.request(method);
        let leg = self.legs.get(&id)?;
        let dialog = leg.dialogs().find(|dialog| dialog.remote_tag() == tag)?;
        Some((request, self.dialog_target(dialog, leg.peer, leg.trunk.as_deref())))
    }

    /// Sends a request made by [`Self::request_in`].
    pub(super) fn say(
        &mut self,
        now: Instant,
        id: LegId,
        what: What,
        mut request: Request,
        target: Target,
    ) -> Option<TxId> {
        let tag = request.headers.to().ok()?.tag().unwrap_or_default().to_owned();
        self.authorize_unasked(id, &mut request);
        let met = Challenged::default();
        let said = Said { leg: id, tag, what, request: request.clone(), target, met };
        Some(self.send_request(now, request, target, Purpose::Said(Box::new(said))))
    }

    pub(super) fn said_answered(&mut self, now: Instant, tx: TxId, said: Said, response: &Response) {
        let said = match matches!(response.status.get(), 401 | 407) {
            true => match self.say_again(now, tx, said, response) {
                Some(said) => said,
                None => return,
            },
            false => said,
        };
        let (id, status) = (said.leg, response.status);
        match said.what {
            What::Info | What::Prack => {}
            What::Refresh => self.refresh_response(now, id, response),
            What::EarlyOffer { sdp } => self.early_offer_answered(now, tx, id, (&said.tag, sdp), response),
            What::Refer => self.refer_answered(now, id, response),
            What::Notify => self.notify_answered(now, id, status),
        }
        self.rearm(id);
    }

    pub(super) fn said_unanswered(&mut self, now: Instant, tx: TxId, said: Said, status: StatusCode) {
        self.said_answered(now, tx, said, &Response::new(status));
    }

    /// The request with credentials and the dialog's next number. Gives it back when there is nothing better to say.
    fn say_again(&mut self, now: Instant, tx: TxId, mut said: Said, response: &Response) -> Option<Said> {
        let Some(mut digest) = self.legs.get(&said.leg).and_then(|leg| leg.digest.clone()) else {
            return Some(said);
        };
        let mut request = said.request.clone();
        renumber(&mut request);
        if !self.authorize(&mut request, response, &mut digest, &mut said.met) {
            return Some(said);
        }
        let Some(leg) = self.legs.get_mut(&said.leg) else { return Some(said) };
        leg.digest = Some(digest);
        let Some(dialog) = leg.dialog_mut(&said.tag) else { return Some(said) };
        if let Ok(mut cseq) = request.headers.cseq() {
            cseq.number = dialog.next_cseq();
            request.headers.replace(HeaderName::CSeq, cseq);
        }
        let (id, tag, what) = (said.leg, said.tag.clone(), said.what.clone());
        said.request = request.clone();
        let target = said.target;
        let next = self.send_request(now, request, target, Purpose::Said(Box::new(said)));
        if let What::EarlyOffer { .. } = what {
            self.early_offer_renamed(id, &tag, tx, next);
        }
        None
    }
}

impl Leg {
    /// The dialogs of the leg: one, or several early ones.
    pub(super) fn dialogs(&self) -> impl Iterator<Item = &Dialog> {
        let (one, many) = match &self.state {
            State::Incoming(call) => (Some(&call.dialog), None),
            State::Outgoing(call) => (None, Some(call.forks.iter().map(|fork| &fork.dialog))),
            State::Established(call) => (Some(&call.dialog), None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn dialog_mut(&mut self, tag: &str) -> Option<&mut Dialog> {
        let dialog = match &mut self.state {
            State::Incoming(call) => &mut call.dialog,
            State::Outgoing(call) => {
                let mut forks = call.forks.iter_mut().map(|fork| &mut fork.dialog);
                return forks.find(|dialog| dialog.remote_tag() == tag);
            }
            State::Established(call) => &mut call.dialog,
        };
        (dialog.remote_tag() == tag).then_some(dialog)
    }
}
