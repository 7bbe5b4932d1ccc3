//! What Asterisk tells: events, and the objects of its answers. Unknown types and fields are ignored.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

/// A channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Channel {
    /// Unique on the PBX; chosen by whoever made the channel, or by the PBX.
    pub id: String,
    /// As in `core show channels`: `PJSIP/carrier-00000003`.
    pub name: String,
    /// `Down`, `Ring`, `Ringing`, `Up`, ...
    pub state: String,
    /// Who is at its far end.
    pub caller: Party,
    /// Whom they are connected to.
    pub connected: Party,
    /// Where in the dialplan it is.
    pub dialplan: Place,
    /// Call-ID of SIP, where the channel has one.
    pub protocol_id: String,
    /// Variables, where the answer has them.
    pub channelvars: HashMap<String, String>,
}

impl Channel {
    /// Whether it is answered.
    pub fn is_up(&self) -> bool {
        self.state == "Up"
    }

    /// Whether the Stasis application of that name has it.
    pub fn is_in(&self, application: &str) -> bool {
        let runs = self.dialplan.app_data.split(',').next().unwrap_or_default();
        self.dialplan.app_name.eq_ignore_ascii_case("Stasis") && runs == application
    }

    /// What `Stasis()` was told behind the application's name, where it runs that application.
    pub fn stasis_args(&self, application: &str) -> Vec<String> {
        let args = self.dialplan.app_data.split(',').skip(1);
        if self.is_in(application) { args.map(str::to_owned).collect() } else { Vec::new() }
    }
}

/// A party's number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Party {
    /// Empty when it is withheld.
    pub number: String,
}

/// A place in the dialplan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Where the extension is looked up.
    pub context: String,
    /// The extension.
    pub exten: String,
    /// The application that runs.
    pub app_name: String,
    /// Its arguments.
    pub app_data: String,
}

/// A bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Bridge {
    /// Unique on the PBX.
    pub id: String,
    /// Channels in it.
    pub channels: Vec<String>,
}

/// A Stasis application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Application {
    /// Channels it is told of.
    pub channel_ids: Vec<String>,
}

/// What the PBX is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Info {
    /// The program.
    pub system: System,
    /// Since when it runs.
    pub status: Status,
}

/// The program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct System {
    /// `22.4.1`.
    pub version: String,
}

/// Since when it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// As the PBX writes moments.
    pub startup_time: String,
}

/// A module of the PBX.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Module {
    /// `res_stasis.so`.
    pub name: String,
    /// `Running` when it is of use.
    pub status: String,
}

/// The value of a variable or function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// As text.
    pub value: String,
}

/// The body of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// In words.
    pub message: String,
}

/// An event that means something to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A channel came into the application.
    Entered {
        /// The channel.
        channel: Box<Channel>,
        /// Arguments of `Stasis()` behind the application's name.
        args: Vec<String>,
        /// The channel whose place it takes.
        replaces: Option<String>,
    },
    /// A channel left the application.
    Exited {
        /// The channel.
        channel: String,
    },
    /// A channel's state is another one.
    State {
        /// The channel.
        channel: String,
        /// As [`Channel::state`].
        state: String,
    },
    /// A key was pressed.
    Key {
        /// The channel.
        channel: String,
        /// The key.
        key: char,
    },
    /// A channel is in a bridge.
    Joined {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
    },
    /// A channel is not in a bridge any more.
    Parted {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
    },
    /// A bridge is no more.
    BridgeGone {
        /// The bridge.
        bridge: String,
    },
    /// Somebody wants the channel to end.
    HangUpAsked {
        /// The channel.
        channel: String,
        /// Q.850, where it is known.
        cause: Option<u16>,
    },
    /// A channel is no more.
    Destroyed {
        /// The channel.
        channel: String,
        /// Q.850; 0 where nobody said.
        cause: u16,
        /// In words.
        reason: String,
        /// The cause in the channel's own protocol: with SIP, the status.
        technical: Option<u16>,
    },
    /// The far end keeps us waiting, or does not any more.
    Held {
        /// The channel.
        channel: String,
        /// Whether it does.
        held: bool,
    },
    /// What became of a channel that is being called.
    Dialled {
        /// The channel that is called.
        peer: String,
        /// `RINGING`, `BUSY`, ...; empty at first.
        status: String,
    },
    /// A playback is over.
    Played {
        /// The playback.
        playback: String,
    },
    /// Another client took the application over; nothing more comes to us.
    Replaced,
}

impl Event {
    /// Reads a message; `None` for one that is of no concern.
    ///
    /// # Errors
    /// When it is no JSON, or an event of concern lacks what makes it one.
    pub fn read(text: &str) -> Result<Option<Self>, serde_json::Error> {
        let head: Head<'_> = serde_json::from_str(text)?;
        let event = match head.kind.as_ref() {
            "StasisStart" => {
                let event: StasisStart = serde_json::from_str(text)?;
                let replaces = event.replace_channel.map(|channel| channel.id);
                Self::Entered { channel: Box::new(event.channel), args: event.args, replaces }
            }
            "StasisEnd" => Self::Exited { channel: OfChannel::read(text)?.id() },
            "ChannelStateChange" => {
                let channel = OfChannel::read(text)?.channel;
                Self::State { state: channel.state.into_owned(), channel: channel.id.into_owned() }
            }
            "ChannelDtmfReceived" => {
                let event: OfChannel<'_> = OfChannel::read(text)?;
                let Some(key) = event.digit.chars().next() else { return Ok(None) };
                Self::Key { channel: event.id(), key: key.to_ascii_uppercase() }
            }
            "ChannelHangupRequest" => {
                let event = OfChannel::read(text)?;
                // With `soft`, the number says what inside the PBX asks for it, and is no cause.
                Self::HangUpAsked { cause: event.cause.filter(|_| !event.soft), channel: event.id() }
            }
            "ChannelEnteredBridge" => {
                let event = OfBridge::read(text)?;
                let Some(channel) = event.channel else { return Ok(None) };
                Self::Joined { bridge: event.bridge.id.into_owned(), channel: channel.id.into_owned() }
            }
            "ChannelLeftBridge" => {
                let event = OfBridge::read(text)?;
                let Some(channel) = event.channel else { return Ok(None) };
                Self::Parted { bridge: event.bridge.id.into_owned(), channel: channel.id.into_owned() }
            }
            "BridgeDestroyed" => Self::BridgeGone { bridge: OfBridge::read(text)?.bridge.id.into_owned() },
            "ChannelDestroyed" => {
                let event = OfChannel::read(text)?;
                Self::Destroyed {
                    cause: event.cause.unwrap_or(0),
                    reason: event.cause_txt.to_string(),
                    technical: event.tech_cause,
                    channel: event.id(),
                }
            }
            "ChannelHold" => Self::Held { channel: OfChannel::read(text)?.id(), held: true },
            "ChannelUnhold" => Self::Held { channel: OfChannel::read(text)?.id(), held: false },
            "Dial" => {
                let event: Dial<'_> = serde_json::from_str(text)?;
                Self::Dialled { peer: event.peer.id.into_owned(), status: event.dialstatus.into_owned() }
            }
            "PlaybackFinished" => {
                let event: Playback = serde_json::from_str(text)?;
                Self::Played { playback: event.playback.id }
            }
            "ApplicationReplaced" => Self::Replaced,
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}

/// What is read of every message.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct StasisStart {
    channel: Channel,
    #[serde(default)]
    args: Vec<String>,
    replace_channel: Option<Channel>,
}

/// What is read of a channel's event, without its many names and numbers.
#[derive(Deserialize)]
struct OfChannel<'a> {
    #[serde(borrow)]
    channel: Named<'a>,
    #[serde(default, borrow)]
    digit: Cow<'a, str>,
    #[serde(default)]
    cause: Option<u16>,
    #[serde(default, borrow)]
    cause_txt: Cow<'a, str>,
    #[serde(default)]
    tech_cause: Option<u16>,
    #[serde(default)]
    soft: bool,
}

impl<'a> OfChannel<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn id(self) -> String {
        self.channel.id.into_owned()
    }
}

/// What is read of a bridge's event.
#[derive(Deserialize)]
struct OfBridge<'a> {
    #[serde(borrow)]
    bridge: Named<'a>,
    #[serde(borrow)]
    channel: Option<Named<'a>>,
}

impl<'a> OfBridge<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default, borrow)]
    state: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Dial<'a> {
    #[serde(borrow)]
    peer: Named<'a>,
    #[serde(default, borrow)]
    dialstatus: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Playback {
    playback: Id,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"type":"ChannelDtmfReceived","application":"ai-bridge",
      "timestamp":"2026-01-31T12:00:05.120+0000","asterisk_id":"02:42:0a:00:00:02","digit":"5","duration_ms":120,
      "channel":{"id":"1760000000.7","name":"PJSIP/trunk-00000003","state":"Up",
        "caller":{"name":"","number":"+15550100"},"connected":{"name":"","number":""},
        "dialplan":{"context":"from-trunk","exten":"700","priority":2,"app_name":"Stasis","app_data":"ai-bridge"},
        "creationtime":"2026-01-31T12:00:00.001+0000","language":"en","accountcode":"","protocol_id":"abc@10.0.0.5"}}"#;

    #[test]
    fn events_are_read_and_others_passed_over() {
        let read = |text: &str| Event::read(text).unwrap();
        assert_eq!(read(KEY), Some(Event::Key { channel: "1760000000.7".into(), key: '5' }));
        let start = KEY.replace("ChannelDtmfReceived", "StasisStart").replace("\"digit\"", "\"x\"");
        let Some(Event::Entered { channel, args, replaces }) = read(&start) else { panic!("a start") };
        assert!(channel.is_up() && channel.is_in("ai-bridge") && !channel.is_in("ai"));
        assert_eq!((channel.caller.number.as_str(), channel.dialplan.exten.as_str()), ("+15550100", "700"));
        assert_eq!((args.len(), replaces), (0, None));
        let destroyed = KEY.replace(
            "\"type\":\"ChannelDtmfReceived\"",
            "\"type\":\"ChannelDestroyed\",\"cause\":17,\"cause_txt\":\"User \\\"busy\\\"\",\"tech_cause\":486",
        );
        assert_eq!(
            read(&destroyed),
            Some(Event::Destroyed {
                channel: "1760000000.7".into(),
                cause: 17,
                reason: "User \"busy\"".into(),
                technical: Some(486)
            })
        );
        let asked = |more: &str| {
            let kind = format!("\"type\":\"ChannelHangupRequest\",\"cause\":32{more}");
            read(&KEY.replace("\"type\":\"ChannelDtmfReceived\"", &kind))
        };
        let expected = |cause| Some(Event::HangUpAsked { channel: "1760000000.7".into(), cause });
        assert_eq!((asked(""), asked(",\"soft\":true")), (expected(Some(32)), expected(None)));
        let left = r#"{"type":"ChannelLeftBridge","bridge":{"id":"b","channels":[]},"channel":{"id":"c"}}"#;
        assert_eq!(read(left), Some(Event::Parted { bridge: "b".into(), channel: "c".into() }));
        let gone = r#"{"type":"BridgeDestroyed","bridge":{"id":"b"}}"#;
        assert_eq!(read(gone), Some(Event::BridgeGone { bridge: "b".into() }));
        let mut caller: Channel = Channel::default();
        caller.dialplan.app_name = "Stasis".into();
        caller.dialplan.app_data = "tandem,called=200,x".into();
        assert_eq!(caller.stasis_args("tandem"), ["called=200", "x"]);
        assert!(caller.stasis_args("other").is_empty());
        assert_eq!(read(r#"{"type":"ChannelVarset","variable":"x","value":"y"}"#), None);
        assert_eq!(read(r#"{"type":"SomethingNew","channel":7}"#), None);
        assert_eq!(read(r#"{"type":"ApplicationReplaced"}"#), Some(Event::Replaced));
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for wrong in
            ["", "[]", "{}", "{\"type\":7}", r#"{"type":"StasisEnd"}"#, r#"{"type":"Dial","peer":{}}"#]
        {
            assert!(Event::read(wrong).is_err(), "{wrong}");
        }
    }
}
