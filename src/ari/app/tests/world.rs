//! A PBX in a few words, the application, and the way between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::ari::app::*;

#[derive(Debug, Clone, Default)]
pub(super) struct PbxChannel {
    pub(super) state: &'static str,
    pub(super) inside: bool,
    pub(super) bridge: Option<String>,
}

/// A PBX in a few words.
#[derive(Debug, Default)]
pub(super) struct Pbx {
    pub(super) channels: BTreeMap<String, PbxChannel>,
    pub(super) bridges: Vec<String>,
    pub(super) events: VecDeque<Event>,
    pub(super) answered: u32,
    pub(super) continued: Vec<(String, String)>,
    pub(super) variables: Vec<String>,
    /// What `Stasis()` was told.
    pub(super) args: &'static str,
}

fn channel(id: &str, state: &str, exten: &str) -> Channel {
    serde_json::from_value(json!({
        "id": id, "state": state, "caller": { "number": "+15550100" },
        "dialplan": { "context": "from-trunk", "exten": exten, "app_name": "Stasis", "app_data": "tandem" },
    }))
    .unwrap()
}

impl Pbx {
    pub(super) fn call(&mut self, id: &str) {
        self.channels.insert(id.into(), PbxChannel { state: "Ring", inside: true, bridge: None });
        self.start(id);
    }

    pub(super) fn start(&mut self, id: &str) {
        let Some(known) = self.channels.get_mut(id) else { return };
        known.inside = true;
        let state = known.state;
        self.events.push_back(Event::Entered {
            channel: Box::new(channel(id, state, "200")),
            args: vec![],
            replaces: None,
        });
    }

    pub(super) fn hang_up(&mut self, id: &str, cause: u16) -> bool {
        let Some(gone) = self.channels.remove(id) else { return false };
        if gone.inside {
            self.events.push_back(Event::HangUpAsked { channel: id.into(), cause: Some(cause) });
            self.events.push_back(Event::Exited { channel: id.into() });
        }
        let reason = "Normal Clearing".into();
        self.events.push_back(Event::Destroyed { channel: id.into(), cause, reason, technical: None });
        true
    }

    pub(super) fn perform(&mut self, request: &Request) -> Outcome {
        let done = || Outcome::Done(Vec::new());
        let missing = || Outcome::NotThere("not found".into());
        match request {
            Request::Ring { channel } | Request::Hold { channel, .. } | Request::Keys { channel, .. } => {
                if self.channels.contains_key(channel) {
                    done()
                } else {
                    missing()
                }
            }
            Request::Answer { channel } => match self.channels.get_mut(channel) {
                Some(known) => {
                    known.state = "Up";
                    self.answered += 1;
                    self.events.push_back(Event::State { channel: channel.clone(), state: "Up".into() });
                    done()
                }
                None => missing(),
            },
            Request::HangUp { channel, cause } => {
                if self.hang_up(channel, *cause) {
                    done()
                } else {
                    missing()
                }
            }
            Request::Continue { channel, to } => match self.channels.get_mut(channel) {
                Some(known) if known.inside => {
                    (known.inside, known.bridge) = (false, None);
                    let place = to.as_ref().map_or_else(String::new, |to| {
                        format!("{}@{},{}", to.extension, to.context.as_deref().unwrap_or("-"), to.priority)
                    });
                    self.continued.push((channel.clone(), place));
                    self.events.push_back(Event::Exited { channel: channel.clone() });
                    done()
                }
                Some(_) => Outcome::Refused { status: 409, message: "not in Stasis".into() },
                None => missing(),
            },
            Request::Exists { extension, .. } => {
                let known = if extension.extension == "nowhere" { "0" } else { "1" };
                Outcome::Done(json!({ "value": known }).to_string().into_bytes())
            }
            Request::SetVariable { channel, variable, value } => {
                self.variables.push(format!("{channel} {variable}={value}"));
                if self.channels.contains_key(channel) { done() } else { missing() }
            }
            Request::Channel { channel } => {
                if self.channels.contains_key(channel) {
                    done()
                } else {
                    missing()
                }
            }
            Request::Originate(call) => {
                self.channels
                    .insert(call.channel.clone(), PbxChannel { state: "Down", ..PbxChannel::default() });
                self.events
                    .push_back(Event::Dialled { peer: call.channel.clone(), status: "RINGING".into() });
                done()
            }
            Request::ExternalMedia { channel, .. } | Request::Snoop { snoop: channel, .. } => {
                let up = PbxChannel { state: "Up", inside: false, bridge: None };
                self.channels.insert(channel.clone(), up);
                self.start(channel);
                Outcome::Done(json!({ "id": channel }).to_string().into_bytes())
            }
            Request::CreateBridge { bridge } => {
                self.bridges.push(bridge.clone());
                done()
            }
            Request::AddChannel { bridge, channel, .. } => {
                if !self.bridges.contains(bridge) {
                    return missing();
                }
                match self.channels.get_mut(channel) {
                    Some(known) if known.inside => {
                        known.bridge = Some(bridge.clone());
                        done()
                    }
                    Some(_) => Outcome::Refused { status: 409, message: "not in Stasis".into() },
                    None => Outcome::Refused { status: 400, message: "Channel not found".into() },
                }
            }
            Request::RemoveChannel { channel, .. } => match self.channels.get_mut(channel) {
                Some(known) => {
                    known.bridge = None;
                    done()
                }
                None => missing(),
            },
            Request::DeleteBridge { bridge } => {
                let before = self.bridges.len();
                self.bridges.retain(|known| known != bridge);
                if self.bridges.len() < before { done() } else { missing() }
            }
            Request::Application { .. } => {
                let inside = self.channels.iter().filter(|(_, known)| known.inside);
                let ids: Vec<_> = inside.map(|(id, _)| id).collect();
                Outcome::Done(json!({ "channel_ids": ids }).to_string().into_bytes())
            }
            Request::Channels => {
                let all = self.channels.iter().map(|(id, known)| {
                    let inside = format!("tandem{}", self.args);
                    let (app, data) = if known.inside { ("Stasis", inside) } else { ("Dial", String::new()) };
                    json!({ "id": id, "state": known.state,
                            "dialplan": { "exten": "200", "app_name": app, "app_data": data } })
                });
                Outcome::Done(json!(all.collect::<Vec<_>>()).to_string().into_bytes())
            }
            Request::Bridges => {
                let all = self.bridges.iter().map(|id| {
                    let inside = self.channels.iter().filter(|(_, c)| c.bridge.as_ref() == Some(id));
                    json!({ "id": id, "channels": inside.map(|(id, _)| id).collect::<Vec<_>>() })
                });
                Outcome::Done(json!(all.collect::<Vec<_>>()).to_string().into_bytes())
            }
            _ => done(),
        }
    }

    pub(super) fn bridged(&self, caller: &str) -> bool {
        let bridge = self.channels.get(caller).and_then(|known| known.bridge.clone());
        bridge.is_some_and(|bridge| {
            self.channels.iter().any(|(id, c)| id.contains("-media-") && c.bridge.as_ref() == Some(&bridge))
        })
    }
}

/// The application, its PBX and the way between them.
pub(super) struct World {
    pub(super) app: App,
    pub(super) pbx: Pbx,
    pub(super) now: Instant,
    /// Requests under way, and answers under way.
    pub(super) asked: Vec<(u64, Request)>,
    pub(super) answers: Vec<(u64, Outcome)>,
    pub(super) visitors: Vec<(LegId, String, bool)>,
    pub(super) told: BTreeMap<LegId, Vec<ChannelEvent>>,
    pub(super) prepare: Vec<(LegId, u32)>,
    pub(super) deliver: Vec<(LegId, u32)>,
    pub(super) connected: bool,
}

impl World {
    pub(super) fn new(orphans: Orphans) -> Self {
        let now = Instant::now();
        let settings = AppSettings {
            application: "tandem".into(),
            node: "n".into(),
            format: "slin16",
            orphans,
            queue_context: "queues".into(),
        };
        let mut next = 0;
        let fresh = Box::new(move || {
            next += 1;
            LegId::from_parts(now.elapsed().as_millis() as u64, next)
        });
        let app = App::new(now, settings, fresh);
        Self {
            app,
            pbx: Pbx::default(),
            now,
            asked: Vec::new(),
            answers: Vec::new(),
            visitors: Vec::new(),
            told: BTreeMap::new(),
            prepare: Vec::new(),
            deliver: Vec::new(),
            connected: false,
        }
    }

    pub(super) fn connect(&mut self) {
        self.pbx.events.clear();
        self.connected = true;
        self.app.connected(self.now);
        self.act();
    }

    pub(super) fn cut(&mut self) {
        self.connected = false;
        self.pbx.events.clear();
        self.app.disconnected(self.now);
        self.act();
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.app.poll_action() {
            match action {
                Action::Ask(id, request) => self.asked.push((id, request)),
                Action::Visitor { leg, called, up, .. } => self.visitors.push((leg, called, up)),
                Action::Tell(leg, event) => self.told.entry(leg).or_default().push(event),
                Action::Prepare { leg, count } => self.prepare.push((leg, count)),
                Action::Deliver { leg, count, .. } => self.deliver.push((leg, count)),
                Action::Discard { leg, count } => {
                    self.prepare.retain(|waiting| *waiting != (leg, count));
                    self.deliver.retain(|waiting| *waiting != (leg, count));
                }
            }
        }
    }

    pub(super) fn perform(&mut self, at: usize) {
        let (id, request) = self.asked.remove(at);
        let outcome = self.pbx.perform(&request);
        self.answers.push((id, outcome));
        if !self.connected {
            self.pbx.events.clear();
        }
    }

    pub(super) fn answer(&mut self, at: usize) {
        let (id, outcome) = self.answers.remove(at);
        self.app.answered(self.now, id, outcome);
        self.act();
    }

    pub(super) fn event(&mut self) {
        if let Some(event) = self.pbx.events.pop_front() {
            self.app.event(self.now, event);
            self.act();
        }
    }

    pub(super) fn prepare(&mut self) {
        if let Some((leg, count)) = self.prepare.pop() {
            let medium = ExternalMedia::Rtp { to: "127.0.0.1:20000".into() };
            self.app.prepared(self.now, leg, count, Ok(medium));
            self.act();
        }
    }

    pub(super) fn deliver(&mut self, result: Result<(), String>) {
        if let Some((leg, count)) = self.deliver.pop() {
            self.app.delivered(self.now, leg, count, result);
            self.act();
        }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now += span;
        self.app.handle_timeout(self.now);
        self.act();
    }

    /// Everything that is under way arrives, until nothing is.
    pub(super) fn settle(&mut self) {
        for _ in 0..400 {
            if !self.asked.is_empty() {
                self.perform(0);
            } else if !self.answers.is_empty() {
                self.answer(0);
            } else if !self.pbx.events.is_empty() {
                self.event();
            } else if !self.prepare.is_empty() {
                self.prepare();
            } else if !self.deliver.is_empty() {
                self.deliver(Ok(()));
            } else if self.app.next_timeout().is_some_and(|at| at <= self.now) {
                self.pass(Duration::ZERO);
            } else {
                return;
            }
        }
        panic!("it never settles: {:?}", self.asked);
    }

    pub(super) fn command(&mut self, leg: LegId, command: Command) {
        self.app.command(self.now, leg, command);
        self.act();
    }

    pub(super) fn told(&self, leg: LegId) -> &[ChannelEvent] {
        self.told.get(&leg).map_or(&[], Vec::as_slice)
    }

    /// A caller, in the bridge with their audio.
    pub(super) fn caller(&mut self) -> LegId {
        self.connect();
        self.settle();
        self.pbx.call("1.7");
        self.settle();
        self.visitors.last().expect("a visitor").0
    }

    pub(super) fn nothing_is_left(&self) {
        let ours: Vec<_> = self.pbx.channels.keys().filter(|id| id.starts_with("tandem-")).collect();
        assert!(ours.is_empty() && self.pbx.bridges.is_empty(), "{ours:?} {:?}", self.pbx.bridges);
    }
}

/// A call to somebody.
pub(super) fn call() -> Outgoing {
    let timeout = Duration::from_secs(30);
    Outgoing { endpoint: "PJSIP/x".into(), caller: None, timeout, variables: vec![] }
}
