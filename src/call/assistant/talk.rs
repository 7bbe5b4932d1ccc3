//! The conversation itself: what the caller, the session and the clock do to each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::backlog::Backlog;
use super::line::Line;
use super::manners::Habits;
use super::opening::{Opening, Openings, Ready};
use super::pulse::Pulse;
use super::recovery::late_result;
use super::renewal::Renewal;
use super::tools::{FAREWELL, Leaving};
use super::watch::{Failed, Owed, Watch};
use super::{AssistantPlan, Talked, is_filler, item_id, millis, unfinished};
use crate::call::conversation::{Action, Conversation};
use crate::call::handle::CallCommand;
use crate::call::levels::Levels;
use crate::call::{Call, Wake};
use crate::event::{CallEventKind, Ephemeral};
use crate::id::LineId;
use crate::provider::{Command, Event, HistoryItem, Session, SessionFault, SessionSpec, Speaker, TurnStatus};
use crate::rtp::{ItemKey, PlayedItem};
use crate::sip::leg::LegSignal;

pub(super) struct Talk {
    /// Asked by [`Talk::send`] alone.
    pub(super) line: Line,
    pub(super) conversation: Conversation,
    /// What a session is opened with, as it was changed since.
    pub(super) spec: SessionSpec,
    pub(super) watch: Watch,
    pub(super) backlog: Backlog,
    pub(super) renewal: Renewal,
    pub(super) pulse: Pulse,
    /// Another session is being looked for.
    pub(super) openings: Option<Openings>,
    /// It was found, and takes over at a good moment.
    pub(super) ready: Option<Ready>,
    pub(super) lost_at: Option<Instant>,
    pub(super) up_since: Instant,
    /// Sessions in a row that ended at once.
    pub(super) short_lived: u32,
    /// The line that was cut last, until the slot that follows has left.
    pub(super) cut: Option<Cut>,
    /// The assistant wants to hang up once it has been heard.
    pub(super) leaving: Option<Leaving>,
    pub(super) digits: String,
    pub(super) digits_until: Option<Instant>,
    pub(super) ends_at: Option<Instant>,
    pub(super) habits: Habits,
    /// The flow goes on with its next step once the assistant has been heard, or then.
    pub(super) onward: Option<Instant>,
    pub(super) partials: HashMap<LineId, Instant>,
    pub(super) levels: Levels,
    pub(super) dropped_ms: u64,
}

/// Nothing but audio has come since everything was looked after.
struct Rest {
    /// When there is something to do.
    until: Option<Instant>,
}

impl Rest {
    fn lasts(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

pub(super) struct Cut {
    lines: Vec<(LineId, u32)>,
    heard_at: Instant,
}

impl Call {
    pub(super) async fn talk(&mut self, talk: &mut Talk, plan: &AssistantPlan) -> Talked {
        let mut rest = None;
        loop {
            let now = Instant::now();
            let deadline = match rest.take().filter(|rest: &Rest| rest.lasts(now)) {
                Some(Rest { until }) => {
                    talk.watch.playing(now, self.leg.queued());
                    until
                }
                None => {
                    if self.look_after(talk, plan, now).is_err() {
                        return self.nobody_left(talk, plan).await;
                    }
                    let tools = self.desk.as_ref().and_then(|desk| desk.deadline());
                    [talk.deadline(now), tools].into_iter().flatten().min()
                }
            };
            let Talk { line, openings, .. } = &mut *talk;
            let wake = tokio::select! {
                biased;
                opening = opened(openings.as_mut()) => {
                    self.opened(talk, plan, opening);
                    continue;
                }
                wake = self.next(Some(line), deadline) => wake?,
            };
            match wake {
                Wake::Leg(LegSignal::Audio { since }) => {
                    if self.heard(talk, since) && self.may_rest(talk, now) {
                        rest = Some(Rest { until: deadline });
                        continue;
                    }
                }
                Wake::Leg(signal) => self.leg_signal(talk, signal),
                Wake::Provider(Event::Closed { reason }) => self.closed(talk, plan, &reason),
                Wake::Provider(event) => self.provider_event(talk, plan, event),
                Wake::Command(CallCommand::Say { text, taken }) => {
                    taken.yes();
                    talk.send(Command::Say(text));
                }
                Wake::Swapped(cleared) => self.somebody_else(talk, cleared),
                Wake::Deadline => {
                    self.deadline(talk);
                    self.mind_the_manners(talk, plan);
                }
                Wake::Command(_) | Wake::Move(_) | Wake::Tools | Wake::Stop => {}
            }
            self.act(talk);
            self.tend_tools(talk);
            self.leave_if_heard(talk)?;
            if self.moves_on(talk) {
                return Ok(());
            }
        }
    }

    fn opened(&mut self, talk: &mut Talk, plan: &AssistantPlan, opening: Opening) {
        let Some(mut openings) = talk.openings.take() else { return };
        match self.settled(&mut openings, plan, opening) {
            Some(ready) => talk.ready = Some(ready),
            None => talk.openings = Some(openings),
        }
    }

    /// Whether a frame of the caller's may go by without anything being looked after before the next deadline.
    fn may_rest(&self, talk: &Talk, now: Instant) -> bool {
        let searching = talk.openings.is_some() || talk.ready.is_some();
        let ending = talk.leaving.is_some() || talk.onward.is_some();
        let listening = talk.habits.listens() || talk.pulse.deadline().is_some();
        let busy = searching || ending || listening || self.desk.is_some();
        !busy && talk.line.is_up() && talk.renewal.is_far(now)
    }

    /// The caller was heard. Answers whether there was nothing remarkable in it.
    fn heard(&mut self, talk: &mut Talk, since: Instant) -> bool {
        let Talk { line, levels, backlog, habits, pulse, .. } = &mut *talk;
        let (mut sent_at, mut voice) = (None, None);
        let speaking = !self.leg.is_idle();
        let now_ms = self.ledger.elapsed_ms(since);
        let suspected = pulse.deadline();
        self.hear(|pcm| {
            line.send_audio(pcm);
            let now = Instant::now();
            sent_at = Some(now);
            let power = levels.heard(pcm);
            if line.can_stall() && pulse.hear(now, pcm, power) {
                backlog.overheard(now_ms);
            }
            backlog.hear(now_ms, pcm, power);
            voice = habits.hear(now, pcm, speaking);
        });
        let unremarkable = voice.is_none() && talk.pulse.deadline() == suspected;
        self.mind_the_voice(talk, voice);
        // The session has written it, unless the service does not read, or it is quiet and gathered.
        if let Some(sent_at) = sent_at {
            self.leg.note_uplink(sent_at.saturating_duration_since(since));
            if let Some(level) = talk.levels.look(sent_at) {
                self.ledger.show(level);
            }
        }
        unremarkable
    }

    pub(super) fn leg_signal(&mut self, talk: &mut Talk, signal: LegSignal) {
        match signal {
            LegSignal::Audio { since } => {
                self.heard(talk, since);
            }
            LegSignal::ItemStarted(item) | LegSignal::ItemFinished { item, .. } if is_filler(&item) => {}
            LegSignal::ItemStarted(item) => talk.conversation.item_started(self.now_ms(), &item_id(item)),
            LegSignal::ItemFinished { item, played_ms } => {
                talk.habits.stirred(Instant::now());
                talk.conversation.item_finished(self.now_ms(), &item_id(item), millis(played_ms));
            }
            LegSignal::Sent { .. } => self.slot_after_cut(talk),
            LegSignal::Dtmf { digit, .. } if self.key_for_tool(digit) => {}
            LegSignal::Dtmf { digit, .. } => {
                talk.digits.push(digit);
                talk.digits_until = Some(Instant::now() + DIGIT_PAUSE);
                talk.habits.key_pressed(Instant::now());
            }
            LegSignal::MediaChanged { state, .. } => talk.habits.held(Instant::now(), state == HELD_BY_PEER),
            LegSignal::DtmfSent
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
        let now_ms = self.now_ms();
        let failed = talk.watch.event(Instant::now(), &event);
        talk.pulse.told();
        let speaks = talk.keep(now_ms, &event);
        talk.conversation.provider(now_ms, &event);
        Self::note_manners(talk, &event);
        match event {
            Event::Audio { item, pcm } if talk.conversation.accepts(&item) => {
                self.assistant_speaks();
                talk.dropped_ms += self.leg.play(&ItemKey(item.0), &pcm);
                talk.levels.playing(Instant::now(), &pcm);
            }
            Event::AudioDone { item } => self.leg.end_item(&ItemKey(item.0)),
            Event::SpeechStarted { .. } if speaks => {
                self.caller_speaks();
                self.barge_in(talk);
            }
            // A turn that is heard again is no reason to hold back what is being said.
            Event::SpeechStarted { .. } => self.leg.resume(),
            Event::ToolCall { id, name, arguments } => self.run_tool(talk, plan, id, &name, &arguments),
            Event::Used(usage) => self.used(talk, plan.provider(talk.line.place), &usage),
            Event::TurnDone { status: TurnStatus::Failed(reason) } => {
                warn!(reason, "the assistant's turn failed");
            }
            Event::Warning { code, message } => debug!(code, message, "the provider warns"),
            Event::Audio { .. }
            | Event::SpeechStopped { .. }
            | Event::TranscriptPartial { .. }
            | Event::TranscriptFinal { .. }
            | Event::Heard { .. }
            | Event::TurnStarted
            | Event::TurnDone { .. }
            | Event::Closed { .. } => {}
        }
        match failed {
            None => {}
            Some(Failed::Again(owed)) => talk.send(match owed {
                Owed::Words(words) => Command::Say(words),
                Owed::About(about) => Command::Respond { instructions: Some(about) },
                Owed::Answer => Command::Respond { instructions: None },
            }),
            Some(Failed::Lost) => self.lose(talk, plan, &SessionFault::Stalled, "its responses fail"),
            Some(Failed::Quota) => {
                self.lose(talk, plan, &SessionFault::QuotaExhausted, "the account has no quota left");
            }
        }
    }

    /// The caller speaks: nothing of the assistant leaves after the slot that is due next.
    pub(super) fn barge_in(&mut self, talk: &mut Talk) {
        if talk.habits.talks_on() {
            return;
        }
        let heard_at = Instant::now();
        let playing = unfinished(self.leg.clear());
        talk.levels.cleared(heard_at);
        talk.watch.cleared(heard_at);
        if !talk.spec.turns.interrupt_response {
            // The service goes on by itself otherwise.
            talk.send(Command::CancelResponse);
        }
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
        talk.watch.cleared(Instant::now());
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
            talk.send(Command::Say(talk.habits.closing()));
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
    /// A conversation on this line, whose session was dialled then.
    pub(super) fn new(line: Line, dialled: Instant, origin_ms: u64, plan: &AssistantPlan) -> Self {
        let now = Instant::now();
        let mut watch = Watch::new(now, plan.recovery.patience);
        watch.of_session(line.can_stall(), plan.spec.turns.create_response && line.silence_ends_turns());
        Self {
            renewal: Renewal::new(dialled, line.limit()),
            line,
            conversation: Conversation::new(origin_ms),
            spec: plan.spec.clone(),
            watch,
            backlog: Backlog::default(),
            pulse: Pulse::default(),
            openings: None,
            ready: None,
            lost_at: None,
            up_since: now,
            short_lived: 0,
            cut: None,
            leaving: None,
            digits: String::new(),
            digits_until: None,
            habits: Habits::new(plan.manners.clone(), now),
            onward: None,
            ends_at: plan.max_duration.map(|limit| now + limit),
            partials: HashMap::new(),
            levels: Levels::new(now),
            dropped_ms: 0,
        }
    }

    /// Asks this of the session. What is asked while there is none, the next one is asked or told.
    pub(super) fn send(&mut self, command: Command) {
        let known = self.watch.knows_call(&command);
        self.watch.sent(Instant::now(), &command);
        match &command {
            Command::CallerText(text) => {
                self.conversation.note(HistoryItem::said(Speaker::Caller, text.as_str()));
            }
            Command::Note(text) => self.conversation.note(HistoryItem::Note(text.clone())),
            Command::Update { instructions, language, tools } => {
                let spec = &mut self.spec;
                spec.instructions =
                    instructions.clone().unwrap_or_else(|| std::mem::take(&mut spec.instructions));
                spec.language = language.clone().or(spec.language.take());
                spec.tools = tools.clone().unwrap_or_else(|| std::sync::Arc::clone(&spec.tools));
            }
            Command::ToolResult { id, output, respond, .. } => {
                self.conversation.tool_answered(id, output);
                if !known {
                    return self.late_result(id, output, *respond);
                }
            }
            Command::Say(_)
            | Command::Respond { .. }
            | Command::Truncate { .. }
            | Command::CancelResponse
            | Command::Close => {}
        }
        self.line.send(command);
    }

    /// A tool answers that a session before the present one has called.
    fn late_result(&mut self, id: &str, output: &str, respond: bool) {
        let name = self.conversation.tool_name(id).unwrap_or("unknown").to_owned();
        self.line.send(Command::Note(late_result(&name, output)));
        if respond {
            self.send(Command::Respond { instructions: None });
        }
    }

    /// The call ends once the assistant's last words have been heard.
    pub(super) fn leave(&mut self, reason: &str, now: Instant) {
        let reason = reason.to_owned();
        self.leaving.get_or_insert(Leaving { reason, until: now + FAREWELL });
    }

    /// No further session is wanted.
    pub(super) fn give_up_search(&mut self) {
        self.watch.forgive();
        (self.openings, self.ready) = (None, None);
    }

    /// Keeps the caller's audio for as long as it may be needed again. Answers whether the caller has just begun to
    /// speak, which they have not when a session hears again what they said before.
    fn keep(&mut self, now_ms: u64, event: &Event) -> bool {
        match event {
            Event::SpeechStarted { at_ms, item } => {
                let replayed = self.conversation.was_replayed(*at_ms);
                return self.backlog.started(now_ms, item.clone(), replayed);
            }
            Event::SpeechStopped { item, .. } => self.backlog.stopped(item.as_ref()),
            Event::TranscriptFinal { who: Speaker::Caller, item, .. } => self.backlog.known(item),
            Event::TurnDone { status: TurnStatus::Completed } => self.backlog.answered(now_ms),
            _ => {}
        }
        false
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        let openings = self.openings.as_ref().and_then(Openings::deadline);
        let renewal = self.renewal.deadline(now).filter(|_| self.line.is_up());
        let watch = self.watch.deadline();
        let pulse = self.pulse.deadline().filter(|_| self.line.is_up());
        let own = [self.digits_until, self.ends_at, leaving, self.onward, self.habits.wakes_at()];
        [openings, renewal, watch, pulse].into_iter().chain(own).flatten().min()
    }
}

/// The next opening that ends, if any is under way.
async fn opened(openings: Option<&mut Openings>) -> Opening {
    match openings {
        Some(openings) => openings.next().await,
        None => std::future::pending().await,
    }
}

/// As [`LegSignal::MediaChanged`] says it.
const HELD_BY_PEER: &str = "held_by_peer";
/// Keys pressed within this time are told to the assistant together.
const DIGIT_PAUSE: Duration = Duration::from_millis(1500);
/// Partial lines are shown at most this often.
const PARTIAL_INTERVAL: Duration = Duration::from_millis(100);
