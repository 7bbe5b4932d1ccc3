//! From an open WebSocket to a session that is ready to talk: a pure core.
//!
//! A handshake that succeeds proves nothing: the session exists when `session.created` has come, and is
//! ours when `session.updated` has answered our configuration. Then the conversation so far is replayed.

use std::sync::Arc;

use crate::provider::{NoiseReduction, SessionSpec};

use super::map::{MAX_GARBAGE_IN_A_ROW, Mapper};
use super::request::{
    AudioConfig, ClientEvent, EventId, InputConfig, NoiseReductionConfig, Numbered, OutputConfig, PCM_24K,
    SessionConfig, Transcription, TurnDetectionConfig, decimal, primary_subtag,
};
use super::wire::ServerEvent;

/// What a session is configured with besides its [`SessionSpec`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionDefaults {
    /// Voice for assistants that name none; `None`: the service's default.
    pub voice: Option<String>,
    /// Model that writes down what the caller says; `None`: nobody does.
    pub transcription_model: Option<String>,
    /// The service's noise reduction.
    pub noise_reduction: Option<NoiseReduction>,
    /// Longest answer in tokens, 1 to 4096; `None`: the service's limit.
    pub max_output_tokens: Option<u32>,
}

/// A session being opened.
#[derive(Debug)]
pub struct Opening {
    spec: SessionSpec,
    configuration: String,
    model: Arc<str>,
    transcriber: String,
    configured: bool,
    garbage: u32,
}

/// What comes next in opening a session.
#[derive(Debug)]
pub enum Step {
    /// Wait for the next message.
    Wait,
    /// Send this, then wait.
    Send(String),
    /// The service does not want us, for the reason named by this code.
    Refused(String),
    /// Talk.
    Ready(Box<Mapper>),
}

impl Opening {
    /// Opens a session of this kind; `model` is the one in the address.
    pub fn new(spec: SessionSpec, defaults: &SessionDefaults, model: &str) -> Self {
        let configuration = configuration(&spec, defaults);
        let transcriber = defaults.transcription_model.clone().unwrap_or_default();
        Self { spec, configuration, model: model.into(), transcriber, configured: false, garbage: 0 }
    }

    /// Takes one text frame from the service.
    pub fn handle_text(&mut self, json: &str) -> Step {
        match serde_json::from_str(json) {
            Ok(ServerEvent::Error { error }) => Step::Refused(error.name().to_owned()),
            Ok(ServerEvent::SessionCreated) if !self.configured => {
                self.configured = true;
                Step::Send(std::mem::take(&mut self.configuration))
            }
            Ok(ServerEvent::SessionUpdated) if self.configured => Step::Ready(Box::new(self.ready())),
            Ok(_) => Step::Wait,
            Err(_) => self.garbage(),
        }
    }

    /// Takes a frame that is no text.
    pub fn garbage(&mut self) -> Step {
        self.garbage += 1;
        if self.garbage >= MAX_GARBAGE_IN_A_ROW {
            return Step::Refused("not_a_realtime_service".to_owned());
        }
        Step::Wait
    }

    fn ready(&mut self) -> Mapper {
        let mut mapper = Mapper::new(std::mem::take(&mut self.spec.instructions), Arc::clone(&self.model))
            .transcribed_by(&self.transcriber);
        mapper.talk_on(!self.spec.turns.interrupt_response);
        for past in &self.spec.history {
            mapper.replay(past);
        }
        mapper
    }
}

fn configuration(spec: &SessionSpec, defaults: &SessionDefaults) -> String {
    let language = spec.language.as_deref().map(primary_subtag);
    let transcription = defaults.transcription_model.as_deref();
    let session = SessionConfig {
        kind: "realtime",
        output_modalities: ["audio"],
        instructions: &spec.instructions,
        audio: AudioConfig {
            input: InputConfig {
                format: PCM_24K,
                noise_reduction: spec.noise_reduction.or(defaults.noise_reduction).and_then(noise_reduction),
                transcription: transcription.map(|model| Transcription { model, language }),
                turn_detection: TurnDetectionConfig::new(spec.turn_detection, spec.turns),
            },
            output: OutputConfig {
                format: PCM_24K,
                voice: spec.voice.as_deref().or(defaults.voice.as_deref()),
                speed: spec.speed.and_then(decimal),
            },
        },
        tools: spec.tools.iter().map(Into::into).collect(),
        tool_choice: "auto",
        max_output_tokens: spec.max_output_tokens.or(defaults.max_output_tokens),
    };
    Numbered { event_id: EventId(0), event: ClientEvent::SessionUpdate { session: Box::new(session) } }
        .to_json()
}

fn noise_reduction(wanted: NoiseReduction) -> Option<NoiseReductionConfig> {
    match wanted {
        NoiseReduction::Off => None,
        NoiseReduction::NearField => Some(NoiseReductionConfig { kind: "near_field" }),
        NoiseReduction::FarField => Some(NoiseReductionConfig { kind: "far_field" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{HistoryItem, Speaker, ToolSpec};
    use serde_json::{Value, json};

    #[test]
    fn the_configuration_has_the_ga_shape() {
        let spec = SessionSpec {
            instructions: "Be brief.".into(),
            voice: Some("cedar".into()),
            language: Some("de-AT".into()),
            tools: [ToolSpec {
                name: "end_call".into(),
                description: "Hangs up.".into(),
                parameters: json!({"type": "object", "properties": {}}),
            }]
            .into(),
            ..SessionSpec::default()
        };
        let defaults = SessionDefaults {
            voice: Some("marin".into()),
            transcription_model: Some("gpt-transcribe".into()),
            noise_reduction: Some(NoiseReduction::NearField),
            max_output_tokens: Some(512),
        };
        let sent: Value = serde_json::from_str(&configuration(&spec, &defaults)).unwrap();
        let expected = json!({
            "event_id": "tandem_0", "type": "session.update", "session": {
                "type": "realtime",
                "output_modalities": ["audio"],
                "instructions": "Be brief.",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "noise_reduction": {"type": "near_field"},
                        "transcription": {"model": "gpt-transcribe", "language": "de"},
                        "turn_detection": {
                            "type": "server_vad", "create_response": true, "interrupt_response": true
                        }
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "cedar"}
                },
                "tools": [{"type": "function", "name": "end_call", "description": "Hangs up.",
                           "parameters": {"type": "object", "properties": {}}}],
                "tool_choice": "auto",
                "max_output_tokens": 512
            }
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn without_settings_the_services_own_defaults_stand() {
        let sent = configuration(&SessionSpec::default(), &SessionDefaults::default());
        let sent: Value = serde_json::from_str(&sent).unwrap();
        let session = &sent["session"];
        assert_eq!(session["audio"]["output"].get("voice"), None);
        assert_eq!(session["audio"]["input"]["transcription"], Value::Null);
        assert_eq!(session.get("max_output_tokens"), None);
        assert_eq!(session.get("model"), None, "the model cannot change and is in the address");
    }

    #[test]
    fn it_configures_after_created_and_is_ready_after_updated() {
        let history = vec![
            HistoryItem::said(Speaker::Caller, "Hello?"),
            HistoryItem::said(Speaker::Assistant, "Good morning."),
        ];
        let spec = SessionSpec { history, ..SessionSpec::default() };
        let mut opening = Opening::new(spec, &SessionDefaults::default(), "m");
        assert!(matches!(opening.handle_text(r#"{"type":"session.updated","session":{}}"#), Step::Wait));
        assert!(matches!(opening.handle_text(r#"{"type":"session.created","session":{}}"#), Step::Send(_)));
        assert!(matches!(opening.handle_text(r#"{"type":"conversation.created"}"#), Step::Wait));
        let Step::Ready(mut mapper) = opening.handle_text(r#"{"type":"session.updated","session":{}}"#)
        else {
            panic!("not ready")
        };
        let replayed: Vec<Value> = std::iter::from_fn(|| mapper.poll_message())
            .map(|json| serde_json::from_str::<Value>(&json).unwrap()["item"].clone())
            .collect();
        assert_eq!(
            replayed,
            [
                json!({"type": "message", "role": "user",
                       "content": [{"type": "input_text", "text": "Hello?"}]}),
                json!({"type": "message", "role": "assistant",
                       "content": [{"type": "output_text", "text": "Good morning."}]}),
            ]
        );
    }

    #[test]
    fn an_error_before_the_session_is_ready_refuses_it() {
        for before in [vec![], vec![r#"{"type":"session.created","session":{}}"#]] {
            let mut opening = Opening::new(SessionSpec::default(), &SessionDefaults::default(), "m");
            for json in before {
                opening.handle_text(json);
            }
            let error =
                r#"{"type":"error","error":{"type":"invalid_request_error","code":"invalid_api_key"}}"#;
            assert!(matches!(opening.handle_text(error), Step::Refused(code) if code == "invalid_api_key"));
        }
    }

    #[test]
    fn a_far_end_that_only_sends_garbage_is_given_up() {
        let mut opening = Opening::new(SessionSpec::default(), &SessionDefaults::default(), "m");
        let steps: Vec<_> = (0..5).map(|_| opening.handle_text("<html>")).collect();
        assert!(matches!(steps[3], Step::Wait));
        assert!(matches!(steps[4], Step::Refused(_)));
    }
}
