//! A timer for a deadline that every packet moves a little.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

/// It is set anew only when it must fire earlier, or has fired.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Timer {
    /// A timer of this thread's runtime.
    pub fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())), armed: None }
    }

    /// Ready, with the time, when `next` has come.
    pub fn poll(&mut self, cx: &mut Context<'_>, next: Instant) -> Poll<Instant> {
        if self.armed.is_none_or(|armed| next < armed) {
            self.sleep.as_mut().reset(next.into());
            self.armed = Some(next);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= next {
                self.armed = None;
                return Poll::Ready(now);
            }
            self.sleep.as_mut().reset(next.into());
            self.armed = Some(next);
        }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}
