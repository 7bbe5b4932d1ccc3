//! The session a conversation has at the moment, if it has one.
//!
//! Sessions follow each other and know nothing of each other's names: items and tool calls of every session but the
//! first carry its number, so that what is played, cut or answered late is never taken for another's.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::provider::{Command, Event, ItemId, Session, SessionStats};

/// A session, or the place of one.
pub(super) struct Line {
    session: Option<Box<dyn Session>>,
    /// 1, 2, 3, … in the order of sessions.
    number: u32,
    /// The place of its provider in the chain.
    pub(super) place: usize,
    /// Of the sessions before.
    before: SessionStats,
}

impl Line {
    /// `before`: so many sessions have talked on this call.
    pub(super) fn new(session: Box<dyn Session>, place: usize, before: u32) -> Self {
        Self { session: Some(session), number: before + 1, place, before: SessionStats::default() }
    }

    /// The number of the present session, or of the last one.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn is_up(&self) -> bool {
        self.session.is_some()
    }

    /// Lets the session go.
    pub(super) fn take_down(&mut self) {
        self.before = self.stats();
        if let Some(mut session) = self.session.take() {
            session.send(Command::Close);
        }
    }

    /// Goes on with another session.
    pub(super) fn take_up(&mut self, session: Box<dyn Session>, place: usize) {
        self.take_down();
        (self.session, self.place) = (Some(session), place);
        self.number += 1;
    }

    fn own_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        match name.split_once(':') {
            Some((number, own)) if number.parse() == Ok(self.number) => Some(own),
            _ => Some(name).filter(|_| self.number == 1),
        }
    }

    fn mark(&self, event: Event) -> Event {
        if self.number == 1 {
            return event;
        }
        let named = |item: ItemId| ItemId(format!("{}:{item}", self.number).into());
        match event {
            Event::SpeechStarted { at_ms, item } => Event::SpeechStarted { at_ms, item: item.map(named) },
            Event::SpeechStopped { at_ms, item } => Event::SpeechStopped { at_ms, item: item.map(named) },
            Event::Audio { item, pcm } => Event::Audio { item: named(item), pcm },
            Event::AudioDone { item } => Event::AudioDone { item: named(item) },
            Event::TranscriptPartial { who, item, text } => {
                Event::TranscriptPartial { who, item: named(item), text }
            }
            Event::TranscriptFinal { who, item, text } => {
                Event::TranscriptFinal { who, item: named(item), text }
            }
            Event::Heard { item, text } => Event::Heard { item: named(item), text },
            Event::ToolCall { id, name, arguments } => {
                Event::ToolCall { id: format!("{}:{id}", self.number), name, arguments }
            }
            other => other,
        }
    }
}

impl Session for Line {
    fn send_audio(&mut self, pcm: &[i16]) {
        if let Some(session) = &mut self.session {
            session.send_audio(pcm);
        }
    }

    fn send(&mut self, command: Command) {
        let command = match command {
            Command::Truncate { item, audio_end_ms } => {
                let Some(own) = self.own_name(&item.0) else { return };
                Command::Truncate { item: own.into(), audio_end_ms }
            }
            Command::ToolResult { id, output, ok, respond } => {
                let Some(own) = self.own_name(&id) else { return };
                Command::ToolResult { id: own.to_owned(), output, ok, respond }
            }
            other => other,
        };
        if let Some(session) = &mut self.session {
            session.send(command);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(session) = &mut self.session else { return Poll::Pending };
        session.poll_event(cx).map(|event| self.mark(event))
    }

    fn stats(&self) -> SessionStats {
        let now = self.session.as_ref().map(|session| session.stats()).unwrap_or_default();
        SessionStats {
            audio_sent_ms: self.before.audio_sent_ms + now.audio_sent_ms,
            audio_dropped_ms: self.before.audio_dropped_ms + now.audio_dropped_ms,
            audio_received_ms: self.before.audio_received_ms + now.audio_received_ms,
            unknown_events: self.before.unknown_events + now.unknown_events,
            messages: self.before.messages + now.messages,
        }
    }

    fn send_backlog(&mut self, pcm: &[i16]) -> bool {
        self.session.as_mut().is_some_and(|session| session.send_backlog(pcm))
    }

    fn probe(&mut self) -> bool {
        self.session.as_mut().is_some_and(|session| session.probe())
    }

    fn can_stall(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.can_stall())
    }

    fn silence_ends_turns(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.silence_ends_turns())
    }

    fn limit(&self) -> Option<Duration> {
        self.session.as_ref()?.limit()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn names_of_a_later_session_are_its_own_and_those_of_earlier_ones_do_not_reach_it() {
        let (first, second) = (Probe::default(), Probe::default());
        let mut line = Line::new(Box::new(first.clone()), 0, 0);
        line.send(Command::Truncate { item: "a".into(), audio_end_ms: 1 });
        line.take_up(Box::new(second.clone()), 1);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let event = line.poll_event(&mut cx);
        assert_eq!(event, Poll::Ready(Event::AudioDone { item: "2:a".into() }));
        line.send(Command::Truncate { item: "a".into(), audio_end_ms: 2 });
        line.send(Command::Truncate { item: "2:a".into(), audio_end_ms: 3 });
        let told = |probe: &Probe| probe.0.lock().unwrap().clone();
        let truncate = |audio_end_ms| Command::Truncate { item: "a".into(), audio_end_ms };
        assert_eq!(told(&first), [truncate(1), Command::Close]);
        assert_eq!(told(&second), [truncate(3)]);
    }

    #[derive(Clone, Default)]
    struct Probe(Arc<Mutex<Vec<Command>>>);

    impl Session for Probe {
        fn send_audio(&mut self, _pcm: &[i16]) {}

        fn send(&mut self, command: Command) {
            self.0.lock().unwrap().push(command);
        }

        fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<Event> {
            Poll::Ready(Event::AudioDone { item: "a".into() })
        }

        fn stats(&self) -> SessionStats {
            SessionStats::default()
        }
    }
}
