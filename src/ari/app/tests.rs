//! The application against a model of a PBX: answers and events in any order, losses, cuts, restarts.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::*;

#[derive(Debug, Clone, Default)]
struct PbxChannel {
    state: &'static str,
    inside: bool,
    bridge: Option<String>,
}

/// A PBX in a few words.
#[derive(Debug, Default)]
struct Pbx {
    channels: BTreeMap<String, PbxChannel>,
    bridges: Vec<String>,
    events: VecDeque<Event>,
    answered: u32,
    continued: Vec<(String, String)>,
    variables: Vec<String>,
    /// What `Stasis()` was told.
    args: &'static str,
}

fn channel(id: &str, state: &str, exten: &str) -> Channel {
    serde_json::from_value(json!({
        "id": id, "state": state, "caller": { "number": "+15550100" },
        "dialplan": { "context": "from-trunk", "exten": exten, "app_name": "Stasis", "app_data": "tandem" },
    }))
    .unwrap()
}

impl Pbx {
    fn call(&mut self, id: &str) {
        self.channels.insert(id.into(), PbxChannel { state: "Ring", inside: true, bridge: None });
        self.start(id);
    }

    fn start(&mut self, id: &str) {
        let Some(known) = self.channels.get_mut(id) else { return };
        known.inside = true;
        let state = known.state;
        self.events.push_back(Event::Entered {
            channel: Box::new(channel(id, state, "200")),
            args: vec![],
            replaces: None,
        });
    }

    fn hang_up(&mut self, id: &str, cause: u16) -> bool {
        let Some(gone) = self.channels.remove(id) else { return false };
        if gone.inside {
            self.events.push_back(Event::HangUpAsked { channel: id.into(), cause: Some(cause) });
            self.events.push_back(Event::Exited { channel: id.into() });
        }
        let reason = "Normal Clearing".into();
        self.events.push_back(Event::Destroyed { channel: id.into(), cause, reason, technical: None });
        true
    }

    fn perform(&mut self, request: &Request) -> Outcome {
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

    fn bridged(&self, caller: &str) -> bool {
        let bridge = self.channels.get(caller).and_then(|known| known.bridge.clone());
        bridge.is_some_and(|bridge| {
            self.channels.iter().any(|(id, c)| id.contains("-media-") && c.bridge.as_ref() == Some(&bridge))
        })
    }
}

/// The application, its PBX and the way between them.
struct World {
    app: App,
    pbx: Pbx,
    now: Instant,
    /// Requests under way, and answers under way.
    asked: Vec<(u64, Request)>,
    answers: Vec<(u64, Outcome)>,
    visitors: Vec<(LegId, String, bool)>,
    told: BTreeMap<LegId, Vec<ChannelEvent>>,
    prepare: Vec<(LegId, u32)>,
    deliver: Vec<(LegId, u32)>,
    connected: bool,
}

impl World {
    fn new(orphans: Orphans) -> Self {
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

    fn connect(&mut self) {
        self.pbx.events.clear();
        self.connected = true;
        self.app.connected(self.now);
        self.act();
    }

    fn cut(&mut self) {
        self.connected = false;
        self.pbx.events.clear();
        self.app.disconnected(self.now);
        self.act();
    }

    fn act(&mut self) {
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

    fn perform(&mut self, at: usize) {
        let (id, request) = self.asked.remove(at);
        let outcome = self.pbx.perform(&request);
        self.answers.push((id, outcome));
        if !self.connected {
            self.pbx.events.clear();
        }
    }

    fn answer(&mut self, at: usize) {
        let (id, outcome) = self.answers.remove(at);
        self.app.answered(self.now, id, outcome);
        self.act();
    }

    fn event(&mut self) {
        if let Some(event) = self.pbx.events.pop_front() {
            self.app.event(self.now, event);
            self.act();
        }
    }

    fn prepare(&mut self) {
        if let Some((leg, count)) = self.prepare.pop() {
            let medium = ExternalMedia::Rtp { to: "127.0.0.1:20000".into() };
            self.app.prepared(self.now, leg, count, Ok(medium));
            self.act();
        }
    }

    fn deliver(&mut self, result: Result<(), String>) {
        if let Some((leg, count)) = self.deliver.pop() {
            self.app.delivered(self.now, leg, count, result);
            self.act();
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.app.handle_timeout(self.now);
        self.act();
    }

    /// Everything that is under way arrives, until nothing is.
    fn settle(&mut self) {
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

    fn command(&mut self, leg: LegId, command: Command) {
        self.app.command(self.now, leg, command);
        self.act();
    }

    fn told(&self, leg: LegId) -> &[ChannelEvent] {
        self.told.get(&leg).map_or(&[], Vec::as_slice)
    }

    /// A caller, in the bridge with their audio.
    fn caller(&mut self) -> LegId {
        self.connect();
        self.settle();
        self.pbx.call("1.7");
        self.settle();
        self.visitors.last().expect("a visitor").0
    }

    fn nothing_is_left(&self) {
        let ours: Vec<_> = self.pbx.channels.keys().filter(|id| id.starts_with("tandem-")).collect();
        assert!(ours.is_empty() && self.pbx.bridges.is_empty(), "{ours:?} {:?}", self.pbx.bridges);
    }
}

#[test]
fn a_caller_is_answered_once_their_audio_is_in_the_bridge() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    let (leg, called, up) = world.visitors[0].clone();
    assert_eq!((called.as_str(), up), ("200", false));
    world.command(leg, Command::Answer);
    // Everything but the delivery of the medium.
    world.prepare();
    while !world.asked.is_empty() || !world.answers.is_empty() || !world.pbx.events.is_empty() {
        while !world.asked.is_empty() {
            assert!(!matches!(world.asked[0].1, Request::Answer { .. }), "no audio flows yet");
            world.perform(0);
        }
        while !world.answers.is_empty() {
            world.answer(0);
        }
        world.event();
    }
    assert!(world.pbx.bridged("1.7"));
    world.deliver(Ok(()));
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    assert_eq!(world.pbx.answered, 1);
    world.pbx.events.push_back(Event::Key { channel: "1.7".into(), key: '5' });
    world.pbx.events.push_back(Event::Held { channel: "1.7".into(), held: true });
    world.pbx.hang_up("1.7", 16);
    world.settle();
    let told = world.told(leg);
    assert_eq!(told[1..3], [ChannelEvent::Digit('5'), ChannelEvent::Held(true)]);
    assert!(matches!(&told[3..], [ChannelEvent::Gone(gone)] if gone.cause == 16 && gone.by_peer), "{told:?}");
    world.nothing_is_left();
    assert!(world.app.is_idle());
}

#[test]
fn a_channel_leaves_for_the_dialplan_and_takes_nothing_along() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let nowhere = Exit::Dialplan { context: None, extension: "nowhere".into(), priority: 1 };
    world.command(leg, Command::Leave(nowhere));
    world.settle();
    assert!(matches!(world.told(leg).last(), Some(ChannelEvent::Stayed(why)) if why.contains("nowhere")));
    assert!(world.pbx.bridged("1.7"), "the caller is still ours");
    world.command(leg, Command::Leave(Exit::Queue("support".into())));
    world.settle();
    assert_eq!(world.told(leg).last(), Some(&ChannelEvent::Left));
    assert_eq!(world.pbx.continued, [("1.7".to_owned(), "support@queues,1".to_owned())]);
    world.nothing_is_left();
    // It comes back: another caller.
    world.pbx.start("1.7");
    world.settle();
    assert_eq!(world.visitors.len(), 2);
}

#[test]
fn a_place_without_context_is_where_the_channel_came_from() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    let to = Exit::Dialplan { context: None, extension: "300".into(), priority: 2 };
    world.command(leg, Command::Leave(to));
    world.settle();
    assert_eq!(world.pbx.continued[0].1, "300@from-trunk,2");
}

#[test]
fn keys_are_told_as_sent_after_the_time_they_take() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Keys("12#".into()));
    world.command(leg, Command::Hold(true));
    world.settle();
    assert!(world.told(leg).is_empty());
    world.pass(Duration::from_millis(599));
    assert!(world.told(leg).is_empty() && world.asked.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.told(leg), [ChannelEvent::KeysSent]);
    assert!(matches!(world.asked[0].1, Request::Hold { on: true, .. }), "one after the other");
}

#[test]
fn a_call_rings_is_answered_or_refused() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let call = Outgoing {
        endpoint: "PJSIP/x".into(),
        caller: None,
        timeout: Duration::from_secs(30),
        variables: vec![],
    };
    let leg = world.app.originate(world.now, call.clone());
    world.act();
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Ringing]);
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.channels.get_mut(&name).unwrap().state = "Up";
    world.pbx.start(&name);
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Ringing, ChannelEvent::Up]);
    assert!(world.pbx.bridged(&name) && world.visitors.is_empty());
    world.command(leg, Command::HangUp(16));
    world.settle();
    world.nothing_is_left();

    let leg = world.app.originate(world.now, call);
    world.act();
    world.settle();
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.hang_up(&name, 17);
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Ringing, ChannelEvent::Gone(gone)] if gone.cause == 17));
    world.nothing_is_left();
}

#[test]
fn whoever_was_answered_and_goes_has_hung_up_unless_the_network_failed() {
    for (cause, expected, by_peer) in [(127, 16, true), (0, 16, true), (38, 38, false)] {
        let mut world = World::new(Orphans::Adopt);
        let leg = world.caller();
        world.command(leg, Command::Answer);
        world.settle();
        world.pbx.hang_up("1.7", cause);
        world.settle();
        let Some(ChannelEvent::Gone(gone)) = world.told(leg).last() else { panic!("{cause}") };
        assert_eq!((gone.cause, gone.by_peer), (expected, by_peer), "{cause}");
    }
}

#[test]
fn listening_in_is_a_visit_for_whom_the_listener_named() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.listen(world.now, "9.9", "300".into(), Some("+15550100".into()));
    world.act();
    world.settle();
    assert_eq!(world.visitors, [(leg, "300".to_owned(), true)]);
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.command(leg, Command::HangUp(16));
    world.settle();
    world.nothing_is_left();
}

#[test]
fn a_lost_medium_is_made_again_and_one_that_is_never_there_ends_the_call() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let media = |world: &World| world.pbx.channels.keys().find(|id| id.contains("-media-")).cloned();
    let first = media(&world).unwrap();
    world.pass(Duration::from_secs(10));
    world.pbx.hang_up(&first, 16);
    world.settle();
    world.pass(Duration::from_millis(200));
    world.settle();
    let second = media(&world).unwrap();
    assert!(first != second && world.pbx.bridged("1.7"));
    // Only the connection is lost: the PBX's channel is taken away, and replaced.
    world.pass(Duration::from_secs(10));
    world.command(leg, Command::MediaLost);
    world.pass(Duration::from_millis(600));
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(media(&world).is_some_and(|third| third != second) && world.pbx.bridged("1.7"));
    assert!(!world.pbx.channels.contains_key(&second));
    for _ in 0..20 {
        if let Some(name) = media(&world) {
            world.pbx.hang_up(&name, 16);
        }
        world.settle();
        world.pass(Duration::from_secs(1));
        world.settle();
    }
    assert!(matches!(world.told(leg).last(), Some(ChannelEvent::Gone(gone)) if gone.cause == 41));
    assert!(world.pbx.channels.is_empty(), "{:?}", world.pbx.channels);
    world.nothing_is_left();
}

#[test]
fn a_call_goes_on_while_events_are_away_and_learns_what_it_missed() {
    let mut world = World::new(Orphans::Adopt);
    let stays = world.caller();
    world.pbx.call("1.8");
    world.settle();
    let goes = world.visitors[1].0;
    world.pass(Duration::from_secs(1));
    world.cut();
    world.pbx.hang_up("1.8", 16);
    world.pbx.events.clear();
    world.pass(Duration::from_secs(30));
    world.settle();
    world.connect();
    world.settle();
    assert!(world.told(stays).is_empty() && world.pbx.bridged("1.7"));
    assert!(matches!(world.told(goes), [ChannelEvent::Gone(_)]));
    assert_eq!(world.pbx.channels.len(), 2, "a caller and their audio");
    assert_eq!(world.pbx.bridges.len(), 1);
}

#[test]
fn after_a_restart_of_the_pbx_everything_of_before_is_gone() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.pass(Duration::from_secs(1));
    world.cut();
    world.pbx = Pbx::default();
    world.pass(Duration::from_secs(3));
    world.connect();
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if !gone.by_peer));
    assert!(world.app.is_idle());
}

#[test]
fn after_a_restart_of_ours_callers_get_what_is_configured_and_leftovers_go() {
    for orphans in [Orphans::Adopt, Orphans::Continue, Orphans::HangUp] {
        let mut before = World::new(orphans);
        let leg = before.caller();
        before.command(leg, Command::Answer);
        before.settle();
        let mut world = World::new(orphans);
        world.pbx = std::mem::take(&mut before.pbx);
        world.pass(Duration::from_secs(1));
        world.connect();
        world.settle();
        assert!(world.visitors.is_empty(), "an event may still tell");
        world.nothing_is_left();
        world.pass(Duration::from_secs(1));
        world.settle();
        match orphans {
            Orphans::Adopt => {
                assert!(matches!(&world.visitors[..], [(_, called, true)] if called == "200"));
                assert!(world.pbx.bridged("1.7"));
            }
            Orphans::Continue => assert_eq!(world.pbx.continued, [("1.7".to_owned(), String::new())]),
            Orphans::HangUp => assert!(world.pbx.channels.is_empty()),
        }
    }
}

#[test]
fn a_call_without_events_and_without_audio_ends_after_a_while() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    world.pass(Duration::from_secs(5));
    world.cut();
    world.command(leg, Command::MediaLost);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.told(leg), [ChannelEvent::Up, ChannelEvent::Gone(gone)] if !gone.by_peer));
}

#[test]
fn once_closed_who_comes_goes_on_in_the_dialplan_and_who_is_in_stays() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.app.close();
    world.pbx.call("1.8");
    world.settle();
    assert_eq!(world.pbx.continued, [("1.8".to_owned(), String::new())]);
    assert!(world.visitors.len() == 1 && world.told(leg).is_empty() && world.pbx.bridged("1.7"));
    assert!(!world.app.is_idle());
    world.command(leg, Command::HangUp(16));
    world.settle();
    assert!(world.app.is_idle());
}

#[test]
fn whom_a_server_that_stops_cuts_off_goes_on_in_the_dialplan() {
    let mut world = World::new(Orphans::Adopt);
    let cut = world.caller();
    world.command(cut, Command::Answer);
    world.settle();
    assert!(world.pbx.bridged("1.7"));
    world.app.close();
    world.command(cut, Command::HangUp(41));
    world.settle();
    assert_eq!(world.pbx.variables, ["1.7 TANDEMSTATUS=CLOSED"]);
    assert_eq!(world.pbx.continued, [("1.7".to_owned(), String::new())]);
    assert!(matches!(world.told(cut), [.., ChannelEvent::Gone(gone)] if gone.cause == 41));
    assert!(world.app.is_idle());
    world.nothing_is_left();

    // Whom we called has no dialplan of their own; and a call that fails while we stay is hung up.
    let mut world = World::new(Orphans::Adopt);
    let failed = world.caller();
    let called = world.app.originate(world.now, call());
    world.act();
    world.settle();
    world.command(failed, Command::HangUp(41));
    world.app.close();
    world.command(called, Command::HangUp(41));
    world.settle();
    assert!(world.pbx.continued.is_empty() && world.pbx.channels.is_empty());
}

fn call() -> Outgoing {
    let timeout = Duration::from_secs(30);
    Outgoing { endpoint: "PJSIP/x".into(), caller: None, timeout, variables: vec![] }
}

#[test]
fn whom_we_called_and_sent_to_a_queue_is_left_alone_and_may_come_back() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.originate(world.now, call());
    world.act();
    world.settle();
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.channels.get_mut(&name).unwrap().state = "Up";
    world.pbx.start(&name);
    world.settle();
    world.command(leg, Command::Leave(Exit::Queue("support".into())));
    world.settle();
    assert_eq!(world.told(leg).last(), Some(&ChannelEvent::Left));
    for _ in 0..3 {
        world.pass(Duration::from_secs(20));
        world.cut();
        world.connect();
        world.settle();
        assert!(world.pbx.channels.contains_key(&name), "they wait in a queue");
    }
    world.pbx.start(&name);
    world.settle();
    assert_eq!(world.visitors.len(), 1);
    assert!(world.pbx.bridged(&name));
    world.pass(Duration::from_secs(20));
    world.cut();
    world.connect();
    world.settle();
    assert!(world.pbx.bridged(&name), "they are somebody's");
    // After a restart of ours nobody knows whom they spoke with.
    let mut after = World::new(Orphans::Adopt);
    after.pbx = std::mem::take(&mut world.pbx);
    after.connect();
    after.settle();
    after.nothing_is_left();
}

#[test]
fn what_another_tandem_has_is_left_alone() {
    let mut world = World::new(Orphans::Adopt);
    for (node, application) in [("n", "other"), ("n ", "tandem"), ("m", "tandem")] {
        let names = Names::new(node, application);
        let id = LegId::from_parts(1, 1);
        let (bridge, media) = (names.of(Kind::Bridge, id, 1), names.of(Kind::Media, id, 1));
        world.pbx.bridges.push(bridge.clone());
        let inside = PbxChannel { state: "Up", inside: true, bridge: Some(bridge) };
        world.pbx.channels.insert(media, inside.clone());
        world.pbx.channels.insert(format!("{node}.{application}"), inside);
    }
    world.connect();
    world.settle();
    world.pass(Duration::from_secs(2));
    world.settle();
    assert_eq!((world.pbx.bridges.len(), world.pbx.channels.len(), world.visitors.len()), (3, 6, 0));
}

#[test]
fn a_caller_of_before_is_for_whom_they_called() {
    let mut world = World::new(Orphans::Adopt);
    world.pbx.args = ",called=300";
    world.pbx.call("1.7");
    world.connect();
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(matches!(&world.visitors[..], [(_, called, _)] if called == "300"), "{:?}", world.visitors);
}

#[test]
fn a_caller_who_is_seen_before_they_are_told_of_is_one_caller() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.pbx.channels.insert("1.7".into(), PbxChannel { state: "Up", inside: true, bridge: None });
    world.settle();
    world.pbx.start("1.7");
    world.settle();
    world.pbx.hang_up("1.7", 16);
    world.settle();
    world.pass(Duration::from_secs(2));
    world.settle();
    assert_eq!(world.visitors.len(), 1);
    assert!(world.app.is_idle());
}

#[test]
fn what_failed_is_tried_again_when_its_time_has_come_even_late() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    let at = world.asked.iter().position(|(_, asked)| matches!(asked, Request::CreateBridge { .. }));
    let (id, _) = world.asked.remove(at.unwrap());
    let refused = Outcome::Refused { status: 500, message: "no".into() };
    world.app.answered(world.now, id, refused);
    world.act();
    // Something else wakes us at a time when it is due already.
    world.now += Duration::from_millis(400);
    assert!(world.app.next_timeout().is_some_and(|at| at <= world.now));
    world.settle();
    assert!(world.pbx.bridged("1.7"));
}

#[test]
fn who_falls_out_of_the_bridge_is_put_into_it_again() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let bridge = world.pbx.bridges[0].clone();
    let parted = |channel: &str| Event::Parted { bridge: bridge.clone(), channel: channel.into() };
    let media = world.pbx.channels.keys().find(|id| id.contains("-media-")).unwrap().clone();
    for lost in ["1.7", &media] {
        world.pbx.channels.get_mut(lost).unwrap().bridge = None;
        world.pbx.events.push_back(parted(lost));
        world.settle();
        world.pass(Duration::from_millis(300));
        world.settle();
        assert!(world.pbx.bridged("1.7"), "{lost}");
    }
    // Put in a second time: it leaves and comes back at once, and nothing is asked.
    world.pbx.events.push_back(parted("1.7"));
    world.pbx.events.push_back(Event::Joined { bridge: bridge.clone(), channel: "1.7".into() });
    world.event();
    world.event();
    world.pass(Duration::from_millis(300));
    assert!(world.asked.is_empty(), "{:?}", world.asked);
    world.pbx.bridges.clear();
    world.pbx.channels.values_mut().for_each(|channel| channel.bridge = None);
    world.pbx.events.push_back(Event::BridgeGone { bridge });
    world.settle();
    assert!(world.pbx.bridged("1.7"));
    world.pbx.hang_up("1.7", 16);
    world.settle();
    world.nothing_is_left();
}

#[test]
fn a_medium_whose_beginning_was_not_told_is_looked_for() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    world.prepare();
    while !world.asked.is_empty() {
        world.perform(0);
        world.answer(0);
        world.pbx.events.clear();
    }
    world.deliver(Ok(()));
    world.settle();
    assert!(!world.pbx.bridged("1.7"));
    world.pass(Duration::from_secs(2));
    world.settle();
    assert!(world.pbx.bridged("1.7"));
}

#[test]
fn the_dialplan_is_told_that_nobody_took_the_caller_and_they_go_on_at_last() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.app.close();
    world.pbx.call("1.8");
    world.event();
    // No answer to either, without effect.
    for _ in 0..2 {
        let (id, _) = world.asked.remove(0);
        world.app.answered(world.now, id, Outcome::Lost("time-out".into()));
        world.act();
        world.pass(Duration::from_secs(1));
        world.perform(0);
        if world.pbx.continued.is_empty() {
            world.answer(0);
        }
    }
    world.settle();
    assert_eq!(world.pbx.variables, ["1.8 TANDEMSTATUS=CLOSED"]);
    assert_eq!(world.pbx.continued, [("1.8".to_owned(), String::new())]);
    assert!(world.app.is_idle() && world.visitors.is_empty());
}

#[test]
fn without_events_a_call_goes_on_as_long_as_the_pbx_has_its_channel() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    world.cut();
    for _ in 0..100 {
        world.pass(Duration::from_secs(10));
        world.settle();
    }
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.pbx.channels.remove("1.7");
    for _ in 0..4 {
        world.pass(Duration::from_secs(10));
        world.settle();
    }
    assert!(matches!(world.told(leg), [ChannelEvent::Up, ChannelEvent::Gone(_)]));
    world.connect();
    world.settle();
    world.nothing_is_left();
}

#[test]
fn nothing_new_is_asked_for_while_events_are_away() {
    let mut world = World::new(Orphans::Adopt);
    let called = world.app.originate(world.now, call());
    let listening = world.app.listen(world.now, "9.9", "300".into(), None);
    world.act();
    assert!(world.asked.is_empty());
    for leg in [called, listening] {
        assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if gone.cause == 41));
    }
    assert!(world.app.is_idle());
}

#[test]
fn a_listener_whose_channel_never_comes_is_let_go() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.listen(world.now, "9.9", "300".into(), None);
    world.act();
    let at = world.asked.iter().position(|(_, asked)| matches!(asked, Request::Snoop { .. })).unwrap();
    world.perform(at);
    world.pbx.events.clear();
    world.settle();
    world.pass(Duration::from_secs(5));
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if gone.cause == 41));
    assert!(world.visitors.is_empty());
    world.nothing_is_left();
}

#[test]
fn a_channel_that_was_to_end_and_does_not_is_ended() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.pbx.events.push_back(Event::HangUpAsked { channel: "1.7".into(), cause: None });
    world.settle();
    world.pass(Duration::from_secs(3));
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(_)]));
    assert!(world.pbx.channels.is_empty());
}

#[test]
fn looks_do_not_put_off_the_end_of_a_call_without_audio() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::MediaLost);
    let media = world.pbx.channels.keys().find(|id| id.contains("-media-")).unwrap().clone();
    world.pbx.hang_up(&media, 16);
    world.event();
    world.event();
    world.event();
    world.command(leg, Command::Answer);
    // Our side is never prepared.
    for _ in 0..12 {
        world.pass(Duration::from_secs(1));
        world.app.missed(world.now);
        world.pass(Duration::ZERO);
        while !world.asked.is_empty() {
            world.perform(0);
            world.answer(0);
        }
    }
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(_)]), "{:?}", world.told(leg));
}

/// Answers and events in any order, lost answers with and without effect, cut event sockets, callers who come,
/// press, hang up and are sent elsewhere.
#[test]
fn whatever_happens_every_leg_ends_once_and_nothing_stays_on_the_pbx() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(Orphans::Adopt);
        world.connect();
        let mut legs: Vec<LegId> = Vec::new();
        let mut callers = 0;
        for _ in 0..rng.random_range(50..400) {
            match rng.random_range(0..100) {
                0..25 if !world.asked.is_empty() => {
                    let at = rng.random_range(0..world.asked.len());
                    world.perform(at);
                }
                25..45 if !world.answers.is_empty() => {
                    let at = rng.random_range(0..world.answers.len());
                    world.answer(at);
                }
                45..65 => world.event(),
                65..72 => world.prepare(),
                72..76 => world.deliver(Ok(())),
                76 => world.deliver(Err("refused".into())),
                77..80 if !world.asked.is_empty() => {
                    // Lost, with or without effect.
                    let at = rng.random_range(0..world.asked.len());
                    let (id, request) = world.asked.remove(at);
                    if rng.random() {
                        world.pbx.perform(&request);
                    }
                    world.answers.push((id, Outcome::Lost("time-out".into())));
                }
                80..84 if callers < 4 => {
                    callers += 1;
                    world.pbx.call(&format!("1.{callers}"));
                    if !world.connected {
                        world.pbx.channels.remove(&format!("1.{callers}"));
                        world.pbx.events.clear();
                    }
                }
                84..86 => {
                    world.pbx.hang_up(&format!("1.{}", rng.random_range(1..5)), 16);
                }
                86 if world.connected => world.cut(),
                87 if !world.connected => world.connect(),
                88 => {
                    let call = Outgoing {
                        endpoint: "PJSIP/x".into(),
                        caller: None,
                        timeout: Duration::from_secs(30),
                        variables: vec![],
                    };
                    let id = world.app.originate(world.now, call);
                    legs.push(id);
                    world.act();
                }
                89 => {
                    let outgoing = world.pbx.channels.keys().find(|id| id.contains("-out-")).cloned();
                    if let Some(name) = outgoing {
                        world.pbx.channels.get_mut(&name).unwrap().state = "Up";
                        world.pbx.start(&name);
                    }
                }
                90..95 => {
                    let known: Vec<_> = world.visitors.iter().map(|v| v.0).chain(legs.clone()).collect();
                    if !known.is_empty() {
                        let leg = known[rng.random_range(0..known.len())];
                        let command = match rng.random_range(0..6) {
                            0 => Command::Leave(Exit::Continue),
                            1 => Command::HangUp(16),
                            2 => Command::Keys("1".into()),
                            3 => Command::MediaLost,
                            _ => Command::Answer,
                        };
                        world.command(leg, command);
                    }
                }
                95 => {
                    let id = world.app.listen(world.now, "9.9", "300".into(), None);
                    legs.push(id);
                    world.act();
                }
                _ => world.pass(Duration::from_millis(rng.random_range(0..1500))),
            }
            if !world.connected {
                world.pbx.events.clear();
            }
        }
        // The network is good again, and everybody hangs up.
        if !world.connected {
            world.connect();
        }
        for _ in 0..4 {
            world.settle();
            world.pass(Duration::from_secs(3));
        }
        world.cut();
        world.connect();
        world.settle();
        world.pass(Duration::from_secs(2));
        world.settle();
        let went = |id: &str| world.pbx.continued.iter().any(|(channel, _)| channel == id);
        let theirs = |id: &&String| !id.starts_with("tandem-") || went(id);
        let callers: Vec<_> = world.pbx.channels.keys().filter(theirs).cloned().collect();
        for id in &callers {
            world.pbx.hang_up(id, 16);
        }
        for _ in 0..10 {
            world.settle();
            world.pass(Duration::from_secs(5));
        }
        let known: Vec<_> = world.visitors.iter().map(|v| v.0).chain(legs).collect();
        for leg in &known {
            world.command(*leg, Command::HangUp(16));
        }
        world.settle();
        for _ in 0..3 {
            world.pass(Duration::from_secs(5));
            world.settle();
        }
        let ends = |events: &[ChannelEvent]| {
            let end = |event: &&ChannelEvent| matches!(event, ChannelEvent::Gone(_) | ChannelEvent::Left);
            events.iter().filter(end).count()
        };
        for leg in &known {
            let told = world.told(*leg);
            assert_eq!(ends(told), 1, "seed {seed}, {leg}: {told:?}");
            assert!(
                matches!(told.last(), Some(ChannelEvent::Gone(_) | ChannelEvent::Left)),
                "seed {seed}: {told:?}"
            );
        }
        let ours: Vec<_> = world.pbx.channels.keys().filter(|id| id.starts_with("tandem-")).collect();
        assert!(
            ours.is_empty() && world.pbx.bridges.is_empty(),
            "seed {seed}: {ours:?} {:?}",
            world.pbx.bridges
        );
        assert!(world.app.is_idle(), "seed {seed}: {:?} {:?}", world.app.doomed, world.app.desk.asked);
    }
}
