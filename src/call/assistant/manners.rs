//! How an assistant behaves on the phone: who speaks first, what is said into silence, and when the caller's voice
//! stops its own. A pure core: it is told what happens and when, and says what is to be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audio::SampleRate;
use crate::audio::vad::{Detector, Edge, Settings};
use crate::config::manners::{AfterSilence, BargeIn, BargeInMode, FirstSpeaker, Silence, Who};

/// What an assistant was told about its manners.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Who speaks first.
    pub first: FirstSpeaker,
    /// The greeting as a sound, 24 kHz.
    pub greeting: Option<Arc<[i16]>>,
    /// The last words.
    pub closing: Arc<str>,
    /// What happens when nobody says anything.
    pub silence: Option<Silence>,
    /// How the caller interrupts.
    pub barge_in: BargeIn,
}

/// What is to be done because of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Greet.
    Greet,
    /// Say this.
    Ask(String),
    /// Say the last words and end the call.
    Close,
    /// Go on with the flow.
    GoOn,
}

/// What is to be done because of the caller's voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Hold the assistant's words back.
    Pause,
    /// Go on where they were held back.
    Resume,
    /// Drop them.
    Stop,
}

/// The state of one conversation.
#[derive(Debug)]
pub struct Habits {
    manners: Manners,
    greet_at: Option<Instant>,
    /// Since when nobody has said anything.
    quiet_since: Instant,
    asked: usize,
    /// The caller is speaking, as the service hears it.
    caller_speaks: bool,
    held: bool,
    /// The service is at work, at the longest until then.
    busy_until: Option<Instant>,
    tool_runs: bool,
    cutter: Option<Cutter>,
    closed: bool,
}

impl Habits {
    /// At the beginning of a conversation.
    pub fn new(manners: Manners, now: Instant) -> Self {
        let delay = manners.first.delay.map(|delay| now + delay.0);
        let greet_at = match manners.first.who {
            Who::Assistant => Some(delay.unwrap_or(now)),
            Who::Caller => delay,
        };
        let local = manners.barge_in.mode == BargeInMode::Local;
        Self {
            greet_at,
            quiet_since: now,
            asked: 0,
            caller_speaks: false,
            held: false,
            busy_until: None,
            tool_runs: false,
            cutter: local.then(|| Cutter::new(manners.barge_in)),
            closed: false,
            manners,
        }
    }

    /// The greeting as a sound.
    pub fn greeting(&self) -> Option<Arc<[i16]>> {
        self.manners.greeting.clone()
    }

    /// The last words.
    pub fn closing(&self) -> String {
        self.manners.closing.as_ref().to_owned()
    }

    /// Whether the assistant finishes what it says, whoever speaks.
    pub fn talks_on(&self) -> bool {
        self.manners.barge_in.mode == BargeInMode::Off
    }

    /// When [`Habits::due`] is worth a look.
    pub fn wakes_at(&self) -> Option<Instant> {
        let silent = self.silence().map(|silence| self.quiet_since + silence.after.0);
        let late = self.cutter.as_ref().and_then(|cutter| cutter.answer_at);
        [self.greet_at, silent, late].into_iter().flatten().min()
    }

    /// What the time has come for. `speaking`: the assistant is being heard.
    pub fn due(&mut self, now: Instant, speaking: bool) -> Option<Due> {
        if self.greet_at.is_some_and(|at| now >= at) {
            self.greet_at = None;
            self.stirred(now);
            return Some(Due::Greet);
        }
        let silence = self.silence()?;
        if now < self.quiet_since + silence.after.0 {
            return None;
        }
        let busy = self.busy_until.is_some_and(|until| now < until);
        if speaking || busy || self.caller_speaks || self.held {
            self.stirred(now);
            return None;
        }
        let due = match (silence.prompts.get(self.asked), silence.then) {
            (Some(prompt), _) => Due::Ask(prompt.clone()),
            (None, AfterSilence::End) => Due::Close,
            (None, AfterSilence::Continue) => Due::GoOn,
        };
        self.asked += 1;
        self.closed = !matches!(due, Due::Ask(_));
        self.stirred(now);
        Some(due)
    }

    /// Something was heard, or is about to be.
    pub fn stirred(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// The service hears the caller.
    pub fn caller_started(&mut self, now: Instant) {
        self.stirred(now);
        self.caller_speaks = true;
        self.greet_at = None;
        self.asked = 0;
        if let Some(cutter) = &mut self.cutter {
            cutter.confirmed();
        }
    }

    /// Another session takes over; `speaking`: the caller is speaking to it.
    pub fn another_session(&mut self, now: Instant, speaking: bool) {
        self.stirred(now);
        self.caller_speaks = speaking;
    }

    /// The caller has said something.
    pub fn caller_stopped(&mut self, now: Instant) {
        self.stirred(now);
        self.caller_speaks = false;
        self.busy_until = Some(now + LONGEST_WAIT);
    }

    /// The caller presses keys: they are there.
    pub fn key_pressed(&mut self, now: Instant) {
        self.stirred(now);
        self.greet_at = None;
        self.asked = 0;
    }

    /// The service begins to answer.
    pub fn turn_started(&mut self, now: Instant) {
        self.stirred(now);
        self.busy_until = Some(now + LONGEST_TURN);
        self.tool_runs = false;
        // It has heard the caller after all.
        if let Some(cutter) = &mut self.cutter {
            cutter.answer_at = None;
        }
    }

    /// The service runs a tool.
    pub fn tool_called(&mut self, now: Instant) {
        self.tool_runs = true;
        self.busy_until = Some(now + LONGEST_WAIT);
    }

    /// The service has answered.
    pub fn turn_done(&mut self, now: Instant) {
        self.stirred(now);
        self.busy_until = self.tool_runs.then(|| now + LONGEST_WAIT);
    }

    /// The caller keeps us waiting, or is back.
    pub fn held(&mut self, now: Instant, held: bool) {
        self.stirred(now);
        self.held = held;
    }

    /// Whether [`Habits::hear`] makes anything of what it hears.
    pub fn listens(&self) -> bool {
        self.cutter.is_some()
    }

    /// Listens to the caller. `speaking`: the assistant is being heard.
    pub fn hear(&mut self, now: Instant, pcm: &[i16], speaking: bool) -> Option<Voice> {
        self.cutter.as_mut()?.hear(now, pcm, speaking)
    }

    /// Whether the service has gone on without having heard the caller, who was stopped for.
    pub fn answer_is_due(&mut self, now: Instant) -> bool {
        let Some(cutter) = &mut self.cutter else { return false };
        let due = cutter.answer_at.is_some_and(|at| now >= at);
        if due {
            cutter.answer_at = None;
        }
        due
    }

    fn silence(&self) -> Option<&Silence> {
        self.manners.silence.as_ref().filter(|_| !self.closed)
    }
}

/// Hears the caller before the service does, and is wrong now and then.
#[derive(Debug)]
struct Cutter {
    detector: Detector,
    confirm: Duration,
    paused_at: Option<Instant>,
    /// The assistant was stopped by us alone; the service has not heard the caller.
    stopped: bool,
    answer_at: Option<Instant>,
    edges: Vec<Edge>,
}

impl Cutter {
    fn new(wanted: BargeIn) -> Self {
        let settings = Settings {
            min_speech_ms: wanted.min_ms,
            silence_ms: BREATH_MS,
            prefix_ms: 0,
            ..Settings::default()
        };
        Self {
            detector: Detector::new(SampleRate::HZ_24000, settings),
            confirm: Duration::from_millis(u64::from(wanted.confirm_ms)),
            paused_at: None,
            stopped: false,
            answer_at: None,
            edges: Vec::new(),
        }
    }

    fn hear(&mut self, now: Instant, pcm: &[i16], speaking: bool) -> Option<Voice> {
        self.edges.clear();
        self.detector.feed(pcm, &mut self.edges);
        let mut voice = None;
        for edge in &self.edges {
            match edge {
                Edge::Start { .. } if speaking && self.paused_at.is_none() => {
                    self.paused_at = Some(now);
                    voice = Some(Voice::Pause);
                }
                Edge::Start { .. } => self.answer_at = None,
                Edge::End { .. } if self.paused_at.take().is_some() => {
                    // Both in the same breath: nothing was held back.
                    voice = if voice == Some(Voice::Pause) { None } else { Some(Voice::Resume) };
                }
                Edge::End { .. } if std::mem::take(&mut self.stopped) => {
                    self.answer_at = Some(now + LONGEST_HEARING);
                }
                Edge::End { .. } => {}
            }
        }
        if self.detector.is_speaking() && self.paused_at.is_some_and(|at| now >= at + self.confirm) {
            self.paused_at = None;
            self.stopped = true;
            voice = Some(Voice::Stop);
        }
        voice
    }

    /// The service has heard the caller.
    fn confirmed(&mut self) {
        self.paused_at = None;
        self.stopped = false;
        self.answer_at = None;
    }
}

/// A response may take this long until silence counts again.
const LONGEST_TURN: Duration = Duration::from_secs(60);
/// So may a tool, or a service that is to answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A pause within speech.
const BREATH_MS: u32 = 240;
/// The service has heard a caller by then who has stopped speaking.
const LONGEST_HEARING: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flow::Seconds;

    fn manners() -> Manners {
        Manners {
            first: FirstSpeaker::default(),
            greeting: None,
            closing: "Goodbye.".into(),
            silence: None,
            barge_in: BargeIn::default(),
        }
    }

    fn silent(prompts: &[&str], then: AfterSilence) -> Manners {
        let prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
        let after = Seconds(Duration::from_secs(8));
        Manners { silence: Some(Silence { after, prompts, then }), ..manners() }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_assistant_greets_at_once_unless_it_is_to_wait() {
        let now = Instant::now();
        let greets = |first: FirstSpeaker, after, spoke: bool| {
            let mut habits = Habits::new(Manners { first, ..manners() }, now);
            if spoke {
                habits.caller_started(now);
            }
            habits.due(now + after, false) == Some(Due::Greet)
        };
        let first = |who, delay: Option<u64>| FirstSpeaker { who, delay: delay.map(|d| Seconds(s(d))) };
        assert!(greets(first(Who::Assistant, None), s(0), false));
        assert!(!greets(first(Who::Assistant, Some(2)), s(1), false));
        assert!(greets(first(Who::Assistant, Some(2)), s(2), false));
        assert!(!greets(first(Who::Assistant, Some(2)), s(2), true), "the caller was first");
        assert!(!greets(first(Who::Caller, None), s(3600), false));
        assert!(greets(first(Who::Caller, Some(4)), s(4), false));
    }

    #[test]
    fn silence_is_asked_into_and_ends_the_call_at_last() {
        let mut now = Instant::now();
        let mut habits = Habits::new(silent(&["Hello?", "Anybody?"], AfterSilence::End), now);
        assert_eq!(habits.due(now, false), Some(Due::Greet));
        let mut seen = Vec::new();
        for _ in 0..4 {
            now = habits.wakes_at().unwrap_or(now + s(60));
            seen.extend(habits.due(now, false));
        }
        assert_eq!(seen, [Due::Ask("Hello?".into()), Due::Ask("Anybody?".into()), Due::Close]);
        assert_eq!(habits.wakes_at(), None, "nothing more");
    }

    #[test]
    fn silence_counts_from_the_last_word_and_a_word_begins_anew() {
        let now = Instant::now();
        let mut habits = Habits::new(silent(&["Hello?"], AfterSilence::Continue), now);
        habits.due(now, false);
        assert_eq!(habits.due(now + s(8), true), None, "the assistant is still being heard");
        habits.stirred(now + s(10));
        assert_eq!(habits.due(now + s(17), false), None);
        assert_eq!(habits.due(now + s(18), false), Some(Due::Ask("Hello?".into())));
        habits.caller_started(now + s(20));
        assert_eq!(habits.due(now + s(28), false), None, "the caller speaks");
        habits.caller_stopped(now + s(30));
        assert_eq!(habits.due(now + s(38), false), None, "an answer is due");
        habits.turn_done(now + s(40));
        assert_eq!(habits.due(now + s(48), false), Some(Due::Ask("Hello?".into())), "anew");
        assert_eq!(habits.due(now + s(56), false), Some(Due::GoOn));
    }

    #[test]
    fn neither_hold_nor_a_tool_that_runs_is_silence() {
        let now = Instant::now();
        let mut habits = Habits::new(silent(&["Hello?"], AfterSilence::End), now);
        habits.due(now, false);
        habits.held(now, true);
        assert_eq!(habits.due(now + s(600), false), None);
        habits.held(now + s(600), false);
        habits.turn_started(now + s(601));
        habits.tool_called(now + s(602));
        habits.turn_done(now + s(602));
        assert_eq!(habits.due(now + s(611), false), None, "the tool runs");
        habits.turn_started(now + s(612));
        habits.turn_done(now + s(613));
        assert_eq!(habits.due(now + s(621), false), Some(Due::Ask("Hello?".into())));
    }

    /// 20 ms, loud or not.
    fn frame(loud: bool) -> Vec<i16> {
        (0..480).map(|n| if loud { ((n as f32 * 0.3).sin() * 12_000.0) as i16 } else { 3 }).collect()
    }

    fn local() -> Habits {
        let barge_in = BargeIn { mode: BargeInMode::Local, min_ms: 80, confirm_ms: 500 };
        Habits::new(Manners { barge_in, ..manners() }, Instant::now())
    }

    /// What came of so many frames, with the place of each.
    fn run(habits: &mut Habits, now: &mut Instant, frames: usize, loud: bool) -> Vec<(usize, Voice)> {
        let pcm = frame(loud);
        let heard = (0..frames).filter_map(|place| {
            *now += Duration::from_millis(20);
            habits.hear(*now, &pcm, true).map(|voice| (place, voice))
        });
        heard.collect()
    }

    #[test]
    fn a_cough_holds_the_assistant_back_for_a_moment_and_speech_stops_it() {
        let (mut habits, mut now) = (local(), Instant::now());
        assert_eq!(run(&mut habits, &mut now, 50, false), []);
        assert_eq!(run(&mut habits, &mut now, 6, true), [(3, Voice::Pause)], "80 ms");
        let back = run(&mut habits, &mut now, 50, false);
        assert_eq!(back.len(), 1);
        assert!(back[0].1 == Voice::Resume && (10..=13).contains(&back[0].0), "{back:?}");
        assert_eq!(run(&mut habits, &mut now, 40, true), [(3, Voice::Pause), (28, Voice::Stop)]);
    }

    #[test]
    fn the_service_confirms_and_is_asked_to_go_on_when_it_has_not_heard_the_caller() {
        let (mut habits, mut now) = (local(), Instant::now());
        run(&mut habits, &mut now, 50, false);
        assert_eq!(run(&mut habits, &mut now, 10, true), [(3, Voice::Pause)]);
        habits.caller_started(now);
        assert_eq!(run(&mut habits, &mut now, 40, true), [], "it is stopped already");
        assert_eq!(run(&mut habits, &mut now, 50, false), []);
        assert!(!habits.answer_is_due(now + s(10)));
        assert_eq!(run(&mut habits, &mut now, 40, true).last(), Some(&(28, Voice::Stop)));
        run(&mut habits, &mut now, 50, false);
        assert!(!habits.answer_is_due(now) && habits.answer_is_due(now + s(2)));
        assert!(!habits.answer_is_due(now + s(3)), "once");
    }
}
