//! The channel driver's state: a queue of frames and what stands between them, and the commands on it. No socket
//! and no clock.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Value, json};

/// Who may send media, as the application sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both do.
    Both,
    /// The application only receives: what it sends is dropped.
    In,
    /// The application only sends.
    Out,
}

/// What the commands of a text message mean for the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Answer,
    HangUp,
}

/// What the driver counted.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Binary messages.
    pub messages: u64,
    /// Frames that were queued.
    pub queued: u64,
    /// Frames that were played.
    pub played: u64,
    /// Frames that a flush threw away.
    pub flushed: u64,
    /// Messages that found the queue full and were dropped whole.
    pub dropped: u64,
    /// Bytes at the end of messages that made no frame.
    pub discarded_bytes: u64,
    /// The most frames that waited.
    pub queue_max: usize,
    /// Times the timer found no frame although there had been some.
    pub underruns: u64,
    /// Text messages, in order, up to 1000.
    pub commands: Vec<String>,
}

/// What a channel is, for its events.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub connection: String,
    pub channel: String,
    pub id: String,
    pub format: String,
    pub variables: Value,
}

#[derive(Debug)]
enum Item {
    Frame(Vec<u8>),
    /// Told when it comes to the head.
    Text(String),
}

pub(super) struct Driver {
    name: Name,
    json: bool,
    passthrough: bool,
    direction: Direction,
    /// Bytes of one frame; 0 for codecs that cannot be cut.
    frame: usize,
    queue: VecDeque<Item>,
    length: usize,
    leftover: Vec<u8>,
    is_bulk: bool,
    is_full: bool,
    is_paused: bool,
    tells_drained: bool,
    texts: VecDeque<String>,
    pub(super) counts: Counts,
    pub(super) violations: Vec<String>,
}

impl Driver {
    pub(super) fn new(
        name: Name,
        frame: Option<usize>,
        json: bool,
        passthrough: bool,
        direction: Direction,
    ) -> Self {
        Self {
            name,
            json,
            passthrough: passthrough || frame.is_none(),
            direction,
            frame: frame.unwrap_or(0),
            queue: VecDeque::new(),
            length: 0,
            leftover: Vec::new(),
            is_bulk: false,
            is_full: false,
            is_paused: false,
            tells_drained: false,
            texts: VecDeque::new(),
            counts: Counts::default(),
            violations: Vec::new(),
        }
    }

    /// The first event.
    pub(super) fn start(&mut self) {
        let Name { connection, channel, id, format, variables } = self.name.clone();
        let text = if self.json {
            json!({
                "event": "MEDIA_START", "connection_id": connection, "channel": channel, "channel_id": id,
                "format": format, "optimal_frame_size": self.frame, "ptime": 20, "channel_variables": variables,
            })
            .to_string()
        } else {
            format!(
                "MEDIA_START connection_id:{connection} channel:{channel} channel_id:{id} format:{format} \
                 optimal_frame_size:{} ptime:20",
                self.frame
            )
        };
        self.texts.push_back(text);
    }

    /// The next text to be sent.
    pub(super) fn poll(&mut self) -> Option<String> {
        self.texts.pop_front()
    }

    /// Whether the application wants to hear.
    pub(super) fn sends(&self) -> bool {
        self.direction != Direction::Out
    }

    /// A key was pressed.
    pub(super) fn digit(&mut self, digit: char) {
        let id = &self.name.id;
        let text = if self.json {
            json!({"event": "DTMF_END", "channel_id": id, "digit": digit.to_string()}).to_string()
        } else {
            format!("DTMF_END digit:{digit} channel_id:{id}")
        };
        self.texts.push_back(text);
    }

    /// The timer fired: the frame to be heard now, if any.
    pub(super) fn tick(&mut self) -> Option<Vec<u8>> {
        if self.is_paused || self.direction == Direction::In {
            return None;
        }
        if self.is_full && self.length < XON {
            self.is_full = false;
            self.tell("MEDIA_XON");
        }
        if self.queue.is_empty() && std::mem::take(&mut self.tells_drained) {
            self.tell("QUEUE_DRAINED");
        }
        while let Some(item) = self.queue.pop_front() {
            match item {
                Item::Text(text) => self.texts.push_back(text),
                Item::Frame(frame) => {
                    self.length -= 1;
                    self.counts.played += 1;
                    return Some(frame);
                }
            }
        }
        self.counts.underruns += u64::from(self.counts.played > 0);
        None
    }

    /// A binary message.
    pub(super) fn binary(&mut self, payload: &[u8]) {
        self.counts.messages += 1;
        if self.direction == Direction::In {
            return self.violation("media although the direction is `in`");
        }
        if payload.len() > MESSAGE_MAX {
            self.violation("a message of more than 65535 bytes");
        }
        if payload.is_empty() {
            self.violation("an empty media message");
        }
        if self.length >= QUEUE_MAX {
            self.counts.dropped += 1;
            return self.violation("media although the queue is full: dropped");
        }
        if self.passthrough {
            return self.queue(payload.to_vec());
        }
        let mut rest = payload;
        if !self.is_bulk {
            self.leftover.clear();
        } else if !self.leftover.is_empty() {
            let wanted = (self.frame - self.leftover.len()).min(rest.len());
            self.leftover.extend_from_slice(&rest[..wanted]);
            rest = &rest[wanted..];
            if self.leftover.len() < self.frame {
                return;
            }
            let whole = std::mem::take(&mut self.leftover);
            self.queue(whole);
        }
        let whole = rest.chunks_exact(self.frame);
        let remainder = whole.remainder();
        whole.for_each(|frame| self.queue(frame.to_vec()));
        if self.is_bulk {
            self.leftover = remainder.to_vec();
        } else if !remainder.is_empty() {
            self.counts.discarded_bytes += remainder.len() as u64;
            self.violation(
                "media that is no whole number of frames, without buffering: the rest is discarded",
            );
        }
    }

    /// A text message.
    pub(super) fn text(&mut self, text: &str) -> Verdict {
        if self.counts.commands.len() < COMMANDS_KEPT {
            self.counts.commands.push(text.to_owned());
        }
        if text.is_empty() || text.len() > TEXT_MAX {
            let what = if text.is_empty() {
                "an empty text message"
            } else {
                "a text message of more than 128 bytes"
            };
            self.violation(&format!("{what}: ignored"));
            return Verdict::GoOn;
        }
        let parsed =
            if self.json { serde_json::from_str::<Value>(text.trim()).ok() } else { Some(Value::Null) };
        let Some(parsed) = parsed else {
            self.error("Unable to parse JSON command".to_owned());
            return Verdict::GoOn;
        };
        let plain =
            || text.trim().split_once(' ').map_or((text.trim(), None), |(name, data)| (name, Some(data)));
        let field = |name: &str| parsed.get(name).and_then(Value::as_str);
        let (command, id) =
            if self.json { (field("command").unwrap_or_default(), field("correlation_id")) } else { plain() };
        let cut = matches!(
            command,
            "START_MEDIA_BUFFERING"
                | "STOP_MEDIA_BUFFERING"
                | "MARK_MEDIA"
                | "PAUSE_MEDIA"
                | "CONTINUE_MEDIA"
        );
        let driven = cut || matches!(command, "FLUSH_MEDIA" | "REPORT_QUEUE_DRAINED" | "SET_MEDIA_DIRECTION");
        if driven && self.passthrough {
            self.error(format!("{command} not supported in passthrough mode"));
            return Verdict::GoOn;
        }
        if cut && self.direction == Direction::In {
            self.error(format!("{command} not supported while media direction is 'in'"));
            return Verdict::GoOn;
        }
        match command {
            "ANSWER" => return Verdict::Answer,
            "HANGUP" => return Verdict::HangUp,
            "START_MEDIA_BUFFERING" => self.is_bulk = true,
            "STOP_MEDIA_BUFFERING" => {
                self.is_bulk = false;
                if !self.leftover.is_empty() {
                    let last = std::mem::take(&mut self.leftover);
                    self.queue(last);
                }
                self.queue_event("MEDIA_BUFFERING_COMPLETED", id);
            }
            "MARK_MEDIA" => self.queue_event("MEDIA_MARK_PROCESSED", id),
            "FLUSH_MEDIA" => {
                self.counts.flushed += self.length as u64;
                self.queue.clear();
                (self.length, self.is_bulk) = (0, false);
                self.leftover.clear();
            }
            "REPORT_QUEUE_DRAINED" => self.tells_drained = true,
            "GET_STATUS" => self.status(),
            "PAUSE_MEDIA" => self.is_paused = true,
            "CONTINUE_MEDIA" => self.is_paused = false,
            "SET_MEDIA_DIRECTION" if !self.json => {
                self.error("SET_MEDIA_DIRECTION only supports JSON format.\n".to_owned());
            }
            "SET_MEDIA_DIRECTION" => match field("direction") {
                Some("both") => self.direction = Direction::Both,
                Some("in") => self.direction = Direction::In,
                Some("out") => self.direction = Direction::Out,
                Some(other) => {
                    self.error(format!("'{other}' is not a valid direction for SET_MEDIA_DIRECTION.\n"));
                }
                None => self.error("SET_MEDIA_DIRECTION requires a 'direction' parameter.\n".to_owned()),
            },
            unknown => self.violation(&format!("an unknown command `{}`", unknown.escape_debug())),
        }
        Verdict::GoOn
    }

    fn queue(&mut self, frame: Vec<u8>) {
        self.queue.push_back(Item::Frame(frame));
        self.length += 1;
        self.counts.queued += 1;
        self.counts.queue_max = self.counts.queue_max.max(self.length);
        if !self.is_full && self.length >= XOFF {
            self.is_full = true;
            self.tell("MEDIA_XOFF");
        }
    }

    fn queue_event(&mut self, event: &str, id: Option<&str>) {
        let text = if self.json {
            let id = id.unwrap_or_default();
            json!({"event": event, "channel_id": self.name.id, "correlation_id": id}).to_string()
        } else {
            id.map_or_else(|| event.to_owned(), |id| format!("{event} {id}"))
        };
        self.queue.push_back(Item::Text(text));
    }

    fn status(&mut self) {
        let (id, length) = (&self.name.id, self.length);
        let (full, bulk, paused) = (self.is_full, self.is_bulk, self.is_paused);
        let text = if self.json {
            json!({
                "event": "STATUS", "channel_id": id, "queue_length": length, "xon_level": XON, "xoff_level": XOFF,
                "queue_full": full, "bulk_media": bulk, "media_paused": paused,
            })
            .to_string()
        } else {
            format!(
                "STATUS channel_id:{id} queue_length:{length} xon_level:{XON} xoff_level:{XOFF} queue_full:{full} \
                 bulk_media:{bulk} media_paused:{paused}"
            )
        };
        self.texts.push_back(text);
    }

    fn tell(&mut self, event: &str) {
        let text = if self.json {
            json!({"event": event, "channel_id": self.name.id}).to_string()
        } else {
            event.to_owned()
        };
        self.texts.push_back(text);
    }

    fn error(&mut self, what: String) {
        let id = &self.name.id;
        let text = if self.json {
            json!({"event": "ERROR", "channel_id": id, "error_text": what}).to_string()
        } else {
            format!("ERROR channel_id:{id} error_text:{what}")
        };
        self.texts.push_back(text);
        self.violation(&what);
    }

    fn violation(&mut self, what: &str) {
        if self.violations.len() < 100 && !self.violations.iter().any(|known| known == what) {
            self.violations.push(what.to_owned());
        }
    }
}

const QUEUE_MAX: usize = 1_000;
const XOFF: usize = 900;
const XON: usize = 800;
const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 65_535;
const COMMANDS_KEPT: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(json: bool) -> Driver {
        let name = Name {
            connection: "ai1".into(),
            channel: "WebSocket/ai1/0x7f20".into(),
            id: "1760000000.7".into(),
            format: "ulaw".into(),
            variables: json!({}),
        };
        Driver::new(name, Some(160), json, false, Direction::Both)
    }

    fn texts(driver: &mut Driver) -> Vec<String> {
        std::iter::from_fn(|| driver.poll()).collect()
    }

    #[test]
    fn events_are_written_as_asterisk_writes_them() {
        let mut plain = driver(false);
        plain.start();
        plain.digit('5');
        assert_eq!(plain.text("GET_STATUS"), Verdict::GoOn);
        assert_eq!(
            texts(&mut plain),
            [
                "MEDIA_START connection_id:ai1 channel:WebSocket/ai1/0x7f20 channel_id:1760000000.7 format:ulaw \
                 optimal_frame_size:160 ptime:20",
                "DTMF_END digit:5 channel_id:1760000000.7",
                "STATUS channel_id:1760000000.7 queue_length:0 xon_level:800 xoff_level:900 queue_full:false \
                 bulk_media:false media_paused:false",
            ]
        );
        let mut json = driver(true);
        json.digit('5');
        let told: Value = serde_json::from_str(&json.poll().unwrap()).unwrap();
        assert_eq!(told, json!({"event": "DTMF_END", "channel_id": "1760000000.7", "digit": "5"}));
    }

    #[test]
    fn marks_wait_for_their_turn_and_die_in_a_flush() {
        let mut driver = driver(false);
        driver.binary(&[1; 320]);
        driver.text("MARK_MEDIA a");
        driver.binary(&[2; 160]);
        driver.text("MARK_MEDIA b");
        assert!(driver.tick() == Some(vec![1; 160]) && driver.tick() == Some(vec![1; 160]));
        assert_eq!(driver.poll(), None);
        // A mark takes no slot of its own.
        assert_eq!(driver.tick(), Some(vec![2; 160]));
        assert_eq!(texts(&mut driver), ["MEDIA_MARK_PROCESSED a"]);
        driver.text("FLUSH_MEDIA");
        driver.text("REPORT_QUEUE_DRAINED");
        assert_eq!(driver.tick(), None);
        assert_eq!(texts(&mut driver), ["QUEUE_DRAINED"]);
        assert!(driver.violations.is_empty(), "{:?}", driver.violations);
    }

    #[test]
    fn what_makes_no_frame_is_lost_without_buffering_and_kept_with_it() {
        let mut driver = driver(false);
        driver.binary(&[1; 200]);
        assert_eq!((driver.counts.queued, driver.counts.discarded_bytes), (1, 40));
        assert_eq!(driver.violations.len(), 1);
        driver.text("START_MEDIA_BUFFERING");
        for _ in 0..4 {
            driver.binary(&[1; 100]);
        }
        assert_eq!(driver.counts.queued, 3);
        driver.text("STOP_MEDIA_BUFFERING x");
        assert_eq!(driver.counts.queued, 4);
        while driver.tick().is_some() {}
        assert_eq!(texts(&mut driver), ["MEDIA_BUFFERING_COMPLETED x"]);
    }

    #[test]
    fn a_full_queue_says_so_and_drops_whole_messages() {
        let mut driver = driver(false);
        driver.binary(&vec![0; 160 * 899]);
        assert_eq!(driver.poll(), None);
        driver.binary(&[0; 160]);
        assert_eq!(texts(&mut driver), ["MEDIA_XOFF"]);
        driver.binary(&vec![0; 160 * 99]);
        // The message that passes the limit is taken whole, the next one not at all.
        driver.binary(&[0; 480]);
        driver.binary(&[0; 160]);
        assert_eq!((driver.counts.queue_max, driver.counts.dropped), (1_002, 1));
        while driver.length >= XON {
            driver.tick();
        }
        assert_eq!(driver.poll(), None);
        driver.tick();
        assert_eq!(texts(&mut driver), ["MEDIA_XON"]);
    }

    #[test]
    fn long_unknown_and_misplaced_commands_are_violations() {
        let mut driver = driver(true);
        let long = json!({"command": "MARK_MEDIA", "correlation_id": "x".repeat(120)}).to_string();
        for text in [&long, "{", "", r#"{"command":"DANCE"}"#] {
            assert_eq!(driver.text(text), Verdict::GoOn);
        }
        assert_eq!(driver.violations.len(), 4, "{:?}", driver.violations);
        assert_eq!(driver.text(r#"{"command":"HANGUP"}"#), Verdict::HangUp);
    }
}
