//! The resources: what is asked for, what is answered, what happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::port::Spy;
use super::state::{Answer, Behind, Bridge, Channel, Playback, no_content, refused};
use super::{Fate, Shared, Went};
use crate::simulate::asterisk::person::Person;

/// A request's parameters: of the query, and of a JSON body beside it.
pub(super) struct Asked {
    pub query: BTreeMap<String, String>,
    pub body: Value,
}

impl Asked {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let text = self.query.get(name).map(String::as_str).or_else(|| self.body.get(name)?.as_str());
        text.filter(|text| !text.is_empty())
    }

    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let all = self.body.get("variables").and_then(Value::as_object);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.map(|all| all.iter().map(|(name, value)| (name.clone(), text(value))).collect())
            .unwrap_or_default()
    }
}

impl Shared {
    /// What a request below `/ari/` is answered.
    pub(super) async fn answer(self: &Arc<Self>, method: &str, path: &[&str], asked: &Asked) -> Answer {
        match (method, path) {
            ("POST", ["channels", "externalMedia"]) => self.external_media(asked).await,
            ("POST", ["channels"]) => self.originate(asked, None),
            ("POST", ["channels", id]) => self.originate(asked, Some(id)),
            ("POST", ["channels", id, "play"]) => self.play("channel", id, None, asked),
            ("POST", ["channels", id, "play", playback]) => self.play("channel", id, Some(playback), asked),
            ("POST", ["bridges", id, "play"]) => self.play("bridge", id, None, asked),
            ("POST", ["bridges", id, "play", playback]) => self.play("bridge", id, Some(playback), asked),
            ("POST", ["channels", id, "snoop"]) => self.snoop(id, None, asked),
            ("POST", ["channels", id, "snoop", snoop]) => self.snoop(id, Some(snoop), asked),
            ("POST" | "DELETE" | "GET", ["channels", id, rest @ ..]) => {
                self.channel(method, id, rest, asked).unwrap_or_else(|refused| refused)
            }
            (_, ["bridges", rest @ ..]) => self.bridge(method, rest, asked).unwrap_or_else(|refused| refused),
            ("GET", ["channels"]) => {
                (200, self.with(|state| state.channels.values().map(Channel::to_json).collect()))
            }
            ("DELETE", ["playbacks", id]) => self.with(|state| match state.playbacks.get(*id) {
                Some(playback) => {
                    playback.stop.cancel();
                    no_content()
                }
                None => refused(404, "Playback not found"),
            }),
            ("GET", ["playbacks", id]) => self.with(|state| match state.playbacks.get(*id) {
                Some(playback) => (200, playback.to_json("playing")),
                None => refused(404, "Playback not found"),
            }),
            ("GET", ["applications"]) => {
                (200, self.with(|state| state.apps.keys().map(|name| application(name)).collect()))
            }
            ("GET", ["applications", name]) => self.with(|state| match state.apps.contains_key(*name) {
                true => (200, application(name)),
                false => refused(404, "Application not found"),
            }),
            ("GET", ["asterisk", "ping"]) => (
                200,
                json!({"asterisk_id": "02:42:ac:11:00:02", "ping": "pong", "timestamp": super::state::stamp(chrono::Utc::now())}),
            ),
            ("GET", ["asterisk", "info"]) => (200, self.info()),
            ("GET", ["asterisk", "modules"]) => {
                (200, self.config.modules.iter().map(|name| module(name)).collect())
            }
            ("GET", ["asterisk", "modules", name]) => {
                match self.config.modules.iter().any(|known| known == name) {
                    true => (200, module(name)),
                    false => refused(404, "Module could not be found in running modules"),
                }
            }
            (_, ["channels" | "playbacks" | "applications" | "asterisk", ..]) => {
                refused(405, "Invalid method")
            }
            _ => refused(404, "Resource not found"),
        }
    }

    fn info(&self) -> Value {
        json!({
            "build": {"os": "Linux", "kernel": "6.1", "options": "OPTIONAL_API", "machine": "x86_64", "date": "", "user": ""},
            "system": {"version": self.config.version, "entity_id": "02:42:ac:11:00:02"},
            "config": {"name": "", "default_language": "en", "setid": {"user": "", "group": ""}},
            "status": {"startup_time": "2026-01-31T12:00:00.000+0000", "last_reload_time": "2026-01-31T12:00:00.000+0000"},
        })
    }

    fn channel(
        self: &Arc<Self>,
        method: &str,
        id: &str,
        rest: &[&str],
        asked: &Asked,
    ) -> Result<Answer, Answer> {
        let mut state = self.lock();
        if !state.channels.contains_key(id) {
            return Err(refused(404, "Channel not found"));
        }
        match (method, rest) {
            ("GET", []) => {
                let shown = state.channels.get(id).map(Channel::to_json);
                return Ok((200, shown.unwrap_or_default()));
            }
            ("DELETE", []) => {
                let cause = match (asked.get("reason_code"), asked.get("reason")) {
                    (Some(_), Some(_)) => {
                        return Err(refused(400, "The reason and reason_code can't both be specified"));
                    }
                    (Some(code), None) => code.parse().ok().filter(|code| *code < 128),
                    (None, Some(reason)) => named_cause(reason),
                    (None, None) => Some(16),
                };
                let cause = cause.ok_or_else(|| refused(400, "Invalid Reason Code"))?;
                state.hang_up(id, cause, true);
            }
            ("POST", ["answer"]) => {
                state.ready(id)?;
                state.change(id, "Up");
            }
            ("POST" | "DELETE", ["ring"]) => drop(state.ready(id)?),
            ("POST", ["progress"]) => drop(state.ready(id)?),
            ("POST", ["continue"]) => {
                let channel = state.ready(id)?;
                let place = match (asked.get("context"), asked.get("extension")) {
                    (None, None) => (channel.context.clone(), channel.exten.clone(), channel.priority + 1),
                    (None, Some(exten)) => (channel.context.clone(), exten.to_owned(), 1),
                    (Some(context), exten) => (context.to_owned(), exten.unwrap_or("s").to_owned(), 1),
                };
                let priority = match asked.get("priority") {
                    None => place.2,
                    Some(text) => text.parse().map_err(|_| refused(400, "Requested priority is illegal"))?,
                };
                let went = Went { context: place.0, extension: place.1, priority };
                state.go_on(id, went);
            }
            ("POST", ["move"]) => {
                state.control(id)?;
                let app = asked.get("app").ok_or_else(|| refused(400, "Missing parameter app"))?.to_owned();
                if state.apps.contains_key(&app) {
                    state.part(id);
                    state.tell_of(id, json!({"type": "StasisEnd"}));
                    let args: Vec<&str> =
                        asked.get("appArgs").map(|args| args.split(',').collect()).unwrap_or_default();
                    state.enter(id, &app, &args);
                } else {
                    state.tell_of(
                        id,
                        json!({"type": "ApplicationMoveFailed", "destination": app, "args": []}),
                    );
                }
            }
            ("POST", ["redirect"]) => {
                let channel = state.ready(id)?;
                let endpoint = asked
                    .get("endpoint")
                    .ok_or_else(|| refused(400, "Required parameter 'endpoint' not provided."))?;
                let (tech, resource) = endpoint
                    .split_once('/')
                    .ok_or_else(|| refused(422, "Endpoint parameter does not contain tech/resource"))?;
                let own = channel.name.split('/').next().unwrap_or_default();
                if own != tech {
                    return Err(refused(
                        422,
                        &format!("Endpoint technology '{tech}' does not match channel technology '{own}'"),
                    ));
                }
                let resource = resource.to_owned();
                state.leave(id, Fate::Redirected(resource));
            }
            ("POST", ["dtmf"]) => {
                state.ready(id)?;
                let keys = asked.get("dtmf").ok_or_else(|| refused(400, "DTMF is required"))?.to_owned();
                if let Some(channel) = state.channels.get_mut(id) {
                    channel.keys.push_str(&keys);
                }
            }
            ("POST" | "DELETE", ["hold"]) => {
                state.ready(id)?;
                if let Some(channel) = state.channels.get_mut(id) {
                    channel.held = method == "POST";
                }
            }
            ("POST" | "DELETE", ["moh"]) => {
                state.ready(id)?;
                if let Some(channel) = state.channels.get_mut(id) {
                    channel.music = method == "POST";
                }
            }
            ("POST" | "DELETE", ["mute" | "silence"]) => drop(state.ready(id)?),
            ("POST", ["dial"]) => {
                state.control(id)?;
                drop(state);
                self.ring_out(id.to_owned(), asked);
            }
            ("GET", ["variable"]) => {
                let name = asked.get("variable").ok_or_else(|| refused(400, "Variable name is required"))?;
                let value = self.evaluate(&state.channels[id], name);
                return value
                    .map(|value| (200, json!({ "value": value })))
                    .ok_or_else(|| refused(404, "Provided variable was not found"));
            }
            ("POST", ["variable"]) => {
                state.control(id)?;
                let name = asked
                    .get("variable")
                    .ok_or_else(|| refused(400, "Variable name is required"))?
                    .to_owned();
                let value = asked.get("value").unwrap_or_default().to_owned();
                if let Some(channel) = state.channels.get_mut(id) {
                    channel.variables.insert(name.clone(), value.clone());
                }
                state.tell_of(id, json!({"type": "ChannelVarset", "variable": name, "value": value}));
            }
            _ => return Err(refused(404, "Resource not found")),
        }
        Ok(no_content())
    }

    fn evaluate(&self, channel: &Channel, name: &str) -> Option<String> {
        if let Some(place) = name.strip_prefix("DIALPLAN_EXISTS(").and_then(|rest| rest.strip_suffix(')')) {
            let mut parts = place.split(',');
            let (context, exten) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let exists = self.config.dialplan.iter().any(|known| known.0 == context && known.1 == exten);
            return Some(u8::from(exists).to_string());
        }
        match name {
            "CALLERID(num)" => Some(channel.number.clone()),
            "CALLERID(name)" => Some(channel.person_name.clone()),
            _ => channel.variables.get(name).or_else(|| channel.shown.get(name)).cloned(),
        }
    }

    fn bridge(self: &Arc<Self>, method: &str, path: &[&str], asked: &Asked) -> Result<Answer, Answer> {
        let mut state = self.lock();
        let missing = || refused(404, "Bridge not found");
        match (method, path) {
            ("GET", []) => return Ok((200, state.bridges.values().map(Bridge::to_json).collect())),
            ("POST", [] | [_]) => {
                let named = path.first().copied().or_else(|| asked.get("bridgeId")).map(str::to_owned);
                let id = named.unwrap_or_else(|| crate::simulate::asterisk::uuid::Uuid::random().to_string());
                if let Some(bridge) = state.bridges.get(&id).filter(|_| !path.is_empty()) {
                    return Ok((200, bridge.to_json()));
                }
                if state.bridges.contains_key(&id) {
                    return Err(refused(409, &format!("Bridge with id '{id}' already exists")));
                }
                let bridge = Bridge {
                    id: id.clone(),
                    name: asked.get("name").unwrap_or_default().to_owned(),
                    channels: Vec::new(),
                    ticking: None,
                };
                let shown = bridge.to_json();
                state.known.insert(id.clone());
                state.bridges.insert(id, bridge);
                return Ok((200, shown));
            }
            ("GET", [id]) => {
                return state.bridges.get(*id).map(|bridge| (200, bridge.to_json())).ok_or_else(missing);
            }
            ("DELETE", [id]) => {
                if !state.remove_bridge(id) {
                    return Err(missing());
                }
            }
            ("POST", [id, action @ ("addChannel" | "removeChannel")]) => {
                state.bridges.get(*id).ok_or_else(missing)?;
                let listed = asked.get("channel").ok_or_else(|| refused(400, "Missing parameter channel"))?;
                let channels: Vec<String> = listed.split(',').map(str::to_owned).collect();
                for channel in &channels {
                    let found =
                        state.channels.get(channel).ok_or_else(|| refused(400, "Channel not found"))?;
                    if found.app.is_none() {
                        return Err(refused(422, "Channel not in Stasis application"));
                    }
                    if *action == "removeChannel" && found.bridge.as_deref() != Some(*id) {
                        return Err(refused(422, "Channel not in this bridge"));
                    }
                }
                let absorbs = asked.get("absorbDTMF") == Some("true");
                for channel in &channels {
                    match *action {
                        "addChannel" => state.join(id, channel, absorbs),
                        _ => state.part(channel),
                    }
                }
            }
            ("POST" | "DELETE", [id, "moh"]) => drop(state.bridges.get(*id).ok_or_else(missing)?),
            (_, [_] | []) => return Err(refused(405, "Invalid method")),
            _ => return Err(refused(404, "Resource not found")),
        }
        Ok(no_content())
    }

    fn play(self: &Arc<Self>, what: &str, id: &str, playback: Option<&str>, asked: &Asked) -> Answer {
        let Some(media) = asked.get("media").map(str::to_owned) else {
            return refused(400, "Media is required");
        };
        let known = ["sound:", "recording:", "number:", "digits:", "characters:", "tone:"];
        let mut state = self.lock();
        let app = match what {
            "channel" => match state.ready(id) {
                Ok(channel) => channel.app.clone(),
                Err(refused) => return refused,
            },
            _ => match state.bridges.get(id) {
                Some(bridge) => {
                    bridge.channels.first().and_then(|id| state.channels.get(id)).and_then(|c| c.app.clone())
                }
                None => return refused(404, "Bridge not found"),
            },
        };
        let playback = playback.map_or_else(|| format!("playback-{}", rand::random::<u32>()), str::to_owned);
        let stop = CancellationToken::new();
        let entry = Playback {
            id: playback.clone(),
            media: media.clone(),
            target: format!("{what}:{id}"),
            app: app.clone(),
            stop: stop.clone(),
        };
        let queued = entry.to_json("queued");
        state.known.insert(playback.clone());
        state.playbacks.insert(playback.clone(), entry);
        drop(state);
        let end = if known.iter().any(|kind| media.starts_with(kind)) { "done" } else { "failed" };
        let (shared, length) = (self.clone(), self.config.playback);
        self.tasks.spawn(async move {
            shared.tell_of_playback(&playback, "PlaybackStarted", "playing");
            if end == "done" {
                // Stopped early, it is done all the same.
                let _ = tokio::time::timeout(length, stop.cancelled()).await;
            }
            shared.tell_of_playback(&playback, "PlaybackFinished", end);
            shared.with(|state| state.playbacks.remove(&playback));
        });
        (201, queued)
    }

    fn tell_of_playback(&self, id: &str, event: &str, shown: &str) {
        self.with(|state| {
            let Some(playback) = state.playbacks.get(id) else { return };
            let (value, app) = (playback.to_json(shown), playback.app.clone());
            if let Some(app) = app {
                state.tell(&app, json!({"type": event, "playback": value}));
            }
        });
    }

    fn snoop(self: &Arc<Self>, id: &str, snoop: Option<&str>, asked: &Asked) -> Answer {
        let mut state = self.lock();
        let Some(channel) = state.channels.get(id) else { return refused(404, "Channel not found") };
        let (spy_on, whisper) = (asked.get("spy").unwrap_or("none"), asked.get("whisper").unwrap_or("none"));
        let directions = ["none", "both", "out", "in"];
        if !directions.contains(&spy_on) || !directions.contains(&whisper) {
            return refused(400, "Invalid direction specified for spy or whisper");
        }
        if spy_on == "none" && whisper == "none" {
            return refused(400, "Direction must be specified for at least spy or whisper");
        }
        let Some(app) = asked.get("app").map(str::to_owned) else {
            return refused(400, "Application name is required");
        };
        let spies = channel.spies.clone();
        let snoop_id = snoop.map_or_else(|| state.fresh_id(), str::to_owned);
        if state.channels.contains_key(&snoop_id) {
            return refused(500, "Snoop channel could not be created");
        }
        let spy = Arc::new(Spy::default());
        spies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(spy.clone());
        let name = format!("Snoop/{id}-{:08x}", state.counter);
        let mut made = channel_of(&snoop_id, name, Behind::Snoop(spy), Person::new());
        made.state = "Up";
        state.insert(made);
        let shown = state.channels[&snoop_id].to_json();
        let args: Vec<&str> = asked.get("appArgs").map(|args| args.split(',').collect()).unwrap_or_default();
        state.enter(&snoop_id, &app, &args);
        (200, shown)
    }
}

/// A channel of which nothing else is known.
pub(super) fn channel_of(id: &str, name: String, behind: Behind, person: Arc<Person>) -> Channel {
    Channel {
        id: id.to_owned(),
        name,
        state: "Down",
        number: String::new(),
        person_name: String::new(),
        connected: String::new(),
        context: "default".to_owned(),
        exten: "s".to_owned(),
        priority: 1,
        app_name: "",
        app_data: String::new(),
        created: chrono::Utc::now(),
        variables: BTreeMap::new(),
        shown: BTreeMap::new(),
        app: None,
        is_ours: false,
        bridge: None,
        absorbs: false,
        person,
        port: None,
        behind,
        held: false,
        music: false,
        keys: String::new(),
        spies: Arc::new(Mutex::new(Vec::new())),
    }
}

fn application(name: &str) -> Value {
    json!({
        "name": name, "channel_ids": [], "bridge_ids": [], "endpoint_ids": [], "device_names": [],
        "events_allowed": [], "events_disallowed": [],
    })
}

fn module(name: &str) -> Value {
    json!({"name": name, "description": "", "use_count": 0, "status": "Running", "support_level": "core"})
}

fn named_cause(reason: &str) -> Option<u16> {
    Some(match reason {
        "normal" => 16,
        "busy" => 17,
        "congestion" => 42,
        "no_answer" => 19,
        "timeout" => 18,
        "rejected" => 21,
        "unallocated" => 1,
        "normal_unspecified" => 31,
        "number_incomplete" => 28,
        "codec_mismatch" => 58,
        "interworking" => 127,
        "failure" => 38,
        "answered_elsewhere" => 26,
        _ => return None,
    })
}
