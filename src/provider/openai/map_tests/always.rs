//! What holds whatever happens.

use super::*;

proptest::proptest! {
    #[test]
    fn no_response_is_asked_for_while_one_is_in_progress(steps in proptest::collection::vec(0..10u8, 1..200)) {
        let mut talk = Talk::new();
        let mut service = StrictService::default();
        for step in steps {
            service.step(&mut talk, step);
        }
        // At the end the caller is quiet and every tool is answered: nothing stays queued for ever.
        service.wind_down(&mut talk);
    }

    #[test]
    fn no_text_makes_it_panic(texts in proptest::collection::vec(".*", 0..20)) {
        let mut talk = Talk::new();
        for text in texts {
            talk.mapper.handle_text(&text);
            talk.service(json!({"type": "response.output_audio.delta", "item_id": "a", "delta": text}));
            talk.service(json!({"type": text, "item_id": text, "delta": text, "response": text}));
        }
    }
}

/// A service that answers the caller's turns itself and takes no request in between.
#[derive(Default)]
struct StrictService {
    active: Option<String>,
    /// A request that has arrived and not been acted upon.
    asked: bool,
    responses: u32,
    calls: u32,
    unanswered: Vec<String>,
}

impl StrictService {
    fn step(&mut self, talk: &mut Talk, step: u8) {
        match step {
            0 => talk.command(say_hello()),
            1 => talk.command(Command::Respond { instructions: None }),
            2 => self.interrupt(talk),
            3 => self.answer_caller(talk),
            4 | 5 => self.end_response(talk, "completed"),
            6 => self.call_tool(talk),
            7 => self.answer_tool(talk),
            8 => talk.mapper.audio_sent(500),
            _ => talk.command(Command::CancelResponse),
        }
        self.read(talk);
        if self.asked && step.is_multiple_of(2) {
            self.begin(talk);
        }
        self.read(talk);
    }

    fn wind_down(&mut self, talk: &mut Talk) {
        self.interrupt(talk);
        self.answer_caller(talk);
        for _ in 0..1000 {
            while !self.unanswered.is_empty() {
                self.answer_tool(talk);
            }
            self.read(talk);
            if self.asked {
                self.begin(talk);
            }
            if self.active.is_none() {
                assert!(!self.asked);
                assert_eq!(talk.mapper.sequencer.take_next(), None);
                return;
            }
            self.end_response(talk, "completed");
            self.read(talk);
        }
        panic!("it never comes to rest");
    }

    fn read(&mut self, talk: &mut Talk) {
        for message in talk.sent() {
            match message["type"].as_str().unwrap() {
                "response.create" => {
                    assert!(self.active.is_none() && !self.asked, "a response is in progress");
                    self.asked = true;
                }
                "response.cancel" => {
                    assert!(self.active.is_some() || self.asked, "nothing to cancel");
                    if self.asked {
                        self.begin(talk);
                    }
                    self.end_response(talk, "cancelled");
                }
                "conversation.item.create" => {
                    let call = message["item"]["call_id"].as_str().unwrap();
                    let known = self.unanswered.iter().position(|open| open == call);
                    self.unanswered.remove(known.expect("answered once"));
                }
                other => panic!("{other}"),
            }
        }
    }

    fn begin(&mut self, talk: &mut Talk) {
        self.asked = false;
        self.responses += 1;
        let id = format!("r{}", self.responses);
        talk.response_created(&id);
        self.active = Some(id);
    }

    fn end_response(&mut self, talk: &mut Talk, status: &str) {
        if let Some(id) = self.active.take() {
            talk.response_done(&id, status);
        }
    }

    fn interrupt(&mut self, talk: &mut Talk) {
        // Requests on their way are acted upon first: this service has no races.
        if self.asked {
            self.begin(talk);
        }
        talk.speech_started();
        self.end_response(talk, "cancelled");
        self.read(talk);
    }

    fn answer_caller(&mut self, talk: &mut Talk) {
        if self.asked || self.active.is_some() {
            return;
        }
        talk.service(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0}));
        talk.service(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 9000}));
        self.begin(talk);
    }

    fn call_tool(&mut self, talk: &mut Talk) {
        let Some(response) = self.active.clone() else { return };
        self.calls += 1;
        let call = format!("c{}", self.calls);
        talk.tool_call(&response, &call, "lookup", "{}");
        self.unanswered.push(call);
    }

    fn answer_tool(&mut self, talk: &mut Talk) {
        if let Some(call) = self.unanswered.last().cloned() {
            talk.command(result(&call, true));
            self.read(talk);
        }
    }
}
