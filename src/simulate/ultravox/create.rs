//! What a request for a call may say: every field by name, type and range, as the service documents it.
//!
//! A field that nobody knows, a duration that is no duration and a medium that is not exactly one are
//! errors that name the field.

use std::time::Duration;

use serde_json::{Map, Value};

use super::tools::{Tool, read_tools};
use crate::simulate::error::ApiError;
use crate::simulate::fields::Fields;

/// A call as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRequest {
    /// The system prompt, if any.
    pub system_prompt: Option<String>,
    /// The model's name.
    pub model: String,
    /// The voice's name or id.
    pub voice: Option<String>,
    /// BCP 47.
    pub language_hint: Option<String>,
    /// Audio of the media socket.
    pub medium: Medium,
    /// Who begins.
    pub first_speaker: FirstSpeaker,
    /// As shown back.
    pub first_speaker_json: Value,
    /// The conversation so far.
    pub initial_messages: Vec<InitialMessage>,
    /// The agent writes in place of speaking.
    pub text_output: bool,
    /// Until when the media socket must be open.
    pub join_timeout: Duration,
    /// The longest the call can last.
    pub max_duration: Duration,
    /// Said before the end at the limit.
    pub time_exceeded_message: Option<String>,
    /// Said to a caller who is silent.
    pub inactivity: Vec<Inactivity>,
    /// What the model can call.
    pub tools: Vec<Tool>,
    /// Turn detection.
    pub vad: VadSettings,
    /// The client's own.
    pub metadata: Map<String, Value>,
    /// Where to tell what happens.
    pub callbacks: Callbacks,
    /// Whether a recording was asked for.
    pub recording: bool,
}

/// The medium `serverWebSocket`.
#[derive(Debug, Clone, PartialEq)]
pub struct Medium {
    /// Samples per second of what the client sends.
    pub input_rate: u32,
    /// Samples per second of what the agent says.
    pub output_rate: u32,
    /// How far ahead of playback the service may send.
    pub client_buffer: Duration,
    /// The call ends when no audio comes for this long.
    pub idle_timeout: Option<Duration>,
    /// Which data messages are sent.
    pub messages: DataMessages,
}

/// Which data messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the service's own")]
pub struct DataMessages {
    pub pong: bool,
    pub state: bool,
    pub transcript: bool,
    pub client_tool_invocation: bool,
    pub playback_clear_buffer: bool,
    pub call_started: bool,
    pub debug: bool,
    pub user_started_speaking: bool,
    pub user_stopped_speaking: bool,
}

impl Default for DataMessages {
    fn default() -> Self {
        Self {
            pong: true,
            state: true,
            transcript: true,
            client_tool_invocation: true,
            playback_clear_buffer: true,
            call_started: true,
            debug: false,
            user_started_speaking: false,
            user_stopped_speaking: false,
        }
    }
}

/// Who begins.
#[derive(Debug, Clone, PartialEq)]
pub enum FirstSpeaker {
    /// The agent.
    Agent {
        /// These words; `None`: what the model makes up.
        text: Option<String>,
        /// After this long.
        delay: Duration,
        /// Whether the caller cannot cut it.
        uninterruptible: bool,
    },
    /// The caller.
    User {
        /// What the agent says when the caller does not begin.
        fallback: Option<(Duration, Option<String>)>,
    },
}

/// One message of the conversation so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMessage {
    /// `MESSAGE_ROLE_…`.
    pub role: String,
    /// Its words, arguments or result.
    pub text: String,
    /// Of a tool call.
    pub invocation_id: Option<String>,
    /// Of a tool call.
    pub tool_name: Option<String>,
}

/// Said to a caller who is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inactivity {
    /// After this long, counted from the message before.
    pub after: Duration,
    /// The words.
    pub message: String,
    /// What follows.
    pub end: InactivityEnd,
}

/// What follows an inactivity message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InactivityEnd {
    /// The call goes on.
    Continue,
    /// The agent hangs up unless it is interrupted.
    Soft,
    /// The agent hangs up.
    Strict,
}

/// Turn detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VadSettings {
    /// Silence that ends a turn.
    pub turn_endpoint_delay: Duration,
    /// A shorter turn is none.
    pub minimum_turn: Duration,
    /// Speech that interrupts the agent.
    pub minimum_interruption: Duration,
    /// 0.1..=1.
    pub frame_threshold: f64,
}

impl Default for VadSettings {
    fn default() -> Self {
        Self {
            turn_endpoint_delay: Duration::from_millis(384),
            minimum_turn: Duration::ZERO,
            minimum_interruption: Duration::from_millis(90),
            frame_threshold: 0.1,
        }
    }
}

/// Where to tell what happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the service's own")]
pub struct Callbacks {
    pub joined: Option<Callback>,
    pub ended: Option<Callback>,
    pub billed: Option<Callback>,
}

/// One address with the secrets to sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Where to send.
    pub url: String,
    /// One signature each.
    pub secrets: Vec<String>,
}

impl CallRequest {
    /// Reads the body of `POST /api/calls`.
    ///
    /// # Errors
    /// The first thing that is not as documented, by path.
    pub fn read(body: &Value) -> Result<Self, ApiError> {
        let mut fields = Fields::of(body, "")?;
        let (first_speaker, first_speaker_json) = read_first_speaker(&mut fields)?;
        let voice = read_voice(&mut fields)?;
        let language_hint = fields.nullable_string("languageHint")?.map(str::to_owned);
        if language_hint.as_ref().is_some_and(|hint| hint.is_empty() || hint.chars().count() > 16) {
            return Err(ApiError::invalid(
                "languageHint",
                "a BCP-47 tag of at most 16 characters is wanted.",
            ));
        }
        fields.number("temperature", 0.0, 1.0)?;
        let request = Self {
            system_prompt: fields.nullable_string("systemPrompt")?.map(str::to_owned),
            model: fields.nullable_string("model")?.unwrap_or(DEFAULT_MODEL).to_owned(),
            voice,
            language_hint,
            medium: read_medium(&mut fields)?,
            first_speaker,
            first_speaker_json,
            initial_messages: read_initial(&mut fields)?,
            text_output: read_output_medium(&mut fields)?,
            join_timeout: duration(&mut fields, "joinTimeout")?.unwrap_or(DEFAULT_JOIN_TIMEOUT),
            max_duration: duration(&mut fields, "maxDuration")?.unwrap_or(DEFAULT_MAX_DURATION),
            time_exceeded_message: fields.nullable_string("timeExceededMessage")?.map(str::to_owned),
            inactivity: read_inactivity(&mut fields)?,
            tools: read_tools(&mut fields)?,
            vad: read_vad(&mut fields)?,
            metadata: read_metadata(&mut fields)?,
            callbacks: read_callbacks(&mut fields)?,
            recording: fields.boolean("recordingEnabled")?.unwrap_or(false),
        };
        fields.boolean("transcriptOptional")?;
        fields.object("initialState")?;
        fields.object("experimentalSettings")?;
        let retention = ["CALL_RETENTION_POLICY_RETAIN", "CALL_RETENTION_POLICY_AUTO_DELETE"];
        fields.one_of("retentionPolicy", &retention)?;
        read_strings(&mut fields, "sharedSecrets")?;
        if fields.object("dataConnection")?.is_some() {
            return Err(ApiError::invalid("dataConnection", "this simulator does not dial out."));
        }
        fields.finish()?;
        Ok(request)
    }
}

/// A duration as the service writes it: seconds with an `s`, such as `"0.384s"`.
pub fn duration(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<Duration>, ApiError> {
    let path = fields.path_of(name);
    let Some(text) = fields.nullable_string(name)? else { return Ok(None) };
    read_duration(text).map(Some).ok_or_else(|| {
        ApiError::invalid(&path, "a duration in seconds such as \"30s\" or \"0.384s\" is wanted.")
    })
}

/// `(0|[1-9]\d{0,11})(\.\d{1,9})?s`.
fn read_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').map_or((number, None), |(whole, part)| (whole, Some(part)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole_ok = digits(whole) && whole.len() <= 12 && (whole == "0" || !whole.starts_with('0'));
    let part_ok = part.is_none_or(|part| digits(part) && part.len() <= 9);
    let seconds = number.parse().ok().filter(|_| whole_ok && part_ok)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn read_voice(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let voice = fields.nullable_string("voice")?.map(str::to_owned);
    let external = fields.object("externalVoice")?.is_some();
    let overrides = fields.object("voiceOverrides")?.is_some();
    if external && voice.is_some() {
        return Err(ApiError::invalid("externalVoice", "it cannot be given together with voice."));
    }
    if overrides && voice.is_none() {
        return Err(ApiError::invalid("voiceOverrides", "it needs voice."));
    }
    Ok(voice)
}

fn read_medium(fields: &mut Fields<'_>) -> Result<Medium, ApiError> {
    let missing = || {
        let why = "without it the service takes webRtc, which this simulator does not speak; give \
                   {\"serverWebSocket\": {\"inputSampleRate\": …}}.";
        ApiError::invalid("medium", why)
    };
    let mut medium = fields.object("medium")?.ok_or_else(missing)?;
    let mut given = Vec::new();
    for name in ["webRtc", "sip", "twilio", "telnyx", "plivo", "exotel"] {
        if medium.value(name).is_some() {
            given.push(name);
        }
    }
    let socket = medium.object("serverWebSocket")?;
    if given.len() + usize::from(socket.is_some()) != 1 {
        return Err(ApiError::invalid("medium", "exactly one medium is wanted."));
    }
    let Some(mut socket) = socket else {
        return Err(ApiError::invalid("medium", "this simulator speaks serverWebSocket only."));
    };
    let rate = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let input_rate = rate(socket.required_integer("inputSampleRate", 8_000, 48_000)?);
    let output_rate = socket.integer("outputSampleRate", 8_000, 48_000)?.map_or(input_rate, rate);
    let buffer_ms = socket.integer("clientBufferSizeMs", 0, 600_000)?.unwrap_or(DEFAULT_BUFFER_MS);
    let read = Medium {
        input_rate,
        output_rate,
        client_buffer: Duration::from_millis(buffer_ms.unsigned_abs()),
        idle_timeout: duration(&mut socket, "mediaIdleTimeout")?.map(|limit| limit.max(IDLE_LEAST)),
        messages: read_data_messages(&mut socket)?,
    };
    socket.finish()?;
    medium.finish()?;
    Ok(read)
}

fn read_data_messages(socket: &mut Fields<'_>) -> Result<DataMessages, ApiError> {
    let mut on = DataMessages::default();
    let Some(mut given) = socket.object("dataMessages")? else { return Ok(on) };
    let switches: [(&'static str, &mut bool); 9] = [
        ("pong", &mut on.pong),
        ("state", &mut on.state),
        ("transcript", &mut on.transcript),
        ("clientToolInvocation", &mut on.client_tool_invocation),
        ("playbackClearBuffer", &mut on.playback_clear_buffer),
        ("callStarted", &mut on.call_started),
        ("debug", &mut on.debug),
        ("userStartedSpeaking", &mut on.user_started_speaking),
        ("userStoppedSpeaking", &mut on.user_stopped_speaking),
    ];
    for (name, switch) in switches {
        *switch = given.boolean(name)?.unwrap_or(*switch);
    }
    // Their payload is not documented, so that nothing is sent for them.
    for name in ["callEvent", "toolUsed", "invokingTool", "dataConnectionToolInvocation"] {
        given.boolean(name)?;
    }
    given.finish()?;
    Ok(on)
}

fn read_first_speaker(fields: &mut Fields<'_>) -> Result<(FirstSpeaker, Value), ApiError> {
    let old = fields.one_of("firstSpeaker", &["FIRST_SPEAKER_AGENT", "FIRST_SPEAKER_USER"])?;
    let path = "firstSpeakerSettings";
    let Some(value) = fields.value(path).filter(|value| !value.is_null()) else {
        return Ok(match old {
            Some("FIRST_SPEAKER_USER") => {
                (FirstSpeaker::User { fallback: None }, serde_json::json!({"user": {}}))
            }
            _ => (
                FirstSpeaker::Agent { text: None, delay: Duration::ZERO, uninterruptible: false },
                serde_json::json!({"agent": {}}),
            ),
        });
    };
    let mut settings = Fields::of(value, path)?;
    let (agent, user) = (settings.object("agent")?, settings.object("user")?);
    settings.finish()?;
    let read = match (agent, user) {
        (Some(mut agent), None) => {
            agent.nullable_string("prompt")?;
            let read = FirstSpeaker::Agent {
                text: agent.nullable_string("text")?.map(str::to_owned),
                delay: duration(&mut agent, "delay")?.unwrap_or_default(),
                uninterruptible: agent.boolean("uninterruptible")?.unwrap_or(false),
            };
            agent.finish()?;
            read
        }
        (None, Some(mut user)) => {
            let mut fallback = None;
            if let Some(mut given) = user.object("fallback")? {
                let delay = duration(&mut given, "delay")?;
                let delay = delay.ok_or_else(|| ApiError::missing(&given.path_of("delay")))?;
                given.nullable_string("prompt")?;
                fallback = Some((delay, given.nullable_string("text")?.map(str::to_owned)));
                given.finish()?;
            }
            user.finish()?;
            FirstSpeaker::User { fallback }
        }
        _ => return Err(ApiError::invalid(path, "exactly one of agent and user is wanted.")),
    };
    let same = matches!(
        (old, &read),
        (None, _)
            | (Some("FIRST_SPEAKER_AGENT"), FirstSpeaker::Agent { .. })
            | (Some("FIRST_SPEAKER_USER"), FirstSpeaker::User { .. })
    );
    if !same {
        return Err(ApiError::invalid("firstSpeaker", "it does not match firstSpeakerSettings."));
    }
    Ok((read, value.clone()))
}

/// Reads `initialMessages`, here and in a new stage.
pub fn read_initial(fields: &mut Fields<'_>) -> Result<Vec<InitialMessage>, ApiError> {
    let mut messages = Vec::new();
    for (path, value) in fields.array("initialMessages")?.unwrap_or_default() {
        let mut message = Fields::of(value, path)?;
        let role = message.required_one_of("role", &ROLES)?.to_owned();
        let invocation_id = message.nullable_string("invocationId")?.map(str::to_owned);
        let tool_name = message.nullable_string("toolName")?.map(str::to_owned);
        message.one_of("medium", &OUTPUT_MEDIA)?;
        let text = message.nullable_string("text")?.unwrap_or_default().to_owned();
        let tool = role.starts_with("MESSAGE_ROLE_TOOL");
        if tool && invocation_id.is_none() {
            return Err(ApiError::missing(&message.path_of("invocationId")));
        }
        if tool && tool_name.is_none() {
            return Err(ApiError::missing(&message.path_of("toolName")));
        }
        if !tool && text.is_empty() {
            return Err(ApiError::missing(&message.path_of("text")));
        }
        message.finish()?;
        messages.push(InitialMessage { role, text, invocation_id, tool_name });
    }
    Ok(messages)
}

fn read_output_medium(fields: &mut Fields<'_>) -> Result<bool, ApiError> {
    Ok(fields.one_of("initialOutputMedium", &OUTPUT_MEDIA)? == Some("MESSAGE_MEDIUM_TEXT"))
}

fn read_inactivity(fields: &mut Fields<'_>) -> Result<Vec<Inactivity>, ApiError> {
    let mut messages = Vec::new();
    for (path, value) in fields.array("inactivityMessages")?.unwrap_or_default() {
        let mut given = Fields::of(value, path)?;
        let after = duration(&mut given, "duration")?;
        let after = after.ok_or_else(|| ApiError::missing(&given.path_of("duration")))?;
        let message = given.required_string("message")?.to_owned();
        let ends = ["END_BEHAVIOR_UNSPECIFIED", "END_BEHAVIOR_HANG_UP_SOFT", "END_BEHAVIOR_HANG_UP_STRICT"];
        let end = match given.one_of("endBehavior", &ends)? {
            Some("END_BEHAVIOR_HANG_UP_SOFT") => InactivityEnd::Soft,
            Some("END_BEHAVIOR_HANG_UP_STRICT") => InactivityEnd::Strict,
            _ => InactivityEnd::Continue,
        };
        given.finish()?;
        messages.push(Inactivity { after, message, end });
    }
    Ok(messages)
}

fn read_vad(fields: &mut Fields<'_>) -> Result<VadSettings, ApiError> {
    let default = VadSettings::default();
    let Some(mut given) = fields.object("vadSettings")? else { return Ok(default) };
    let read = VadSettings {
        turn_endpoint_delay: duration(&mut given, "turnEndpointDelay")?
            .unwrap_or(default.turn_endpoint_delay),
        minimum_turn: duration(&mut given, "minimumTurnDuration")?.unwrap_or(default.minimum_turn),
        minimum_interruption: duration(&mut given, "minimumInterruptionDuration")?
            .unwrap_or(default.minimum_interruption),
        frame_threshold: given
            .number("frameActivationThreshold", 0.1, 1.0)?
            .unwrap_or(default.frame_threshold),
    };
    given.finish()?;
    Ok(read)
}

fn read_metadata(fields: &mut Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let Some(value) = fields.value("metadata").filter(|value| !value.is_null()) else {
        return Ok(Map::new());
    };
    let map = value.as_object().ok_or_else(|| ApiError::wrong_type("metadata", "an object", value))?;
    for (key, value) in map {
        let path = format!("metadata.{key}");
        if key.starts_with("ultravox.") {
            return Err(ApiError::invalid(&path, "keys that start with `ultravox.` are the service's."));
        }
        if !value.is_string() {
            return Err(ApiError::wrong_type(&path, "a string", value));
        }
    }
    Ok(map.clone())
}

fn read_callbacks(fields: &mut Fields<'_>) -> Result<Callbacks, ApiError> {
    let Some(mut given) = fields.object("callbacks")? else { return Ok(Callbacks::default()) };
    let mut one = |name| -> Result<Option<Callback>, ApiError> {
        let Some(mut callback) = given.object(name)? else { return Ok(None) };
        let url = callback.required_string("url")?.to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(ApiError::invalid(&callback.path_of("url"), "an http or https URL is wanted."));
        }
        let secrets = read_strings(&mut callback, "secrets")?;
        callback.finish()?;
        Ok(Some(Callback { url, secrets }))
    };
    let read = Callbacks { joined: one("joined")?, ended: one("ended")?, billed: one("billed")? };
    given.finish()?;
    Ok(read)
}

fn read_strings(fields: &mut Fields<'_>, name: &'static str) -> Result<Vec<String>, ApiError> {
    let strings = fields.array(name)?.unwrap_or_default().into_iter().map(|(path, value)| {
        value.as_str().map(str::to_owned).ok_or_else(|| ApiError::wrong_type(&path, "a string", value))
    });
    strings.collect()
}

const DEFAULT_MODEL: &str = "ultravox-v0.7";
const DEFAULT_BUFFER_MS: i64 = 60;
const DEFAULT_JOIN_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_MAX_DURATION: Duration = Duration::from_secs(3_600);
/// A shorter `mediaIdleTimeout` counts as this.
const IDLE_LEAST: Duration = Duration::from_secs(10);
const OUTPUT_MEDIA: [&str; 2] = ["MESSAGE_MEDIUM_VOICE", "MESSAGE_MEDIUM_TEXT"];
const ROLES: [&str; 4] =
    ["MESSAGE_ROLE_USER", "MESSAGE_ROLE_AGENT", "MESSAGE_ROLE_TOOL_CALL", "MESSAGE_ROLE_TOOL_RESULT"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({
            "systemPrompt": "Be kind.",
            "medium": {"serverWebSocket": {"inputSampleRate": 24_000, "clientBufferSizeMs": 30_000}},
            "firstSpeakerSettings": {"user": {}},
            "vadSettings": {"turnEndpointDelay": "0.512s"},
            "callbacks": {"ended": {"url": "https://example.com/hook", "secrets": ["s"]}},
            "metadata": {"call": "c1"},
            "selectedTools": [{"temporaryTool": {
                "modelToolName": "lookup", "description": "Looks up.", "timeout": "10s",
                "dynamicParameters": [{"name": "table", "location": "PARAMETER_LOCATION_BODY",
                    "schema": {"type": "integer"}, "required": true}],
                "client": {},
            }}],
        })
    }

    #[test]
    fn a_request_is_read_with_the_services_defaults() {
        let request = CallRequest::read(&body()).unwrap();
        assert_eq!(
            (request.model.as_str(), request.join_timeout),
            ("ultravox-v0.7", Duration::from_secs(30))
        );
        assert_eq!(request.medium.output_rate, 24_000);
        assert_eq!(request.vad.turn_endpoint_delay, Duration::from_millis(512));
        assert_eq!(request.first_speaker, FirstSpeaker::User { fallback: None });
        assert_eq!(request.tools[0].timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_is_not_as_documented_is_named() {
        let cases: [(&str, Value, &str); 16] = [
            ("/maxDuration", json!("60"), "maxDuration"),
            ("/maxDuration", json!(60), "maxDuration"),
            ("/joinTimeout", json!("007s"), "joinTimeout"),
            ("/prompt", json!("x"), "prompt"),
            ("/medium", json!({}), "medium"),
            ("/medium", Value::Null, "medium"),
            ("/medium", json!({"webRtc": {}, "serverWebSocket": {"inputSampleRate": 8000}}), "medium"),
            ("/medium/serverWebSocket", json!({}), "medium.serverWebSocket.inputSampleRate"),
            ("/temperature", json!(1.5), "temperature"),
            ("/languageHint", json!("a language of the caller"), "languageHint"),
            ("/metadata/ultravox.x", json!("1"), "metadata.ultravox.x"),
            ("/firstSpeaker", json!("FIRST_SPEAKER_AGENT"), "firstSpeaker"),
            ("/initialMessages", json!([{"role": "user", "text": "x"}]), "initialMessages[0].role"),
            (
                "/initialMessages",
                json!([{"role": "MESSAGE_ROLE_TOOL_CALL", "text": "{}"}]),
                "initialMessages[0].invocationId",
            ),
            ("/externalVoice", json!({"lmnt": {}}), ""),
            ("/voiceOverrides", json!({}), "voiceOverrides"),
        ];
        for (at, value, param) in cases {
            let mut body = body();
            let (parent, name) = at.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[name] = value;
            let refused = CallRequest::read(&body).err().and_then(|error| error.param).unwrap_or_default();
            assert_eq!(refused, param, "{at}");
        }
    }

    #[test]
    fn durations_follow_the_pattern() {
        assert_eq!(read_duration("0.384s"), Some(Duration::from_millis(384)));
        assert_eq!(read_duration("3600s"), Some(Duration::from_secs(3_600)));
        for wrong in ["", "s", "1", "1.s", ".5s", "01s", "-1s", "1e3s", "+1s", "1 s", "1m"] {
            assert_eq!(read_duration(wrong), None, "{wrong}");
        }
    }
}
