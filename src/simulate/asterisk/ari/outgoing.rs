//! Calls that the application places.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::rest::{Asked, channel_of};
use super::state::{Answer, Behind, Channel, cause_text, refused};
use super::{Endpoint, Fate, Shared};
use crate::simulate::asterisk::person::Person;

impl Shared {
    pub(super) fn originate(self: &Arc<Self>, asked: &Asked, named: Option<&str>) -> Answer {
        let create = named == Some("create");
        let Some(endpoint) = asked.get("endpoint").map(str::to_owned) else {
            return refused(400, "Endpoint must be specified");
        };
        if endpoint.split_once('/').is_none() {
            return refused(400, "Endpoint must be specified");
        }
        if asked.get("app").is_some() == asked.get("extension").is_some() && !create {
            return refused(400, "Application or extension must be specified, not both");
        }
        let id = match named.filter(|_| !create).or_else(|| asked.get("channelId")) {
            Some(id) => id.to_owned(),
            None => self.with(|state| state.fresh_id()),
        };
        if self.with(|state| state.channels.contains_key(&id)) {
            return refused(409, "Channel with given unique ID already exists");
        }
        if matches!(self.endpoint(&endpoint), Endpoint::Unknown) {
            return (500, json!({"error": "Allocation failed"}));
        }
        let name =
            format!("{}-{:08x}", endpoint.split('@').next().unwrap_or_default(), rand::random::<u32>());
        let mut made = channel_of(&id, name, Behind::Person, Person::new());
        made.is_ours = true;
        made.number = endpoint
            .rsplit('/')
            .next()
            .and_then(|rest| rest.split('@').next())
            .unwrap_or_default()
            .to_owned();
        made.connected = asked.get("callerId").unwrap_or_default().to_owned();
        made.variables = asked.variables();
        made.variables.insert("simulated_endpoint".to_owned(), endpoint);
        let shown = made.to_json();
        let app = asked.get("app").unwrap_or_default().to_owned();
        self.with(|state| {
            state.insert(made);
            if create {
                let args: Vec<&str> =
                    asked.get("appArgs").map(|args| args.split(',').collect()).unwrap_or_default();
                state.enter(&id, &app, &args);
            }
        });
        if !create {
            self.ring_out(id, asked);
        }
        (200, shown)
    }

    /// A channel calls its endpoint.
    pub(super) fn ring_out(self: &Arc<Self>, id: String, asked: &Asked) {
        let endpoint = self.with(|state| {
            state.channels.get(&id).and_then(|channel| channel.variables.get("simulated_endpoint")).cloned()
        });
        let endpoint = endpoint.unwrap_or_default();
        let timeout = asked
            .get("timeout")
            .and_then(|text| text.parse().ok())
            .map_or(Duration::from_secs(30), Duration::from_secs);
        let app = asked.get("app").map(str::to_owned);
        let args = asked.get("appArgs").unwrap_or_default().to_owned();
        let plan = self.endpoint(&endpoint);
        let shared = self.clone();
        self.tasks.spawn(async move {
            let app = app.or_else(|| shared.with(|state| state.channels.get(&id)?.app.clone())).unwrap_or_default();
            let dial = |status: &str| {
                shared.with(|state| {
                    let peer = state.channels.get(&id).map(Channel::to_json).unwrap_or_default();
                    let event = json!({"type": "Dial", "dialstatus": status, "forward": "", "dialstring": endpoint, "peer": peer});
                    state.tell(&app, event);
                });
            };
            let end = |status: &str, cause: u16| {
                dial(status);
                shared.with(|state| {
                    if let Some(channel) = state.channels.get_mut(&id) {
                        channel.app = None;
                        let shown = channel.to_json();
                        let text = cause_text(cause);
                        let event = json!({"type": "ChannelDestroyed", "cause": cause, "cause_txt": text, "channel": shown});
                        state.tell(&app, event);
                        state.leave(&id, Fate::HungUp { cause, by_app: false });
                    }
                });
            };
            dial("");
            let ring = || {
                shared.with(|state| {
                    if let Some(channel) = state.channels.get_mut(&id) {
                        channel.state = "Ringing";
                        let shown = channel.to_json();
                        state.tell(&app, json!({"type": "ChannelStateChange", "channel": shown}));
                    }
                });
                dial("RINGING");
            };
            match plan {
                Endpoint::Answers(after) if after <= timeout => {
                    ring();
                    tokio::time::sleep(after).await;
                    let is_there = shared.with(|state| {
                        let Some(channel) = state.channels.get_mut(&id) else { return false };
                        channel.state = "Up";
                        let shown = channel.to_json();
                        state.tell(&app, json!({"type": "ChannelStateChange", "channel": shown}));
                        true
                    });
                    if !is_there {
                        return;
                    }
                    dial("ANSWER");
                    let args: Vec<&str> = args.split(',').filter(|arg| !arg.is_empty()).collect();
                    shared.with(|state| {
                        let is_in = state.channels.get(&id).is_some_and(|channel| channel.app.is_some());
                        if !is_in && !state.enter(&id, &app, &args) {
                            state.leave(&id, Fate::HungUp { cause: 16, by_app: false });
                        }
                    });
                }
                Endpoint::Answers(_) | Endpoint::RingsOn => {
                    ring();
                    tokio::time::sleep(timeout).await;
                    end("NOANSWER", 19);
                }
                Endpoint::Busy => end("BUSY", 17),
                Endpoint::Rejects(cause @ (3 | 20)) => end("CHANUNAVAIL", cause),
                Endpoint::Rejects(cause @ (34 | 42)) => end("CONGESTION", cause),
                // What Asterisk calls every other cause.
                Endpoint::Rejects(cause) => end("NOANSWER", cause),
                Endpoint::Says(status) => end(status, 0),
                Endpoint::Unknown => {}
            }
        });
    }

    fn endpoint(&self, endpoint: &str) -> Endpoint {
        let known = self.config.endpoints.iter().find(|(prefix, _)| endpoint.starts_with(prefix.as_str()));
        known.map_or(Endpoint::Answers(Duration::from_millis(50)), |known| known.1)
    }
}
