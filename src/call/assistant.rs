//! A caller talks with an assistant: the heart of a call.
//!
//! Caller audio goes from the leg into the session as it arrives; assistant audio goes from the session
//! into the leg's playout queue. When the session hears the caller speak, the queue is dropped at once
//! and the session is told what really left on RTP. Everything said goes through the
//! [`Conversation`] into the record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{debug, info, warn};

use super::conversation::{Action, Conversation, Playback};
use super::levels::Levels;
use super::tools::{Request, Toolbox};
use super::{Call, Over, Prompts, Wake};
use crate::event::{CallEventKind, Disposition, Ephemeral, Floor, Phase};
use crate::id::LineId;
use crate::provider::{
    CloseReason, Command, Event, ItemId, Provider, ProviderError, Session, SessionSpec, Speaker, TurnStatus,
};
use crate::rtp::{ItemKey, PlayedItem};
use crate::sip::leg::LegSignal;
use crate::sip::message::StatusCode;

use super::handle::CallCommand;
use super::ledger::Ending;

/// Who talks with the caller, and how.
#[derive(Clone)]
pub struct AssistantPlan {
    /// Its provider.
    pub provider: Arc<dyn Provider>,
    /// What its sessions are opened with.
    pub spec: SessionSpec,
    /// The first words; `None`: the assistant finds its own.
    pub greeting: Option<String>,
    /// What it may do.
    pub toolbox: Toolbox,
    /// The call ends politely after this long.
    pub max_duration: Option<Duration>,
    /// What the caller hears when the assistant is lost.
    pub prompts: Prompts,
}

/// Why a conversation ended while the call goes on. There is no such reason yet but a flow that continues
/// after its assistant step once the assistant has hung up is cut short by [`Over`].
type Talked = Result<(), Over>;

struct Talk {
    session: Box<dyn Session>,
    conversation: Conversation,
    /// The line that was cut last, until the slot that follows has left.
    cut: Option<Cut>,
    /// The assistant wants to hang up once it has been heard.
    leaving: Option<Leaving>,
    responding: bool,
    digits: String,
    digits_until: Option<Instant>,
    ends_at: Option<Instant>,
    partials: HashMap<LineId, Instant>,
    levels: Levels,
    dropped_ms: u64,
}

struct Cut {
    lines: Vec<(LineId, u32)>,
    heard_at: Instant,
}

struct Leaving {
    reason: String,
    until: Instant,
}

impl Call {
    /// Connects the caller with the assistant and lets them talk until one of them hangs up. The phone
    /// rings while the session is being opened, so that the caller never hears silence.
    ///
    /// # Errors
    /// [`Over`] when the call has ended, which is how a conversation ends.
    pub async fn converse(&mut self, plan: &AssistantPlan) -> Talked {
        if !self.is_answered() {
            self.phase(Phase::Connecting, Floor::None);
        }
        let dialled = Instant::now();
        let session = match self.open(plan).await? {
            Ok(session) => session,
            Err(error) => return self.without_assistant(plan, &error).await,
        };
        let connect_ms = dialled.elapsed().as_millis() as u64;
        metrics::histogram!("tandem_provider_connect_seconds").record(dialled.elapsed());
        let provider = plan.provider.name().to_owned();
        self.ledger.record(CallEventKind::ProviderConnected { provider, connect_ms });
        self.answer().await?;
        self.phase(Phase::InCall, Floor::Assistant);
        let mut talk = Talk::new(session, self.now_ms(), plan);
        // Whoever answers a phone speaks first.
        talk.session.send(match &plan.greeting {
            Some(greeting) => Command::Say(greeting.clone()),
            None => Command::Respond { instructions: None },
        });
        let ended = self.talk(&mut talk, plan).await;
        self.bring_out(&mut talk);
        talk.session.send(Command::Close);
        ended
    }

    /// Opens a session on the ordinary runtime while the call goes on here.
    async fn open(&mut self, plan: &AssistantPlan) -> Result<Result<Box<dyn Session>, ProviderError>, Over> {
        let (tell, mut told) = tokio::sync::oneshot::channel();
        let opening = plan.provider.open(plan.spec.clone());
        let task = self.runtime.spawn(async move {
            // A call that ended meanwhile does not want the session any more.
            let _unwanted = tell.send(opening.await);
        });
        let guard = AbortOnDrop(task.abort_handle());
        let opened = loop {
            let wait = self.next(None, Some(Instant::now() + OPENING_CHECK));
            tokio::select! {
                biased;
                opened = &mut told => break opened,
                wake = wait => if let Wake::Leg(LegSignal::Audio { .. }) = wake? {
                    self.hear(|_| ());
                },
            }
        };
        drop(guard);
        let name = plan.provider.name().to_owned();
        Ok(match opened {
            Ok(Ok(session)) => session
                .settle()
                .map_err(|error| ProviderError::Unreachable { provider: name, cause: error.to_string() }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(ProviderError::Unreachable { provider: name, cause: "opening it failed".to_owned() })
            }
        })
    }

    async fn without_assistant(&mut self, plan: &AssistantPlan, error: &ProviderError) -> Talked {
        warn!(%error, "no assistant for this call");
        metrics::counter!("tandem_provider_open_failures_total").increment(1);
        let (provider, reason) = (plan.provider.name().to_owned(), error.to_string());
        self.ledger.record(CallEventKind::ProviderLost { provider, reason });
        if self.is_answered() {
            self.play(&plan.prompts.apology, None).await?;
        }
        self.fail(StatusCode::SERVICE_UNAVAILABLE, "no assistant could be reached");
        Err(Over)
    }

    async fn talk(&mut self, talk: &mut Talk, plan: &AssistantPlan) -> Talked {
        loop {
            let deadline = talk.deadline();
            let wake = self.next(Some(talk.session.as_mut()), deadline).await?;
            match wake {
                Wake::Leg(signal) => self.leg_signal(talk, signal),
                Wake::Provider(Event::Closed { reason }) => return self.lost(talk, plan, &reason).await,
                Wake::Provider(event) => self.provider_event(talk, plan, event),
                Wake::Command(CallCommand::Say { text, taken }) => {
                    taken.yes();
                    talk.session.send(Command::Say(text));
                }
                Wake::Swapped(cleared) => self.somebody_else(talk, cleared),
                Wake::Deadline => self.deadline(talk),
                Wake::Command(_) | Wake::Move(_) | Wake::Stop => {}
            }
            self.act(talk);
            self.leave_if_heard(talk)?;
        }
    }

    fn leg_signal(&mut self, talk: &mut Talk, signal: LegSignal) {
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

    fn provider_event(&mut self, talk: &mut Talk, plan: &AssistantPlan, event: Event) {
        talk.conversation.provider(self.now_ms(), &event);
        match event {
            Event::Audio { item, pcm } if talk.conversation.accepts(&item) => {
                talk.dropped_ms += self.leg.play(&ItemKey(item.0), &pcm);
                talk.levels.playing(Instant::now(), &pcm);
            }
            Event::AudioDone { item } => self.leg.end_item(&ItemKey(item.0)),
            Event::SpeechStarted { .. } => self.barge_in(talk),
            Event::ToolCall { id, name, arguments } => self.run_tool(talk, plan, id, &name, &arguments),
            Event::TurnStarted => talk.responding = true,
            Event::TurnDone { status, usage: _ } => {
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
            | Event::Closed { .. } => {}
        }
    }

    /// The caller speaks: nothing of the assistant leaves after the slot that is due next.
    fn barge_in(&mut self, talk: &mut Talk) {
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
    fn somebody_else(&mut self, talk: &mut Talk, cleared: Vec<PlayedItem>) {
        talk.levels.cleared(Instant::now());
        talk.cut = None;
        talk.conversation.interrupted(self.now_ms(), &unfinished(cleared));
        let news = "(The caller has handed the phone to somebody else, who hears you from now on.)";
        talk.session.send(Command::CallerText(news.to_owned()));
        talk.session.send(Command::Respond { instructions: None });
    }

    /// The first slot after a barge-in tells how late the last of the assistant's audio left.
    fn slot_after_cut(&mut self, talk: &mut Talk) {
        let Some(cut) = talk.cut.take() else { return };
        self.leg.watch_slots(self.recorder.is_some());
        // The slot carries the fade, which is the last of the assistant's audio.
        let stop_ms = cut.heard_at.elapsed().as_secs_f64() * 1000.0;
        metrics::histogram!("tandem_barge_in_stop_seconds").record(stop_ms / 1000.0);
        for (line_id, played_ms) in cut.lines {
            self.ledger.record(CallEventKind::BargeIn { line_id, played_ms: u64::from(played_ms), stop_ms });
        }
    }

    fn run_tool(&mut self, talk: &mut Talk, plan: &AssistantPlan, id: String, name: &str, arguments: &str) {
        let started = Instant::now();
        let request = plan.toolbox.interpret(name, arguments);
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let args = match &request {
            Ok(Request::SendDtmf { digits }) => json!({"digits": "*".repeat(digits.len())}),
            Ok(Request::EndCall { .. }) | Err(_) => json!({}),
        };
        self.ledger.record(CallEventKind::ToolStarted { id: id.clone(), name: shown.clone(), args });
        let (output, respond, ok) = match request {
            Ok(Request::EndCall { reason }) => {
                talk.leaving = Some(Leaving { reason, until: started + FAREWELL });
                (json!({"ok": true}).to_string(), false, true)
            }
            Ok(Request::SendDtmf { digits }) => {
                self.leg.send_dtmf(&digits);
                (json!({"ok": true, "keys_pressed": digits.len()}).to_string(), true, true)
            }
            Err(refusal) => (json!({"error": refusal.to_string()}).to_string(), true, false),
        };
        talk.session.send(Command::ToolResult { id: id.clone(), output, respond });
        let ms = started.elapsed().as_millis() as u64;
        self.ledger.record(CallEventKind::ToolFinished { id, name: shown, ms, ok });
    }

    fn deadline(&mut self, talk: &mut Talk) {
        let now = Instant::now();
        if talk.digits_until.is_some_and(|at| now >= at) {
            talk.digits_until = None;
            let digits = std::mem::take(&mut talk.digits);
            talk.session.send(Command::CallerText(format!("(The caller pressed {digits} on the phone.)")));
            talk.session.send(Command::Respond { instructions: None });
        }
        if talk.ends_at.is_some_and(|at| now >= at) {
            talk.ends_at = None;
            info!("the call has reached its longest duration");
            talk.session.send(Command::Say("I am sorry, our time is up. Goodbye.".to_owned()));
            let reason = "the longest duration was reached".to_owned();
            talk.leaving.get_or_insert(Leaving { reason, until: now + FAREWELL });
        }
    }

    /// Does what the conversation asks for.
    fn act(&mut self, talk: &mut Talk) {
        for action in talk.conversation.take_actions() {
            match action {
                Action::Partial { line_id, who, text } => self.show_partial(talk, line_id, who, text),
                Action::Line(line) => {
                    talk.partials.remove(&line.line_id);
                    self.ledger.record(CallEventKind::Transcript(line));
                }
                Action::Command(command) => talk.session.send(command),
                Action::BargeIn { line_id, played_ms } => {
                    if let Some(cut) = &mut talk.cut {
                        cut.lines.push((line_id, played_ms));
                    }
                }
            }
        }
    }

    fn show_partial(&self, talk: &mut Talk, line_id: LineId, who: Speaker, text: String) {
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

    /// Hangs up for the assistant once its last words have left, or its time for them is over.
    fn leave_if_heard(&mut self, talk: &mut Talk) -> Talked {
        let Some(leaving) = &talk.leaving else { return Ok(()) };
        let heard = !talk.responding && self.leg.is_idle() && talk.conversation.is_heard_out();
        if heard || Instant::now() >= leaving.until {
            let reason = leaving.reason.clone();
            self.hang_up("assistant", &reason);
            return Err(Over);
        }
        Ok(())
    }

    /// The session is gone: what was generated is still played, then the caller is told.
    async fn lost(&mut self, talk: &mut Talk, plan: &AssistantPlan, reason: &CloseReason) -> Talked {
        warn!(?reason, "the assistant is lost");
        metrics::counter!("tandem_provider_lost_total").increment(1);
        let provider = plan.provider.name().to_owned();
        self.ledger.record(CallEventKind::ProviderLost { provider, reason: words(reason).to_owned() });
        self.bring_out(talk);
        self.phase(Phase::InCall, Floor::None);
        self.play(&plan.prompts.apology, None).await?;
        let ending = Ending::new(Disposition::Failed, "system", 502, "the assistant was lost");
        self.leg.hang_up(crate::sip::ua::HangupReason {
            protocol: "Q.850",
            cause: 41,
            text: ending.reason.clone(),
        });
        self.end(ending);
        Err(Over)
    }

    /// Every line heard so far goes into the record.
    fn bring_out(&mut self, talk: &mut Talk) {
        let playing = unfinished(self.leg.clear());
        talk.conversation.finish(self.now_ms(), &playing);
        self.act(talk);
        if talk.dropped_ms > 0 {
            warn!(dropped_ms = talk.dropped_ms, "assistant audio was given up: ten minutes were waiting");
        }
        let stats = talk.session.stats();
        metrics::counter!("tandem_provider_audio_dropped_ms_total").increment(stats.audio_dropped_ms);
        metrics::counter!("tandem_provider_unknown_events_total").increment(stats.unknown_events);
    }
}

impl Talk {
    fn new(session: Box<dyn Session>, origin_ms: u64, plan: &AssistantPlan) -> Self {
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

    fn deadline(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        [self.digits_until, self.ends_at, leaving].into_iter().flatten().min()
    }
}

/// Gives up opening a session when the call has ended.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unfinished(cleared: Vec<PlayedItem>) -> Vec<Playback> {
    let unfinished = cleared.into_iter().filter(|played| !played.complete);
    unfinished.map(|p| Playback { item: item_id(p.item), played_ms: millis(p.played_ms) }).collect()
}

fn item_id(key: ItemKey) -> ItemId {
    ItemId(key.0)
}

fn millis(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn words(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Requested => "closed by us",
        CloseReason::Expired => "the session reached its time limit",
        CloseReason::ByService { .. } => "closed by the service",
        CloseReason::ConnectionLost(_) => "the connection broke",
        CloseReason::Protocol(_) => "the service broke its protocol",
    }
}

/// Keys pressed within this time are told to the assistant together.
const DIGIT_PAUSE: Duration = Duration::from_millis(1500);
/// The assistant's last words may take this long.
const FAREWELL: Duration = Duration::from_secs(15);
/// Partial lines are shown at most this often.
const PARTIAL_INTERVAL: Duration = Duration::from_millis(100);
/// While a session is being opened the call looks up this often even if nothing happens.
const OPENING_CHECK: Duration = Duration::from_secs(1);
