//! A leg on its way from one call to another, which may live on another worker.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{LegMedia, LegSignal, MediaError, SipLeg};
use crate::id::LegId;
use crate::rtp::media::DetachedMedia;
use crate::rtp::pacer::Pacer;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::negotiation::Negotiation;
use crate::sip::ua::{HangupReason, LegCommand, LegEvent};

/// An established leg that is tied to no thread. Dropped, it hangs up.
pub struct DetachedLeg {
    id: LegId,
    endpoint: EndpointHandle,
    /// Absent once the leg goes on elsewhere.
    rest: Option<Box<Rest>>,
}

struct Rest {
    events: mpsc::Receiver<LegEvent>,
    settings: LegMedia,
    negotiation: Negotiation,
    media: Option<DetachedMedia>,
    signals: VecDeque<LegSignal>,
    keys: u32,
    up: bool,
    over: bool,
}

impl SipLeg {
    /// Takes the leg off its worker. The peer notices nothing but a moment of silence.
    ///
    /// # Errors
    /// [`MediaError::Unavailable`] when its sockets cannot be had; the leg has then hung up.
    pub fn detach(mut self) -> Result<DetachedLeg, MediaError> {
        let media = self.media.take().map(crate::rtp::media::RtpMedia::detach).transpose();
        let media = media.map_err(|error| MediaError::Unavailable(error.to_string()))?;
        let (_, closed) = mpsc::channel(1);
        let rest = Rest {
            events: std::mem::replace(&mut self.events, closed),
            settings: self.settings.clone(),
            negotiation: self.negotiation.clone(),
            media,
            signals: std::mem::take(&mut self.signals),
            keys: self.keys,
            up: self.up,
            over: self.over,
        };
        // From here on it is not this value's to hang up.
        self.over = true;
        Ok(DetachedLeg { id: self.id, endpoint: self.endpoint.clone(), rest: Some(Box::new(rest)) })
    }
}

impl DetachedLeg {
    /// Which leg.
    pub fn id(&self) -> LegId {
        self.id
    }

    /// Goes on at the worker of this pacer.
    ///
    /// # Errors
    /// [`MediaError::Unavailable`] when the worker takes no more sockets; the leg has then hung up.
    pub fn attach(mut self, pacer: Pacer) -> Result<SipLeg, MediaError> {
        let Some(rest) = self.rest.take() else {
            return Err(MediaError::Unavailable("the leg is gone".to_owned()));
        };
        let mut leg = SipLeg::new(self.id, self.endpoint.clone(), rest.events, pacer, rest.settings);
        leg.negotiation = rest.negotiation;
        leg.signals = rest.signals;
        (leg.keys, leg.up, leg.over) = (rest.keys, rest.up, rest.over);
        let media = rest.media.map(|media| media.attach(&leg.pacer)).transpose();
        leg.media = media.map_err(|error| MediaError::Unavailable(error.to_string()))?;
        Ok(leg)
    }
}

impl Drop for DetachedLeg {
    fn drop(&mut self) {
        if self.rest.take().is_some_and(|rest| !rest.over) {
            let reason = Some(HangupReason::normal());
            self.endpoint.command(self.id, LegCommand::Hangup { reason });
        }
    }
}

impl std::fmt::Debug for DetachedLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DetachedLeg").field(&self.id).finish()
    }
}
