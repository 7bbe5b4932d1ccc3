//! The session's configuration: what `session.update` may say, and the whole of it as shown back.

use serde_json::{Map, Value, json};

use super::detection::TurnDetection;
use super::error::ApiError;
use super::fields::Fields;
use super::format::AudioFormat;
use super::settings::{
    check_include, check_prompt, check_reasoning, check_tracing, check_transcription, check_truncation,
    max_tokens_json, read_max_tokens, read_tool_choice, read_tools, read_voice,
};

/// Whether the assistant speaks or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Speech with its transcript.
    Audio,
    /// Text only.
    Text,
}

impl Modality {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Text => "text",
        }
    }

    /// Reads `output_modalities`: exactly one of the two.
    pub fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, ApiError> {
        let Some(list) = fields.array("output_modalities")? else { return Ok(None) };
        let mut names = Vec::with_capacity(2);
        for (path, value) in &list {
            let name = value.as_str().ok_or_else(|| ApiError::wrong_type(path, "a string", value))?;
            names.push(match name {
                "audio" => Self::Audio,
                "text" => Self::Text,
                other => return Err(ApiError::not_one_of(path, other, &["text", "audio"])),
            });
        }
        match names.as_slice() {
            [one] => Ok(Some(*one)),
            _ => {
                let got: Vec<_> = names.iter().map(|m| format!("'{}'", m.name())).collect();
                let message = format!(
                    "Invalid modalities: [{}]. Supported combinations are: ['text'] and ['audio'].",
                    got.join(", ")
                );
                Err(ApiError::new("invalid_value", message).at(fields.path_of("output_modalities")))
            }
        }
    }
}

/// What one `session.update` changes. `None` leaves a setting as it is; a doubled `Option` is a setting
/// that can also be cleared with `null`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionPatch {
    model: Option<String>,
    modality: Option<Modality>,
    instructions: Option<String>,
    input_format: Option<AudioFormat>,
    noise_reduction: Option<Value>,
    transcription: Option<Option<Value>>,
    turn_detection: Option<Option<TurnDetection>>,
    output_format: Option<AudioFormat>,
    voice: Option<Value>,
    speed: Option<f64>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    max_output_tokens: Option<Option<u32>>,
    opaque: Map<String, Value>,
}

impl SessionPatch {
    /// Reads the `session` member of `session.update`.
    ///
    /// # Errors
    /// The first thing that is not as documented, by path.
    pub fn read(mut fields: Fields<'_>) -> Result<Self, ApiError> {
        match fields.required_one_of("type", &["realtime", "transcription"])? {
            "realtime" => {}
            _ => {
                let message =
                    "Passing a transcription session update event to a realtime session is not allowed.";
                return Err(ApiError::new("invalid_value", message).at("session.type"));
            }
        }
        let mut patch = Self {
            model: fields.string("model")?.map(str::to_owned),
            modality: Modality::read(&mut fields)?,
            instructions: fields.string("instructions")?.map(str::to_owned),
            tools: read_tools(&mut fields)?,
            tool_choice: read_tool_choice(&mut fields)?,
            max_output_tokens: read_max_tokens(&mut fields)?,
            ..Self::default()
        };
        if let Some(mut audio) = fields.object("audio")? {
            if let Some(input) = audio.object("input")? {
                patch.read_input(input)?;
            }
            if let Some(output) = audio.object("output")? {
                patch.read_output(output)?;
            }
            audio.finish()?;
        }
        patch.read_opaque(&mut fields)?;
        fields.finish()?;
        Ok(patch)
    }

    /// The input format asked for, if any.
    pub fn input_format(&self) -> Option<AudioFormat> {
        self.input_format
    }

    fn read_input(&mut self, mut input: Fields<'_>) -> Result<(), ApiError> {
        self.input_format = AudioFormat::read(&mut input)?;
        if let Some(value) = input.value("noise_reduction") {
            if !value.is_null() {
                let mut noise = Fields::of(value, input.path_of("noise_reduction"))?;
                noise.required_one_of("type", &["near_field", "far_field"])?;
                noise.number("strength", 0.0, 1.0)?;
                noise.finish()?;
            }
            self.noise_reduction = Some(value.clone());
        }
        if let Some(value) = input.value("transcription") {
            self.transcription = Some(match value {
                Value::Null => None,
                value => {
                    check_transcription(Fields::of(value, input.path_of("transcription"))?)?;
                    Some(value.clone())
                }
            });
        }
        if let Some(value) = input.value("turn_detection") {
            self.turn_detection = Some(match value {
                Value::Null => None,
                value => Some(TurnDetection::read(Fields::of(value, input.path_of("turn_detection"))?)?),
            });
        }
        input.finish()
    }

    fn read_output(&mut self, mut output: Fields<'_>) -> Result<(), ApiError> {
        self.output_format = AudioFormat::read(&mut output)?;
        self.voice = read_voice(&mut output)?;
        self.speed = output.number("speed", 0.25, 1.5)?;
        output.finish()
    }

    /// Settings that change nothing here and are only checked and shown back.
    fn read_opaque(&mut self, fields: &mut Fields<'_>) -> Result<(), ApiError> {
        for name in ["truncation", "tracing", "prompt", "include", "reasoning", "parallel_tool_calls"] {
            let Some(value) = fields.value(name) else { continue };
            let path = fields.path_of(name);
            match name {
                "truncation" => check_truncation(&path, value)?,
                "tracing" => check_tracing(&path, value)?,
                "prompt" => check_prompt(&path, value)?,
                "include" => check_include(&path, value)?,
                "reasoning" => check_reasoning(&path, value)?,
                _ => {
                    value.as_bool().ok_or_else(|| ApiError::wrong_type(&path, "a boolean", value))?;
                }
            }
            self.opaque.insert(name.to_owned(), value.clone());
        }
        Ok(())
    }
}

/// The whole effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionConfig {
    /// `sess_…`.
    pub id: String,
    /// Fixed when the connection was made.
    pub model: String,
    /// Unix seconds at which the session ends.
    pub expires_at: u64,
    /// Whether the assistant speaks or writes.
    pub modality: Modality,
    /// The system prompt.
    pub instructions: String,
    /// What the client appends.
    pub input_format: AudioFormat,
    /// What the deltas hold.
    pub output_format: AudioFormat,
    /// `null` or the transcription settings as sent.
    pub transcription: Option<Value>,
    /// `None`: manual turns.
    pub turn_detection: Option<TurnDetection>,
    /// A name or `{id}`.
    pub voice: Value,
    /// Tools offered to the model.
    pub tools: Vec<Value>,
    /// Whether and which tools it may call.
    pub tool_choice: Value,
    /// `None`: without limit.
    pub max_output_tokens: Option<u32>,
    speed: f64,
    noise_reduction: Value,
    opaque: Map<String, Value>,
}

impl SessionConfig {
    /// The service's defaults.
    pub fn new(id: String, model: String, expires_at: u64) -> Self {
        let mut opaque = Map::new();
        opaque.insert("truncation".into(), "auto".into());
        for name in ["tracing", "prompt", "include"] {
            opaque.insert(name.into(), Value::Null);
        }
        Self {
            id,
            model,
            expires_at,
            modality: Modality::Audio,
            instructions: DEFAULT_INSTRUCTIONS.to_owned(),
            input_format: AudioFormat::Pcm,
            output_format: AudioFormat::Pcm,
            transcription: None,
            turn_detection: Some(TurnDetection::DEFAULT),
            voice: "marin".into(),
            tools: Vec::new(),
            tool_choice: "auto".into(),
            max_output_tokens: None,
            speed: 1.0,
            noise_reduction: Value::Null,
            opaque,
        }
    }

    /// Applies an update, all of it or nothing. `spoken`: the model has produced audio already.
    ///
    /// # Errors
    /// A changed model; a changed voice once audio was produced; tracing changed once on.
    pub fn apply(&mut self, patch: SessionPatch, spoken: bool) -> Result<(), ApiError> {
        if patch.model.as_ref().is_some_and(|model| *model != self.model) {
            let message = "Cannot update a session's model after the connection was made.";
            return Err(ApiError::new("cannot_update_model", message).at("session.model"));
        }
        if spoken && patch.voice.as_ref().is_some_and(|voice| *voice != self.voice) {
            let message = "Cannot update a conversation's voice if assistant audio is present.";
            return Err(ApiError::new("cannot_update_voice", message).at("session.audio.output.voice"));
        }
        let tracing = &self.opaque["tracing"];
        if !tracing.is_null() && patch.opaque.get("tracing").is_some_and(|new| new != tracing) {
            let message = "Tracing cannot be changed once it is enabled for a session.";
            return Err(ApiError::new("invalid_value", message).at("session.tracing"));
        }
        set(&mut self.modality, patch.modality);
        set(&mut self.instructions, patch.instructions);
        set(&mut self.input_format, patch.input_format);
        set(&mut self.noise_reduction, patch.noise_reduction);
        set(&mut self.transcription, patch.transcription);
        set(&mut self.turn_detection, patch.turn_detection);
        set(&mut self.output_format, patch.output_format);
        set(&mut self.voice, patch.voice);
        set(&mut self.speed, patch.speed);
        set(&mut self.tools, patch.tools);
        set(&mut self.tool_choice, patch.tool_choice);
        set(&mut self.max_output_tokens, patch.max_output_tokens);
        self.opaque.extend(patch.opaque);
        Ok(())
    }

    /// The whole configuration, as `session.created` and `session.updated` show it.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": self.id,
            "model": self.model,
            "expires_at": self.expires_at,
            "output_modalities": [self.modality.name()],
            "instructions": self.instructions,
            "tools": self.tools,
            "tool_choice": self.tool_choice,
            "max_output_tokens": max_tokens_json(self.max_output_tokens),
            "audio": {
                "input": {
                    "format": self.input_format.to_json(),
                    "transcription": self.transcription,
                    "noise_reduction": self.noise_reduction,
                    "turn_detection": self.turn_detection.as_ref().map(TurnDetection::to_json),
                },
                "output": {
                    "format": self.output_format.to_json(),
                    "voice": self.voice,
                    "speed": self.speed,
                },
            },
        });
        if let Value::Object(object) = &mut json {
            object.extend(self.opaque.clone());
        }
        json
    }
}

fn set<T>(place: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *place = new;
    }
}

const DEFAULT_INSTRUCTIONS: &str = "You are a simulated assistant. You answer by script.";
#[cfg(test)]
mod tests {
    use super::*;

    fn patch(session: Value) -> Result<SessionPatch, ApiError> {
        SessionPatch::read(Fields::of(&session, "session")?)
    }

    fn refused(session: Value) -> (&'static str, String) {
        let error = patch(session).unwrap_err();
        (error.code, error.param.unwrap_or_default())
    }

    fn config() -> SessionConfig {
        SessionConfig::new("sess_1".into(), "gpt-realtime-2.1".into(), 0)
    }

    #[test]
    fn only_the_fields_present_change() {
        let mut session = config();
        let wanted = json!({"type": "realtime", "instructions": "Be brief.",
            "audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": null}}});
        session.apply(patch(wanted).unwrap(), false).unwrap();
        let shown = session.to_json();
        assert_eq!(shown["instructions"], "Be brief.");
        assert_eq!(shown["audio"]["input"]["format"], json!({"type": "audio/pcmu"}));
        assert_eq!(shown["audio"]["input"]["turn_detection"], Value::Null);
        assert_eq!(shown["audio"]["output"]["format"], json!({"type": "audio/pcm", "rate": 24000}));
        assert_eq!(shown["audio"]["output"]["voice"], "marin");
    }

    #[test]
    fn beta_fields_are_unknown_parameters() {
        for name in ["modalities", "voice", "input_audio_format", "temperature", "turn_detection"] {
            let (code, param) = refused(json!({"type": "realtime", name: 1}));
            assert_eq!((code, param), ("unknown_parameter", format!("session.{name}")));
        }
    }

    #[test]
    fn each_mistake_has_its_code_and_path() {
        let realtime = |extra: Value| {
            let mut session = json!({"type": "realtime"});
            session.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            refused(session)
        };
        let audio_input = |input: Value| realtime(json!({"audio": {"input": input}}));
        assert_eq!(refused(json!({})), ("missing_required_parameter", "session.type".into()));
        assert_eq!(
            realtime(json!({"output_modalities": ["audio", "text"]})),
            ("invalid_value", "session.output_modalities".into())
        );
        assert_eq!(
            audio_input(json!({"format": {"type": "audio/pcmu", "rate": 8000}})),
            ("unknown_parameter", "session.audio.input.format.rate".into())
        );
        assert_eq!(
            audio_input(json!({"format": {"type": "audio/pcm", "rate": 16000}})).1,
            "session.audio.input.format.rate"
        );
        assert_eq!(
            audio_input(json!({"turn_detection": {"type": "semantic_vad", "threshold": 0.5}})),
            ("unknown_parameter", "session.audio.input.turn_detection.threshold".into())
        );
        assert_eq!(
            realtime(json!({"audio": {"output": {"voice": "nobody"}}})),
            ("invalid_value", "session.audio.output.voice".into())
        );
        assert_eq!(
            realtime(json!({"tools": [{"type": "function"}]})),
            ("missing_required_parameter", "session.tools[0].name".into())
        );
        assert_eq!(realtime(json!({"max_output_tokens": 5000})).0, "integer_above_max_value");
    }

    #[test]
    fn model_never_changes_and_voice_not_after_speech() {
        let mut session = config();
        let other = patch(json!({"type": "realtime", "model": "other"})).unwrap();
        assert_eq!(session.apply(other, false).unwrap_err().code, "cannot_update_model");
        let voice = patch(json!({"type": "realtime", "audio": {"output": {"voice": "cedar"}}})).unwrap();
        assert_eq!(session.apply(voice.clone(), true).unwrap_err().code, "cannot_update_voice");
        session.apply(voice.clone(), false).unwrap();
        session.apply(voice, true).unwrap();
    }
}
