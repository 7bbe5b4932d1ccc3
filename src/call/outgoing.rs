//! A call we place: dialled on its worker, and an ordinary [`Call`] once somebody answers.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::dial::{DialFailure, DialNews, Dialling, Party};
use super::handle::CallCommand;
use super::hunt::disposition;
use super::ledger::Ending;
use super::{Call, Frame};
use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::sip::leg::LegSignal;

/// What a call that is being placed consists of.
pub struct Outgoing {
    /// The hunt.
    pub dialling: Dialling,
    /// The rest of the call.
    pub frame: Frame,
}

enum Woken {
    Dial(DialNews),
    Command(CallCommand),
    Stop,
}

impl Outgoing {
    /// Dials until somebody answers. Without an answer the record is closed, and says why.
    pub async fn answered(mut self: Box<Self>) -> Option<Box<Call>> {
        let mut stop = Box::pin(self.frame.stop.clone().cancelled_owned());
        let mut ringing = false;
        loop {
            match std::future::poll_fn(|cx| self.poll(cx, stop.as_mut())).await {
                Woken::Dial(DialNews::Note(note)) => self.frame.ledger.record(note),
                Woken::Dial(DialNews::Signal(signal)) => {
                    self.drain_audio(&signal);
                    if matches!(signal, LegSignal::Ringing { .. }) && !std::mem::replace(&mut ringing, true) {
                        let (phase, floor) = (Phase::Ringing, Floor::None);
                        self.frame.ledger.record(CallEventKind::Phase { phase, floor });
                    }
                }
                Woken::Dial(DialNews::Answered(answered)) => return Some(self.call(*answered)),
                Woken::Dial(DialNews::Failed(failure)) => return self.failed(failure),
                Woken::Command(CallCommand::End { by, reason }) => {
                    return self.given_up(Disposition::Cancelled, &by, 487, reason);
                }
                Woken::Command(CallCommand::Drain) | Woken::Stop => {
                    let reason = "the server is stopping".to_owned();
                    return self.given_up(Disposition::Interrupted, "system", 503, reason);
                }
                // Nobody is there yet; whoever asks is told so by the command that is dropped.
                Woken::Command(_) => {}
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, stop: Pin<&mut WaitForCancellationFutureOwned>) -> Poll<Woken> {
        if let Poll::Ready(news) = self.dialling.poll(cx) {
            return Poll::Ready(Woken::Dial(news));
        }
        if let Poll::Ready(Some(command)) = self.frame.inbox.poll_recv(cx) {
            return Poll::Ready(Woken::Command(command));
        }
        stop.poll(cx).map(|()| Woken::Stop)
    }

    /// Early media has no listener; it must not pile up.
    fn drain_audio(&mut self, signal: &LegSignal) {
        if matches!(signal, LegSignal::Audio { .. })
            && let Some(leg) = self.dialling.leg()
        {
            leg.take_audio(&mut Vec::new());
        }
    }

    fn call(self, answered: Party) -> Box<Call> {
        let mut call = Box::new(Call::new(self.frame, answered, true));
        call.is_up();
        call
    }

    fn failed(mut self, failure: DialFailure) -> Option<Box<Call>> {
        let disposition = disposition(failure.status, failure.timed_out);
        let by = match disposition {
            Disposition::Busy | Disposition::Rejected => "callee",
            Disposition::NoAnswer if !failure.timed_out => "callee",
            _ => "system",
        };
        self.frame.ledger.end(Instant::now(), Ending::new(disposition, by, failure.status, failure.reason));
        None
    }

    fn given_up(
        mut self,
        disposition: Disposition,
        by: &str,
        status: u16,
        reason: String,
    ) -> Option<Box<Call>> {
        // Dropping the hunt gives up whatever rings: first, so that CANCEL has left when the record is closed.
        drop(self.dialling);
        self.frame.ledger.end(Instant::now(), Ending::new(disposition, by, status, reason));
        None
    }
}
