//! Scripted conversations, driven by hand: loud and quiet frames in, events out.

use super::*;
use crate::provider::scripted::script::Script;

#[test]
fn the_greeting_comes_in_bursts_faster_than_real_time() {
    let mut talk = Talk::new(SCRIPT);
    talk.core.command(talk.now, Command::Respond { instructions: Some("Greet.".into()) });
    let began = talk.now;
    let events = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    assert_eq!(talk.now - began, Duration::from_millis(160), "1 s in five chunks");
    assert_eq!(events[0], Event::TurnStarted);
    assert_eq!(pcm_ms(&events), 1000);
    assert_eq!(words(&events, Speaker::Assistant).pop(), Some(("Good morning here.".into(), true)));
    assert!(words(&events, Speaker::Assistant).len() > 2, "partial words come with the audio");
    let tail: Vec<_> = events.iter().rev().take(3).collect();
    assert!(matches!(tail[0], Event::TurnDone { status: TurnStatus::Completed, .. }));
    assert!(matches!(tail[1], Event::TranscriptFinal { .. }));
    assert!(matches!(tail[2], Event::AudioDone { .. }));
}

#[test]
fn a_turn_of_the_caller_is_heard_shown_and_answered() {
    let mut talk = Talk::new(SCRIPT);
    let mut events = talk.caller_says(1000);
    assert!(matches!(events[0], Event::SpeechStarted { at_ms: 0..=800, item: Some(_) }), "{:?}", events[0]);
    let shown = words(&events, Speaker::Caller);
    assert_eq!(shown.last(), Some(&("When are you open?".into(), true)));
    assert!(shown.len() >= 3 && shown[0].0.len() < shown[1].0.len(), "{shown:?}");
    let stopped = events.iter().find_map(|event| match event {
        Event::SpeechStopped { at_ms, .. } => Some(*at_ms),
        _ => None,
    });
    assert_eq!(stopped, Some(talk.loud_until_ms));
    let heard = talk.now;
    events.extend(talk.until(|event| matches!(event, Event::TurnStarted)));
    assert_eq!(talk.now - heard, Duration::from_millis(300));
    let answer = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    assert_eq!(words(&answer, Speaker::Assistant).pop(), Some(("From nine to five.".into(), true)));
}

#[test]
fn speech_during_an_answer_ends_its_generation_with_the_words_so_far() {
    let mut talk = Talk::new(SCRIPT);
    talk.core.say(talk.now, line("one two three four five six seven eight nine ten", 60_000));
    talk.run(100);
    talk.events();
    let events = talk.caller_says(400);
    let done = events.iter().position(|event| matches!(event, Event::TurnDone { .. })).unwrap();
    assert!(matches!(events[done], Event::TurnDone { status: TurnStatus::Cancelled, .. }));
    assert!(events[done + 1..].iter().all(|event| !matches!(event, Event::Audio { .. })));
    let (text, last) = words(&events, Speaker::Assistant).pop().unwrap();
    assert!(last && text == "one", "{text}");
}

#[test]
fn a_tool_is_called_after_the_words_and_its_answer_spoken_about() {
    let mut talk = Talk::new(SCRIPT);
    talk.caller_says(500);
    talk.until(|event| matches!(event, Event::TurnDone { .. }));
    talk.run(3000);
    talk.caller_says(500);
    let events = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    let call = events.iter().find_map(|event| match event {
        Event::ToolCall { id, name, arguments } => Some((id.clone(), name.as_str(), arguments.as_str())),
        _ => None,
    });
    let (id, name, arguments) = call.unwrap();
    assert_eq!((name, arguments), ("lookup", r#"{"order":7}"#));
    talk.core.command(talk.now, Command::ToolResult { id, output: "sent".into(), ok: true, respond: true });
    let events = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    assert_eq!(words(&events, Speaker::Assistant).pop(), Some(("It was sent.".into(), true)));
    let again = Command::ToolResult { id: "call-9".into(), output: String::new(), ok: true, respond: true };
    talk.core.command(talk.now, again);
    assert!(matches!(talk.events()[..], [Event::Warning { .. }]));
}

#[test]
fn a_tool_that_wants_no_words_gets_none() {
    let mut talk = Talk::new(SCRIPT);
    talk.core.next_turn = 1;
    talk.core.greeted = true;
    talk.core.command(talk.now, Command::Respond { instructions: None });
    let events = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    let id = events.iter().find_map(|event| match event {
        Event::ToolCall { id, .. } => Some(id.clone()),
        _ => None,
    });
    let result = Command::ToolResult { id: id.unwrap(), output: String::new(), ok: true, respond: false };
    talk.core.command(talk.now, result);
    assert_eq!(talk.events(), []);
}

#[test]
fn a_caller_who_goes_on_after_a_pause_is_answered_once() {
    let mut talk = Talk::new(SCRIPT);
    talk.caller_says(500);
    talk.run(100);
    let events = talk.caller_goes_on(500);
    assert!(words(&events, Speaker::Caller).contains(&("(goes on)".into(), true)));
    let answer = talk.until(|event| matches!(event, Event::TurnDone { .. }));
    assert_eq!(words(&answer, Speaker::Assistant).pop(), Some(("From nine to five.".into(), true)));
    assert_eq!(talk.core.next_turn, 1);
}

#[test]
fn the_end_of_the_script_answers_as_often_as_needed() {
    let mut talk = Talk::new(SCRIPT);
    talk.core.next_turn = 2;
    for _ in 0..3 {
        talk.caller_says(500);
        let answer = talk.until(|event| matches!(event, Event::TurnDone { .. }));
        assert_eq!(words(&answer, Speaker::Assistant).pop(), Some(("That is all.".into(), true)));
        talk.run(3000);
    }
}

#[test]
fn silence_is_filled_so_often_and_counted_from_the_end_of_the_sound() {
    let mut talk = Talk::new(SCRIPT);
    assert_eq!(talk.core.next_timeout(), None, "nobody waits before the greeting");
    talk.core.command(talk.now, Command::Respond { instructions: None });
    let began = talk.now;
    talk.until(|event| matches!(event, Event::TurnDone { .. }));
    assert_eq!(talk.core.next_timeout(), Some(began + Duration::from_millis(1000 + 5000)));
    for _ in 0..2 {
        let events = talk.until(|event| matches!(event, Event::TurnDone { .. }));
        assert_eq!(words(&events, Speaker::Assistant).pop(), Some(("Hello?".into(), true)));
    }
    assert_eq!(talk.core.next_timeout(), None);
}

#[test]
fn a_session_that_takes_over_goes_on_where_the_other_was() {
    let history = vec![
        HistoryItem::said(Speaker::Assistant, "Good morning here."),
        HistoryItem::said(Speaker::Caller, "When are you open?"),
    ];
    let now = Instant::now();
    let spec = SessionSpec { history, ..SessionSpec::default() };
    let core = ScriptedCore::new(rendered(SCRIPT), &spec, now);
    assert_eq!((core.greeted, core.next_turn), (true, 1));
}

#[test]
fn cancelling_and_closing_are_quiet_at_once() {
    let mut talk = Talk::new(SCRIPT);
    talk.core.say(talk.now, line("a b c", 60_000));
    talk.core.say(talk.now, line("d e f", 60_000));
    talk.events();
    talk.core.command(talk.now, Command::CancelResponse);
    assert!(
        talk.events()
            .iter()
            .any(|event| matches!(event, Event::TurnDone { status: TurnStatus::Cancelled, .. }))
    );
    talk.run(500);
    assert_eq!(talk.events(), []);
    talk.core.command(talk.now, Command::Close);
    talk.core.command(talk.now, Command::Close);
    assert_eq!(talk.events(), [Event::Closed { reason: CloseReason::Requested }]);
}

#[test]
fn words_are_shown_in_step_with_their_sound() {
    for (sent, expected) in
        [(1, "one"), (25, "one"), (26, "one two"), (75, "one two three"), (100, "one two three four")]
    {
        assert_eq!(part_of("one two three four", sent, 100), expected);
    }
    assert_eq!(part_of("", 10, 100), "");
    assert_eq!(part_of("words", 0, 0), "words");
    assert_eq!(words_up_to("one two", 0), "");
}

const SCRIPT: &str = r#"
    greeting = "Good morning here."
    [[turn]]
    caller = "When are you open?"
    say = "From nine to five."
    [[turn]]
    caller = "Where is order seven?"
    say = "I will look."
    tool = { name = "lookup", arguments = { order = 7 } }
    then = "It was sent."
    [silence]
    after_ms = 5000
    say = "Hello?"
    times = 2
    [end]
    say = "That is all."
"#;

/// A conversation on a clock of its own. Every line lasts a second.
struct Talk {
    core: ScriptedCore,
    now: Instant,
    seen: Vec<Event>,
    fed_ms: u64,
    loud_until_ms: u64,
}

impl Talk {
    fn new(script: &str) -> Self {
        let now = Instant::now();
        let core = ScriptedCore::new(rendered(script), &SessionSpec::default(), now);
        Self { core, now, seen: Vec::new(), fed_ms: 0, loud_until_ms: 0 }
    }

    /// Quiet, speech, then quiet until the end of the turn was noticed.
    fn caller_says(&mut self, ms: u64) -> Vec<Event> {
        self.feed(400, 0);
        self.caller_goes_on(ms)
    }

    /// Speech, then quiet until the end of the turn was noticed.
    fn caller_goes_on(&mut self, ms: u64) -> Vec<Event> {
        self.feed(ms, 8_000);
        self.loud_until_ms = self.fed_ms;
        for _ in 0..100 {
            if self.seen.iter().any(|event| matches!(event, Event::SpeechStopped { .. })) {
                break;
            }
            self.feed(10, 0);
        }
        self.events()
    }

    fn feed(&mut self, ms: u64, amplitude: i16) {
        for _ in 0..ms / 10 {
            let frame: Vec<i16> =
                (0..240).map(|n| if n % 24 < 12 { amplitude } else { -amplitude }).collect();
            self.fed_ms += 10;
            self.run(10);
            self.core.receive_audio(self.now, &frame);
            self.collect();
        }
    }

    fn run(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.core.handle_timeout(self.now);
        self.collect();
    }

    /// Jumps from deadline to deadline until such an event came.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        for _ in 0..1000 {
            self.collect();
            if self.seen.iter().any(&wanted) {
                return self.events();
            }
            let due = self.core.next_timeout().expect("something is due");
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
        }
        panic!("it never came; seen: {:?}", self.seen);
    }

    fn collect(&mut self) {
        self.seen.extend(std::iter::from_fn(|| self.core.poll_event()));
    }

    fn events(&mut self) -> Vec<Event> {
        self.collect();
        std::mem::take(&mut self.seen)
    }
}

fn rendered(script: &str) -> Arc<Rendered> {
    let script = Script::parse(script).unwrap();
    Arc::new(script.render(|_| Ok(Vec::new()), |_| vec![0; 24_000]).unwrap())
}

fn line(text: &str, ms: usize) -> Line {
    Line { text: text.into(), pcm: vec![0; ms * 24].into() }
}

fn pcm_ms(events: &[Event]) -> usize {
    let samples = |event: &Event| match event {
        Event::Audio { pcm, .. } => pcm.len(),
        _ => 0,
    };
    events.iter().map(samples).sum::<usize>() / 24
}

/// Words shown of one party, and whether they were final.
fn words(events: &[Event], party: Speaker) -> Vec<(String, bool)> {
    let shown = |event: &Event| match event {
        Event::TranscriptPartial { who, text, .. } if *who == party => Some((text.clone(), false)),
        Event::TranscriptFinal { who, text, .. } if *who == party => Some((text.clone(), true)),
        _ => None,
    };
    events.iter().filter_map(shown).collect()
}
