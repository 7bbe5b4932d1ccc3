//! Does what the assistant's manners ask for.

use std::time::Instant;

use tracing::info;

use super::AssistantPlan;
use super::manners::{Due, Voice};
use super::talk::Talk;
use super::tools::{FAREWELL, Leaving};
use crate::call::Call;
use crate::provider::{Command, Event, ItemId, Speaker};
use crate::rtp::ItemKey;

impl Call {
    /// What the time has come for, of what the assistant does by itself.
    pub(super) fn mind_the_manners(&mut self, talk: &mut Talk, plan: &AssistantPlan) {
        let now = Instant::now();
        if talk.leaving.is_some() {
            return;
        }
        if talk.habits.answer_is_due(now) {
            talk.send(Command::Respond { instructions: None });
        }
        match talk.habits.due(now, !self.leg.is_idle()) {
            None => {}
            Some(Due::Greet) => self.greet(talk, plan),
            Some(Due::Ask(words)) => talk.send(Command::Say(words)),
            Some(Due::Close) => {
                info!("the caller has gone silent");
                talk.send(Command::Say(talk.habits.closing()));
                let reason = "the caller said nothing any more".to_owned();
                talk.leaving = Some(Leaving { reason, until: now + FAREWELL });
            }
            Some(Due::GoOn) => {
                info!("the caller has gone silent: the flow goes on");
                talk.onward = Some(now);
            }
        }
    }

    /// The assistant's first words.
    fn greet(&mut self, talk: &mut Talk, plan: &AssistantPlan) {
        let Some(sound) = talk.habits.greeting() else {
            return talk.send(match &plan.greeting {
                Some(greeting) => Command::Say(greeting.clone()),
                None => Command::Respond { instructions: None },
            });
        };
        // A line like any other, but nobody has to generate it. The session knows it from its history.
        let item = ItemId(format!("greeting-{:016x}", rand::random::<u64>()).into());
        let text = plan.greeting.clone().unwrap_or_else(|| UNKNOWN_WORDS.to_owned());
        let key = ItemKey(item.0.clone());
        let now_ms = self.now_ms();
        let words = Event::TranscriptFinal { who: Speaker::Assistant, item: item.clone(), text };
        talk.conversation.provider(now_ms, &words);
        talk.dropped_ms += self.leg.play(&key, &sound);
        talk.levels.playing(Instant::now(), &sound);
        talk.conversation.provider(now_ms, &Event::Audio { item, pcm: sound.to_vec() });
        self.leg.end_item(&key);
    }

    /// What the caller's voice asks for, before the service has heard it.
    pub(super) fn mind_the_voice(&mut self, talk: &mut Talk, voice: Option<Voice>) {
        match voice {
            None => {}
            Some(Voice::Pause) => {
                metrics::counter!("tandem_barge_in_pauses_total").increment(1);
                self.leg.pause();
            }
            Some(Voice::Resume) => {
                metrics::counter!("tandem_barge_in_resumes_total").increment(1);
                self.leg.resume();
            }
            Some(Voice::Stop) => {
                talk.send(Command::CancelResponse);
                self.barge_in(talk);
            }
        }
    }

    /// What the session tells, for the assistant's manners.
    pub(super) fn note_manners(talk: &mut Talk, event: &Event) {
        let (now, habits) = (Instant::now(), &mut talk.habits);
        match event {
            Event::SpeechStarted { .. } => habits.caller_started(now),
            Event::SpeechStopped { .. } => habits.caller_stopped(now),
            Event::TurnStarted => habits.turn_started(now),
            Event::TurnDone { .. } => habits.turn_done(now),
            Event::ToolCall { .. } => habits.tool_called(now),
            _ => {}
        }
    }

    /// Whether the flow goes on with its next step: once the assistant's words have been heard, or it has had its time
    /// for them.
    pub(super) fn moves_on(&self, talk: &Talk) -> bool {
        let heard = || self.leg.is_idle() && talk.conversation.is_heard_out();
        talk.onward.is_some_and(|until| heard() || Instant::now() >= until)
    }
}

/// For a greeting of which only the sound is known.
pub(super) const UNKNOWN_WORDS: &str = "(a recorded greeting)";
