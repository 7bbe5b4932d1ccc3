//! The conversation itself: what the caller, the session and the clock do to each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::tools::{FAREWELL, Leaving};
use super::{AssistantPlan, Talked, item_id, millis, unfinished};
use crate::call::conversation::{Action, Conversation};
use crate::call::handle::CallCommand;
use crate::call::levels::Levels;
use crate::call::{Call, Wake};
use crate::event::{CallEventKind, Ephemeral};
use crate::id::LineId;
use crate::provider::{Command, Event, Session, Speaker, TurnStatus};
use crate::rtp::{ItemKey, PlayedItem};
use crate::sip::leg::LegSignal;

pub(super) struct Talk {
    pub(super) session: Box<dyn Session>,
    pub(super) conversation: Conversation,
    /// The line that was cut last, until the slot that follows has left.
    pub(super) cut: Option<Cut>,
    /// The assistant wants to hang up once it has been heard.
    pub(super) leaving: Option<Leaving>,
    pub(super) responding: bool,
    pub(super) digits: String,
    pub(super) digits_until: Option<Instant>,
    pub(super) ends_at: Option<Instant>,
    pub(super) partials: HashMap<LineId, Instant>,
    pub(super) levels: Levels,
    pub(super) dropped_ms: u64,
}

pub(super) struct Cut {
    lines: Vec<(LineId, u32)>,
    heard_at: Instant,
}

impl Call {
    pub(super) async fn talk(&mut self, talk: &mut Talk, plan: &AssistantPlan) -> Talked {
        loop {
            let tools = self.desk.as_ref().and_then(|desk| desk.deadline());
            let deadline = [talk.deadline(), tools].into_iter().flatten().min();
            let wake = self.next(Some(talk.session.as_mut()), deadline).await?;
            match wake {
                Wake::Leg(signal) => self.leg_signal(talk, signal),
                Wake::Provider(Event::Closed { reason }) => return self.lost(talk, plan, &reason).await,
                Wake::Provider(event) => self.provider_event(talk, plan, event),
                Wake::Command(CallCommand::Say { text, taken }) => {
                    taken.yes();
                    talk.send(Command::Say(text));
                }
                Wake::Swapped(cleared) => self.somebody_else(talk, cleared),
                Wake::Deadline => self.deadline(talk),
                Wake::Command(_) | Wake::Move(_) | Wake::Tools | Wake::Stop => {}
            }
            self.act(talk);
            self.tend_tools(talk);
            self.leave_if_heard(talk)?;
        }
    }

    pub(super) fn leg_signal(&mut self, talk: &mut Talk, signal: LegSignal) {
        match signal {
            LegSignal::Audio { since } => {
                let (session, levels) = (&mut talk.session, &mut talk.levels);
                let mut sent_at = None;
                self.hear(|pcm| {
                    session.send_audio(pcm);
                    sent_at = Some(Instant::now());
                    levels.heard(pcm);
                });
                // The session has written it, unless the service does not read.
                if let Some(sent_at) = sent_at {
                    self.leg.note_uplink(sent_at.saturating_duration_since(since));
                    if let Some(level) = talk.levels.look(sent_at) {
                        self.ledger.show(level);
                    }
                }
            }
            LegSignal::ItemStarted(item) => talk.conversation.item_started(self.now_ms(), &item_id(item)),
            LegSignal::ItemFinished { item, played_ms } => {
                talk.conversation.item_finished(self.now_ms(), &item_id(item), millis(played_ms));
            }
            LegSignal::Sent { .. } => self.slot_after_cut(talk),
            LegSignal::Dtmf { digit, .. } if self.key_for_tool(digit) => {}
            LegSignal::Dtmf { digit, .. } => {
                talk.digits.push(digit);
                talk.digits_until = Some(Instant::now() + DIGIT_PAUSE);
            }
            LegSignal::MediaChanged { .. }
            | LegSignal::DtmfSent
            | LegSignal::CodecHeard(_)
            | LegSignal::EarlyMedia
            | LegSignal::Trying
            | LegSignal::Transfer(_)
            | LegSignal::Transferring(_)
            | LegSignal::Ringing { .. }
            | LegSignal::Established
            | LegSignal::HungUp(_) => {}
        }
    }

    pub(super) fn provider_event(&mut self, talk: &mut Talk, plan: &AssistantPlan, event: Event) {
        talk.conversation.provider(self.now_ms(), &event);
        match event {
            Event::Audio { item, pcm } if talk.conversation.accepts(&item) => {
                self.assistant_speaks();
                talk.dropped_ms += self.leg.play(&ItemKey(item.0), &pcm);
                talk.levels.playing(Instant::now(), &pcm);
            }
            Event::AudioDone { item } => self.leg.end_item(&ItemKey(item.0)),
            Event::SpeechStarted { .. } => {
                self.caller_speaks();
                self.barge_in(talk);
            }
            Event::ToolCall { id, name, arguments } => self.run_tool(talk, plan, id, &name, &arguments),
            Event::TurnStarted => talk.responding = true,
            Event::Used(usage) => self.used(talk, plan.provider(), &usage),
            Event::TurnDone { status } => {
                talk.responding = false;
                if let TurnStatus::Failed(reason) = status {
                    warn!(reason, "the assistant's turn failed");
                }
            }
            Event::Warning { code, message } => debug!(code, message, "the provider warns"),
            Event::Audio { .. }
            | Event::SpeechStopped { .. }
            | Event::TranscriptPartial { .. }
            | Event::TranscriptFinal { .. }
            | Event::Heard { .. }
            | Event::Closed { .. } => {}
        }
    }

    /// The caller speaks: nothing of the assistant leaves after the slot that is due next.
    pub(super) fn barge_in(&mut self, talk: &mut Talk) {
        let heard_at = Instant::now();
        let playing = unfinished(self.leg.clear());
        talk.levels.cleared(heard_at);
        if playing.is_empty() {
            return;
        }
        metrics::counter!("tandem_barge_ins_total").increment(1);
        talk.conversation.interrupted(self.now_ms(), &playing);
        talk.cut = Some(Cut { lines: Vec::new(), heard_at });
        self.leg.watch_slots(true);
    }

    /// Another party is on the line: what the one before did not hear is not said, and the assistant is told.
    pub(super) fn somebody_else(&mut self, talk: &mut Talk, cleared: Vec<PlayedItem>) {
        talk.levels.cleared(Instant::now());
        talk.cut = None;
        talk.conversation.interrupted(self.now_ms(), &unfinished(cleared));
        let news = "(The caller has handed the phone to somebody else, who hears you from now on.)";
        talk.send(Command::CallerText(news.to_owned()));
        talk.send(Command::Respond { instructions: None });
    }

    /// The first slot after a barge-in tells how late the last of the assistant's audio left.
    pub(super) fn slot_after_cut(&mut self, talk: &mut Talk) {
        let Some(cut) = talk.cut.take() else { return };
        self.leg.watch_slots(self.recorder.is_some());
        // The slot carries the fade, which is the last of the assistant's audio.
        let stop_ms = cut.heard_at.elapsed().as_secs_f64() * 1000.0;
        metrics::histogram!("tandem_barge_in_stop_seconds").record(stop_ms / 1000.0);
        for (line_id, played_ms) in cut.lines {
            self.ledger.record(CallEventKind::BargeIn { line_id, played_ms: u64::from(played_ms), stop_ms });
        }
    }

    pub(super) fn deadline(&mut self, talk: &mut Talk) {
        let now = Instant::now();
        if talk.digits_until.is_some_and(|at| now >= at) {
            talk.digits_until = None;
            let digits = std::mem::take(&mut talk.digits);
            talk.send(Command::CallerText(format!("(The caller pressed {digits} on the phone.)")));
            talk.send(Command::Respond { instructions: None });
        }
        if talk.ends_at.is_some_and(|at| now >= at) {
            talk.ends_at = None;
            info!("the call has reached its longest duration");
            talk.send(Command::Say("I am sorry, our time is up. Goodbye.".to_owned()));
            let reason = "the longest duration was reached".to_owned();
            talk.leaving.get_or_insert(Leaving { reason, until: now + FAREWELL });
        }
    }

    /// Does what the conversation asks for.
    pub(super) fn act(&mut self, talk: &mut Talk) {
        for action in talk.conversation.take_actions() {
            match action {
                Action::Partial { line_id, who, text } => self.show_partial(talk, line_id, who, text),
                Action::Line(line) => {
                    talk.partials.remove(&line.line_id);
                    self.ledger.record(CallEventKind::Transcript(line));
                }
                Action::Command(command) => talk.send(command),
                Action::BargeIn { line_id, played_ms } => {
                    if let Some(cut) = &mut talk.cut {
                        cut.lines.push((line_id, played_ms));
                    }
                }
            }
        }
    }

    pub(super) fn show_partial(&self, talk: &mut Talk, line_id: LineId, who: Speaker, text: String) {
        let now = Instant::now();
        let due = talk.partials.get(&line_id).is_none_or(|shown| now >= *shown + PARTIAL_INTERVAL);
        if due {
            talk.partials.insert(line_id, now);
            let who = match who {
                Speaker::Caller => "caller",
                Speaker::Assistant => "assistant",
            };
            self.ledger.show(Ephemeral::Partial { line_id, who: who.to_owned(), text });
        }
    }
}

impl Talk {
    pub(super) fn new(session: Box<dyn Session>, origin_ms: u64, plan: &AssistantPlan) -> Self {
        Self {
            session,
            conversation: Conversation::new(origin_ms),
            cut: None,
            leaving: None,
            responding: false,
            digits: String::new(),
            digits_until: None,
            ends_at: plan.max_duration.map(|limit| Instant::now() + limit),
            partials: HashMap::new(),
            levels: Levels::new(Instant::now()),
            dropped_ms: 0,
        }
    }

    /// Asks this of the session.
    pub(super) fn send(&mut self, command: Command) {
        self.session.send(command);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        [self.digits_until, self.ends_at, leaving].into_iter().flatten().min()
    }
}

/// Keys pressed within this time are told to the assistant together.
const DIGIT_PAUSE: Duration = Duration::from_millis(1500);
/// Partial lines are shown at most this often.
const PARTIAL_INTERVAL: Duration = Duration::from_millis(100);
