//! Every request that is made of the PBX, as a plain value, and what its answers mean.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::model::Refusal;
use crate::telemetry::for_terminal;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Lets the caller hear ringing.
    Ring {
        /// The channel.
        channel: String,
    },
    /// Answers.
    Answer {
        /// The channel.
        channel: String,
    },
    /// Ends a channel.
    HangUp {
        /// The channel.
        channel: String,
        /// Q.850.
        cause: u16,
    },
    /// Lets a channel go on in the dialplan.
    Continue {
        /// The channel.
        channel: String,
        /// Context, extension and priority; `None`: where it came from.
        to: Option<Extension>,
    },
    /// Sets a variable of a channel.
    SetVariable {
        /// The channel.
        channel: String,
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// Asks whether the dialplan has an extension, seen from a channel.
    Exists {
        /// The channel.
        channel: String,
        /// The extension; without a context, of the context `default`.
        extension: Extension,
    },
    /// Presses keys.
    Keys {
        /// The channel.
        channel: String,
        /// The keys.
        keys: String,
    },
    /// Keeps the far end waiting with the PBX's music, or takes it back.
    Hold {
        /// The channel.
        channel: String,
        /// Whether it waits.
        on: bool,
    },
    /// Calls somebody; the channel enters the application when they answer.
    Originate(Originate),
    /// Makes a channel that carries audio to us.
    ExternalMedia {
        /// Its name, ours to choose.
        channel: String,
        /// The application it enters.
        application: String,
        /// How the audio travels.
        medium: ExternalMedia,
        /// Asterisk's name of the codec.
        format: &'static str,
    },
    /// Makes a bridge that mixes.
    CreateBridge {
        /// Its name, ours to choose.
        bridge: String,
    },
    /// Puts a channel into a bridge.
    AddChannel {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
        /// Its keys stay out of the bridge: they are told as events, and are not to arrive a second time over
        /// the medium.
        absorb_keys: bool,
    },
    /// Takes a channel out of a bridge.
    RemoveChannel {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
    },
    /// Deletes a bridge.
    DeleteBridge {
        /// The bridge.
        bridge: String,
    },
    /// Makes a channel that hears another.
    Snoop {
        /// The channel that is heard, both ways.
        channel: String,
        /// The name of the new channel, ours to choose.
        snoop: String,
        /// The application it enters.
        application: String,
    },
    /// Plays a sound of the PBX's to a channel or a bridge.
    Play {
        /// To whom.
        to: PlayTo,
        /// Name of the playback, ours to choose.
        playback: String,
        /// `sound:hello`, `digits:12`, ...
        media: String,
    },
    /// Stops a playback.
    StopPlay {
        /// The playback.
        playback: String,
    },
    /// The application as the PBX knows it.
    Application {
        /// Its name.
        application: String,
    },
    /// One channel.
    Channel {
        /// The channel.
        channel: String,
    },
    /// All channels.
    Channels,
    /// All bridges.
    Bridges,
    /// What the PBX is.
    Info,
    /// Its modules.
    Modules,
}

/// A place in the dialplan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// `None`: the channel's own.
    pub context: Option<String>,
    /// The extension.
    pub extension: String,
    /// From 1.
    pub priority: u32,
}

/// Who hears a playback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayTo {
    /// A channel that is in no bridge.
    Channel(String),
    /// Everybody in a bridge.
    Bridge(String),
}

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originate {
    /// The name of the new channel, ours to choose.
    pub channel: String,
    /// `PJSIP/+15550100@carrier`.
    pub endpoint: String,
    /// The application it enters.
    pub application: String,
    /// What the far end is told about the caller.
    pub caller: Option<String>,
    /// How long it may ring, in seconds.
    pub timeout: u32,
    /// Variables of the channel.
    pub variables: Vec<(String, String)>,
}

/// How audio travels between the PBX and us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternalMedia {
    /// RTP to this host and port; where the PBX receives is in the answer.
    Rtp {
        /// Host and port of ours.
        to: String,
    },
    /// The PBX connects by TCP.
    AudioSocket {
        /// Host and port of ours.
        to: String,
        /// By which it will be known.
        uuid: String,
    },
    /// We connect to the PBX; where to is in the answer.
    WebSocket,
}

impl ExternalMedia {
    /// As people write it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Rtp { .. } => "rtp",
            Self::AudioSocket { .. } => "audiosocket",
            Self::WebSocket => "websocket",
        }
    }
}

/// HTTP methods that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Does.
    Post,
    /// Ends.
    Delete,
}

/// A request as HTTP has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The method.
    pub method: Method,
    /// Behind the base URL, query included, all encoded. Begins with `/`.
    pub path: String,
    /// JSON.
    pub body: Option<Json>,
}

impl Request {
    /// As HTTP has it.
    pub fn http(&self) -> Http {
        use Method::{Delete, Get, Post};
        let mut body = None;
        let (method, path) = match self {
            Self::Ring { channel } => (Post, Path::new(&["channels", channel, "ring"])),
            Self::Answer { channel } => (Post, Path::new(&["channels", channel, "answer"])),
            Self::HangUp { channel, cause } => {
                let path = Path::new(&["channels", channel]);
                (Delete, path.with("reason_code", &cause.to_string()))
            }
            Self::Continue { channel, to } => {
                let mut path = Path::new(&["channels", channel, "continue"]);
                if let Some(to) = to {
                    path = to.context.iter().fold(path, |path, context| path.with("context", context));
                    path = path.with("extension", &to.extension);
                    path = path.with("priority", &to.priority.to_string());
                }
                (Post, path)
            }
            Self::Exists { channel, extension: to } => {
                let context = to.context.as_deref().unwrap_or("default");
                let function = format!("DIALPLAN_EXISTS({context},{},{})", to.extension, to.priority);
                let path = Path::new(&["channels", channel, "variable"]);
                (Get, path.with("variable", &function))
            }
            Self::SetVariable { channel, variable, value } => {
                let path = Path::new(&["channels", channel, "variable"]).with("variable", variable);
                (Post, path.with("value", value))
            }
            Self::Keys { channel, keys } => {
                let path = Path::new(&["channels", channel, "dtmf"]).with("dtmf", keys);
                let path = path.with("duration", &KEY_MS.to_string());
                (Post, path.with("between", &BETWEEN_KEYS_MS.to_string()))
            }
            Self::Hold { channel, on } => {
                (if *on { Post } else { Delete }, Path::new(&["channels", channel, "hold"]))
            }
            Self::Originate(call) => {
                let mut path = Path::new(&["channels"]).with("endpoint", &call.endpoint);
                path = path.with("app", &call.application).with("channelId", &call.channel);
                path = path.with("timeout", &call.timeout.to_string());
                if let Some(caller) = &call.caller {
                    path = path.with("callerId", caller);
                }
                if !call.variables.is_empty() {
                    let variables = call.variables.iter().map(|(name, value)| (name.clone(), json!(value)));
                    body = Some(json!({ "variables": variables.collect::<serde_json::Map<_, _>>() }));
                }
                (Post, path)
            }
            Self::ExternalMedia { channel, application, medium, format } => {
                let path = Path::new(&["channels", "externalMedia"]).with("channelId", channel);
                let path = path.with("app", application).with("format", format);
                let path = match medium {
                    ExternalMedia::Rtp { to } => path.with("external_host", to),
                    ExternalMedia::AudioSocket { to, uuid } => {
                        let path = path.with("external_host", to).with("data", uuid);
                        path.with("encapsulation", "audiosocket").with("transport", "tcp")
                    }
                    ExternalMedia::WebSocket => {
                        let path = path.with("encapsulation", "none").with("transport", "websocket");
                        path.with("connection_type", "server")
                    }
                };
                (Post, path)
            }
            // Without a native bridge: it would take keys and addresses past us.
            Self::CreateBridge { bridge } => {
                let path = Path::new(&["bridges"]).with("bridgeId", bridge);
                (Post, path.with("type", "mixing,dtmf_events,proxy_media"))
            }
            Self::AddChannel { bridge, channel, absorb_keys } => {
                let path = Path::new(&["bridges", bridge, "addChannel"]).with("channel", channel);
                (Post, if *absorb_keys { path.with("absorbDTMF", "true") } else { path })
            }
            Self::RemoveChannel { bridge, channel } => {
                (Post, Path::new(&["bridges", bridge, "removeChannel"]).with("channel", channel))
            }
            Self::DeleteBridge { bridge } => (Delete, Path::new(&["bridges", bridge])),
            Self::Snoop { channel, snoop, application } => {
                let path = Path::new(&["channels", channel, "snoop", snoop]).with("app", application);
                (Post, path.with("spy", "both").with("whisper", "none"))
            }
            Self::Play { to, playback, media } => {
                let (kind, id) = match to {
                    PlayTo::Channel(id) => ("channels", id),
                    PlayTo::Bridge(id) => ("bridges", id),
                };
                (Post, Path::new(&[kind, id, "play", playback]).with("media", media))
            }
            Self::StopPlay { playback } => (Delete, Path::new(&["playbacks", playback])),
            Self::Application { application } => (Get, Path::new(&["applications", application])),
            Self::Channel { channel } => (Get, Path::new(&["channels", channel])),
            Self::Channels => (Get, Path::new(&["channels"])),
            Self::Bridges => (Get, Path::new(&["bridges"])),
            Self::Info => (Get, Path::new(&["asterisk", "info"])),
            Self::Modules => (Get, Path::new(&["asterisk", "modules"])),
        };
        Http { method, path: path.0, body }
    }

    /// Whether doing it twice is doing it once, so that it may be tried again on another connection when nobody
    /// knows whether the PBX has seen it.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Ring { .. }
            | Self::Answer { .. }
            | Self::HangUp { .. }
            | Self::Exists { .. }
            | Self::SetVariable { .. }
            | Self::Hold { .. }
            | Self::AddChannel { .. }
            | Self::RemoveChannel { .. }
            | Self::DeleteBridge { .. }
            | Self::StopPlay { .. }
            | Self::Application { .. }
            | Self::Channel { .. }
            | Self::Channels
            | Self::Bridges
            | Self::Info
            | Self::Modules => true,
            // Names chosen by us make the second of two fail with 409, which says nothing about the first.
            Self::Continue { .. }
            | Self::Keys { .. }
            | Self::Originate(_)
            | Self::ExternalMedia { .. }
            | Self::CreateBridge { .. }
            | Self::Snoop { .. }
            | Self::Play { .. } => false,
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, with its body.
    Done(Vec<u8>),
    /// 404: what it is about is not there. After a hang-up that is the ordinary answer.
    NotThere(String),
    /// Another status: 400 what was asked makes no sense, 409 the channel is not in the application (any more), 412
    /// its state is the wrong one, 5xx the PBX failed.
    Refused {
        /// Of HTTP.
        status: u16,
        /// In words.
        message: String,
    },
    /// There is no answer; the PBX may have seen the request, or not.
    Lost(String),
}

impl Outcome {
    /// Of a status and a body.
    pub fn of(status: u16, body: Vec<u8>) -> Self {
        if (200..300).contains(&status) {
            return Self::Done(body);
        }
        let message = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if !refusal.message.is_empty() => for_terminal(&refusal.message),
            _ => format!("HTTP status {status}"),
        };
        match status {
            404 => Self::NotThere(message),
            status => Self::Refused { status, message },
        }
    }

    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// What went wrong, in words.
    pub fn problem(&self) -> String {
        match self {
            Self::Done(_) => String::new(),
            Self::NotThere(message) => message.clone(),
            Self::Refused { status, message } => format!("{message} (HTTP {status})"),
            Self::Lost(cause) => cause.clone(),
        }
    }
}

/// How long the PBX takes to press these keys, in milliseconds.
pub fn keys_take_ms(keys: &str) -> u64 {
    keys.chars().count() as u64 * (KEY_MS + BETWEEN_KEYS_MS)
}

/// A path with its query.
struct Path(String);

impl Path {
    fn new(segments: &[&str]) -> Self {
        let mut path = String::with_capacity(96);
        for segment in segments {
            path.push('/');
            encode(&mut path, segment);
        }
        Self(path)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        encode(&mut self.0, value);
        self
    }
}

/// RFC 3986 section 2.3: all but unreserved characters.
pub(super) fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(char::from(byte))
            }
            _ => {
                // Writing into a string does not fail.
                let _fits = write!(into, "%{byte:02X}");
            }
        }
    }
}

const KEY_MS: u64 = 100;
const BETWEEN_KEYS_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(request: &Request) -> (Method, String) {
        let http = request.http();
        (http.method, http.path)
    }

    #[test]
    fn channel_ids_and_values_are_encoded() {
        let channel = "1760000000.7/ä&?;1".to_owned();
        let (method, path) = path(&Request::Answer { channel });
        assert_eq!(
            (method, path.as_str()),
            (Method::Post, "/channels/1760000000.7%2F%C3%A4%26%3F%3B1/answer")
        );
    }

    #[test]
    fn requests_are_written_as_the_interface_has_them() {
        let c = || "c.1".to_owned();
        let to = Extension { context: Some("in".into()), extension: "200#".into(), priority: 2 };
        let exists = Extension { context: None, extension: "200".into(), priority: 1 };
        let media = |medium| Request::ExternalMedia {
            channel: "m".into(),
            application: "tandem".into(),
            medium,
            format: "slin16",
        };
        for (request, method, expected) in [
            (Request::HangUp { channel: c(), cause: 17 }, Method::Delete, "/channels/c.1?reason_code=17"),
            (Request::Continue { channel: c(), to: None }, Method::Post, "/channels/c.1/continue"),
            (
                Request::Continue { channel: c(), to: Some(to) },
                Method::Post,
                "/channels/c.1/continue?context=in&extension=200%23&priority=2",
            ),
            (
                Request::Exists { channel: c(), extension: exists },
                Method::Get,
                "/channels/c.1/variable?variable=DIALPLAN_EXISTS%28default%2C200%2C1%29",
            ),
            (
                Request::Keys { channel: c(), keys: "12#".into() },
                Method::Post,
                "/channels/c.1/dtmf?dtmf=12%23&duration=100&between=100",
            ),
            (
                Request::SetVariable { channel: c(), variable: "TANDEMSTATUS".into(), value: "A B".into() },
                Method::Post,
                "/channels/c.1/variable?variable=TANDEMSTATUS&value=A%20B",
            ),
            (Request::Hold { channel: c(), on: false }, Method::Delete, "/channels/c.1/hold"),
            (
                media(ExternalMedia::Rtp { to: "127.0.0.1:20000".into() }),
                Method::Post,
                "/channels/externalMedia?channelId=m&app=tandem&format=slin16&external_host=127.0.0.1%3A20000",
            ),
            (
                media(ExternalMedia::AudioSocket { to: "[::1]:9092".into(), uuid: "u".into() }),
                Method::Post,
                "/channels/externalMedia?channelId=m&app=tandem&format=slin16&external_host=%5B%3A%3A1%5D%3A9092\
                 &data=u&encapsulation=audiosocket&transport=tcp",
            ),
            (
                media(ExternalMedia::WebSocket),
                Method::Post,
                "/channels/externalMedia?channelId=m&app=tandem&format=slin16&encapsulation=none&transport=websocket\
                 &connection_type=server",
            ),
            (
                Request::AddChannel { bridge: "b".into(), channel: c(), absorb_keys: true },
                Method::Post,
                "/bridges/b/addChannel?channel=c.1&absorbDTMF=true",
            ),
            (
                Request::Snoop { channel: c(), snoop: "s".into(), application: "tandem".into() },
                Method::Post,
                "/channels/c.1/snoop/s?app=tandem&spy=both&whisper=none",
            ),
        ] {
            assert_eq!(path(&request), (method, expected.to_owned()));
        }
        let call = Request::Originate(Originate {
            channel: "o".into(),
            endpoint: "PJSIP/+15550100@carrier".into(),
            application: "tandem".into(),
            caller: Some("+15550101".into()),
            timeout: 30,
            variables: vec![("CALLERID(name)".into(), "T".into())],
        });
        assert_eq!(
            path(&call).1,
            "/channels?endpoint=PJSIP%2F%2B15550100%40carrier&app=tandem&channelId=o&timeout=30&callerId=%2B15550101"
        );
        assert_eq!(call.http().body, Some(json!({ "variables": { "CALLERID(name)": "T" } })));
    }

    #[test]
    fn an_answer_is_judged_by_its_status() {
        assert_eq!(Outcome::of(204, Vec::new()), Outcome::Done(Vec::new()));
        let gone = br#"{"message":"Channel not found"}"#.to_vec();
        assert_eq!(Outcome::of(404, gone), Outcome::NotThere("Channel not found".into()));
        let refused = Outcome::of(409, b"<html>".to_vec());
        assert_eq!(refused, Outcome::Refused { status: 409, message: "HTTP status 409".into() });
        assert_eq!(refused.problem(), "HTTP status 409 (HTTP 409)");
    }
}
