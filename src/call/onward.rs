//! A call that goes on with another flow of this house: what a transfer to a number of ours leads to.
//!
//! Which flow that is, and what it does, routing knows. It comes as something the call can be handed to; the
//! present step ends, and whoever runs the call goes on with it in place of the steps that were left.

use std::pin::Pin;

use super::Call;

/// Who wants to know where a transfer leads, which says how far it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Somebody with a token.
    Api,
    /// The party of a trunk.
    Trunk,
    /// A phone that registers with us, by its user.
    Phone(String),
}

type Rest = Box<dyn for<'a> FnOnce(&'a mut Call) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The flow of a number of ours, ready to run.
pub struct Onward {
    recorded: bool,
    rest: Rest,
}

impl Onward {
    /// Runs `rest`. The recording of the call goes on only if `recorded`.
    pub fn new(
        recorded: bool,
        rest: impl for<'a> FnOnce(&'a mut Call) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send + 'static,
    ) -> Self {
        Self { recorded, rest: Box::new(rest) }
    }

    /// Runs the flow on this call.
    pub async fn run(self, call: &mut Call) {
        (self.rest)(call).await;
    }
}

impl std::fmt::Debug for Onward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onward").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

impl Call {
    /// What the call goes on with, when a transfer has ended its flow and the party is still there.
    pub fn take_onward(&mut self) -> Option<Onward> {
        let onward = self.onward.take().filter(|_| self.over.is_none())?;
        if !onward.recorded {
            self.stop_recording();
        }
        // Music, prompts and relayed packets were of what is over.
        self.leg.clear();
        self.leg.park(false);
        self.leg.watch_slots(self.recorder.is_some());
        Some(onward)
    }
}
