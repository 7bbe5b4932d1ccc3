//! What the PBX knows: channels, bridges, playbacks, applications; and the events of what happens to them, in the
//! order and the shape that Asterisk 23 sends them in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::port::{Port, Spy};
use super::{AppliedFate, Fate, Report, Request, Went};
use crate::simulate::asterisk::audiosocket::AudioSocketCall;
use crate::simulate::asterisk::person::Person;
use crate::simulate::asterisk::websocket::{Slot, WebSocketCall};

/// What stands behind a channel.
pub(super) enum Behind {
    /// Somebody who called, or was called.
    Person,
    /// externalMedia over an AudioSocket.
    AudioSocket(AudioSocketCall),
    /// externalMedia over a WebSocket; the slot waits for the application.
    WebSocket(WebSocketCall, Option<Slot>),
    /// externalMedia over RTP; cancelled, it stops.
    Rtp(CancellationToken),
    /// A copy of another channel's audio.
    Snoop(Arc<Spy>),
}

pub(super) struct Channel {
    pub id: String,
    pub name: String,
    pub state: &'static str,
    pub number: String,
    pub person_name: String,
    pub connected: String,
    pub context: String,
    pub exten: String,
    pub priority: u32,
    pub app_name: &'static str,
    pub app_data: String,
    pub created: chrono::DateTime<chrono::Utc>,
    pub variables: BTreeMap<String, String>,
    /// Shown as `channelvars` in the answer that makes it.
    pub shown: BTreeMap<String, String>,
    /// The Stasis application it is in.
    pub app: Option<String>,
    /// The application asked for it, and hears of its end.
    pub is_ours: bool,
    pub bridge: Option<String>,
    pub absorbs: bool,
    pub person: Arc<Person>,
    pub port: Option<Arc<Port>>,
    pub behind: Behind,
    pub held: bool,
    pub music: bool,
    /// The keys pressed towards it.
    pub keys: String,
    pub spies: Arc<Mutex<Vec<Arc<Spy>>>>,
}

impl Channel {
    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({
            "id": self.id, "name": self.name, "state": self.state, "protocol_id": "",
            "caller": {"name": self.person_name, "number": self.number},
            "connected": {"name": "", "number": self.connected},
            "accountcode": "",
            "dialplan": {
                "context": self.context, "exten": self.exten, "priority": self.priority,
                "app_name": self.app_name, "app_data": self.app_data,
            },
            "creationtime": stamp(self.created), "language": "en",
        });
        if !self.shown.is_empty() {
            value["channelvars"] = json!(self.shown);
        }
        value
    }
}

pub(super) struct Bridge {
    pub id: String,
    pub name: String,
    pub channels: Vec<String>,
    /// People hear each other without any medium of ours.
    pub ticking: Option<CancellationToken>,
}

impl Bridge {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id, "technology": "simple_bridge", "bridge_type": "mixing", "bridge_class": "stasis",
            "creator": "Stasis", "name": self.name, "channels": self.channels, "creationtime": stamp(chrono::Utc::now()),
            "video_mode": "talker",
        })
    }
}

pub(super) struct Playback {
    pub id: String,
    pub media: String,
    pub target: String,
    pub app: Option<String>,
    pub stop: CancellationToken,
}

impl Playback {
    pub(super) fn to_json(&self, state: &str) -> Value {
        json!({
            "id": self.id, "media_uri": self.media, "target_uri": self.target, "language": "en", "state": state,
        })
    }
}

/// An application's event socket.
pub(super) struct App {
    pub events: mpsc::Sender<Value>,
    pub generation: u64,
}

/// All of it.
#[derive(Default)]
pub(super) struct State {
    pub channels: BTreeMap<String, Channel>,
    pub bridges: BTreeMap<String, Bridge>,
    pub playbacks: HashMap<String, Playback>,
    pub apps: HashMap<String, App>,
    /// Every id there ever was: a 404 for one of these is a race, for others a mistake.
    pub known: HashSet<String>,
    /// WebSocket channels of the dialplan, and where the application's connection is waited for.
    pub waiting: HashMap<String, Waiting>,
    pub fates: HashMap<String, AppliedFate>,
    pub report: Report,
    pub counter: u64,
}

/// A WebSocket channel of the dialplan's.
pub(super) struct Waiting {
    /// `None`: somebody is connected.
    pub slot: Option<Slot>,
    /// The channel is no more.
    pub done: watch::Receiver<bool>,
}

/// What a request is answered.
pub(super) type Answer = (u16, Value);

pub(super) fn no_content() -> Answer {
    (204, Value::Null)
}

pub(super) fn refused(status: u16, message: &str) -> Answer {
    (status, json!({ "message": message }))
}

impl State {
    /// The next channel's id.
    pub(super) fn fresh_id(&mut self) -> String {
        self.counter += 1;
        format!("1760000000.{}", self.counter)
    }

    /// Tells an application, if it is there. One that does not keep up loses its socket.
    pub(super) fn tell(&mut self, app: &str, mut event: Value) {
        event["application"] = json!(app);
        event["timestamp"] = json!(stamp(chrono::Utc::now()));
        event["asterisk_id"] = json!("02:42:ac:11:00:02");
        let Some(socket) = self.apps.get(app) else { return };
        let sent = socket.events.try_send(event);
        if sent.is_err() {
            self.apps.remove(app);
        }
        // A socket that is closed was cut, which is nobody's fault.
        if let Err(mpsc::error::TrySendError::Full(_)) = sent {
            self.violation(format!("the application `{app}` does not take its events"));
        }
    }

    /// Tells the application that a channel is in.
    pub(super) fn tell_of(&mut self, channel: &str, mut event: Value) {
        let Some(found) = self.channels.get(channel) else { return };
        let Some(app) = found.app.clone() else { return };
        event["channel"] = found.to_json();
        self.tell(&app, event);
    }

    pub(super) fn violation(&mut self, what: String) {
        if self.report.violations.len() < 200 {
            self.report.violations.push(what);
        }
    }

    pub(super) fn note(&mut self, request: Request) {
        let (status, what) = (request.status, format!("{} {}", request.method, request.path));
        // 404 is a race when the thing was there; 409 may be one.
        let gone = status == 404 && request.path.split('/').any(|part| self.known.contains(part));
        if matches!(status, 400..=408 | 410..=599) && !gone && !request.is_question {
            self.violation(format!("{what}: {status} {}", request.problem));
        }
        if self.report.requests.len() < 20_000 {
            self.report.requests.push(request);
        }
    }

    /// A channel that may be commanded, or what to answer.
    pub(super) fn control(&self, id: &str) -> Result<&Channel, Answer> {
        match self.channels.get(id) {
            None => Err(refused(404, "Channel not found")),
            Some(channel) if channel.app.is_none() => Err(refused(409, "Channel not in Stasis application")),
            Some(channel) => Ok(channel),
        }
    }

    /// The same, and not one that is still being called.
    pub(super) fn ready(&self, id: &str) -> Result<&Channel, Answer> {
        let channel = self.control(id)?;
        match channel.state {
            "Down" | "Rsrvd" | "Ringing" => Err(refused(412, "Channel in invalid state")),
            _ => Ok(channel),
        }
    }

    /// Puts a channel into an application; `false` when it is not there.
    pub(super) fn enter(&mut self, id: &str, app: &str, args: &[&str]) -> bool {
        if !self.apps.contains_key(app) {
            return false;
        }
        if let Some(channel) = self.channels.get_mut(id) {
            channel.app = Some(app.to_owned());
            (channel.app_name, channel.app_data) = ("Stasis", [&[app], args].concat().join(","));
        }
        if self.channels.get(id).is_some_and(|channel| channel.is_ours) {
            self.tell_of(id, json!({"type": "ChannelVarset", "variable": "STASISSTATUS", "value": ""}));
        }
        self.tell_of(id, json!({"type": "StasisStart", "args": args}));
        true
    }

    pub(super) fn change(&mut self, id: &str, state: &'static str) {
        if let Some(channel) = self.channels.get_mut(id)
            && channel.state != state
        {
            channel.state = state;
            self.tell_of(id, json!({"type": "ChannelStateChange"}));
        }
    }

    pub(super) fn join(&mut self, bridge: &str, id: &str, absorbs: bool) {
        self.part(id);
        let Some(found) = self.bridges.get_mut(bridge) else { return };
        found.channels.push(id.to_owned());
        let shown = found.to_json();
        if let Some(channel) = self.channels.get_mut(id) {
            channel.bridge = Some(bridge.to_owned());
            channel.absorbs = absorbs;
        }
        self.tell_of(id, json!({"type": "ChannelEnteredBridge", "bridge": shown}));
        self.tell_peers(bridge);
        self.rewire(bridge);
    }

    /// Each member's variable with the names of the others, which nobody asked for.
    fn tell_peers(&mut self, bridge: &str) {
        let members = self.bridges.get(bridge).map(|found| found.channels.clone()).unwrap_or_default();
        for member in &members {
            let others =
                members.iter().filter(|other| *other != member).filter_map(|other| self.channels.get(other));
            let names = others.map(|other| other.name.clone()).collect::<Vec<_>>().join(",");
            self.tell_of(member, json!({"type": "ChannelVarset", "variable": "BRIDGEPEER", "value": names}));
        }
    }

    /// Takes a channel out of its bridge.
    pub(super) fn part(&mut self, id: &str) {
        let Some(bridge) = self.channels.get_mut(id).and_then(|channel| channel.bridge.take()) else {
            return;
        };
        let Some(found) = self.bridges.get_mut(&bridge) else { return };
        found.channels.retain(|member| member != id);
        let shown = found.to_json();
        self.tell_of(id, json!({"type": "ChannelVarset", "variable": "BRIDGEPEER", "value": ""}));
        self.tell_of(id, json!({"type": "ChannelLeftBridge", "bridge": shown}));
        self.tell_peers(&bridge);
        if let Some(port) = self.channels.get(id).and_then(|channel| channel.port.clone()) {
            port.connect(Vec::new());
        }
        self.rewire(&bridge);
    }

    /// Who hears whom in a bridge.
    fn rewire(&mut self, bridge: &str) {
        let Some(found) = self.bridges.get_mut(bridge) else { return };
        let members: Vec<&Channel> = found.channels.iter().filter_map(|id| self.channels.get(id)).collect();
        let ends = || members.iter().filter(|channel| channel.port.is_none()).map(|channel| channel.end());
        for port in members.iter().filter_map(|channel| channel.port.as_ref()) {
            port.connect(ends().collect());
        }
        if let Some(ticking) = found.ticking.take() {
            ticking.cancel();
        }
        let people: Vec<_> = ends().collect();
        let alone = members.iter().all(|channel| channel.port.is_none());
        // Without a runtime the PBX is on its way out, and nobody listens.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && people.len() > 1
            && alone
        {
            let stop = CancellationToken::new();
            runtime.spawn(super::port::converse(people, stop.clone()));
            found.ticking = Some(stop);
        }
    }

    /// A channel is gone from its application and, unless it `continues`, from the PBX.
    pub(super) fn leave(&mut self, id: &str, fate: Fate) {
        self.part(id);
        self.tell_of(id, json!({"type": "StasisEnd"}));
        let continues = matches!(fate, Fate::WentOn(_));
        let Some(mut channel) = self.channels.remove(id) else { return };
        let app = channel.app.take();
        if let (Fate::HungUp { cause, .. }, true, Some(app)) = (&fate, channel.is_ours, app) {
            let text = cause_text(*cause);
            let shown = channel.to_json();
            self.tell(
                &app,
                json!({"type": "ChannelDestroyed", "cause": cause, "cause_txt": text, "channel": shown}),
            );
        }
        match &channel.behind {
            Behind::Person => {}
            Behind::AudioSocket(call) => call.hang_up(),
            Behind::WebSocket(call, _) => call.hang_up(),
            Behind::Rtp(stop) => stop.cancel(),
            Behind::Snoop(spy) => spy.stop(),
        }
        if continues {
            // It is somewhere in the dialplan, where nobody controls it.
            channel.bridge = None;
        } else {
            use crate::simulate::asterisk::person::Far as _;
            channel.person.leave();
        }
        let applied = AppliedFate { fate, at: Instant::now(), number: channel.number.clone() };
        if let Fate::WentOn(went) = &applied.fate {
            self.report.went.push((id.to_owned(), went.clone()));
        }
        self.fates.insert(id.to_owned(), applied);
    }

    /// Somebody hangs a channel up.
    pub(super) fn hang_up(&mut self, id: &str, cause: u16, by_app: bool) {
        let event = if by_app {
            json!({"type": "ChannelHangupRequest", "cause": 32, "soft": true})
        } else {
            json!({"type": "ChannelHangupRequest", "cause": cause})
        };
        self.tell_of(id, event);
        self.leave(id, Fate::HungUp { cause, by_app });
    }

    pub(super) fn go_on(&mut self, id: &str, went: Went) {
        self.leave(id, Fate::WentOn(went));
    }

    pub(super) fn remove_bridge(&mut self, id: &str) -> bool {
        let Some(bridge) = self.bridges.get(id) else { return false };
        for channel in bridge.channels.clone() {
            self.part(&channel);
        }
        self.bridges.remove(id);
        true
    }

    pub(super) fn insert(&mut self, channel: Channel) {
        self.known.insert(channel.id.clone());
        self.channels.insert(channel.id.clone(), channel);
    }
}

/// Asterisk's time.
pub(super) fn stamp(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// Asterisk's words for a cause.
pub(super) fn cause_text(cause: u16) -> &'static str {
    match cause {
        0 => "Unknown",
        1 => "Unallocated (unassigned) number",
        16 => "Normal Clearing",
        17 => "User busy",
        18 => "No user responding",
        19 => "User alerting, no answer",
        21 => "Call Rejected",
        34 => "Circuit/channel congestion",
        _ => "Unspecified",
    }
}
