//! One connection, without its socket: what its messages mean and what to write.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::protocol::{Command, Dialect, Event, MediaStart};
use super::queue::Queue;
use crate::pbx::Coding;

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    /// The dialect has shown.
    heard: bool,
    coding: Coding,
    start: Option<MediaStart>,
    /// Octets of a frame; `None`: a payload is a frame.
    frame: Option<usize>,
    /// What fills no frame yet.
    rest: BytesMut,
    queue: Queue,
    /// Commands that are not Asterisk's queue's.
    orders: Vec<Command>,
}

/// What a control message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing for others.
    Nothing,
    /// A key.
    Digit(char),
    /// Asterisk sends a format, named here, that we do not speak.
    Foreign(String),
}

impl Session {
    /// A connection of which nothing is known: it has this coding until `MEDIA_START` says otherwise.
    pub fn new(coding: Coding) -> Self {
        Self {
            dialect: Dialect::Plain,
            heard: false,
            coding,
            start: None,
            frame: coding.bytes_in(SLOT),
            rest: BytesMut::new(),
            queue: Queue::new(SLOT, coding == Coding::Opus),
            orders: Vec::new(),
        }
    }

    /// How payloads are coded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// What `MEDIA_START` said.
    pub fn start(&self) -> Option<&MediaStart> {
        self.start.as_ref()
    }

    /// A text message.
    pub fn text(&mut self, now: Instant, text: &str) -> Heard {
        if !std::mem::replace(&mut self.heard, true) {
            self.dialect = Dialect::of(text);
        }
        match Event::parse(text) {
            Event::MediaStart(start) => {
                let Some(coding) = start.coding() else { return Heard::Foreign(start.format) };
                self.coding = coding;
                self.frame = match start.optimal_frame_size {
                    size @ 1..=FRAME_MOST => Some(size),
                    _ => coding.bytes_in(start.ptime),
                };
                self.rest.clear();
                let passthrough = start.passthrough || coding == Coding::Opus;
                self.queue = Queue::new(start.ptime, passthrough);
                self.start = Some(start);
            }
            Event::Xoff => self.queue.stop(),
            Event::Xon => self.queue.go_on(),
            Event::MarkProcessed(id) => self.queue.mark_processed(now, id),
            Event::Status(status) => {
                let (waits, behind) = (status.queue_length, self.queue.behind(now));
                tracing::trace!(waits, behind_ms = behind.as_millis(), "Asterisk's queue");
                self.queue.status(now, status);
            }
            Event::Digit(key) => return Heard::Digit(key),
            Event::Error(text) if text.contains("passthrough") => self.queue.pass_through(),
            Event::Error(text) => {
                if text.contains("MARK_MEDIA") {
                    self.queue.no_marks();
                }
                let text = crate::telemetry::Wire::from(text.as_str());
                tracing::debug!(%text, "Asterisk did not follow a command of its media WebSocket");
            }
            Event::Other => {}
        }
        Heard::Nothing
    }

    /// A binary message: whole samples of it replace `payload`. Whether there is anything in it.
    pub fn audio(&self, octets: &[u8], payload: &mut Vec<u8>) -> bool {
        let whole = match self.coding {
            Coding::Linear(_) => octets.len() / 2 * 2,
            _ => octets.len(),
        };
        payload.clear();
        payload.extend_from_slice(&octets[..whole]);
        whole > 0
    }

    /// How many slots to make at this tick of our grid.
    pub fn due(&mut self, now: Instant) -> u32 {
        self.queue.due(now)
    }

    /// A slot: how often the message that [`Self::message`] makes of it is to be written.
    pub fn admit(&mut self, now: Instant, voice: bool) -> u32 {
        self.queue.admit(now, voice)
    }

    /// The message that carries the slot, if it completes one, and how many frames it is to Asterisk. What is
    /// not a multiple of a frame would be cut off there.
    pub fn message(&mut self, payload: &[u8]) -> Option<(Bytes, u32)> {
        // Whoever has made it may not know yet what MEDIA_START said.
        let fits = self.coding.bytes_in(SLOT).is_none_or(|slot| payload.len().is_multiple_of(slot));
        if payload.is_empty() || !fits {
            return None;
        }
        self.rest.extend_from_slice(payload);
        let (length, frames) = match self.frame {
            None => (self.rest.len(), 1),
            Some(frame) => {
                let frames = self.rest.len() / frame.max(1);
                (frames * frame, frames)
            }
        };
        let frames = u32::try_from(frames).ok().filter(|frames| *frames > 0)?;
        Some((self.rest.split_to(length).freeze(), frames))
    }

    /// That many frames have been taken by the connection.
    pub fn sent(&mut self, now: Instant, frames: u32) {
        self.queue.sent(now, frames);
    }

    /// Drops what waits at Asterisk, and answers how much of what was sent will not be heard.
    pub fn flush(&mut self, now: Instant) -> Duration {
        self.rest.clear();
        self.queue.flush(now)
    }

    /// What was sent and has not been played.
    pub fn behind(&mut self, now: Instant) -> Duration {
        self.queue.behind(now)
    }

    /// Something to be said to the channel.
    pub fn order(&mut self, command: Command) {
        self.orders.push(command);
    }

    /// The last thing to be said.
    pub fn hang_up(&mut self) {
        // Nobody waits for answers any more.
        self.queue = Queue::new(SLOT, true);
        self.orders.push(Command::HangUp);
    }

    /// The next control message.
    pub fn poll_text(&mut self) -> Option<String> {
        let command = match self.orders.is_empty() {
            true => self.queue.poll_command()?,
            false => self.orders.remove(0),
        };
        let mut text = String::with_capacity(64);
        command.write(self.dialect, &mut text);
        Some(text)
    }
}

/// Longer than any frame of a format that Asterisk knows.
const FRAME_MOST: usize = 16_384;
/// A slot of our grid.
const SLOT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "MEDIA_START connection_id:a channel:c channel_id:1.2 format:slin16 optimal_frame_size:640 ptime:20";

    #[test]
    fn media_start_overrules_what_was_configured() {
        let now = Instant::now();
        let mut session = Session::new(Coding::Ulaw);
        assert_eq!(session.coding(), Coding::Ulaw);
        assert_eq!(session.text(now, PLAIN), Heard::Nothing);
        assert_eq!(session.coding(), Coding::Linear(16_000));
        assert_eq!(session.start().map(|start| start.channel_id.as_str()), Some("1.2"));
        let foreign = session.text(now, &PLAIN.replace("slin16", "speex"));
        assert_eq!(foreign, Heard::Foreign("speex".into()));
    }

    #[test]
    fn what_is_sent_comes_in_frames_of_asterisks() {
        let mut session = Session::new(Coding::Ulaw);
        let start = PLAIN.replace("slin16", "ulaw").replace("640 ptime:20", "240 ptime:30");
        session.text(Instant::now(), &start);
        assert_eq!(session.message(&[1; 160]), None);
        let (message, frames) = session.message(&[2; 160]).unwrap();
        assert_eq!((message.len(), frames, message[159], message[160]), (240, 1, 1, 2));
        let (message, frames) = session.message(&[3; 480]).unwrap();
        assert_eq!((message.len(), frames, message[0], message[80]), (480, 2, 2, 3));
    }

    #[test]
    fn commands_go_out_in_the_dialect_that_came_in() {
        let now = Instant::now();
        let json = r#"{"event":"MEDIA_START","format":"ulaw","optimal_frame_size":160,"ptime":20}"#;
        for (start, answer, flush) in [
            (json, r#"{"command":"ANSWER"}"#, r#"{"command":"FLUSH_MEDIA"}"#),
            (PLAIN, "ANSWER", "FLUSH_MEDIA"),
        ] {
            let mut session = Session::new(Coding::Ulaw);
            session.text(now, start);
            session.order(Command::Answer);
            session.flush(now);
            assert_eq!(session.poll_text().as_deref(), Some(answer));
            assert_eq!(session.poll_text().as_deref(), Some(flush));
        }
    }

    #[test]
    fn half_a_sample_is_none() {
        let session = Session::new(Coding::Linear(8_000));
        let mut payload = vec![9];
        assert!(session.audio(&[1, 2, 3], &mut payload));
        assert_eq!(payload, [1, 2]);
        assert!(!session.audio(&[1], &mut payload));
    }
}
