//! A leg of a call, whichever way its party came.
//!
//! One face for a phone by SIP and for a party behind a PBX's own door. What only SIP has (provisional responses,
//! REFER, relayed packets) is a no here for the others; what only a PBX has (a dialplan to go back to) is a no for
//! SIP.

use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::audio::Codec;
use crate::event::Quality;
use crate::id::LegId;
use crate::pbx::{Departure, DetachedPbxLeg, Exit, PbxLeg, PbxSignal};
use crate::rtp::pacer::Pacer;
use crate::rtp::{ItemKey, PlayedItem};
use crate::sip::cause::{goodbye_across, reason_across};
use crate::sip::header::cause::status_for_cause;
use crate::sip::leg::{DetachedLeg, HangUp, HangUpCause, LegSignal, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::ua::{HangupReason, Referral, TransferNews};

/// One party's attachment to a call.
pub enum Leg {
    /// A phone or a carrier.
    Sip(Box<SipLeg>),
    /// A channel of a PBX.
    Pbx(Box<PbxLeg>),
}

impl From<SipLeg> for Leg {
    fn from(leg: SipLeg) -> Self {
        Self::Sip(Box::new(leg))
    }
}

impl From<PbxLeg> for Leg {
    fn from(leg: PbxLeg) -> Self {
        Self::Pbx(Box::new(leg))
    }
}

impl Leg {
    /// Its name.
    pub fn id(&self) -> LegId {
        match self {
            Self::Sip(leg) => leg.id(),
            Self::Pbx(leg) => leg.id(),
        }
    }

    /// Our address as the peer reaches it by SIP.
    pub fn shown(&self) -> IpAddr {
        match self {
            Self::Sip(leg) => leg.shown(),
            Self::Pbx(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The codec we send, once it is known; for a PBX's linear audio the one that is most like it.
    pub fn codec(&self) -> Option<Codec> {
        match self {
            Self::Sip(leg) => leg.codec(),
            Self::Pbx(leg) => leg.codec(),
        }
    }

    /// Where further legs of the same call join the grid.
    pub fn pacer(&self) -> &Pacer {
        match self {
            Self::Sip(leg) => leg.pacer(),
            Self::Pbx(leg) => leg.pacer(),
        }
    }

    /// Lets the caller hear ringing, or (`early_media`) what is played before the answer.
    pub fn ring(&mut self, early_media: bool) {
        match self {
            Self::Sip(leg) => leg.ring(early_media),
            Self::Pbx(leg) => leg.ring(),
        }
    }

    /// Passes a provisional response of another party on.
    pub fn progress(&mut self, status: StatusCode, early_media: bool) {
        match self {
            Self::Sip(leg) => leg.progress(status, early_media),
            Self::Pbx(leg) => leg.ring(),
        }
    }

    /// Answers; the party hears us from now on.
    pub fn answer(&mut self) {
        match self {
            Self::Sip(leg) => leg.answer(),
            Self::Pbx(leg) => leg.answer(),
        }
    }

    /// Refuses the call.
    pub fn reject(&mut self, status: StatusCode, headers: Vec<(String, String)>) {
        match self {
            Self::Sip(leg) => leg.reject(status, headers),
            Self::Pbx(leg) => leg.hang_up(reason_across(status.get(), None, "").cause),
        }
    }

    /// Hangs up as the state requires.
    pub fn hang_up(&mut self, reason: HangupReason) {
        match self {
            Self::Sip(leg) => leg.hang_up(reason),
            Self::Pbx(leg) if reason.protocol == "Q.850" => leg.hang_up(reason.cause),
            Self::Pbx(leg) => leg.hang_up(goodbye_across(None, &reason.text).cause),
        }
    }

    /// Polls signalling and media. Cancel-safe.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LegSignal> {
        match self {
            Self::Sip(leg) => leg.poll(cx),
            Self::Pbx(leg) => poll_pbx(leg, cx),
        }
    }

    /// As [`Self::poll`], and packets that come in leave on `to`, unheard. Only where [`Self::can_relay_to`] says so.
    pub fn poll_relay(&mut self, cx: &mut Context<'_>, to: &mut Self) -> Poll<LegSignal> {
        match (self, to) {
            (Self::Sip(leg), Self::Sip(to)) => leg.poll_relay(cx, to),
            (leg, _) => leg.poll(cx),
        }
    }

    /// Whether packets of this leg may leave on `other` as they are.
    pub fn can_relay_to(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Sip(leg), Self::Sip(other)) if leg.can_relay_to(other))
    }

    /// Whether keys that come as telephone events reach the peer of `other` by themselves while packets are relayed.
    pub fn passes_keys_to(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Sip(leg), Self::Sip(other)) if leg.passes_keys_to(other))
    }

    /// Leaves the grid of slots while packets are relayed, or joins it again.
    pub fn park(&mut self, parked: bool) {
        if let Self::Sip(leg) = self {
            leg.park(parked);
        }
    }

    /// Appends audio of the party that has come in, 24 kHz.
    pub fn take_audio(&mut self, out: &mut Vec<i16>) {
        match self {
            Self::Sip(leg) => leg.take_audio(out),
            Self::Pbx(leg) => leg.take_audio(out),
        }
    }

    /// What the last slot put on the wire, 24 kHz: for the recording. Called after every slot or never.
    pub fn sent_frame(&mut self, out: &mut Vec<i16>) {
        match self {
            Self::Sip(leg) => leg.sent_frame(out),
            Self::Pbx(leg) => leg.sent_frame(out),
        }
    }

    /// Whether [`LegSignal::Sent`] is wanted for every slot.
    pub fn watch_slots(&mut self, wanted: bool) {
        match self {
            Self::Sip(leg) => leg.watch_slots(wanted),
            Self::Pbx(leg) => leg.watch_slots(wanted),
        }
    }

    /// Notes how long received audio took until it was written towards the AI.
    pub fn note_uplink(&mut self, took: Duration) {
        match self {
            Self::Sip(leg) => leg.note_uplink(took),
            Self::Pbx(leg) => leg.note_uplink(took),
        }
    }

    /// Statistics of the media so far.
    pub fn quality(&self) -> Option<Quality> {
        match self {
            Self::Sip(leg) => leg.quality(),
            Self::Pbx(leg) => leg.quality(),
        }
    }

    // What is said to the party.

    /// Queues audio of an item, 24 kHz. Answers how many milliseconds were given up because the queue is full.
    pub fn play(&mut self, item: &ItemKey, pcm: &[i16]) -> u64 {
        match self {
            Self::Sip(leg) => leg.play(item, pcm),
            Self::Pbx(leg) => leg.play(item, pcm),
        }
    }

    /// Queues live audio of the other leg, 24 kHz: heard while no item is.
    pub fn play_live(&mut self, pcm: &[i16]) {
        match self {
            Self::Sip(leg) => leg.play_live(pcm),
            Self::Pbx(leg) => leg.play_live(pcm),
        }
    }

    /// Audio of items that waits to be heard.
    pub fn queued(&self) -> Duration {
        match self {
            Self::Sip(leg) => leg.queued(),
            Self::Pbx(leg) => leg.queued(),
        }
    }

    /// No more audio follows for that item.
    pub fn end_item(&mut self, item: &ItemKey) {
        match self {
            Self::Sip(leg) => leg.end_item(item),
            Self::Pbx(leg) => leg.end_item(item),
        }
    }

    /// Drops everything queued, within the next slot; answers what was unfinished, the audible one first.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        match self {
            Self::Sip(leg) => leg.clear(),
            Self::Pbx(leg) => leg.clear(),
        }
    }

    /// Holds queued audio back, within the next slot, until [`Self::resume`] or [`Self::clear`].
    pub fn pause(&mut self) {
        match self {
            Self::Sip(leg) => leg.pause(),
            Self::Pbx(leg) => leg.pause(),
        }
    }

    /// Queued audio is heard again, from where it was held back.
    pub fn resume(&mut self) {
        match self {
            Self::Sip(leg) => leg.resume(),
            Self::Pbx(leg) => leg.resume(),
        }
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Sip(leg) => leg.is_idle(),
            Self::Pbx(leg) => leg.is_idle(),
        }
    }

    /// Presses keys towards the party in its own way.
    pub fn send_dtmf(&mut self, digits: &str) {
        match self {
            Self::Sip(leg) => leg.send_dtmf(digits),
            Self::Pbx(leg) => leg.send_dtmf(digits),
        }
    }

    /// Whether the party hears us before it is answered, with nobody else to make a ringing tone for it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pbx(leg) if leg.is_open())
    }

    /// Lets a party behind a PBX wait with the PBX's own music, or takes it back.
    pub fn hold(&mut self, on: bool) {
        if let Self::Pbx(leg) = self {
            leg.hold(on);
        }
    }

    // Moving the party.

    /// Takes the peer's wish to move the call.
    pub fn accept_transfer(&self) {
        if let Self::Sip(leg) = self {
            leg.accept_transfer();
        }
    }

    /// Refuses it.
    pub fn reject_transfer(&self, status: StatusCode) {
        if let Self::Sip(leg) = self {
            leg.reject_transfer(status);
        }
    }

    /// Tells the peer how its transfer is getting on.
    pub fn transfer_progress(&self, status: StatusCode) {
        if let Self::Sip(leg) = self {
            leg.transfer_progress(status);
        }
    }

    /// Asks the peer to call somebody else. Whether that can be asked of it.
    pub fn refer(&self, referral: Referral) -> bool {
        match self {
            Self::Sip(leg) => {
                leg.refer(referral);
                true
            }
            Self::Pbx(_) => false,
        }
    }

    /// Whether the party can be sent there in its PBX.
    pub fn can_leave(&self, to: &Exit) -> bool {
        matches!(self, Self::Pbx(leg) if leg.can_leave(to))
    }

    /// Sends the party elsewhere in its PBX. What comes of it is told as [`LegSignal::Transferring`].
    pub fn leave(&mut self, to: &Exit) {
        if let Self::Pbx(leg) = self {
            leg.leave(to);
        }
    }

    /// Takes the leg off its worker. `None`: its sockets are lost, and it has hung up.
    pub fn detach(self) -> Option<Detached> {
        let lost = |error: &dyn std::fmt::Display| tracing::warn!(%error, "a party cannot leave its call");
        match self {
            Self::Sip(leg) => leg.detach().inspect_err(|error| lost(error)).ok().map(Detached::Sip),
            Self::Pbx(leg) => {
                leg.detach().inspect_err(|error| lost(error)).ok().map(|leg| Detached::Pbx(Box::new(leg)))
            }
        }
    }
}

fn poll_pbx(leg: &mut PbxLeg, cx: &mut Context<'_>) -> Poll<LegSignal> {
    leg.poll(cx).map(|signal| match signal {
        PbxSignal::Audio { since } => LegSignal::Audio { since },
        PbxSignal::Sent { due, item } => LegSignal::Sent { due, item },
        PbxSignal::Dtmf { digit, method } => LegSignal::Dtmf { digit, method },
        PbxSignal::ItemStarted(item) => LegSignal::ItemStarted(item),
        PbxSignal::ItemFinished { item, played_ms } => LegSignal::ItemFinished { item, played_ms },
        PbxSignal::DtmfSent => LegSignal::DtmfSent,
        PbxSignal::Held(held) => LegSignal::MediaChanged {
            state: if held { "held_by_peer" } else { "active" },
            codec: leg.codec().unwrap_or(Codec::Pcmu),
        },
        PbxSignal::Ringing => LegSignal::Ringing { status: StatusCode::RINGING.get() },
        PbxSignal::Established => LegSignal::Established,
        // A channel that leaves its application does what a phone does that is asked to call somebody else.
        PbxSignal::Left => LegSignal::Transferring(TransferNews::Done(StatusCode::OK.get())),
        PbxSignal::Stayed(reason) => {
            tracing::info!(%reason, "the channel stays");
            LegSignal::Transferring(TransferNews::Done(StatusCode::TEMPORARILY_UNAVAILABLE.get()))
        }
        PbxSignal::Gone(departure) => LegSignal::HungUp(hang_up(departure, leg.is_established())),
    })
}

/// How a channel's end looks to a call. A channel that was `answered` ended well if its party ended it, with whatever
/// cause; one that was not is refused or given up, with the status that says so (RFC 3398 section 7.2.4.1).
fn hang_up(departure: Departure, answered: bool) -> HangUp {
    let Departure { cause: code, reason, by_peer } = departure;
    let (cause, status) = match (by_peer, answered) {
        (true, true) => (HangUpCause::Peer, StatusCode::OK),
        (true, false) => (HangUpCause::Refused, status_for_cause(code)),
        (false, _) => (HangUpCause::Lost, status_for_cause(code)),
    };
    let status = status.get();
    HangUp { cause, status, reason, cause_code: Some(code), retry_after: None, failure: None }
}

/// A leg that is tied to no thread. Dropped, it hangs up.
#[derive(Debug)]
pub enum Detached {
    /// A phone or a carrier.
    Sip(DetachedLeg),
    /// A channel of a PBX.
    Pbx(Box<DetachedPbxLeg>),
}

impl Detached {
    /// Goes on at the worker of this pacer. `None`: its sockets are lost, and it has hung up.
    pub fn attach(self, pacer: Pacer) -> Option<Leg> {
        let lost = |error: &dyn std::fmt::Display| tracing::warn!(%error, "a party was lost on its way");
        match self {
            Self::Sip(leg) => leg.attach(pacer).inspect_err(|error| lost(error)).ok().map(Leg::from),
            Self::Pbx(leg) => leg.attach(pacer).inspect_err(|error| lost(error)).ok().map(Leg::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(cause: u16, by_peer: bool, answered: bool) -> (HangUpCause, u16) {
        let hang_up = hang_up(Departure { cause, reason: "x".to_owned(), by_peer }, answered);
        assert_eq!((hang_up.reason.as_str(), hang_up.cause_code), ("x", Some(cause)));
        (hang_up.cause, hang_up.status)
    }

    #[test]
    fn a_channel_that_was_never_answered_has_no_200() {
        let refused = [(1, 404), (16, 487), (17, 486), (18, 408), (19, 480), (21, 403), (31, 480), (99, 500)];
        for (cause, status) in refused {
            assert_eq!(ended(cause, true, false), (HangUpCause::Refused, status), "{cause}");
        }
        for (cause, status) in [(3, 404), (27, 502), (34, 503), (41, 503), (44, 503)] {
            assert_eq!(ended(cause, false, false), (HangUpCause::Lost, status), "{cause}");
        }
        for cause in 0..=127 {
            for by_peer in [true, false] {
                assert!(ended(cause, by_peer, false).1 >= 400, "{cause}");
            }
        }
    }

    #[test]
    fn whoever_was_answered_and_goes_has_hung_up_whatever_the_cause() {
        for cause in [16, 17, 19, 21, 31, 102, 127] {
            assert_eq!(ended(cause, true, true), (HangUpCause::Peer, 200), "{cause}");
        }
        assert_eq!(ended(41, false, true), (HangUpCause::Lost, 503));
    }
}
