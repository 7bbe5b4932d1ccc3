//! When to ask for a response, and when not to.
//!
//! The service refuses a `response.create` while a response is in progress, stays silent after a tool's
//! answer unless asked, and answers the caller's turns by itself. This core therefore holds every request
//! until the way is free:
//!
//! - one request is on its way or one response in progress at any time;
//! - a model that called several tools is asked to go on once, after all were answered and its response
//!   is done;
//! - a request to just go on is merged with one that waits already, and is given up when the service
//!   starts a response by itself, which has the same conversation before it;
//! - requests to go on wait while the caller speaks: the service will answer that turn anyway.

use std::collections::VecDeque;

use super::request::EventId;

/// What a response should be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// The conversation as it stands.
    Continue,
    /// These instructions, which someone asked for.
    Instructed {
        /// In place of the session's.
        instructions: String,
        /// Whether the model may call tools meanwhile.
        tools: bool,
    },
}

/// How a refused request is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The error was not about a request for a response.
    NotOurs,
    /// It will be made again, or is no longer needed.
    Settled,
    /// It is lost.
    Lost,
}

/// The state of turn-taking in one session.
#[derive(Debug, Default)]
pub struct Sequencer {
    active: Option<Active>,
    asked: Option<Asked>,
    waiting: VecDeque<Create>,
    rounds: VecDeque<ToolRound>,
    known_calls: VecDeque<String>,
    interrupted: VecDeque<String>,
    cancel_asked: bool,
    /// The service does not stop a response when the caller speaks.
    talks_on: bool,
    caller: Caller,
}

#[derive(Debug)]
struct Active {
    id: String,
    /// The request that started it, when it was ours.
    asked: Option<Asked>,
}

#[derive(Debug, Clone)]
struct Asked {
    event_id: EventId,
    create: Create,
}

/// The tool calls of one response.
#[derive(Debug)]
struct ToolRound {
    response_id: String,
    unanswered: Vec<String>,
    response_done: bool,
    go_on: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Caller {
    #[default]
    Silent,
    Speaking,
    /// The turn is over, the service should answer it any moment.
    Awaiting {
        heard_ms: u32,
    },
}

impl Sequencer {
    /// Of a service that goes on with its response while the caller speaks.
    pub fn talk_on(&mut self, talks_on: bool) {
        self.talks_on = talks_on;
    }

    /// Asks for a response as soon as the way is free. `false`: too many wait already.
    pub fn request(&mut self, create: Create) -> bool {
        if create == Create::Continue && self.waiting.contains(&Create::Continue) {
            return true;
        }
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.waiting.push_back(create);
        true
    }

    /// The request to send now, if any. Tell [`Self::sent`].
    pub fn take_next(&mut self) -> Option<Create> {
        if self.active.is_some() || self.asked.is_some() {
            return None;
        }
        let silent = self.caller == Caller::Silent;
        let index = self.waiting.iter().position(|create| silent || *create != Create::Continue)?;
        self.waiting.remove(index)
    }

    /// A request was sent.
    pub fn sent(&mut self, event_id: EventId, create: Create) {
        self.asked = Some(Asked { event_id, create });
    }

    /// A response began.
    pub fn created(&mut self, id: String) {
        let asked = self.asked.take();
        if asked.is_none() {
            self.waiting.retain(|create| *create != Create::Continue);
        }
        if std::mem::take(&mut self.cancel_asked) {
            remember(&mut self.interrupted, id.clone());
        }
        self.caller = if self.caller == Caller::Speaking { Caller::Speaking } else { Caller::Silent };
        self.active = Some(Active { id, asked });
    }

    /// A response ended.
    pub fn done(&mut self, id: &str) {
        match &self.active {
            Some(active) if active.id != id && !active.id.is_empty() && !id.is_empty() => {}
            Some(_) => self.active = None,
            // Ended without having begun: the request it may have come from is over, too.
            None => self.asked = None,
        }
        if let Some(round) = self.rounds.iter_mut().find(|round| round.response_id == id) {
            round.response_done = true;
        }
        self.close_rounds();
    }

    /// An `error` event arrived. `busy`: its code says that a response is in progress.
    pub fn error(&mut self, event_id: Option<&str>, busy: bool) -> Refusal {
        if busy && event_id.is_none() && self.talks_on {
            // The service could not answer the caller's turn while it spoke: it is asked to afterwards.
            self.caller = Caller::Silent;
            self.request(Create::Continue);
            return Refusal::Settled;
        }
        let about = |asked: &Asked| event_id.is_none_or(|text| asked.event_id.is(text));
        if let Some(asked) = self.asked.take_if(|asked| about(asked)) {
            self.cancel_asked = false;
            if busy && self.active.is_none() {
                self.active = Some(Active { id: String::new(), asked: None });
            }
            return self.retry(asked, busy);
        }
        // The response that began after our request was the service's own, and the request was refused.
        let own = self.active.as_mut().and_then(|active| active.asked.take_if(|asked| busy && about(asked)));
        own.map_or(Refusal::NotOurs, |asked| self.retry(asked, busy))
    }

    fn retry(&mut self, asked: Asked, busy: bool) -> Refusal {
        if !busy {
            return Refusal::Lost;
        }
        if asked.create != Create::Continue {
            self.waiting.push_front(asked.create);
        }
        Refusal::Settled
    }

    /// The caller began to speak, which ends the response in progress at the service.
    pub fn caller_started(&mut self) {
        self.caller = Caller::Speaking;
        if !self.talks_on {
            self.interrupt_active();
        }
    }

    /// The caller's turn is over.
    pub fn caller_stopped(&mut self) {
        self.caller = Caller::Awaiting { heard_ms: 0 };
    }

    /// The caller's turn came to nothing.
    pub fn caller_cleared(&mut self) {
        self.caller = Caller::Silent;
    }

    /// This much more caller audio was sent. A turn that stays unanswered for long is taken for one that
    /// the service will not answer, so that nothing waits for it forever.
    pub fn audio_sent(&mut self, ms: u32) {
        if let Caller::Awaiting { heard_ms } = &mut self.caller {
            *heard_ms += ms;
            if *heard_ms >= MAX_AWAITING_MS {
                self.caller = Caller::Silent;
            }
        }
    }

    /// Stops the response in progress and forgets the requests that wait. Answers whether the service
    /// must be told.
    pub fn cancel(&mut self) -> bool {
        self.waiting.clear();
        if self.asked.is_some() {
            return !std::mem::replace(&mut self.cancel_asked, true);
        }
        self.interrupt_active()
    }

    /// Whether audio and words of this response are no longer wanted.
    pub fn is_interrupted(&self, response_id: &str) -> bool {
        self.interrupted.iter().any(|id| id == response_id)
    }

    /// The model called a tool. `false`: this call is known already.
    pub fn tool_called(&mut self, response_id: &str, call_id: &str) -> bool {
        if self.known_calls.iter().any(|known| known == call_id) {
            return false;
        }
        remember(&mut self.known_calls, call_id.to_owned());
        match self.rounds.iter_mut().find(|round| round.response_id == response_id) {
            Some(round) => round.unanswered.push(call_id.to_owned()),
            None => {
                if self.rounds.len() >= MAX_REMEMBERED {
                    self.rounds.pop_front();
                }
                let in_progress = self.active.as_ref().is_some_and(|active| active.id == response_id);
                self.rounds.push_back(ToolRound {
                    response_id: response_id.to_owned(),
                    unanswered: vec![call_id.to_owned()],
                    response_done: !in_progress,
                    go_on: false,
                });
            }
        }
        true
    }

    /// A tool call was answered. `false`: no such call is open.
    pub fn tool_answered(&mut self, call_id: &str, go_on: bool) -> bool {
        let Some(round) = self.rounds.iter_mut().find(|r| r.unanswered.iter().any(|id| id == call_id)) else {
            return false;
        };
        round.unanswered.retain(|id| id != call_id);
        round.go_on |= go_on;
        self.close_rounds();
        true
    }

    fn close_rounds(&mut self) {
        let answered = |round: &ToolRound| round.response_done && round.unanswered.is_empty();
        let go_on = self.rounds.iter().any(|round| answered(round) && round.go_on);
        self.rounds.retain(|round| !answered(round));
        // A response that the service began on its own meanwhile serves as the continuation.
        let service_speaks = self.active.as_ref().is_some_and(|active| active.asked.is_none());
        if go_on && !service_speaks {
            // Full only if someone queued dozens of requests, and then the model will speak anyway.
            self.request(Create::Continue);
        }
    }

    fn interrupt_active(&mut self) -> bool {
        let Some(active) = &self.active else { return false };
        let fresh = !self.interrupted.contains(&active.id);
        if fresh {
            remember(&mut self.interrupted, active.id.clone());
        }
        fresh
    }
}

fn remember(names: &mut VecDeque<String>, name: String) {
    if names.len() >= MAX_REMEMBERED {
        names.pop_front();
    }
    names.push_back(name);
}

/// Requests that may wait; more are refused.
const MAX_WAITING: usize = 32;
/// Calls, rounds and interrupted responses kept; the oldest is forgotten first.
const MAX_REMEMBERED: usize = 64;
/// Caller audio after which an unanswered turn no longer holds requests back.
const MAX_AWAITING_MS: u32 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_the_response_in_progress() {
        let mut turns = Sequencer::default();
        turns.created("vad".into());
        assert!(turns.request(say("a")));
        assert_eq!(turns.take_next(), None);
        turns.done("vad");
        assert_eq!(send(&mut turns, 1), Some(say("a")));
        assert_eq!(turns.take_next(), None);
    }

    #[test]
    fn requests_to_go_on_are_merged_and_instructed_ones_are_not() {
        let mut turns = Sequencer::default();
        turns.created("vad".into());
        for create in [Create::Continue, say("a"), Create::Continue, say("a")] {
            turns.request(create);
        }
        let mut sent = Vec::new();
        let mut current = "vad".to_owned();
        for number in 1.. {
            turns.done(&current);
            let Some(create) = send(&mut turns, number) else { break };
            sent.push(create);
            current = format!("r{number}");
            turns.created(current.clone());
        }
        assert_eq!(sent, [Create::Continue, say("a"), say("a")]);
    }

    #[test]
    fn several_tool_calls_are_answered_before_one_request_to_go_on() {
        let mut turns = Sequencer::default();
        turns.created("r1".into());
        assert!(turns.tool_called("r1", "c1"));
        assert!(turns.tool_answered("c1", true));
        assert!(turns.tool_called("r1", "c2"));
        assert!(!turns.tool_called("r1", "c2"), "announced twice");
        turns.done("r1");
        assert_eq!(turns.take_next(), None);
        assert!(turns.tool_answered("c2", true));
        assert_eq!(send(&mut turns, 1), Some(Create::Continue));
        assert_eq!(turns.take_next(), None);
        assert!(!turns.tool_answered("c2", true), "answered twice");
    }

    #[test]
    fn a_tool_that_wants_no_words_asks_for_none() {
        let mut turns = Sequencer::default();
        turns.created("r1".into());
        turns.tool_called("r1", "c1");
        turns.tool_answered("c1", false);
        turns.done("r1");
        assert_eq!(turns.take_next(), None);
    }

    #[test]
    fn a_response_of_the_callers_turn_serves_as_continuation_of_a_tool() {
        let mut turns = Sequencer::default();
        turns.created("r1".into());
        turns.tool_called("r1", "c1");
        turns.done("r1");
        turns.caller_started();
        turns.caller_stopped();
        turns.created("vad".into());
        turns.tool_answered("c1", true);
        turns.done("vad");
        assert_eq!(turns.take_next(), None);
    }

    #[test]
    fn a_tool_answered_after_that_response_still_gets_its_continuation() {
        let mut turns = Sequencer::default();
        turns.created("r1".into());
        turns.tool_called("r1", "c1");
        turns.done("r1");
        turns.created("vad".into());
        turns.done("vad");
        turns.tool_answered("c1", true);
        assert_eq!(turns.take_next(), Some(Create::Continue));
    }

    #[test]
    fn going_on_waits_while_the_caller_speaks_and_is_given_up_for_the_answer_to_that() {
        let mut turns = Sequencer::default();
        turns.caller_started();
        turns.request(Create::Continue);
        assert_eq!(turns.take_next(), None);
        turns.caller_stopped();
        assert_eq!(turns.take_next(), None);
        turns.created("vad".into());
        turns.done("vad");
        assert_eq!(turns.take_next(), None);
    }

    #[test]
    fn a_turn_that_is_never_answered_does_not_hold_requests_forever() {
        let mut turns = Sequencer::default();
        turns.caller_started();
        turns.caller_stopped();
        turns.request(Create::Continue);
        (0..99).for_each(|_| turns.audio_sent(20));
        assert_eq!(turns.take_next(), None);
        turns.audio_sent(20);
        assert_eq!(turns.take_next(), Some(Create::Continue));
    }

    #[test]
    fn a_refused_request_is_made_again_unless_the_services_response_serves() {
        for (create, event_id) in [(say("a"), Some("tandem_1")), (say("a"), None)] {
            let mut turns = Sequencer::default();
            turns.request(create.clone());
            send(&mut turns, 1);
            turns.created("vad".into());
            assert_eq!(turns.error(event_id, true), Refusal::Settled);
            assert_eq!(turns.take_next(), None);
            turns.done("vad");
            assert_eq!(send(&mut turns, 2), Some(create));
        }
        let mut turns = Sequencer::default();
        turns.request(Create::Continue);
        send(&mut turns, 1);
        turns.created("vad".into());
        assert_eq!(turns.error(Some("tandem_1"), true), Refusal::Settled);
        turns.done("vad");
        assert_eq!(turns.take_next(), None);
    }

    #[test]
    fn a_request_refused_before_any_response_was_seen_waits_for_that_responses_end() {
        let mut turns = Sequencer::default();
        turns.request(say("a"));
        send(&mut turns, 1);
        assert_eq!(turns.error(Some("tandem_1"), true), Refusal::Settled);
        assert_eq!(turns.take_next(), None);
        turns.done("whatever");
        assert_eq!(turns.take_next(), Some(say("a")));
    }

    #[test]
    fn a_request_refused_for_good_makes_way_for_the_next() {
        let mut turns = Sequencer::default();
        turns.request(say("a"));
        turns.request(say("b"));
        send(&mut turns, 1);
        assert_eq!(turns.error(Some("tandem_9"), false), Refusal::NotOurs);
        assert_eq!(turns.take_next(), None);
        assert_eq!(turns.error(Some("tandem_1"), false), Refusal::Lost);
        assert_eq!(turns.take_next(), Some(say("b")));
    }

    #[test]
    fn cancelling_tells_the_service_only_when_something_is_in_progress() {
        let mut turns = Sequencer::default();
        assert!(!turns.cancel());
        turns.created("r1".into());
        turns.request(say("a"));
        assert!(turns.cancel());
        assert!(turns.is_interrupted("r1"));
        assert!(!turns.cancel(), "once is enough");
        turns.done("r1");
        assert_eq!(turns.take_next(), None, "what waited is forgotten");
    }

    #[test]
    fn cancelling_reaches_a_response_that_was_asked_for_and_has_not_begun() {
        let mut turns = Sequencer::default();
        turns.request(say("a"));
        send(&mut turns, 1);
        assert!(turns.cancel());
        turns.created("r1".into());
        assert!(turns.is_interrupted("r1"));
    }

    #[test]
    fn a_response_interrupted_by_the_caller_is_not_cancelled_again() {
        let mut turns = Sequencer::default();
        turns.created("r1".into());
        turns.caller_started();
        assert!(turns.is_interrupted("r1"));
        assert!(!turns.cancel());
    }

    fn say(words: &str) -> Create {
        Create::Instructed { instructions: words.into(), tools: false }
    }

    fn send(turns: &mut Sequencer, number: u64) -> Option<Create> {
        let create = turns.take_next()?;
        turns.sent(EventId(number), create.clone());
        Some(create)
    }
}
