//! A call of the simulated PBX by any of its doors: what whoever tries something holds of it, and what its channel's
//! task does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::person::Person;

/// A call, of which `R` is known. Dropped, the caller hangs up.
pub struct Call<R> {
    /// What the server knows it by.
    name: String,
    person: Arc<Person>,
    orders: mpsc::Sender<Order>,
    report: Arc<Mutex<R>>,
    done: watch::Receiver<bool>,
}

/// What the caller does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Press(char),
    HangUp,
}

/// The channel's side of a call.
pub(super) struct Channel<R> {
    /// What the caller does. A call that is dropped hangs up.
    pub orders: mpsc::Receiver<Order>,
    /// What there is to tell.
    pub report: Arc<Mutex<R>>,
    /// `true` when it is over.
    pub finished: watch::Sender<bool>,
}

impl<R: Clone> Call<R> {
    /// Both sides of a new call.
    pub(super) fn new(name: String, person: Arc<Person>, report: R) -> (Self, Channel<R>) {
        let report = Arc::new(Mutex::new(report));
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (finished, done) = watch::channel(false);
        let call = Self { name, person, orders, report: report.clone(), done };
        (call, Channel { orders: inbox, report, finished })
    }

    /// What the server knows it by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Who is on the line.
    pub fn person(&self) -> &Arc<Person> {
        &self.person
    }

    /// The caller says this, after all else.
    pub fn say(&self, pcm: impl Into<Arc<[i16]>>, rate: u32) {
        self.person.say(pcm, rate);
    }

    /// The next `span` of what the caller hears; less when the call ends before.
    pub async fn hear(&self, span: Duration) -> Vec<i16> {
        self.person.hear(span).await
    }

    /// The caller presses a key: `0`-`9`, `*`, `#`, `A`-`D`. Older releases do not pass it on by every door.
    pub fn press(&self, digit: char) {
        // A call that is over takes no keys.
        let _ = self.orders.try_send(Order::Press(digit));
    }

    /// The caller hangs up: an AudioSocket is closed without a word, a WebSocket with 1000.
    pub fn hang_up(&self) {
        let _ = self.orders.try_send(Order::HangUp);
    }

    /// What is known so far.
    pub fn report(&self) -> R {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end.
    pub async fn ended(&self) -> R {
        // An error is the end of the task, too.
        let _ = self.done.clone().wait_for(|done| *done).await;
        self.report()
    }

    /// For those who want to know of the end elsewhere.
    pub(super) fn done(&self) -> watch::Receiver<bool> {
        self.done.clone()
    }
}

const ORDERS: usize = 64;
