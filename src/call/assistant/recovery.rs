//! The session is lost in mid-call, or about to be: another one takes over.
//!
//! What was generated is still heard. The new session is opened with the conversation so far; it hears what the
//! caller has said and no transcript tells yet, and is asked for whatever the caller was owed. Nothing of it is
//! decided here: `race` says whom to try, `watch` what is owed, `backlog` what is heard again, `renewal` when a
//! session must be replaced.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::opening::{GivenUp, Openings, Ready};
use super::pulse::Finding;
use super::race::order_after;
use super::renewal::Renewal;
use super::talk::Talk;
use super::watch::{Open, Owed};
use super::{AssistantPlan, FILLER, Talked, unfinished, words};
use crate::call::conversation::Conversation;
use crate::call::ledger::Ending;
use crate::call::{Call, Over};
use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::provider::{CloseReason, Command, HistoryItem, Session, SessionFault, Speaker};
use crate::rtp::ItemKey;

impl Call {
    /// What has to be done without anything having happened: silence, openings, time limits.
    pub(super) fn look_after(
        &mut self,
        talk: &mut Talk,
        plan: &AssistantPlan,
        now: Instant,
    ) -> Result<(), GivenUp> {
        talk.watch.playing(now, self.leg.queued());
        if talk.line.is_up() && talk.watch.has_stalled(now) {
            self.lose(talk, plan, &SessionFault::Stalled, "an answer was due and nothing came");
        }
        if talk.line.is_up() {
            self.feel_pulse(talk, plan, now);
        }
        if talk.watch.fill(now) {
            self.fill(talk, plan);
        }
        let quiet = talk.watch.is_quiet(now) && !talk.backlog.has_turns() && self.leg.is_idle();
        if let Some(ready) = talk.ready.take() {
            let between = !talk.watch.caller_speaks() && !talk.watch.is_due();
            if !talk.line.is_up() || talk.renewal.switches(now, quiet, between) {
                self.switch(talk, plan, ready);
            } else {
                talk.ready = Some(ready);
            }
        } else if talk.line.is_up()
            && talk.openings.is_none()
            && talk.leaving.is_none()
            && talk.renewal.opens(now, quiet)
        {
            info!("the session is renewed before its time limit");
            let order = order_after(talk.line.place, plan.chain.len(), true);
            talk.openings = Some(Openings::new(order, 1, plan));
        }
        let Some(mut openings) = talk.openings.take() else { return Ok(()) };
        let snapshot = || talk.conversation.snapshot();
        match self.open_more(&mut openings, plan, &talk.spec, snapshot) {
            Ok(()) => talk.openings = Some(openings),
            Err(GivenUp) if talk.line.is_up() => talk.renewal.failed(now),
            Err(GivenUp) => return Err(GivenUp),
        }
        Ok(())
    }

    /// Looks whether the service still hears the caller.
    fn feel_pulse(&mut self, talk: &mut Talk, plan: &AssistantPlan, now: Instant) {
        if talk.pulse.deadline().is_none() {
            return;
        }
        match talk.pulse.look(now, talk.line.stats().messages) {
            None => {}
            Some(Finding::Ask) if talk.line.probe() => {}
            Some(Finding::Ask) => talk.pulse.give_up(now),
            Some(Finding::Lives) => talk.backlog.was_nothing(),
            Some(Finding::Dead) => {
                self.lose(talk, plan, &SessionFault::Stalled, "the caller spoke and nothing came");
            }
        }
    }

    /// The caller would hear nothing though an answer is due.
    fn fill(&mut self, talk: &mut Talk, plan: &AssistantPlan) {
        let Some(filler) = plan.recovery.filler.as_deref() else { return };
        metrics::counter!("tandem_fillers_total").increment(1);
        let item = ItemKey::from(format!("{FILLER}{:016x}", rand::random::<u64>()).as_str());
        self.leg.play(&item, filler);
        self.leg.end_item(&item);
        talk.watch.filling(Instant::now(), self.leg.queued());
    }

    /// The session said that it is over.
    pub(super) fn closed(&mut self, talk: &mut Talk, plan: &AssistantPlan, reason: &CloseReason) {
        let fault = match reason {
            CloseReason::Requested => return,
            CloseReason::HungUp => {
                self.end_session(talk);
                talk.leave(words(reason), Instant::now());
                return talk.give_up_search();
            }
            CloseReason::Expired => SessionFault::Expired,
            CloseReason::QuotaExhausted => SessionFault::QuotaExhausted,
            CloseReason::Protocol(_) => SessionFault::Protocol,
            CloseReason::ByService { .. } | CloseReason::ConnectionLost(_) => SessionFault::Lost,
        };
        self.lose(talk, plan, &fault, words(reason));
    }

    /// The session is of no more use: another one is looked for.
    pub(super) fn lose(&mut self, talk: &mut Talk, plan: &AssistantPlan, fault: &SessionFault, reason: &str) {
        warn!(reason, "the assistant is lost");
        metrics::counter!("tandem_provider_lost_total").increment(1);
        let place = talk.line.place;
        if let Some(provider) = plan.chain.get(place) {
            provider.report(fault);
        }
        let provider = plan.provider(place).to_owned();
        self.ledger.record(CallEventKind::ProviderLost { provider, reason: reason.to_owned() });
        self.end_session(talk);
        talk.watch.lost();
        let now = Instant::now();
        talk.lost_at.get_or_insert(now);
        let lived = now.saturating_duration_since(talk.up_since);
        talk.short_lived = if lived < SHORT_LIVED { talk.short_lived + 1 } else { 0 };
        if talk.leaving.is_some() {
            // Its last words are cut short; nobody else would say them better.
            return talk.give_up_search();
        }
        talk.backlog.outage(self.now_ms());
        if let Some(openings) = &mut talk.openings {
            // It was looked for at leisure.
            openings.insist(ROUNDS);
        } else if talk.ready.is_none() {
            let itself_first = *fault == SessionFault::Expired;
            let mut order = order_after(place, plan.chain.len(), itself_first);
            if talk.short_lived >= SHORT_LIVED_MAX {
                order.clear();
            }
            talk.openings = Some(Openings::new(order, ROUNDS, plan));
        }
    }

    /// Lets the session go; what came of it is heard to its end.
    fn end_session(&mut self, talk: &mut Talk) {
        talk.line.take_down();
        for item in talk.conversation.lost() {
            self.leg.end_item(&ItemKey(item.0));
        }
    }

    /// Goes on with this session.
    fn switch(&mut self, talk: &mut Talk, plan: &AssistantPlan, ready: Ready) {
        let now = Instant::now();
        let Ready { place, session, dialled, connect_ms, snapshot } = ready;
        let gap_ms = talk.lost_at.take().map_or(0, |at| now.saturating_duration_since(at).as_millis() as u64);
        self.end_session(talk);
        talk.openings = None;
        talk.line.take_up(session, place);
        talk.up_since = now;
        talk.renewal = Renewal::new(dialled, talk.line.limit());
        let answers = talk.spec.turns.create_response && talk.line.silence_ends_turns();
        talk.watch.of_session(talk.line.can_stall(), answers);
        talk.pulse.of_another();
        let provider = plan.provider(place).to_owned();
        info!(provider, gap_ms, "the conversation goes on with another session");
        metrics::counter!("tandem_failovers_total").increment(1);
        metrics::histogram!("tandem_failover_gap_seconds").record(gap_ms as f64 / 1000.0);
        let gap_ms = Some(gap_ms);
        self.ledger.record(CallEventKind::ProviderConnected { provider, connect_ms, resumed: true, gap_ms });
        let since = talk.conversation.since(&snapshot);
        since.into_iter().for_each(|item| talk.line.send(news(item)));
        self.go_on(talk, now);
    }

    /// The new session hears and is asked what is open.
    fn go_on(&mut self, talk: &mut Talk, now: Instant) {
        let silent_since = talk.watch.silent_since();
        let speaking = talk.backlog.is_open();
        let open = talk.watch.taken_over(now);
        let replay = talk.backlog.replay();
        if replay.whole_turn && talk.line.is_up() {
            let cut = open.first().and_then(|open| open.begun.as_ref());
            let heard = cut.and_then(|item| talk.conversation.heard_of(item));
            if let Some(note) = before_a_turn(heard.as_deref(), open.is_empty()) {
                talk.line.send(Command::Note(note));
            }
        }
        let heard = !replay.pcm.is_empty() && talk.line.send_backlog(&replay.pcm);
        let (places, replayed_ms) = match heard {
            true => (replay.places.as_slice(), replay.pcm.len() as u64 / 24),
            false => ([].as_slice(), 0),
        };
        talk.conversation.resume(self.now_ms(), places, replayed_ms);
        if !heard {
            talk.backlog.forget();
        }
        let goes_on = speaking && heard;
        if goes_on {
            talk.watch.goes_on_speaking();
        }
        talk.habits.another_session(now, goes_on);
        for command in asks(&talk.conversation, open, replay.whole_turn, heard) {
            match command {
                Ask::Of(command) => talk.send(command),
                // It answers the turn it hears.
                Ask::Nothing => talk.watch.sent(now, &Command::Respond { instructions: None }),
            }
        }
        if speaking && !heard && !replay.whole_turn {
            talk.send(Command::Respond { instructions: Some(SAY_AGAIN.to_owned()) });
        }
        if let Some(since) = silent_since {
            talk.watch.waits_since(since);
        }
    }

    /// Nobody can go on with the conversation: the flow goes on, or the call ends.
    pub(super) async fn nobody_left(&mut self, talk: &mut Talk, plan: &AssistantPlan) -> Talked {
        metrics::counter!("tandem_calls_without_assistant_total").increment(1);
        self.bring_out(talk);
        self.phase(Phase::InCall, Floor::None);
        // Somebody is being called for the caller: they may still answer.
        while self.moving.is_some() {
            self.wait(LOOK_AT_TRANSFER).await?;
        }
        if let Some(leaving) = &talk.leaving {
            let reason = leaving.reason.clone();
            self.hang_up("assistant", &reason);
            return Err(Over);
        }
        if !plan.last {
            return Ok(());
        }
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
    pub(super) fn bring_out(&mut self, talk: &mut Talk) {
        let playing = unfinished(self.leg.clear());
        talk.conversation.finish(self.now_ms(), &playing);
        self.act(talk);
        if talk.dropped_ms > 0 {
            warn!(dropped_ms = talk.dropped_ms, "assistant audio was given up: ten minutes were waiting");
        }
        let stats = talk.line.stats();
        metrics::counter!("tandem_provider_audio_dropped_ms_total").increment(stats.audio_dropped_ms);
        metrics::counter!("tandem_provider_unknown_events_total").increment(stats.unknown_events);
    }
}

/// What a new session is asked for.
enum Ask {
    Of(Command),
    /// To answer what it hears, which it does by itself.
    Nothing,
}

/// How what was owed is asked of a new session. `turn`: the caller's turn is over and its words are not known; `heard`:
/// the session hears it.
fn asks(conversation: &Conversation, open: Vec<Open>, turn: bool, heard: bool) -> Vec<Ask> {
    let about = |text: String| Ask::Of(Command::Respond { instructions: Some(text) });
    let mut asks = Vec::new();
    for Open { owed, begun } in open {
        let said = begun.as_ref().and_then(|item| conversation.heard_of(item));
        match (owed, said) {
            (Owed::Answer, _) if turn && heard => asks.push(Ask::Nothing),
            (Owed::Answer, _) if turn => asks.push(about(SAY_AGAIN.to_owned())),
            (Owed::Answer, None) => asks.push(Ask::Of(Command::Respond { instructions: None })),
            (Owed::About(text), None) => asks.push(about(text)),
            (Owed::Words(text), None) => asks.push(Ask::Of(Command::Say(text))),
            (Owed::Words(text), Some(said)) => {
                let rest = rest_of(&text, &said);
                if !rest.is_empty() {
                    asks.push(Ask::Of(Command::Say(rest)));
                }
            }
            (Owed::Answer | Owed::About(_), Some(said)) => asks.push(about(go_on_after(&said))),
        }
    }
    asks
}

/// The words of `text` that follow as many as were said.
fn rest_of(text: &str, said: &str) -> String {
    text.split_whitespace().skip(said.split_whitespace().count()).collect::<Vec<_>>().join(" ")
}

fn go_on_after(said: &str) -> String {
    format!(
        "A technical fault cut you off in mid-sentence. The caller has heard you say:\n<<<\n{said}\n>>>\nGo on from \
         exactly there, as if nothing had happened. Do not repeat what was heard, do not greet, and do not mention \
         the fault. If nothing is missing, ask briefly how to go on."
    )
}

/// What a session must know before it hears a turn of the caller again.
fn before_a_turn(said: Option<&str>, answered: bool) -> Option<String> {
    match said {
        Some(said) => Some(format!(
            "What the caller says next you have begun to answer when a technical fault cut you off. They have heard:\n\
             <<<\n{said}\n>>>\nGo on from there without repeating it, and do not mention the fault."
        )),
        None if answered => Some(
            "What the caller says next you have answered already. Do not answer it again; ask briefly how to go on."
                .to_owned(),
        ),
        None => None,
    }
}

/// Something that has happened while the session was being opened, as it is told.
fn news(item: HistoryItem) -> Command {
    match item {
        HistoryItem::Said { who: Speaker::Caller, text } => Command::CallerText(text),
        HistoryItem::Said { who: Speaker::Assistant, text } => {
            Command::Note(format!("You have said meanwhile:\n<<<\n{text}\n>>>"))
        }
        HistoryItem::Note(text) => Command::Note(text),
        HistoryItem::Tool { name, output, .. } => Command::Note(late_result(&name, &output)),
    }
}

/// The answer of a tool that an earlier session called.
pub(super) fn late_result(name: &str, output: &str) -> String {
    format!("The tool `{name}`, which you have called before, answers:\n<<<\n{output}\n>>>")
}

const SAY_AGAIN: &str = "What the caller said last was lost in a technical fault. Say so in a few words and ask them to \
                         say it again.";
/// Each provider is tried so often in mid-call before the conversation is given up.
const ROUNDS: u32 = 2;
/// How often it is looked whether a transfer under way has come to something.
const LOOK_AT_TRANSFER: Duration = Duration::from_millis(200);
/// A session that ends so soon was hardly one.
const SHORT_LIVED: Duration = Duration::from_secs(1);
/// So many of them in a row, and no further one is tried.
const SHORT_LIVED_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_gone_on_with_where_they_were_cut() {
        assert_eq!(rest_of("Good morning, this is Acme.", "Good morning,"), "this is Acme.");
        assert_eq!(rest_of("Good morning.", "Good morning."), "");
    }

    #[test]
    fn what_was_not_begun_is_asked_for_again_as_it_was() {
        let open = vec![
            Open { owed: Owed::Words("Hello.".into()), begun: None },
            Open { owed: Owed::About("the weather".into()), begun: None },
            Open { owed: Owed::Answer, begun: None },
        ];
        let asked = commands(asks(&Conversation::new(0), open, false, false));
        assert_eq!(
            asked,
            [
                Some(Command::Say("Hello.".into())),
                Some(Command::Respond { instructions: Some("the weather".into()) }),
                Some(Command::Respond { instructions: None }),
            ]
        );
    }

    #[test]
    fn a_turn_that_is_heard_again_is_answered_without_being_asked_for() {
        let open = || vec![Open { owed: Owed::Answer, begun: None }];
        let conversation = Conversation::new(0);
        assert_eq!(commands(asks(&conversation, open(), true, true)), [None]);
        let unheard = commands(asks(&conversation, open(), true, false));
        assert_eq!(unheard, [Some(Command::Respond { instructions: Some(SAY_AGAIN.into()) })]);
    }

    fn commands(asks: Vec<Ask>) -> Vec<Option<Command>> {
        let command = |ask| match ask {
            Ask::Of(command) => Some(command),
            Ask::Nothing => None,
        };
        asks.into_iter().map(command).collect()
    }
}
