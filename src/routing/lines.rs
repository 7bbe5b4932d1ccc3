//! The way from signalling to each leg on its worker.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::id::LegId;
use crate::sip::ua::LegEvent;

/// The lines of all legs, by leg.
#[derive(Debug, Clone, Default)]
pub struct LegLines(Arc<DashMap<LegId, LegLine>>);

#[derive(Debug)]
struct LegLine {
    line: mpsc::Sender<LegEvent>,
    /// Of an incoming leg: ends its call.
    stop: Option<CancellationToken>,
}

impl LegLines {
    /// A line for a leg. It is removed with the leg's last event, or by [`Self::remove`].
    pub fn add(&self, leg: LegId, stop: Option<CancellationToken>) -> mpsc::Receiver<LegEvent> {
        let (line, events) = mpsc::channel(LEG_QUEUE);
        self.0.insert(leg, LegLine { line, stop });
        events
    }

    /// Hands over an event. A leg that does not read its events is ended: its peer floods it, or its worker is
    /// stuck.
    pub fn tell(&self, leg: LegId, event: LegEvent) {
        let last =
            matches!(event, LegEvent::Cancelled { .. } | LegEvent::Failed { .. } | LegEvent::Ended { .. });
        let full = self.0.get(&leg).is_some_and(|line| {
            let full = matches!(line.line.try_send(event), Err(mpsc::error::TrySendError::Full(_)));
            if let Some(stop) = line.stop.as_ref().filter(|_| full) {
                stop.cancel();
            }
            full
        });
        if full {
            metrics::counter!("tandem_leg_queue_full_total").increment(1);
            warn!("a leg does not keep up with its signalling and is ended");
        }
        // A leg without its line hangs up.
        if last || full {
            self.0.remove(&leg);
        }
    }

    /// Forgets a leg that signalling never heard of.
    pub fn remove(&self, leg: LegId) {
        self.0.remove(&leg);
    }

    /// How many legs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no leg.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Events a leg may leave unread.
const LEG_QUEUE: usize = 64;
