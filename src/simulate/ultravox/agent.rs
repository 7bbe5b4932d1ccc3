//! The agent: thinks, speaks in pieces that the client can buffer, and can be cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::create::InactivityEnd;
use super::record::Record;
use super::session::{CallSession, Output, Words};
use super::spoken::Spoken;
use crate::simulate::script::ToolCall;

/// What the agent is doing.
#[derive(Debug)]
pub(super) enum Doing {
    /// It listens.
    Listening,
    /// It will begin to speak.
    Thinking {
        /// Then.
        until: Instant,
        /// Of what.
        reply: Reply,
    },
    /// It speaks.
    Speaking(Box<Speaking>),
    /// It waits for tools; the conversation is frozen.
    Waiting,
}

/// What the agent will do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// The next turn of the script.
    Turn {
        /// Whether it answers what the caller has said.
        answers_caller: bool,
    },
    /// Given words.
    Words {
        /// The words.
        text: String,
        /// Whether the caller cannot cut them.
        uninterruptible: bool,
        /// Tools to call afterwards.
        tools: Vec<ToolCall>,
        /// The call's end afterwards.
        end: Option<&'static str>,
    },
}

/// A message that is being spoken.
#[derive(Debug)]
pub(super) struct Speaking {
    ordinal: u64,
    spoken: Arc<Spoken>,
    /// Samples sent.
    sent: u64,
    frames: usize,
    /// Bytes of the text that were in deltas.
    told: usize,
    began: Instant,
    /// When a client that plays in real time has played everything sent.
    playback_end: Instant,
    uninterruptible: bool,
    after: After,
}

/// What follows a message.
#[derive(Debug, Clone, Default)]
struct After {
    tools: Vec<ToolCall>,
    end: Option<&'static str>,
}

impl Speaking {
    fn time(&self, samples: u64) -> Duration {
        Duration::from_nanos(samples * 1_000_000_000 / u64::from(self.spoken.rate.max(1)))
    }

    fn played(&self, now: Instant) -> u64 {
        let left = self.playback_end.saturating_duration_since(now).as_nanos();
        let left = (left * u128::from(self.spoken.rate)).div_ceil(1_000_000_000) as u64;
        self.sent.saturating_sub(left)
    }

    fn all_sent(&self) -> bool {
        self.sent == self.spoken.samples()
    }
}

impl CallSession {
    /// Begins to think about a reply.
    pub(super) fn think(&mut self, now: Instant, reply: Reply) {
        let own = match reply {
            Reply::Turn { .. } => self.behaviour.script.turn(self.script_turn).latency_ms,
            Reply::Words { .. } => None,
        };
        let latency = own.map_or(self.behaviour.response_latency, |ms| Duration::from_millis(ms.into()));
        self.think_for(now, reply, latency);
    }

    pub(super) fn think_for(&mut self, now: Instant, reply: Reply, latency: Duration) {
        self.doing = Doing::Thinking { until: now + latency, reply };
        self.idle_from = None;
        self.set_state("thinking");
    }

    /// Does a reply now if nothing else is going on, or else when that is over.
    pub(super) fn think_soon(&mut self, now: Instant, reply: Reply) {
        if matches!(self.doing, Doing::Listening) && !self.hearing.speaking() {
            self.think(now, reply);
        } else if !matches!(reply, Reply::Turn { .. }) || !self.turn_is_due() {
            self.waiting.push_back(reply);
        }
    }

    fn turn_is_due(&self) -> bool {
        matches!(self.doing, Doing::Thinking { reply: Reply::Turn { .. }, .. })
            || self.waiting.iter().any(|reply| matches!(reply, Reply::Turn { .. }))
    }

    /// Goes on listening, or does what has been waiting.
    pub(super) fn listen(&mut self, now: Instant) {
        self.doing = Doing::Listening;
        match self.waiting.pop_front() {
            Some(reply) => self.think(now, reply),
            None => {
                self.set_state("listening");
                self.idle_from = Some(now);
            }
        }
    }

    /// Cuts everything and says these words, then ends the call.
    pub(super) fn say_last(&mut self, now: Instant, text: String, end: &'static str) {
        self.interrupt(now, true);
        self.waiting.clear();
        let last = Reply::Words { text, uninterruptible: true, tools: Vec::new(), end: Some(end) };
        self.think_for(now, last, Duration::ZERO);
    }

    /// Asks a caller who is silent.
    pub(super) fn say_inactivity(&mut self, now: Instant) {
        let Some(message) = self.request.inactivity.get(self.idle_next).cloned() else { return };
        self.idle_next += 1;
        let reply = Reply::Words {
            text: message.message,
            uninterruptible: message.end == InactivityEnd::Strict,
            tools: Vec::new(),
            end: (message.end != InactivityEnd::Continue).then_some("agent_hangup"),
        };
        self.think(now, reply);
    }

    /// When the agent has something to do.
    pub(super) fn next_agent(&self) -> Option<Instant> {
        match &self.doing {
            Doing::Thinking { until, .. } => Some(*until),
            Doing::Speaking(speaking) => Some(self.next_frame(speaking).0),
            Doing::Listening | Doing::Waiting => None,
        }
    }

    pub(super) fn run_agent(&mut self, now: Instant) {
        // Bounded: each round moves time or the message forward.
        while self.next_agent().is_some_and(|at| at <= now) {
            match std::mem::replace(&mut self.doing, Doing::Listening) {
                Doing::Thinking { reply, .. } => self.begin(now, reply),
                Doing::Speaking(speaking) if speaking.all_sent() => self.spoken_out(now, *speaking),
                Doing::Speaking(mut speaking) => {
                    self.send_frame(now, &mut speaking);
                    self.doing = Doing::Speaking(speaking);
                    if self.faults.stall_after_deltas == Some(self.totals.deltas) {
                        return self.mute();
                    }
                    if self.faults.die_after_deltas == Some(self.totals.deltas) {
                        return self.reset();
                    }
                }
                Doing::Listening | Doing::Waiting => return,
            }
        }
    }

    fn begin(&mut self, now: Instant, reply: Reply) {
        self.totals.responses += 1;
        if self.faults.stall == Some(self.totals.responses) {
            return self.mute();
        }
        if self.faults.invalid_json {
            self.emit_raw(Output::Text(r#"{"type":"transcript","role":"#.to_owned()));
        }
        if self.faults.unknown_events {
            self.emit("x_future_message", json!({"payload": [1, 2, 3]}));
            self.emit("state", json!({"state": "x_pondering"}));
        }
        let (say, uninterruptible, after) = match reply {
            Reply::Turn { .. } => {
                let turn = self.behaviour.script.turn(self.script_turn).clone();
                self.script_turn += 1;
                if let Some(code) = &turn.fail {
                    self.event("error", code, "the model failed".to_owned());
                    return self.listen(now);
                }
                let tools = turn.tool.iter().chain(&turn.tools).cloned().collect();
                let say = turn.say.clone().map(|text| self.behaviour.say(Some(&turn), text));
                (say, false, After { tools, end: None })
            }
            Reply::Words { text, uninterruptible, tools, end } => {
                let say = Some(text).filter(|text| !text.is_empty());
                let say = say.map(|text| self.behaviour.say(None, text));
                (say, uninterruptible, After { tools, end })
            }
        };
        let Some(say) = say else { return self.follow(now, after) };
        let ordinal = self.ordinal();
        if self.text_output {
            self.set_state("speaking");
            self.transcript("agent", "text", ordinal, Words::Text(&say.text, true));
            self.note_message("MESSAGE_ROLE_AGENT", &say.text, "text", |_| {});
            return self.follow(now, after);
        }
        let caller = self.hearing.last_turn();
        let spoken = self.library.spoken(&say, self.request.medium.output_rate, caller);
        self.set_state("speaking");
        self.record(now, Record::SpeakingStarted { ordinal, text: say.text });
        self.doing = Doing::Speaking(Box::new(Speaking {
            ordinal,
            spoken,
            sent: 0,
            frames: 0,
            told: 0,
            began: now,
            playback_end: now,
            uninterruptible,
            after,
        }));
    }

    /// When the next frame goes out, and how many samples are in it; or when all has been played.
    fn next_frame(&self, speaking: &Speaking) -> (Instant, u64) {
        let left = speaking.spoken.samples() - speaking.sent;
        if left == 0 {
            return (speaking.playback_end, 0);
        }
        let permille = match self.behaviour.vary_chunks {
            true => VARIATION[speaking.frames % VARIATION.len()],
            false => 1_000,
        };
        let nominal = u64::from(self.behaviour.chunk_ms) * u64::from(speaking.spoken.rate) / 1_000;
        let samples = match self.faults.giant_delta {
            true => left,
            false => (nominal * permille / 1_000).clamp(1, left),
        };
        let speed = self.faults.speed.unwrap_or(self.behaviour.speed);
        let generated = speaking.time(speaking.sent + samples).as_secs_f64() / speed;
        let generated = speaking.began + Duration::from_secs_f64(generated);
        let buffer = self.request.medium.client_buffer.saturating_sub(speaking.time(samples));
        let room = speaking.playback_end.checked_sub(buffer).unwrap_or(speaking.began);
        (if self.faults.giant_delta { generated } else { generated.max(room) }, samples)
    }

    fn send_frame(&mut self, now: Instant, speaking: &mut Speaking) {
        let (_, samples) = self.next_frame(speaking);
        let (from, to) = (speaking.sent, speaking.sent + samples);
        let text = speaking.spoken.clone();
        let words = text.words_until(to);
        if words.len() > speaking.told {
            let delta = &words[speaking.told..];
            // The first words may come either way.
            let words = match speaking.told == 0 && speaking.ordinal.is_multiple_of(2) {
                true => Words::Text(delta, false),
                false => Words::Delta(delta, false),
            };
            self.transcript("agent", "voice", speaking.ordinal, words);
            speaking.told = text.words_until(to).len();
        }
        let audio = speaking.spoken.slice(from, to);
        let ordinal = speaking.ordinal;
        self.emit_raw(Output::Audio { audio, ordinal, first_sample: from, samples });
        speaking.sent = to;
        speaking.frames += 1;
        speaking.playback_end = speaking.playback_end.max(now) + speaking.time(samples);
        self.totals.deltas += 1;
        self.totals.generated_ms +=
            speaking.time(to).as_millis() as u64 - speaking.time(from).as_millis() as u64;
    }

    /// Everything has been played.
    fn spoken_out(&mut self, now: Instant, speaking: Speaking) {
        let text = speaking.spoken.text.as_str();
        // The last of the words may come either way, too.
        let last = match speaking.ordinal % 3 {
            1 => Words::Delta(&text[speaking.told..], true),
            _ => Words::Text(text, true),
        };
        self.transcript("agent", "voice", speaking.ordinal, last);
        self.done(now, &speaking, speaking.sent, false);
        self.follow(now, speaking.after);
    }

    /// Cuts what is being said, unless it must not be cut; `force` cuts that, too.
    pub(super) fn interrupt(&mut self, now: Instant, force: bool) {
        let Doing::Speaking(speaking) = &self.doing else { return };
        if speaking.uninterruptible && !force {
            return;
        }
        let Doing::Speaking(speaking) = std::mem::replace(&mut self.doing, Doing::Listening) else { return };
        let played = speaking.played(now);
        if speaking.sent > 0 && self.request.medium.messages.playback_clear_buffer {
            self.emit("playback_clear_buffer", json!({}));
        }
        self.set_state("listening");
        if speaking.told > 0 {
            let heard = speaking.spoken.words_until(played);
            self.transcript("agent", "voice", speaking.ordinal, Words::Text(heard, true));
        }
        self.totals.interrupted += 1;
        self.done(now, &speaking, played, true);
    }

    fn done(&mut self, now: Instant, speaking: &Speaking, played: u64, interrupted: bool) {
        let text = speaking.spoken.words_until(played);
        if !text.is_empty() {
            self.note_message("MESSAGE_ROLE_AGENT", text, "voice", |_| {});
        }
        let (text, ordinal) = (text.to_owned(), speaking.ordinal);
        let ms = |samples| speaking.time(samples).as_millis() as u64;
        let (sent_ms, played_ms) = (ms(speaking.sent), ms(played));
        self.record(now, Record::SpeakingDone { ordinal, text, sent_ms, played_ms, interrupted });
    }

    /// Does what comes after a message.
    fn follow(&mut self, now: Instant, after: After) {
        let enough = self.faults.hang_up.is_some_and(|responses| self.totals.responses >= responses);
        if let Some(reason) = after.end.or(enough.then_some("agent_hangup")) {
            return self.end(reason);
        }
        if after.tools.is_empty() {
            return self.listen(now);
        }
        self.invoke(now, after.tools);
    }
}

/// Lengths of successive frames, in thousandths of the nominal one.
const VARIATION: [u64; 7] = [500, 1_000, 1_370, 733, 1_000, 251, 1_149];
