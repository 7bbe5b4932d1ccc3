//! One call: the thread that Asterisk has for a channel.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::link::{DIGIT, Link, Received, SLIN, UUID, kind_of, message, rate_of};
use super::{Delivery, Door, Fault, How, Report, Setup};
use crate::simulate::asterisk::call::Order;
use crate::simulate::asterisk::measure::{SLOT, ms};
use crate::simulate::asterisk::person::Far;
use crate::simulate::asterisk::uuid::Uuid;
use crate::simulate::sound;

pub(super) struct Session {
    link: Link,
    uuid: Uuid,
    setup: Setup,
    far: Arc<dyn Far>,
    report: Arc<Mutex<Report>>,
    orders: mpsc::Receiver<Order>,
    began: Instant,
    /// Something happened in either direction.
    active: Instant,
    /// The latest own slot.
    slot: Instant,
    /// How long this machine kept us waiting, and when that was: what comes in a burst after it is no fault of theirs.
    delay: (Duration, Instant),
    /// The first own audio. Before it the server cannot know the rate.
    spoke: Option<Instant>,
    kind: u8,
    frame: Vec<i16>,
    bytes: Vec<u8>,
    waiting: usize,
    is_stopped: bool,
}

/// What a turn of the loop is for.
enum Next {
    Order(Option<Order>),
    Slot,
    Input(std::io::Result<()>),
    Fault,
    Silence,
}

impl Session {
    pub(super) fn new(
        link: Link,
        uuid: Uuid,
        setup: Setup,
        far: Arc<dyn Far>,
        report: Arc<Mutex<Report>>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let now = Instant::now();
        // Before each rate had a kind of its own, all of them went as this one.
        let kind = if setup.release.has_rates() { kind_of(setup.rate()).unwrap_or(SLIN) } else { SLIN };
        Self {
            link,
            uuid,
            setup,
            far,
            report,
            orders,
            began: now,
            active: now,
            slot: now,
            delay: (Duration::ZERO, now),
            spoke: None,
            kind,
            frame: Vec::new(),
            bytes: Vec::new(),
            waiting: 0,
            is_stopped: false,
        }
    }

    pub(super) async fn run(mut self) {
        let how = self.talk().await;
        let now = Instant::now();
        let (application, release) = (self.setup.door == Door::Application, self.setup.release);
        let mut report = self.report();
        report.dialplan_goes_on = match &how {
            How::ServerHungUp | How::ServerClosed => !application || release.ends_well(),
            How::HungUp | How::Fault => false,
            // Dial() goes on when the called channel is gone, however it went.
            How::Reset(_) | How::Silent | How::Broken(_) | How::NotRead(_) => !application,
        };
        if let How::Broken(what) | How::NotRead(what) = &how {
            report.violation(what.clone());
        }
        if how == How::Silent {
            report.violation("two seconds without audio, while the caller sent none either".to_owned());
        }
        report.ended = Some(how.clone());
        report.ended_at = Some(now);
        report.lasted_ms = ms(now.saturating_duration_since(self.began));
        drop(report);
        self.far.leave();
        if let (How::Fault, Some(Fault::Reset(_))) = (&how, self.setup.fault) {
            self.link.reset();
        }
    }

    async fn talk(&mut self) -> How {
        match self.setup.fault {
            Some(Fault::NotAnswered) => return How::Fault,
            Some(Fault::AudioFirst) => {
                if let Some(how) = self.speak().await {
                    return how;
                }
            }
            _ => {}
        }
        if self.setup.fault != Some(Fault::NoUuid) {
            let mut hello = Vec::new();
            message(UUID, &self.uuid.0, &mut hello);
            if let Some(how) = self.send(&hello).await {
                return how;
            }
        }
        if self.setup.starved
            && let Some(how) = self.listen().await
        {
            return how;
        }
        let mut slots = tokio::time::interval(SLOT);
        // A thread that was held up finds its channel's frames waiting.
        slots.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut fault = self.setup.fault.and_then(Fault::after).map(|after| self.began + after);
        loop {
            let how = match self.next(&mut slots, fault).await {
                Next::Order(Some(Order::Press(digit))) => self.press(digit).await,
                Next::Order(Some(Order::HangUp) | None) => Some(How::HungUp),
                Next::Slot => {
                    let now = Instant::now();
                    self.excuse(now);
                    self.slot = now;
                    self.speak().await
                }
                Next::Input(Ok(())) => self.listen().await,
                Next::Input(Err(error)) => Some(How::Reset(error.to_string())),
                Next::Fault => {
                    fault = None;
                    self.fail().await
                }
                Next::Silence => Some(How::Silent),
            };
            if let Some(how) = how {
                return how;
            }
        }
    }

    async fn next(&mut self, slots: &mut Interval, fault: Option<Instant>) -> Next {
        let never = self.began + Duration::from_secs(1_000_000);
        let watched = self.setup.door == Door::Application && self.setup.release.ends_well();
        let silence = if watched { self.active + APPLICATION_PATIENCE } else { never };
        let mute = self.is_stopped && !matches!(self.setup.fault, Some(Fault::StopReading(_)));
        tokio::select! {
            order = self.orders.recv() => Next::Order(order),
            readable = self.link.readable(), if !self.is_stopped => Next::Input(readable),
            _ = slots.tick(), if !mute => Next::Slot,
            () = tokio::time::sleep_until(fault.unwrap_or(never).into()) => Next::Fault,
            () = tokio::time::sleep_until(silence.into()), if !self.is_stopped => Next::Silence,
        }
    }

    /// A frame of the caller's goes out.
    async fn speak(&mut self) -> Option<How> {
        let rate = self.setup.rate();
        let samples = (u64::from(rate) * SLOT.as_millis() as u64 / 1_000) as usize;
        let mut frame = std::mem::take(&mut self.frame);
        let speaks = self.far.speak(rate, samples, &mut frame);
        let mut result = None;
        if speaks {
            self.active = Instant::now();
            self.spoke.get_or_insert(self.active);
            let payload: Vec<u8> = frame.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            message(self.kind, &payload, &mut self.bytes);
            self.waiting += 1;
            let together = if let Delivery::Together(count) = self.setup.delivery { count } else { 1 };
            self.report().sent += 1;
            if self.waiting >= together {
                self.waiting = 0;
                let bytes = std::mem::take(&mut self.bytes);
                result = self.send(&bytes).await;
                self.bytes = bytes;
                self.bytes.clear();
            }
        }
        self.frame = frame;
        result
    }

    async fn press(&mut self, digit: char) -> Option<How> {
        if !self.setup.release.has_keys() {
            return None;
        }
        self.active = Instant::now();
        let mut bytes = Vec::new();
        message(DIGIT, &[digit as u8], &mut bytes);
        self.report().digits.push(digit);
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Option<How> {
        let sent = match self.setup.delivery {
            Delivery::Pieces(most) => self.link.write_in_pieces(bytes, most).await,
            Delivery::Whole | Delivery::Together(_) => self.link.write(bytes),
        };
        match sent {
            Ok(()) => None,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::WriteZero) => {
                Some(How::NotRead(format!("the server does not read: {error}")))
            }
            // What the server said before it closed counts more than that it did.
            Err(error) => match self.listen_to_the_last().await {
                Some(how) => Some(how),
                None => Some(How::Reset(error.to_string())),
            },
        }
    }

    /// The server may have hung up before a write of ours failed; Asterisk's loop would often have read it first.
    async fn listen_to_the_last(&mut self) -> Option<How> {
        for _ in 0..LAST_READS {
            match Box::pin(self.listen()).await {
                None => {}
                Some(How::Reset(_)) => return None,
                how => return how,
            }
        }
        None
    }

    async fn listen(&mut self) -> Option<How> {
        let received = self.link.receive().await;
        let now = Instant::now();
        self.active = now;
        let split = self.link.split_headers;
        match received {
            Received::Audio(kind) => {
                let (rate, expected) = (self.setup.rate(), self.kind);
                let length = self.link.payload.len();
                let samples: Vec<i16> = self
                    .link
                    .payload
                    .chunks_exact(2)
                    .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
                    .collect();
                // Before kinds had rates, kind 0x10 was whatever the channel's was.
                let theirs = if kind == expected { rate } else { rate_of(kind).unwrap_or(rate) };
                let span = Duration::from_secs_f64(samples.len() as f64 / f64::from(theirs));
                let (began, excuse) = (self.began, self.excuse(now));
                let knows = self.spoke.is_some_and(|spoke| now > spoke + KNOWN_AFTER + excuse);
                let mut report = self.report();
                let backlog = report.pace.frame(now, began, span);
                if split > report.split_headers {
                    report.split_headers = split;
                    report
                        .violation("a header came in pieces, which releases before 22.9 misread".to_owned());
                }
                if length % 2 == 1 {
                    report.violation(format!("an audio message of {length} bytes: half a sample"));
                }
                // What a server sends before it can know the kind is translated.
                if kind != expected && (knows || kind != SLIN) {
                    report.violation(format!("audio of kind 0x{kind:02x} where 0x{expected:02x} is sent"));
                }
                if backlog > BACKLOG_MAX + excuse {
                    report.violation("audio comes faster than it can be heard".to_owned());
                }
                drop(report);
                if theirs == rate {
                    self.far.listen(now, rate, &samples);
                } else {
                    self.far.listen(now, rate, &sound::resample(&samples, theirs, rate));
                }
                None
            }
            Received::HangUp(length) => {
                if length > 0 {
                    self.report().violation(format!("a hang-up with a payload of {length} bytes"));
                }
                Some(How::ServerHungUp)
            }
            Received::Closed => Some(How::ServerClosed),
            Received::Reset(why) => Some(How::Reset(why)),
            Received::Broken(what) => Some(How::Broken(what)),
        }
    }

    /// How late we ourselves have been lately.
    fn excuse(&mut self, now: Instant) -> Duration {
        let late = now.saturating_duration_since(self.slot).saturating_sub(SLOT);
        let is_old = now.saturating_duration_since(self.delay.1) > EXCUSED_FOR;
        if late >= self.delay.0 || is_old {
            self.delay = (late, now);
        }
        self.delay.0
    }

    async fn fail(&mut self) -> Option<How> {
        let mut bytes = Vec::new();
        match self.setup.fault? {
            Fault::StandStill(_) | Fault::StopReading(_) => {
                self.is_stopped = true;
                None
            }
            Fault::Garbage(_, kind, length) => {
                let noise: Vec<u8> = (0..length).map(|n| (n as u8).wrapping_mul(167)).collect();
                message(kind, &noise, &mut bytes);
                self.send(&bytes).await
            }
            Fault::Error(_, code) => {
                message(0xff, &[code], &mut bytes);
                self.send(&bytes).await
            }
            Fault::HalfMessage(_) => {
                message(self.kind, &[0; 320], &mut bytes);
                self.send(&bytes[..100]).await.or(Some(How::Fault))
            }
            Fault::NotAnswered | Fault::NoUuid | Fault::AudioFirst | Fault::Reset(_) => Some(How::Fault),
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        // Each change under the lock is complete in itself.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    /// When it happens; `None` for what happens at the beginning.
    fn after(self) -> Option<Duration> {
        match self {
            Self::NotAnswered | Self::NoUuid | Self::AudioFirst => None,
            Self::StandStill(after)
            | Self::StopReading(after)
            | Self::Reset(after)
            | Self::Garbage(after, ..)
            | Self::HalfMessage(after)
            | Self::Error(after, _) => Some(after),
        }
    }
}

/// Without anything in either direction.
const APPLICATION_PATIENCE: Duration = Duration::from_secs(2);
/// Asterisk has no playout buffer here: what comes early is a burst of RTP, and cannot be taken back.
const BACKLOG_MAX: Duration = Duration::from_millis(120);
/// How long one delay of this machine's is remembered.
const EXCUSED_FOR: Duration = Duration::from_secs(1);
/// How soon the server answers audio with audio of the same rate.
const KNOWN_AFTER: Duration = Duration::from_millis(200);
/// Messages that can be on their way when a write fails.
const LAST_READS: usize = 16;
