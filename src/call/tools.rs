//! The tool calls of a call's assistant that are under way: which there are, what they wait for, what has come of
//! them, and whether the model is going round in circles.
//!
//! Owned by the call. Work for others runs on the ordinary runtime and comes back as a wake; dropping the desk gives
//! it all up.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

use crate::rtp::ItemKey;
use crate::tools::action::Collect;
use crate::tools::{Failure, Invocation, Remote, run};

/// What is under way.
#[derive(Default)]
pub(super) struct ToolDesk {
    tasks: JoinSet<Ran>,
    pub(super) pending: Vec<Pending>,
    pub(super) done: VecDeque<Done>,
    /// There is something in `done` that the call has not been woken for.
    fresh: bool,
    circles: Circles,
    /// When the assistant was last heard.
    pub(super) audible: Option<Instant>,
    /// The recording is paused.
    pub(super) unrecorded: bool,
}

/// A tool call that is not answered yet.
pub(super) struct Pending {
    /// The provider's.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) waits: Waits,
    /// What is said, and when, if it is still under way then.
    pub(super) speak: Option<(Instant, String)>,
    pub(super) cancel_on_barge_in: bool,
    /// Of name and arguments.
    pub(super) print: u64,
}

/// What a tool call waits for.
pub(super) enum Waits {
    /// A task on the ordinary runtime.
    Remote(AbortHandle),
    /// The party it is to be moved to.
    Transfer,
    /// The end of the music.
    Hold {
        until: Instant,
        item: ItemKey,
        /// Of the next sample of music.
        position: usize,
        /// It ends when all others have answered.
        for_others: bool,
        /// Some of it was played: not before the assistant had finished what it was saying.
        begun: bool,
    },
    /// Keys of the caller.
    Keys { rule: Collect, keys: String, until: Instant },
}

/// A tool call that can be answered.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) started: Instant,
    /// What of the time was the handler's.
    pub(super) took: Duration,
    /// `ok`, or how it failed.
    pub(super) outcome: &'static str,
    /// For the model.
    pub(super) output: String,
    /// Whether the assistant should go on speaking.
    pub(super) respond: bool,
    pub(super) print: u64,
}

struct Ran {
    id: String,
    result: Result<String, Failure>,
    took: Duration,
}

impl ToolDesk {
    /// Wakes the call when something can be answered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(joined)) = self.tasks.poll_join_next(cx) {
            match joined {
                Ok(ran) => self.ran(ran),
                Err(error) => self.broken(error.id()),
            }
        }
        if std::mem::take(&mut self.fresh) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Lets somebody else do it.
    pub(super) fn spawn(
        &mut self,
        runtime: &Handle,
        remote: Arc<dyn Remote>,
        timeout: Duration,
        invocation: Invocation,
    ) -> AbortHandle {
        let task = async move {
            let started = Instant::now();
            let id = invocation.id.clone();
            let result = run(remote, timeout, invocation).await;
            Ran { id, result, took: started.elapsed() }
        };
        self.tasks.spawn_on(task, runtime)
    }

    fn ran(&mut self, ran: Ran) {
        let Some(pending) = self.take(&ran.id) else { return };
        let (outcome, output) = match ran.result {
            Ok(output) => ("ok", output),
            Err(failure) => (failure.outcome, error(&failure.text)),
        };
        self.finish(pending, ran.took, outcome, output, true);
    }

    /// A handler has panicked, or was given up (which has been answered then).
    fn broken(&mut self, task: tokio::task::Id) {
        let of_task =
            |pending: &Pending| matches!(&pending.waits, Waits::Remote(handle) if handle.id() == task);
        if let Some(index) = self.pending.iter().position(of_task) {
            let pending = self.pending.remove(index);
            let took = pending.started.elapsed();
            self.finish(pending, took, "error", error("the tool failed"), true);
        }
    }

    /// The transfer that was asked for has succeeded, or has failed with this status.
    pub(super) fn transferred(&mut self, result: Result<(), u16>) {
        let Some(index) = self.pending.iter().position(|pending| matches!(pending.waits, Waits::Transfer))
        else {
            return;
        };
        let pending = self.pending.remove(index);
        let took = pending.started.elapsed();
        match result {
            Ok(()) => self.finish(pending, took, "ok", r#"{"ok":true}"#.to_owned(), false),
            Err(status) => {
                let cause = match status {
                    486 | 600 => "they are busy",
                    408 | 480 | 487 => "nobody answered",
                    403 | 603 => "they do not take the call",
                    404 | 484 | 604 => "there is nobody at that destination",
                    _ => "they cannot be reached",
                };
                let text = format!("the call was not moved: {cause}; the caller is still with you");
                self.finish(pending, took, "error", error(&text), true);
            }
        }
    }

    /// What the tool call of this id waits for, no longer pending.
    pub(super) fn take(&mut self, id: &str) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.remove(index))
    }

    /// It can be answered. The handler has taken `took` of the time since it began.
    pub(super) fn finish(
        &mut self,
        pending: Pending,
        took: Duration,
        outcome: &'static str,
        output: String,
        respond: bool,
    ) {
        if let Waits::Remote(handle) = &pending.waits {
            handle.abort();
        }
        let Pending { id, name, started, print, .. } = pending;
        self.done.push_back(Done { id, name, started, took, outcome, output, respond, print });
        self.fresh = true;
    }

    /// Gives up what may be given up when the caller speaks. What they say is the model's to answer, not this.
    pub(super) fn barge_in(&mut self) {
        self.circles.caller_spoke();
        let (gone, kept) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition::<Vec<_>, _>(|pending| pending.cancel_on_barge_in);
        self.pending = kept;
        for pending in gone {
            let took = pending.started.elapsed();
            let text = "given up because the caller spoke; call it again if it is still wanted";
            self.finish(pending, took, "cancelled", error(text), false);
        }
    }

    /// Whether keys of the caller are being collected, which are nobody else's business.
    pub(super) fn collects(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending.waits, Waits::Keys { .. }))
    }

    /// Whether the caller hears music.
    pub(super) fn holds(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending.waits, Waits::Hold { .. }))
    }

    /// Whether anything but music is under way.
    pub(super) fn works(&self) -> bool {
        self.pending.iter().any(|pending| !matches!(pending.waits, Waits::Hold { .. }))
    }

    /// A key of the caller, while keys are collected.
    pub(super) fn key(&mut self, digit: char, now: Instant) {
        let keys = self.pending.iter_mut().find_map(|pending| match &mut pending.waits {
            Waits::Keys { rule, keys, until } => Some((rule, keys, until, &pending.id)),
            _ => None,
        });
        let Some((rule, keys, until, id)) = keys else { return };
        let ends = rule.terminator == Some(digit);
        if !ends {
            keys.push(digit);
            *until = now + rule.pause;
        }
        let full = rule.count.is_some_and(|count| keys.len() >= count) || keys.len() >= KEYS_MOST;
        if ends || full {
            let id = id.clone();
            self.collected(&id);
        }
    }

    /// The entry of this tool call is complete, or its time is over.
    pub(super) fn collected(&mut self, id: &str) {
        let Some(pending) = self.take(id) else { return };
        let Waits::Keys { rule, keys, .. } = &pending.waits else { return };
        let missing = rule.count.filter(|count| keys.len() < *count);
        let (outcome, output) = match missing {
            _ if keys.is_empty() => ("error", error("the caller pressed no key in time")),
            Some(count) => {
                let told = serde_json::json!({"error": format!("the caller pressed fewer than {count} keys"), "digits": keys});
                ("error", told.to_string())
            }
            None => ("ok", serde_json::json!({ "digits": keys }).to_string()),
        };
        let took = pending.started.elapsed();
        self.finish(pending, took, outcome, output, true);
    }

    /// When something is to be done even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = self.pending.iter().filter_map(|pending| match &pending.waits {
            Waits::Hold { until, .. } => Some((*until).min(Instant::now() + MUSIC_LOOK)),
            Waits::Keys { until, .. } => Some(*until),
            Waits::Remote(_) | Waits::Transfer => None,
        });
        let speaks = self.pending.iter().filter_map(|pending| pending.speak.as_ref().map(|(at, _)| *at));
        waits.chain(speaks).min()
    }

    /// Why this call is not to be run at all, and whether the assistant should speak about it.
    pub(super) fn refuses(&mut self, print: u64) -> Option<(&'static str, bool)> {
        if self.pending.len() >= PENDING_MOST {
            return Some(("too many tools are under way; wait for their answers", true));
        }
        self.circles.refuses(print)
    }

    /// What came of a call, for telling circles.
    pub(super) fn came_of(&mut self, print: u64, ok: bool) {
        self.circles.came_of(print, ok);
    }
}

/// What a model is told of a failure.
pub(super) fn error(text: &str) -> String {
    serde_json::json!({ "error": text }).to_string()
}

/// Names a tool call by what it asks for.
pub(super) fn print(name: &str, arguments: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, arguments).hash(&mut hasher);
    hasher.finish()
}

/// Tells a model that calls the same thing in vain, or calls on and on without a word of the caller.
#[derive(Debug, Default)]
struct Circles {
    /// Calls that have failed, and how often in a row.
    failed: VecDeque<(u64, u32)>,
    /// Calls since the caller spoke.
    in_a_row: u32,
}

impl Circles {
    fn refuses(&mut self, print: u64) -> Option<(&'static str, bool)> {
        self.in_a_row += 1;
        if self.in_a_row > IN_A_ROW_MOST {
            // A model that does not heed this is not asked again before the caller has spoken.
            let heard = self.in_a_row <= IN_A_ROW_MOST + 2;
            return Some((
                "too many tool calls in a row; speak with the caller now, without calling tools",
                heard,
            ));
        }
        let failed = self.failed.iter().find(|(known, _)| *known == print).map_or(0, |(_, times)| *times);
        (failed >= FAILED_MOST).then_some((
            "this very call has failed several times; do not repeat it, tell the caller what you cannot do",
            true,
        ))
    }

    fn came_of(&mut self, print: u64, ok: bool) {
        let known = self.failed.iter().position(|(known, _)| *known == print);
        let times = known.and_then(|index| self.failed.remove(index)).map_or(0, |(_, times)| times);
        if ok {
            return;
        }
        if self.failed.len() >= FAILED_KEPT {
            self.failed.pop_front();
        }
        self.failed.push_back((print, times + 1));
    }

    fn caller_spoke(&mut self) {
        self.in_a_row = 0;
    }
}

/// Tool calls under way at a time.
const PENDING_MOST: usize = 16;
/// Tool calls between two turns of the caller.
const IN_A_ROW_MOST: u32 = 24;
/// Times that the same call may fail.
const FAILED_MOST: u32 = 3;
const FAILED_KEPT: usize = 32;
/// Keys of one entry.
const KEYS_MOST: usize = 64;
/// Music is queued bit by bit; this often there is room for more.
const MUSIC_LOOK: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_may_fail_a_few_times_and_another_one_is_not_blamed_for_it() {
        let mut circles = Circles::default();
        let (one, other) = (print("a", "{}"), print("a", "{\"x\":1}"));
        for _ in 0..FAILED_MOST {
            assert_eq!(circles.refuses(one), None);
            circles.came_of(one, false);
        }
        assert!(circles.refuses(one).is_some());
        assert_eq!(circles.refuses(other), None);
        circles.came_of(one, true);
        assert_eq!(circles.refuses(one), None, "it works again");
    }

    #[test]
    fn a_model_that_calls_on_and_on_is_told_to_speak_and_then_left_alone_until_the_caller_speaks() {
        let mut circles = Circles::default();
        for number in 0..IN_A_ROW_MOST {
            assert_eq!(circles.refuses(u64::from(number)), None);
        }
        assert!(matches!(circles.refuses(1), Some((_, true))));
        assert!(matches!(circles.refuses(1), Some((_, true))));
        assert!(matches!(circles.refuses(1), Some((_, false))));
        circles.caller_spoke();
        assert_eq!(circles.refuses(1), None);
    }

    #[test]
    fn an_entry_ends_at_its_count_its_terminator_or_its_pause() {
        let now = Instant::now();
        let rule = |count, terminator| Collect {
            count,
            terminator,
            first: Duration::from_secs(10),
            pause: Duration::from_secs(5),
        };
        let pressed = |rule: Collect, keys: &str| {
            let mut desk = ToolDesk::default();
            let until = now + rule.first;
            desk.pending.push(pending(Waits::Keys { rule, keys: String::new(), until }));
            keys.chars().for_each(|key| desk.key(key, now));
            if desk.collects() {
                assert_eq!(
                    desk.deadline(),
                    Some(now + Duration::from_secs(if keys.is_empty() { 10 } else { 5 }))
                );
                desk.collected("t");
            }
            let done = desk.done.pop_front().expect("it is answered");
            (done.outcome, done.output)
        };
        let entered = |digits: &str| ("ok", format!("{{\"digits\":\"{digits}\"}}"));
        assert_eq!(pressed(rule(Some(3), None), "1234"), entered("123"));
        assert_eq!(pressed(rule(None, Some('#')), "12#4"), entered("12"));
        assert_eq!(pressed(rule(None, None), "7*"), entered("7*"));
        assert_eq!(pressed(rule(Some(4), None), "12").0, "error");
        assert_eq!(pressed(rule(None, None), "").0, "error");
    }

    #[test]
    fn what_may_be_given_up_is_given_up_when_the_caller_speaks_and_the_rest_is_not() {
        let mut desk = ToolDesk::default();
        desk.pending.push(Pending { cancel_on_barge_in: true, ..pending(Waits::Transfer) });
        desk.pending.push(Pending { id: "kept".to_owned(), ..pending(Waits::Transfer) });
        desk.barge_in();
        assert_eq!(desk.pending.iter().map(|pending| pending.id.as_str()).collect::<Vec<_>>(), ["kept"]);
        let done = desk.done.pop_front().unwrap();
        assert_eq!((done.id.as_str(), done.outcome, done.respond), ("t", "cancelled", false));
    }

    fn pending(waits: Waits) -> Pending {
        Pending {
            id: "t".to_owned(),
            name: "tool".to_owned(),
            started: Instant::now(),
            waits,
            speak: None,
            cancel_on_barge_in: false,
            print: 0,
        }
    }
}
