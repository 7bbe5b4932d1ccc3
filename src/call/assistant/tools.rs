//! What the assistant does besides speaking.
//!
//! A tool call is checked here and either done at once, or begun: [`tend_tools`](Call::tend_tools) answers it when it
//! has come to something. Each leaves a beginning and an end in the record, with its arguments masked.

use std::time::{Duration, Instant};

use serde_json::json;

use super::talk::Talk;
use super::{AssistantPlan, Talked};
use crate::call::dial::DialTarget;
use crate::call::tools::{Done, Pending, ToolDesk, Waits, error, print};
use crate::call::{Call, Over};
use crate::event::CallEventKind;
use crate::provider::Command;
use crate::rtp::ItemKey;
use crate::tools::action::Action;
use crate::tools::toolbox::{Job, Work};
use crate::tools::{Invocation, mask};

pub(super) struct Leaving {
    pub(super) reason: String,
    pub(super) until: Instant,
}

/// What becomes of an action of the call.
enum Acted {
    /// It is done.
    Done { outcome: &'static str, output: String, respond: bool },
    /// It will be done.
    Begun(Waits),
}

impl Acted {
    fn ok() -> Self {
        Self::Done { outcome: "ok", output: json!({"ok": true}).to_string(), respond: true }
    }

    fn failed(text: &str) -> Self {
        Self::Done { outcome: "error", output: error(text), respond: true }
    }
}

impl Call {
    pub(super) fn run_tool(
        &mut self,
        talk: &mut Talk,
        plan: &AssistantPlan,
        id: String,
        name: &str,
        arguments: &str,
    ) {
        let started = Instant::now();
        let shown_name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let print = print(name, arguments);
        let refused = self.desk_mut().refuses(print);
        let (args, job) = match plan.toolbox.interpret(name, arguments) {
            Ok(job) => (job.shown.clone(), Ok(job)),
            Err(refusal) => (refusal.shown, Err((refusal.output, true))),
        };
        let job = match refused {
            Some((why, respond)) => Err((error(why), respond)),
            None => job,
        };
        let (id_shown, name_shown) = (id.clone(), shown_name.clone());
        self.ledger.record(CallEventKind::ToolStarted { id: id_shown, name: name_shown, args });
        let speak =
            job.as_ref().ok().and_then(|job| job.speak.clone()).map(|text| (started + SPEAK_AFTER, text));
        let cancel_on_barge_in = job.as_ref().is_ok_and(|job| job.cancel_on_barge_in);
        let done = |id, name, outcome, output, respond| {
            let took = Duration::ZERO;
            Done { id, name, started, took, outcome, output, respond, print }
        };
        match job {
            Err((output, respond)) => {
                self.answer_tool(talk, done(id, shown_name, "refused", output, respond));
            }
            Ok(job) => match self.begin_tool(talk, plan, &id, job) {
                Acted::Done { outcome, output, respond } => {
                    self.answer_tool(talk, done(id, shown_name, outcome, output, respond));
                }
                Acted::Begun(waits) => {
                    let name = shown_name;
                    let pending = Pending { id, name, started, waits, speak, cancel_on_barge_in, print };
                    self.desk_mut().pending.push(pending);
                    self.keys_before(talk);
                }
            },
        }
    }

    /// What was pressed just before keys are collected belongs to the entry.
    fn keys_before(&mut self, talk: &mut Talk) {
        if self.desk_mut().collects() {
            talk.digits_until = None;
            let keys = std::mem::take(&mut talk.digits);
            let now = Instant::now();
            keys.chars().for_each(|key| self.desk_mut().key(key, now));
        }
    }

    fn begin_tool(&mut self, talk: &mut Talk, plan: &AssistantPlan, id: &str, job: Job) -> Acted {
        match job.work {
            Work::Act(action) => self.act_for_tool(talk, plan, action),
            Work::Remote(remote) => {
                let invocation = Invocation {
                    id: id.to_owned(),
                    arguments: job.arguments,
                    call: Some(self.ledger.call()),
                    context: plan.toolbox.context(),
                };
                let runtime = self.runtime.clone();
                Acted::Begun(Waits::Remote(self.desk_mut().spawn(&runtime, remote, job.timeout, invocation)))
            }
        }
    }

    fn act_for_tool(&mut self, talk: &mut Talk, plan: &AssistantPlan, action: Action) -> Acted {
        let now = Instant::now();
        match action {
            Action::EndCall { reason } => {
                // It goes into the record.
                let reason = mask::plain(&reason);
                talk.leaving = Some(Leaving { reason, until: now + FAREWELL });
                Acted::Done { outcome: "ok", output: json!({"ok": true}).to_string(), respond: false }
            }
            Action::SendDtmf { digits } => {
                self.leg.send_dtmf(&digits);
                let output = json!({"ok": true, "keys_pressed": digits.len()}).to_string();
                Acted::Done { outcome: "ok", output, respond: true }
            }
            Action::Transfer { to } => self.transfer_for_tool(plan, &to),
            Action::Hold { span } => {
                if self.reach.hold_music.is_none() {
                    return Acted::failed("there is no music here");
                }
                let item = ItemKey::from(format!("hold-{:016x}", rand::random::<u64>()).as_str());
                let for_others = self.desk_mut().works();
                Acted::Begun(Waits::Hold { until: now + span, item, position: 0, for_others, begun: false })
            }
            Action::CollectDigits(rule) => {
                if self.desk_mut().collects() {
                    return Acted::failed("keys are being collected already");
                }
                let until = now + rule.first;
                Acted::Begun(Waits::Keys { rule, keys: String::new(), until })
            }
            Action::PauseRecording => self.pause_recording_for_tool(true),
            Action::ResumeRecording => self.pause_recording_for_tool(false),
            Action::SetLanguage { language } => {
                let output = json!({"ok": true, "language": language, "note": "Go on in this language."});
                talk.send(Command::Update { instructions: None, language: Some(language), tools: None });
                Acted::Done { outcome: "ok", output: output.to_string(), respond: true }
            }
            Action::AddTag { tag } => {
                self.ledger.record(CallEventKind::Tagged { tag, by: "assistant".to_owned() });
                Acted::ok()
            }
            Action::AddNote { text } => {
                self.ledger.record(CallEventKind::Noted { text, by: "assistant".to_owned() });
                Acted::ok()
            }
        }
    }

    fn transfer_for_tool(&mut self, plan: &AssistantPlan, name: &str) -> Acted {
        let Some(target) = plan.toolbox.destination(name) else {
            return Acted::failed("this assistant cannot move calls there");
        };
        let target = match DialTarget::parse(target) {
            Ok(target) => target,
            Err(cause) => {
                tracing::warn!(destination = name, cause, "a destination of transfer_to cannot be dialled");
                return Acted::failed("that destination cannot be dialled");
            }
        };
        match self.move_for_assistant(target) {
            Ok(()) => Acted::Begun(Waits::Transfer),
            Err(cause) => Acted::failed(cause),
        }
    }

    fn pause_recording_for_tool(&mut self, pause: bool) -> Acted {
        if self.recorder.is_none() {
            return Acted::failed("the call is not recorded");
        }
        self.pause_recording(pause);
        Acted::ok()
    }

    /// Leaves silence in the recording from here on, or ends that.
    fn pause_recording(&mut self, pause: bool) {
        let desk = self.desk_mut();
        if std::mem::replace(&mut desk.unrecorded, pause) != pause {
            let file = self.recording_file();
            let state = if pause { "paused" } else { "resumed" }.to_owned();
            self.ledger.record(CallEventKind::Recording { state, file });
        }
    }

    /// The model is told what came of its call, and so is the record.
    fn answer_tool(&mut self, talk: &mut Talk, done: Done) {
        let Done { id, name, started, took, outcome, output, respond, print } = done;
        let ok = outcome == "ok";
        self.desk_mut().came_of(print, ok);
        talk.send(Command::ToolResult { id: id.clone(), output, ok, respond });
        metrics::histogram!("tandem_tool_overhead_seconds").record(started.elapsed().saturating_sub(took));
        self.note_tool_finished(id, name, started, outcome);
    }

    fn note_tool_finished(&mut self, id: String, name: String, started: Instant, outcome: &'static str) {
        let ms = started.elapsed().as_millis() as u64;
        metrics::counter!("tandem_tool_calls_total", "outcome" => outcome).increment(1);
        let (ok, outcome) = (outcome == "ok", outcome.to_owned());
        self.ledger.record(CallEventKind::ToolFinished { id, name, ms, ok, outcome });
    }

    /// Answers what can be answered, and does what is due meanwhile.
    pub(super) fn tend_tools(&mut self, talk: &mut Talk) {
        if self.desk.is_none() {
            return;
        }
        let now = Instant::now();
        self.tend_hold(now);
        let desk = self.desk_mut();
        let late: Vec<String> = desk.pending.iter().filter_map(|pending| late_entry(pending, now)).collect();
        late.iter().for_each(|id| desk.collected(id));
        while let Some(done) = self.desk.as_mut().and_then(|desk| desk.done.pop_front()) {
            self.answer_tool(talk, done);
        }
        self.speak_meanwhile(talk, now);
    }

    /// Says what a tool has its caller told while it runs, unless the assistant has just said something itself.
    fn speak_meanwhile(&mut self, talk: &mut Talk, now: Instant) {
        let idle = self.leg.is_idle();
        let Some(desk) = self.desk.as_mut() else { return };
        let heard = desk.audible.is_some_and(|at| now.saturating_duration_since(at) < JUST_SPOKE);
        for pending in &mut desk.pending {
            let Some((at, _)) = &mut pending.speak else { continue };
            if now < *at {
                continue;
            }
            if talk.watch.is_due() {
                *at = now + SPEAK_AGAIN;
                continue;
            }
            if let Some((_, text)) = pending.speak.take()
                && idle
                && !heard
            {
                talk.send(Command::Say(text));
                // One is enough for several that run.
                desk.pending.iter_mut().for_each(|pending| pending.speak = None);
                return;
            }
        }
    }

    /// Keeps the music going, or ends it.
    fn tend_hold(&mut self, now: Instant) {
        let Some(music) = self.reach.hold_music.clone() else { return };
        let Some(desk) = self.desk.as_mut() else { return };
        let works = desk.works();
        let mut over = None;
        for pending in &mut desk.pending {
            let Waits::Hold { until, item, position, for_others, begun } = &mut pending.waits else {
                continue;
            };
            // Others of the same response may have been called after it.
            *for_others |= works;
            if now >= *until || (*for_others && !works) {
                over = Some(if now >= *until { "the time is over" } else { "the other tools have answered" });
                break;
            }
            if !music.is_empty() && (*begun || self.leg.is_idle()) && self.leg.queued() < MUSIC_AHEAD {
                *begun = true;
                let end = (*position + MUSIC_SAMPLES).min(music.len());
                self.leg.play(item, &music[*position..end]);
                *position = if end == music.len() { 0 } else { end };
            }
        }
        if let Some(why) = over {
            self.end_hold(why);
        }
    }

    /// Ends the music, if there is any.
    fn end_hold(&mut self, why: &str) {
        let Some(desk) = self.desk.as_mut().filter(|desk| desk.holds()) else { return };
        // Where there is music, nothing else is queued.
        if desk.pending.iter().any(|pending| matches!(pending.waits, Waits::Hold { begun: true, .. })) {
            self.leg.clear();
        }
        let ids: Vec<String> = desk
            .pending
            .iter()
            .filter(|pending| matches!(pending.waits, Waits::Hold { .. }))
            .map(|pending| pending.id.clone())
            .collect();
        for id in ids {
            if let Some(pending) = desk.take(&id) {
                let took = pending.started.elapsed();
                let output = json!({"ok": true, "ended_because": why}).to_string();
                // Others that have answered make the assistant speak; so does the caller.
                let respond = why == "the time is over";
                desk.finish(pending, took, "ok", output, respond);
            }
        }
    }

    /// The assistant is heard: no music over it.
    pub(super) fn assistant_speaks(&mut self) {
        if let Some(desk) = &mut self.desk {
            desk.audible = Some(Instant::now());
            if desk.holds() {
                self.end_hold("you spoke");
            }
        }
    }

    /// The caller speaks.
    pub(super) fn caller_speaks(&mut self) {
        self.end_hold("the caller spoke");
        if let Some(desk) = &mut self.desk {
            desk.barge_in();
        }
    }

    /// Takes a key of the caller if keys are being collected; whether it did.
    pub(super) fn key_for_tool(&mut self, digit: char) -> bool {
        match self.desk.as_mut().filter(|desk| desk.collects()) {
            Some(desk) => {
                desk.key(digit, Instant::now());
                true
            }
            None => false,
        }
    }

    /// The conversation is over: what is under way is given up, and the record says so.
    pub(super) fn close_tools(&mut self) {
        self.end_hold("the conversation is over");
        if self.desk.as_ref().is_some_and(|desk| desk.unrecorded) {
            self.pause_recording(false);
        }
        let Some(desk) = self.desk.take() else { return };
        let ToolDesk { done, pending, .. } = *desk;
        for done in done {
            self.note_tool_finished(done.id, done.name, done.started, done.outcome);
        }
        for pending in pending {
            self.note_tool_finished(pending.id, pending.name, pending.started, "cancelled");
        }
    }

    fn desk_mut(&mut self) -> &mut ToolDesk {
        self.desk.get_or_insert_default()
    }

    /// Hangs up for the assistant once its last words have left, or its time for them is over.
    pub(super) fn leave_if_heard(&mut self, talk: &mut Talk) -> Talked {
        let Some(leaving) = &talk.leaving else { return Ok(()) };
        let heard = !talk.watch.is_due() && self.leg.is_idle() && talk.conversation.is_heard_out();
        if heard || Instant::now() >= leaving.until {
            let reason = leaving.reason.clone();
            self.hang_up("assistant", &reason);
            return Err(Over);
        }
        Ok(())
    }
}

/// The id of an entry of keys whose time is over.
fn late_entry(pending: &Pending, now: Instant) -> Option<String> {
    match &pending.waits {
        Waits::Keys { until, .. } if now >= *until => Some(pending.id.clone()),
        _ => None,
    }
}

/// The assistant's last words may take this long.
pub(super) const FAREWELL: Duration = Duration::from_secs(15);
/// A tool that takes longer has the caller told something.
const SPEAK_AFTER: Duration = Duration::from_millis(700);
/// While the model still generates, it is looked at again after this long.
const SPEAK_AGAIN: Duration = Duration::from_millis(100);
/// An assistant that was heard within this time has said by itself what there is to say.
const JUST_SPOKE: Duration = Duration::from_millis(2500);
/// Music is queued so far ahead, a bit at a time.
const MUSIC_AHEAD: Duration = Duration::from_millis(800);
const MUSIC_SAMPLES: usize = crate::audio::BRIDGE_RATE as usize / 2;
