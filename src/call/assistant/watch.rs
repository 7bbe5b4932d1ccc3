//! What the caller waits for, and for how long already: a pure core.
//!
//! It follows what was asked of the session and what the session tells, and knows from that whether an answer is
//! due, whether the service has stalled, when silence must be filled, and what a session that takes over has to do.
//!
//! An answer is due once the caller's turn is over, once something was asked for, and while a response is being
//! made. Tools are no delay of the service's: while one runs nothing is due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::provider::{Command, Event, ItemId, TurnStatus};

/// How long is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// No event for this long while an answer is due: the service has stalled.
    pub stall_after: Duration,
    /// Nothing to hear for this long while an answer is due: the silence is filled.
    pub filler_after: Duration,
}

/// What the session owes the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owed {
    /// These words.
    Words(String),
    /// Something about this.
    About(String),
    /// What the conversation leads to.
    Answer,
}

/// What was owed when a session was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What.
    pub owed: Owed,
    /// The item that was being said of it, if that had begun.
    pub begun: Option<ItemId>,
}

/// What a response that failed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// To be asked for again.
    Again(Owed),
    /// Another session.
    Lost,
    /// Another account.
    Quota,
}

/// Follows one conversation over all its sessions.
#[derive(Debug)]
pub struct Watch {
    patience: Patience,
    /// The session stands for a service that can stall.
    can_stall: bool,
    /// The service answers the caller's turns by itself.
    answers_turns: bool,
    asked: VecDeque<Owed>,
    /// The response being made.
    current: Option<Current>,
    /// Tools that run.
    calls: Vec<Called>,
    turn: u64,
    caller_speaks: bool,
    /// Since when anything has been due without a break.
    since: Instant,
    last_event: Instant,
    /// From when on nothing is heard.
    quiet_from: Instant,
    outage: bool,
    filled: bool,
    filled_at: Option<Instant>,
    filler_until: Instant,
    failures: u32,
}

#[derive(Debug)]
struct Current {
    owed: Owed,
    item: Option<ItemId>,
    audio_done: bool,
}

/// A tool the model has called and that was not answered yet.
#[derive(Debug)]
struct Called {
    id: String,
    turn: u64,
    respond: bool,
}

impl Watch {
    /// Nothing is due yet.
    pub fn new(now: Instant, patience: Patience) -> Self {
        Self {
            patience,
            can_stall: true,
            answers_turns: true,
            asked: VecDeque::new(),
            current: None,
            calls: Vec::new(),
            turn: 0,
            caller_speaks: false,
            since: now,
            last_event: now,
            quiet_from: now,
            outage: false,
            filled: false,
            filled_at: None,
            filler_until: now,
            failures: 0,
        }
    }

    /// Whether its service can stall, and whether it answers the caller's turns by itself.
    pub fn of_session(&mut self, can_stall: bool, answers_turns: bool) {
        (self.can_stall, self.answers_turns) = (can_stall, answers_turns);
    }

    /// Whether the caller is owed something.
    pub fn is_due(&self) -> bool {
        self.current.is_some() || !self.asked.is_empty()
    }

    /// Whether the caller is speaking, so far as the session says.
    pub fn caller_speaks(&self) -> bool {
        self.caller_speaks
    }

    /// Whether nobody says or waits for anything: what is said next begins something new.
    pub fn is_quiet(&self, now: Instant) -> bool {
        !self.is_due() && !self.caller_speaks && self.calls.is_empty() && now >= self.quiet_from
    }

    /// Something was asked of the session, or would have been.
    pub fn sent(&mut self, now: Instant, command: &Command) {
        if matches!(command, Command::Say(_) | Command::Respond { .. } | Command::ToolResult { .. }) {
            // It has its time from here on.
            self.last_event = now;
        }
        match command {
            Command::Say(words) => self.ask(now, Owed::Words(words.clone())),
            Command::Respond { instructions: Some(about) } => self.ask(now, Owed::About(about.clone())),
            Command::Respond { instructions: None } => self.ask(now, Owed::Answer),
            Command::ToolResult { id, respond, .. } => self.tool_answered(now, id, *respond),
            Command::CancelResponse => self.asked.clear(),
            Command::CallerText(_)
            | Command::Note(_)
            | Command::Update { .. }
            | Command::Truncate { .. }
            | Command::Close => {}
        }
    }

    /// Whether this is no answer to a tool, or one to a tool that the present session or the one lost last has called.
    pub fn knows_call(&self, command: &Command) -> bool {
        match command {
            Command::ToolResult { id, .. } => self.calls.iter().any(|call| call.id == *id),
            _ => true,
        }
    }

    fn tool_answered(&mut self, now: Instant, id: &str, respond: bool) {
        let Some(index) = self.calls.iter().position(|call| call.id == id) else { return };
        let call = self.calls.remove(index);
        let go_on = call.respond || respond;
        if let Some(other) = self.calls.iter_mut().find(|other| other.turn == call.turn) {
            other.respond |= go_on;
        } else if go_on && (self.current.is_none() || self.turn == call.turn) {
            // A later response has the answer before it and needs no other after it.
            self.ask(now, Owed::Answer);
        }
    }

    fn ask(&mut self, now: Instant, owed: Owed) {
        if !self.is_due() {
            self.since = now;
        }
        let waits = owed == Owed::Answer && self.asked.contains(&Owed::Answer);
        if !waits && self.asked.len() < ASKED_MAX {
            self.asked.push_back(owed);
        }
    }

    /// The session tells something; what a response that failed leads to.
    pub fn event(&mut self, now: Instant, event: &Event) -> Option<Failed> {
        self.last_event = now;
        match event {
            Event::SpeechStarted { .. } => {
                self.caller_speaks = true;
                self.asked.clear();
                self.current = None;
            }
            Event::SpeechStopped { .. } => {
                self.caller_speaks = false;
                if self.answers_turns {
                    self.ask(now, Owed::Answer);
                }
            }
            Event::TurnStarted => self.turn_started(now),
            Event::Audio { item, .. } => {
                if let Some(current) = &mut self.current {
                    if current.item.as_ref() != Some(item) {
                        current.item = Some(item.clone());
                    }
                    current.audio_done = false;
                    // A service may go on in the same response once a tool has answered.
                    self.asked.retain(|owed| *owed != Owed::Answer);
                }
                self.failures = 0;
            }
            Event::AudioDone { item } => {
                if let Some(current) = self.current.as_mut().filter(|it| it.item.as_ref() == Some(item)) {
                    current.audio_done = true;
                }
            }
            Event::ToolCall { id, .. } => {
                self.calls.push(Called { id: id.clone(), turn: self.turn, respond: false });
                self.failures = 0;
            }
            Event::TurnDone { status } => return self.turn_done(now, status),
            Event::TranscriptPartial { .. }
            | Event::TranscriptFinal { .. }
            | Event::Heard { .. }
            | Event::Used(_)
            | Event::Warning { .. }
            | Event::Closed { .. } => {}
        }
        None
    }

    fn turn_started(&mut self, now: Instant) {
        if !self.is_due() {
            self.since = now;
        }
        self.turn += 1;
        // Any response serves the wish to just go on.
        let owed = match self.asked.iter().position(|owed| *owed == Owed::Answer) {
            Some(index) => self.asked.remove(index),
            None => self.asked.pop_front(),
        };
        self.current = Some(Current { owed: owed.unwrap_or(Owed::Answer), item: None, audio_done: false });
    }

    fn turn_done(&mut self, now: Instant, status: &TurnStatus) -> Option<Failed> {
        let current = self.current.take();
        if !self.asked.is_empty() {
            self.since = now;
        }
        let TurnStatus::Failed(code) = status else { return None };
        self.failures += 1;
        if code == QUOTA {
            self.put_back(current);
            return Some(Failed::Quota);
        }
        if self.failures > FAILURES_MAX {
            self.put_back(current);
            return Some(Failed::Lost);
        }
        // One that was spoken in part is left at that.
        current.filter(|current| current.item.is_none()).map(|current| Failed::Again(current.owed))
    }

    fn put_back(&mut self, current: Option<Current>) {
        if let Some(current) = current.filter(|current| current.item.is_none()) {
            self.asked.push_front(current.owed);
        }
    }

    /// This much audio waits to be heard.
    pub fn playing(&mut self, now: Instant, queued: Duration) {
        // The rest of a slot waits for more of its item, which a service that has stalled does not send.
        if queued >= SLOT && now >= self.filler_until {
            self.quiet_from = now + queued;
        }
    }

    /// A filler is played, which is no sign of life.
    pub fn filling(&mut self, now: Instant, queued: Duration) {
        self.filler_until = now + queued;
    }

    /// Everything that waited to be heard was dropped.
    pub fn cleared(&mut self, now: Instant) {
        self.quiet_from = self.quiet_from.min(now);
    }

    fn is_waiting(&self) -> bool {
        // A service that has called a tool may wait for it in the middle of a response.
        let tool = !self.calls.is_empty() && self.asked.is_empty();
        self.is_due() && !self.caller_speaks && !tool
    }

    /// Since when the caller hears nothing though something is due.
    pub fn silent_since(&self) -> Option<Instant> {
        self.is_waiting().then(|| self.since.max(self.quiet_from))
    }

    fn stalls_at(&self) -> Option<Instant> {
        let silent = self.silent_since().filter(|_| self.can_stall && !self.outage)?;
        Some(silent.max(self.last_event) + self.patience.stall_after)
    }

    /// Whether the service has said nothing for too long.
    pub fn has_stalled(&self, now: Instant) -> bool {
        self.stalls_at().is_some_and(|at| now >= at)
    }

    fn fills_at(&self) -> Option<Instant> {
        let silent = self.silent_since().filter(|_| !self.filled)?;
        if self.outage {
            return Some(silent + self.patience.filler_after);
        }
        // A service that is slow now and then is not talked over each time.
        let again = self.filled_at.map(|at| at + FILLER_PAUSE);
        let thinks = if self.current.is_some() { THINKING } else { SUSPICION };
        let suspect = silent.max(self.last_event) + self.patience.filler_after + thinks;
        self.can_stall.then(|| again.map_or(suspect, |again| suspect.max(again)))
    }

    /// Whether the silence must be filled now; asked for once an outage.
    pub fn fill(&mut self, now: Instant) -> bool {
        let due = self.fills_at().is_some_and(|at| now >= at);
        if due {
            self.filled = true;
            self.filled_at = Some(now);
        }
        due
    }

    /// When there is something to look after.
    pub fn deadline(&self) -> Option<Instant> {
        [self.stalls_at(), self.fills_at()].into_iter().flatten().min()
    }

    /// The session is lost.
    pub fn lost(&mut self) {
        self.outage = true;
        self.failures = 0;
    }

    /// Nothing is owed any more.
    pub fn forgive(&mut self) {
        self.asked.clear();
        self.current = None;
        self.calls.clear();
    }

    /// Another session takes over: what was owed, first things first. Its own asking makes it due again.
    /// Calls of tools that run are no longer the session's.
    pub fn taken_over(&mut self, now: Instant) -> Vec<Open> {
        self.outage = false;
        self.filled = false;
        self.last_event = now;
        self.calls.clear();
        let current = self.current.take().filter(|current| !current.audio_done);
        let begun = current.map(|current| Open { owed: current.owed, begun: current.item });
        let asked = std::mem::take(&mut self.asked).into_iter().map(|owed| Open { owed, begun: None });
        self.caller_speaks = false;
        begun.into_iter().chain(asked).collect()
    }

    /// What the caller waits for has been waited for since before the session that owes it now.
    pub fn waits_since(&mut self, since: Instant) {
        self.since = self.since.min(since);
    }

    /// The caller goes on speaking to another session.
    pub fn goes_on_speaking(&mut self) {
        self.caller_speaks = true;
    }
}

/// What is sent at a time.
const SLOT: Duration = Duration::from_millis(20);
const QUOTA: &str = "insufficient_quota";
/// Responses in a row that may fail before the session is given up.
const FAILURES_MAX: u32 = 1;
/// Things that may be asked for at a time.
const ASKED_MAX: usize = 32;
/// A service that lives tells of a response it begins within this time more than the filler waits; only one that does
/// not is filled in for.
const SUSPICION: Duration = Duration::from_millis(200);
/// One that has begun a response may take this much longer to its first sound.
const THINKING: Duration = Duration::from_millis(1000);
/// Between two fillers without an outage.
const FILLER_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(4);
    const FILLER: Duration = Duration::from_millis(700);

    #[test]
    fn a_service_that_owes_an_answer_and_says_nothing_has_stalled() {
        let (mut watch, at) = new();
        assert_eq!(watch.deadline(), None, "nothing is due");
        speak(&mut watch, at(0), at(2000));
        assert!(!watch.has_stalled(at(5999)) && watch.has_stalled(at(6000)));
        watch.event(at(3000), &Event::TurnStarted);
        assert!(!watch.has_stalled(at(6999)) && watch.has_stalled(at(7000)));
        watch.event(at(4000), &done(TurnStatus::Completed));
        assert!(!watch.has_stalled(at(60_000)));
    }

    #[test]
    fn audio_that_is_still_heard_is_no_hole() {
        let (mut watch, at) = new();
        watch.event(at(0), &Event::TurnStarted);
        watch.event(at(10), &audio("a"));
        watch.playing(at(10), Duration::from_secs(9));
        assert!(!watch.has_stalled(at(13_000)) && watch.has_stalled(at(13_010)));
        watch.playing(at(9005), Duration::from_millis(7));
        assert!(watch.has_stalled(at(13_010)), "the rest of a slot is not heard");
        watch.cleared(at(5000));
        assert!(watch.has_stalled(at(9000)), "what was dropped is not heard");
    }

    #[test]
    fn nothing_is_due_while_the_caller_speaks_or_a_tool_runs() {
        let (mut watch, at) = new();
        watch.sent(at(0), &Command::Say("Hello".into()));
        watch.event(at(100), &Event::SpeechStarted { at_ms: 0, item: None });
        assert!(!watch.is_due() && watch.deadline().is_none());
        watch.event(at(900), &Event::SpeechStopped { at_ms: 0, item: None });
        watch.event(at(1000), &Event::TurnStarted);
        watch.event(at(1100), &call("t"));
        watch.event(at(1200), &done(TurnStatus::Completed));
        assert!(!watch.is_due() && !watch.is_quiet(at(1300)));
        watch.sent(at(9000), &result("t"));
        assert!(watch.is_due() && watch.has_stalled(at(13_000)));
    }

    #[test]
    fn a_tool_answered_at_once_leaves_its_continuation_due() {
        let (mut watch, at) = new();
        watch.event(at(0), &Event::TurnStarted);
        watch.event(at(10), &call("t"));
        watch.event(at(10), &call("u"));
        watch.sent(at(11), &result("t"));
        watch.sent(at(12), &result("u"));
        watch.event(at(20), &done(TurnStatus::Completed));
        assert!(watch.is_due());
        watch.event(at(30), &Event::TurnStarted);
        watch.event(at(40), &done(TurnStatus::Completed));
        assert!(!watch.is_due());
    }

    #[test]
    fn a_service_that_waits_for_a_tool_within_a_response_owes_nothing_meanwhile() {
        let (mut watch, at) = new();
        watch.event(at(0), &Event::TurnStarted);
        watch.event(at(10), &call("t"));
        assert!(!watch.has_stalled(at(30_000)) && !watch.fill(at(30_000)));
        watch.sent(at(30_000), &result("t"));
        assert!(!watch.has_stalled(at(33_000)) && watch.has_stalled(at(34_000)));
        watch.event(at(31_000), &audio("a"));
        watch.event(at(32_000), &done(TurnStatus::Completed));
        assert!(!watch.is_due(), "it went on in the same response");
    }

    #[test]
    fn a_tool_of_an_earlier_turn_is_served_by_the_response_in_progress() {
        let (mut watch, at) = new();
        watch.event(at(0), &Event::TurnStarted);
        watch.event(at(10), &call("t"));
        watch.event(at(20), &done(TurnStatus::Completed));
        watch.event(at(30), &Event::TurnStarted);
        watch.sent(at(40), &result("t"));
        watch.event(at(50), &done(TurnStatus::Completed));
        assert!(!watch.is_due());
    }

    #[test]
    fn silence_is_filled_once_an_outage_and_only_when_something_is_due() {
        let (mut watch, at) = new();
        watch.lost();
        assert!(!watch.fill(at(9000)), "nothing is due");
        watch.sent(at(9000), &Command::Respond { instructions: None });
        assert!(!watch.fill(at(9699)) && watch.fill(at(9700)) && !watch.fill(at(20_000)));
        watch.taken_over(at(20_000));
        watch.lost();
        watch.sent(at(21_000), &Command::Respond { instructions: None });
        assert!(watch.fill(at(21_700)));
    }

    #[test]
    fn a_service_that_lives_is_given_more_time_before_the_silence_is_filled() {
        let (mut watch, at) = new();
        watch.sent(at(0), &Command::Respond { instructions: None });
        let (mut dead, then) = new();
        dead.sent(then(0), &Command::Respond { instructions: None });
        assert!(!dead.fill(then(899)) && dead.fill(then(900)));
        watch.event(at(800), &Event::TurnStarted);
        assert!(!watch.fill(at(2499)) && watch.fill(at(2500)));
        watch.of_session(false, true);
        let (mut scripted, then) = new();
        scripted.of_session(false, true);
        scripted.sent(then(0), &Command::Respond { instructions: None });
        assert!(!scripted.fill(then(60_000)) && !scripted.has_stalled(then(60_000)));
    }

    #[test]
    fn a_filler_does_not_put_off_the_stall() {
        let (mut watch, at) = new();
        watch.sent(at(0), &Command::Respond { instructions: None });
        assert!(watch.fill(at(900)));
        watch.filling(at(900), Duration::from_millis(1400));
        watch.playing(at(1000), Duration::from_millis(1300));
        assert!(watch.has_stalled(at(4000)));
    }

    #[test]
    fn what_was_owed_comes_first_things_first() {
        let (mut watch, at) = new();
        watch.sent(at(0), &Command::Say("One two.".into()));
        watch.sent(at(0), &Command::Respond { instructions: Some("three".into()) });
        watch.event(at(10), &Event::TurnStarted);
        watch.event(at(20), &audio("a"));
        watch.lost();
        let open = watch.taken_over(at(30));
        assert_eq!(
            open,
            [
                Open { owed: Owed::Words("One two.".into()), begun: Some("a".into()) },
                Open { owed: Owed::About("three".into()), begun: None },
            ]
        );
        assert!(!watch.is_due());
    }

    #[test]
    fn an_answer_that_was_all_there_is_not_owed_again() {
        let (mut watch, at) = new();
        watch.event(at(10), &Event::TurnStarted);
        watch.event(at(20), &audio("a"));
        watch.event(at(30), &Event::AudioDone { item: "a".into() });
        watch.lost();
        assert_eq!(watch.taken_over(at(40)), []);
    }

    #[test]
    fn a_response_that_fails_is_asked_for_once_more_and_quota_leads_elsewhere() {
        let failed = |code: &str| done(TurnStatus::Failed(code.into()));
        let (mut watch, at) = new();
        watch.sent(at(0), &Command::Say("Hello".into()));
        watch.event(at(10), &Event::TurnStarted);
        let again = watch.event(at(20), &failed("server_error"));
        assert_eq!(again, Some(Failed::Again(Owed::Words("Hello".into()))));
        watch.sent(at(20), &Command::Say("Hello".into()));
        watch.event(at(30), &Event::TurnStarted);
        assert_eq!(watch.event(at(40), &failed("server_error")), Some(Failed::Lost));
        assert_eq!(watch.taken_over(at(50)), [Open { owed: Owed::Words("Hello".into()), begun: None }]);
        watch.event(at(60), &Event::TurnStarted);
        assert_eq!(watch.event(at(70), &failed("insufficient_quota")), Some(Failed::Quota));
        assert!(watch.is_due());
    }

    fn new() -> (Watch, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let watch = Watch::new(start, Patience { stall_after: STALL, filler_after: FILLER });
        (watch, move |ms| start + Duration::from_millis(ms))
    }

    fn speak(watch: &mut Watch, from: Instant, to: Instant) {
        watch.event(from, &Event::SpeechStarted { at_ms: 0, item: None });
        watch.event(to, &Event::SpeechStopped { at_ms: 0, item: None });
    }

    fn audio(item: &str) -> Event {
        Event::Audio { item: item.into(), pcm: vec![0; 480] }
    }

    fn call(id: &str) -> Event {
        Event::ToolCall { id: id.into(), name: "lookup".into(), arguments: "{}".into() }
    }

    fn result(id: &str) -> Command {
        Command::ToolResult { id: id.into(), output: "{}".into(), ok: true, respond: true }
    }

    fn done(status: TurnStatus) -> Event {
        Event::TurnDone { status }
    }
}
