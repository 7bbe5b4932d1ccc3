//! Control messages of `chan_websocket`: what Asterisk tells and what it can be told, as plain text or JSON.
//!
//! Which of the two a connection speaks shows in its first message (`MEDIA_START ..` or `{"event":..}`); commands
//! go back in the same. Unknown events and unknown fields are nothing to us: later releases have more of both.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;

use crate::pbx::Coding;

/// How a connection writes its control messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `NAME key:value key:value`.
    #[default]
    Plain,
    /// `{"event":"NAME",..}` and `{"command":"NAME",..}`.
    Json,
}

impl Dialect {
    /// What the connection speaks whose first control message this is.
    pub fn of(text: &str) -> Self {
        if text.starts_with('{') { Self::Json } else { Self::Plain }
    }
}

/// What Asterisk tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first message: what the media is.
    MediaStart(MediaStart),
    /// The queue is nearly full (900 frames); nothing more may be sent.
    Xoff,
    /// It has room again (800 frames).
    Xon,
    /// Everything before the mark with this number has been played.
    MarkProcessed(u32),
    /// A key was released: `0`-`9`, `*`, `#`, `A`-`D`.
    Digit(char),
    /// The answer to [`Command::GetStatus`].
    Status(Status),
    /// A command could not be followed; in words, why.
    Error(String),
    /// Something that is nothing to us.
    Other,
}

/// What `MEDIA_START` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaStart {
    /// The connection, as Asterisk's dial string or its own choice names it.
    pub connection_id: String,
    /// The channel's name.
    pub channel: String,
    /// The channel's unique id.
    pub channel_id: String,
    /// The format, under Asterisk's name.
    pub format: String,
    /// Octets of one of its frames; what is sent comes in multiples of it. 0 where frames cannot be cut.
    pub optimal_frame_size: usize,
    /// How long one of its frames is.
    pub ptime: Duration,
    /// Frames are queued as they come; only `ANSWER`, `HANGUP` and `GET_STATUS` are followed. Told by the newest
    /// releases; an [`Event::Error`] tells it otherwise.
    pub passthrough: bool,
}

impl MediaStart {
    /// The format; `None` for one that we do not speak.
    pub fn coding(&self) -> Option<Coding> {
        Coding::from_asterisk(&self.format)
    }
}

/// What `STATUS` says of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Frames that wait. Releases before 20.18 go on counting what a flush has dropped.
    pub queue_length: u32,
    /// Whether `MEDIA_XOFF` holds.
    pub queue_full: bool,
}

impl Event {
    /// Reads a control message. What is none is [`Event::Other`].
    pub fn parse(text: &str) -> Self {
        match Dialect::of(text) {
            Dialect::Json => serde_json::from_str(text).map_or(Self::Other, Self::of_row),
            Dialect::Plain => Self::of_row(Row::plain(text)),
        }
    }

    fn of_row(row: Row<'_>) -> Self {
        match row.event.as_ref() {
            "MEDIA_START" => Self::MediaStart(MediaStart {
                connection_id: row.connection_id.into_owned(),
                channel: row.channel.into_owned(),
                channel_id: row.channel_id.into_owned(),
                format: row.format.into_owned(),
                optimal_frame_size: usize::try_from(row.optimal_frame_size).unwrap_or(0),
                // A channel's frames are between 10 and 60 ms long; anything else is no time to keep.
                ptime: Duration::from_millis(match row.ptime {
                    10..=60 => row.ptime,
                    _ => 20,
                }),
                passthrough: row.passthrough,
            }),
            "MEDIA_XOFF" => Self::Xoff,
            "MEDIA_XON" => Self::Xon,
            "MEDIA_MARK_PROCESSED" => row.correlation_id.parse().map_or(Self::Other, Self::MarkProcessed),
            "DTMF_END" => match row.digit.as_bytes() {
                [key] if key.is_ascii_digit() || b"*#ABCDabcd".contains(key) => {
                    Self::Digit(char::from(key.to_ascii_uppercase()))
                }
                _ => Self::Other,
            },
            "STATUS" => Self::Status(Status {
                queue_length: u32::try_from(row.queue_length.max(0)).unwrap_or(u32::MAX),
                queue_full: row.queue_full,
            }),
            "ERROR" => Self::Error(row.error_text.into_owned()),
            _ => Self::Other,
        }
    }
}

/// The fields of all events together.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Row<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    connection_id: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    #[serde(borrow)]
    format: Cow<'a, str>,
    optimal_frame_size: u64,
    ptime: u64,
    passthrough: bool,
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    digit: Cow<'a, str>,
    queue_length: i64,
    queue_full: bool,
    #[serde(borrow)]
    error_text: Cow<'a, str>,
}

impl<'a> Row<'a> {
    fn plain(text: &'a str) -> Self {
        let (event, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut row = Self { event: event.into(), ..Self::default() };
        loop {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once(':') {
                Some(("connection_id", value)) => row.connection_id = value.into(),
                Some(("channel", value)) => row.channel = value.into(),
                Some(("channel_id", value)) => row.channel_id = value.into(),
                Some(("format", value)) => row.format = value.into(),
                Some(("optimal_frame_size", value)) => row.optimal_frame_size = value.parse().unwrap_or(0),
                Some(("ptime", value)) => row.ptime = value.parse().unwrap_or(0),
                Some(("passthrough", value)) => row.passthrough = value == "true",
                Some(("correlation_id", value)) => row.correlation_id = value.into(),
                Some(("digit", value)) => row.digit = value.into(),
                Some(("queue_length", value)) => row.queue_length = value.parse().unwrap_or(0),
                Some(("queue_full", value)) => row.queue_full = value == "true",
                // The one value that has spaces in it; it is the last.
                Some(("error_text", _)) => {
                    row.error_text = rest.split_once(':').map_or("", |(_, value)| value).into();
                    return row;
                }
                Some(_) => {}
                // A bare word behind the event is what the answer belongs to.
                None if row.correlation_id.is_empty() => row.correlation_id = word.into(),
                None => {}
            }
            if after.is_empty() {
                return row;
            }
            rest = after;
        }
    }
}

/// What Asterisk can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Answers a channel that was made with the option `n`.
    Answer,
    /// Ends the channel.
    HangUp,
    /// Asks to be told when everything before it has been played. Since 20.18, 22.8, 23.2.
    Mark(u32),
    /// Drops what waits in the queue, marks too.
    Flush,
    /// Asks for [`Event::Status`].
    GetStatus,
}

impl Command {
    /// Appends the message. It is never longer than 128 octets: Asterisk would not read it.
    pub fn write(self, dialect: Dialect, message: &mut String) {
        let name = match self {
            Self::Answer => "ANSWER",
            Self::HangUp => "HANGUP",
            Self::Mark(_) => "MARK_MEDIA",
            Self::Flush => "FLUSH_MEDIA",
            Self::GetStatus => "GET_STATUS",
        };
        // Writing into a string cannot fail.
        let _written = match (dialect, self) {
            (Dialect::Plain, Self::Mark(id)) => write!(message, "{name} {id}"),
            (Dialect::Plain, _) => write!(message, "{name}"),
            (Dialect::Json, Self::Mark(id)) => {
                write!(message, "{{\"command\":\"{name}\",\"correlation_id\":\"{id}\"}}")
            }
            (Dialect::Json, _) => write!(message, "{{\"command\":\"{name}\"}}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> MediaStart {
        MediaStart {
            connection_id: "ai1".into(),
            channel: "WebSocket/ai1/0x7f20".into(),
            channel_id: "1760000000.7".into(),
            format: "ulaw".into(),
            optimal_frame_size: 160,
            ptime: Duration::from_millis(20),
            passthrough: false,
        }
    }

    #[test]
    fn the_first_message_says_the_same_in_both_dialects() {
        let plain = "MEDIA_START connection_id:ai1 channel:WebSocket/ai1/0x7f20 channel_id:1760000000.7 format:ulaw optimal_frame_size:160 ptime:20";
        let json = r#"{"event":"MEDIA_START","connection_id":"ai1","channel":"WebSocket/ai1/0x7f20","channel_id":"1760000000.7","format":"ulaw","optimal_frame_size":160,"ptime":20,"channel_variables":{"X":"y"},"new":[1]}"#;
        for text in [plain, json] {
            assert_eq!(Event::parse(text), Event::MediaStart(start()), "{text}");
        }
        assert_eq!((Dialect::of(plain), Dialect::of(json)), (Dialect::Plain, Dialect::Json));
        let newest = format!("{plain} passthrough:true unbuffered:false");
        assert_eq!(Event::parse(&newest), Event::MediaStart(MediaStart { passthrough: true, ..start() }));
    }

    #[test]
    fn every_event_is_read_in_both_dialects() {
        let status = Event::Status(Status { queue_length: 3, queue_full: true });
        for (plain, json, event) in [
            ("MEDIA_XOFF", r#"{"event":"MEDIA_XOFF","channel_id":"1.1"}"#, Event::Xoff),
            ("MEDIA_XON", r#"{"event":"MEDIA_XON","channel_id":"1.1"}"#, Event::Xon),
            (
                "MEDIA_MARK_PROCESSED 42",
                r#"{"event":"MEDIA_MARK_PROCESSED","channel_id":"1.1","correlation_id":"42"}"#,
                Event::MarkProcessed(42),
            ),
            (
                "DTMF_END digit:5 channel_id:1.1",
                r#"{"event":"DTMF_END","channel_id":"1.1","digit":"5"}"#,
                Event::Digit('5'),
            ),
            ("DTMF_END digit:#", r##"{"event":"DTMF_END","digit":"#"}"##, Event::Digit('#')),
            (
                "STATUS channel_id:1.1 queue_length:3 xon_level:800 xoff_level:900 queue_full:true bulk_media:false media_paused:false",
                r#"{"event":"STATUS","channel_id":"1.1","queue_length":3,"xon_level":800,"xoff_level":900,"queue_full":true,"bulk_media":false,"media_paused":false}"#,
                status,
            ),
            (
                "ERROR channel_id:1.1 error_text:MARK_MEDIA not supported in passthrough mode",
                r#"{"event":"ERROR","channel_id":"1.1","error_text":"MARK_MEDIA not supported in passthrough mode"}"#,
                Event::Error("MARK_MEDIA not supported in passthrough mode".into()),
            ),
        ] {
            assert_eq!(Event::parse(plain), event, "{plain}");
            assert_eq!(Event::parse(json), event, "{json}");
        }
    }

    #[test]
    fn what_is_no_event_of_ours_is_nothing() {
        let texts = [
            "",
            " ",
            "QUEUE_DRAINED",
            "NEWS x:1",
            "{",
            "{}",
            "[]",
            r#"{"event":7}"#,
            "DTMF_END digit:55",
            "DTMF_END digit:",
            "MEDIA_MARK_PROCESSED somebody-elses",
            r#"{"event":"STATUS","queue_length":"many"}"#,
        ];
        for text in texts {
            assert_eq!(Event::parse(text), Event::Other, "{text}");
        }
        // A length below nothing is nothing.
        let status = Event::Status(Status { queue_length: 0, queue_full: false });
        assert_eq!(Event::parse("STATUS queue_length:-3"), status);
    }

    #[test]
    fn no_command_is_longer_than_asterisk_reads() {
        let commands =
            [Command::Answer, Command::HangUp, Command::Mark(u32::MAX), Command::Flush, Command::GetStatus];
        for command in commands {
            for dialect in [Dialect::Plain, Dialect::Json] {
                let mut message = String::new();
                command.write(dialect, &mut message);
                assert!(message.len() <= 128, "{message}");
                assert_eq!(Dialect::of(&message), dialect);
            }
        }
        let mut message = String::new();
        Command::Mark(7).write(Dialect::Json, &mut message);
        assert_eq!(message, r#"{"command":"MARK_MEDIA","correlation_id":"7"}"#);
        message.clear();
        Command::Mark(7).write(Dialect::Plain, &mut message);
        assert_eq!(message, "MARK_MEDIA 7");
    }
}
