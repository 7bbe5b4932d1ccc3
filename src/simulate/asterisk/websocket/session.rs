//! One connected channel: the caller's frames go out, the queue is drained by a timer of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::driver::{Driver, Verdict};
use super::{Fault, How, Report, Setup};
use crate::simulate::asterisk::call::Order;
use crate::simulate::asterisk::measure::{SLOT, ms};
use crate::simulate::asterisk::person::Far;
use crate::simulate::asterisk::voice::Voice;

type Incoming = Option<Result<Message, tungstenite::Error>>;

pub(super) struct Session {
    ws: WebSocketStream<TcpStream>,
    driver: Driver,
    voice: Voice,
    setup: Setup,
    far: Arc<dyn Far>,
    report: Arc<Mutex<Report>>,
    orders: mpsc::Receiver<Order>,
    began: Instant,
    frame: Vec<i16>,
    is_up: bool,
    is_deaf: bool,
}

impl Session {
    pub(super) fn new(
        ws: WebSocketStream<TcpStream>,
        driver: Driver,
        voice: Voice,
        setup: Setup,
        far: Arc<dyn Far>,
        report: Arc<Mutex<Report>>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let is_up = !setup.no_answer;
        Self {
            ws,
            driver,
            voice,
            setup,
            far,
            report,
            orders,
            began: Instant::now(),
            frame: Vec::new(),
            is_up,
            is_deaf: false,
        }
    }

    pub(super) async fn run(mut self) {
        let how = self.talk().await;
        let now = Instant::now();
        self.note();
        self.end(&how, now);
        self.far.leave();
        let code = match (&how, self.setup.fault) {
            (How::Fault, Some(Fault::Reset(_))) => {
                // Without the option it is an ordinary close, which is an end, too.
                let _ = self.ws.get_ref().set_zero_linger();
                return;
            }
            (How::Fault, Some(Fault::Close(_, code))) => code,
            (How::Closed(_), _) => {
                // The library's answer to the close.
                let _ = tokio::time::timeout(CLOSE_PATIENCE, self.ws.flush()).await;
                return;
            }
            _ => 1000,
        };
        let close = CloseFrame { code: code.into(), reason: "".into() };
        let goodbye = async {
            let _ = self.ws.send(Message::Close(Some(close))).await;
            while let Some(Ok(_)) = self.ws.next().await {}
        };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, goodbye).await;
    }

    fn end(&self, how: &How, now: Instant) {
        if *how == How::NotRead {
            self.violation("the application did not read for 100 ms");
        }
        let mut report = self.report();
        report.ended = Some(how.clone());
        report.ended_at = Some(now);
        report.lasted_ms = ms(now.saturating_duration_since(self.began));
    }

    async fn talk(&mut self) -> How {
        self.report().answered = self.is_up;
        if self.setup.audio_first
            && let Err(how) = self.speak().await
        {
            return how;
        }
        self.driver.start();
        let mut slots = tokio::time::interval(SLOT);
        let mut timer = tokio::time::interval(SLOT.mul_f64(1.0 + self.setup.drift_ppm / 1e6));
        let never = self.began + Duration::from_secs(1_000_000);
        let mut fault = self.setup.fault.map_or(never, |fault| self.began + fault.after());
        loop {
            if let Err(how) = self.tell().await {
                return how;
            }
            let done = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Press(digit)) => {
                        self.driver.digit(digit);
                        Ok(())
                    }
                    Some(Order::HangUp) | None => Err(How::HungUp),
                },
                message = self.ws.next(), if !self.is_deaf => self.take(message),
                _ = slots.tick() => self.speak().await,
                _ = timer.tick() => {
                    self.play();
                    Ok(())
                }
                () = tokio::time::sleep_until(fault.into()) => {
                    fault = never;
                    if let Some(Fault::StopReading(_)) = self.setup.fault {
                        self.is_deaf = true;
                        Ok(())
                    } else {
                        Err(How::Fault)
                    }
                }
            };
            self.note();
            if let Err(how) = done {
                return how;
            }
        }
    }

    fn take(&mut self, message: Incoming) -> Result<(), How> {
        let now = Instant::now();
        match message {
            Some(Ok(Message::Binary(payload))) => {
                let per_second =
                    self.setup.coding.bytes_in(Duration::from_secs(1)).unwrap_or(payload.len() * 50);
                let span = Duration::from_secs_f64(payload.len() as f64 / per_second.max(1) as f64);
                let began = self.began;
                self.report().pace.frame(now, began, span);
                self.driver.binary(&payload);
                Ok(())
            }
            Some(Ok(Message::Text(text))) => {
                if text.contains("FLUSH_MEDIA") {
                    self.report().flushed_at = Some(now);
                }
                match self.driver.text(&text) {
                    Verdict::GoOn => {}
                    Verdict::Answer => {
                        self.is_up = true;
                        self.report().answered = true;
                    }
                    Verdict::HangUp => return Err(How::ToldToHangUp),
                }
                Ok(())
            }
            Some(Ok(Message::Close(frame))) => Err(How::Closed(frame.map(|frame| frame.code.into()))),
            // Releases before 22.8 could hang up on them.
            Some(Ok(Message::Ping(_))) => {
                self.violation("a ping, which releases before 22.8 may hang up on");
                Ok(())
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Err(tungstenite::Error::ConnectionClosed)) | None => Err(How::Closed(None)),
            Some(Err(error)) => Err(How::Reset(error.to_string())),
        }
    }

    /// The timer's part: what is at the head of the queue is heard.
    fn play(&mut self) {
        let Some(frame) = self.driver.tick() else { return };
        let pcm = self.voice.decode(&frame);
        if self.is_up {
            self.far.listen(Instant::now(), self.voice.rate(), &pcm);
        }
    }

    /// A frame of the caller's.
    async fn speak(&mut self) -> Result<(), How> {
        if !self.is_up || !self.driver.sends() {
            return Ok(());
        }
        let rate = self.voice.rate();
        let samples = (u64::from(rate) * SLOT.as_millis() as u64 / 1_000) as usize;
        let mut frame = std::mem::take(&mut self.frame);
        let speaks = self.far.speak(rate, samples, &mut frame);
        let payload = if speaks { self.voice.encode(&frame) } else { Vec::new() };
        self.frame = frame;
        if payload.is_empty() {
            return Ok(());
        }
        self.report().sent += 1;
        self.send(Message::Binary(payload.into())).await
    }

    async fn tell(&mut self) -> Result<(), How> {
        while let Some(text) = self.driver.poll() {
            self.send(Message::text(text)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), How> {
        match tokio::time::timeout(WRITE_PATIENCE, self.ws.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::Protocol(_))) => {
                Err(How::Closed(None))
            }
            Ok(Err(error)) => Err(How::Reset(error.to_string())),
            Err(_) => Err(How::NotRead),
        }
    }

    /// What the driver found goes to the report.
    fn note(&mut self) {
        let told = std::mem::take(&mut self.driver.violations);
        for what in told {
            self.violation(&what);
        }
        let counts = self.driver.counts.clone();
        self.report().counts = counts;
    }

    fn violation(&self, what: &str) {
        let mut report = self.report();
        if report.violations.len() < 100 && !report.violations.iter().any(|known| known == what) {
            report.violations.push(what.to_owned());
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        // Each change under the lock is complete in itself.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    fn after(self) -> Duration {
        match self {
            Self::Reset(after) | Self::Close(after, _) | Self::StopReading(after) => after,
        }
    }
}

/// `websocket_write_timeout`.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
