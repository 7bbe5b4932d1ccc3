//! Turn detection: how the client wants the end of the caller's turn to be found.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::Fields;

/// How the end of the caller's turn is found.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnDetection {
    /// Which detector, with its own settings.
    pub kind: DetectionKind,
    /// Whether a turn's end starts a response.
    pub create_response: bool,
    /// Whether a turn's start cancels the response in progress.
    pub interrupt_response: bool,
}

/// The two detectors.
#[derive(Debug, Clone, PartialEq)]
pub enum DetectionKind {
    /// By silence after speech.
    Server {
        /// 0..=1; higher needs louder speech.
        threshold: f64,
        /// Audio kept from before the start.
        prefix_padding_ms: u32,
        /// Silence that ends the turn.
        silence_duration_ms: u32,
        /// Prompt a silent caller after this long.
        idle_timeout_ms: Option<u32>,
    },
    /// By what was said.
    Semantic {
        /// `low`, `medium`, `high` or `auto`.
        eagerness: &'static str,
    },
}

impl TurnDetection {
    /// The service's default.
    pub const DEFAULT: Self = Self {
        kind: DetectionKind::Server {
            threshold: 0.5,
            prefix_padding_ms: 300,
            silence_duration_ms: 500,
            idle_timeout_ms: None,
        },
        create_response: true,
        interrupt_response: true,
    };

    /// Audio kept from before the detected start.
    pub const fn prefix_padding_ms(&self) -> u32 {
        match self.kind {
            DetectionKind::Server { prefix_padding_ms, .. } => prefix_padding_ms,
            DetectionKind::Semantic { .. } => 300,
        }
    }

    /// Silence after which the turn counts as over. The semantic detector of the service reads the
    /// words; this one can only wait a shorter or longer pause.
    pub fn silence_ms(&self) -> u32 {
        match self.kind {
            DetectionKind::Server { silence_duration_ms, .. } => silence_duration_ms,
            DetectionKind::Semantic { eagerness: "high" } => 300,
            DetectionKind::Semantic { eagerness: "low" } => 1_200,
            DetectionKind::Semantic { .. } => 600,
        }
    }

    /// Reads a `turn_detection` member.
    pub fn read(mut fields: Fields<'_>) -> Result<Self, ApiError> {
        let kind = match fields.required_one_of("type", &["server_vad", "semantic_vad"])? {
            "server_vad" => DetectionKind::Server {
                threshold: fields.number("threshold", 0.0, 1.0)?.unwrap_or(0.5),
                prefix_padding_ms: millis(&mut fields, "prefix_padding_ms", 0, 5_000)?.unwrap_or(300),
                silence_duration_ms: millis(&mut fields, "silence_duration_ms", 0, 60_000)?.unwrap_or(500),
                idle_timeout_ms: match fields.value("idle_timeout_ms") {
                    None | Some(Value::Null) => None,
                    Some(_) => millis(&mut fields, "idle_timeout_ms", 5_000, 30_000)?,
                },
            },
            _ => DetectionKind::Semantic {
                eagerness: match fields.one_of("eagerness", &["low", "medium", "high", "auto"])? {
                    Some("low") => "low",
                    Some("medium") => "medium",
                    Some("high") => "high",
                    _ => "auto",
                },
            },
        };
        let create_response = fields.boolean("create_response")?.unwrap_or(true);
        let interrupt_response = fields.boolean("interrupt_response")?.unwrap_or(true);
        fields.finish()?;
        Ok(Self { kind, create_response, interrupt_response })
    }

    /// As shown in `session.updated`.
    pub fn to_json(&self) -> Value {
        let mut json = match &self.kind {
            DetectionKind::Server { threshold, prefix_padding_ms, silence_duration_ms, idle_timeout_ms } => {
                json!({
                    "type": "server_vad",
                    "threshold": threshold,
                    "prefix_padding_ms": prefix_padding_ms,
                    "silence_duration_ms": silence_duration_ms,
                    "idle_timeout_ms": idle_timeout_ms,
                })
            }
            DetectionKind::Semantic { eagerness } => json!({"type": "semantic_vad", "eagerness": eagerness}),
        };
        json["create_response"] = self.create_response.into();
        json["interrupt_response"] = self.interrupt_response.into();
        json
    }
}

fn millis(fields: &mut Fields<'_>, name: &'static str, low: i64, high: i64) -> Result<Option<u32>, ApiError> {
    Ok(fields.integer(name, low, high)?.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)))
}
