//! The calls of a simulator, as REST and webhooks show them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::create::{CallRequest, Callback};
use super::fault::Fault;
use super::session::Noted;
use super::wire::ClientMessage;

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub id: String,
    /// 1, 2, 3, … by the requests for calls.
    pub number: u64,
    /// Part of the join URL.
    pub token: String,
    /// It came by SIP.
    pub by_sip: bool,
    pub join_url: String,
    pub request: Arc<CallRequest>,
    /// The request's body.
    pub asked: Value,
    pub faults: Vec<Fault>,
    pub created: DateTime<Utc>,
    pub joined: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
    pub end_reason: Option<&'static str>,
    pub billed: Option<Duration>,
    messages: Vec<Value>,
    events: Vec<Value>,
    /// To the media session, while there is one.
    commands: Option<mpsc::Sender<ClientMessage>>,
}

impl Call {
    pub(super) fn new(
        (number, id, token): (u64, String, String),
        join_url: String,
        request: CallRequest,
        asked: Value,
        faults: Vec<Fault>,
    ) -> Self {
        Self {
            id,
            number,
            token,
            by_sip: false,
            join_url,
            request: Arc::new(request),
            asked,
            faults,
            created: Utc::now(),
            joined: None,
            ended: None,
            end_reason: None,
            billed: None,
            messages: Vec::new(),
            events: Vec::new(),
            commands: None,
        }
    }

    /// Where to tell of an event of this call.
    pub(super) fn callback(&self, event: &str) -> Option<&Callback> {
        let callbacks = &self.request.callbacks;
        match event {
            "call.joined" => callbacks.joined.as_ref(),
            "call.ended" => callbacks.ended.as_ref(),
            "call.billed" => callbacks.billed.as_ref(),
            _ => None,
        }
    }

    /// From the join to the end.
    pub(super) fn duration(&self) -> Duration {
        let span = self.joined.zip(self.ended).map(|(joined, ended)| ended - joined);
        span.and_then(|span| span.to_std().ok()).unwrap_or_default()
    }

    /// The Call object.
    pub(super) fn to_json(&self) -> Value {
        let time = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let asked = |name: &str| self.asked.get(name).cloned().unwrap_or(Value::Null);
        let billed = self.billed.map(|billed| format!("{}s", billed.as_secs_f64()));
        json!({
            "callId": self.id,
            "clientVersion": null,
            "created": time(Some(self.created)),
            "joined": time(self.joined),
            "ended": time(self.ended),
            "endReason": self.end_reason,
            "billedDuration": billed,
            "billingStatus": match self.billed {
                None => "BILLING_STATUS_PENDING",
                Some(Duration::ZERO) => "BILLING_STATUS_FREE_ZERO_EFFECTIVE_DURATION",
                Some(_) => "BILLING_STATUS_BILLED",
            },
            "firstSpeakerSettings": self.request.first_speaker_json,
            "initialOutputMedium": if self.request.text_output { "MESSAGE_MEDIUM_TEXT" } else { "MESSAGE_MEDIUM_VOICE" },
            "joinTimeout": format!("{}s", self.request.join_timeout.as_secs_f64()),
            "joinUrl": (!self.by_sip).then_some(&self.join_url),
            "languageHint": self.request.language_hint,
            "maxDuration": format!("{}s", self.request.max_duration.as_secs_f64()),
            "medium": asked("medium"),
            "model": self.request.model,
            "recordingEnabled": self.request.recording,
            "systemPrompt": self.request.system_prompt,
            "temperature": asked("temperature").as_f64().unwrap_or(0.0),
            "timeExceededMessage": self.request.time_exceeded_message,
            "voice": self.request.voice,
            "errorCount": 0,
            "vadSettings": asked("vadSettings"),
            "shortSummary": null,
            "summary": null,
            "metadata": self.request.metadata,
            "sipDetails": self.by_sip.then(|| json!({
                "billedDuration": billed,
                "terminationReason": self.ended.map(|_| "SIP_TERMINATION_NORMAL"),
            })),
        })
    }
}

/// All calls.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<HashMap<String, Call>>);

impl Book {
    pub(super) fn insert(&self, call: Call) {
        self.lock().insert(call.id.clone(), call);
    }

    /// A copy of a call.
    pub(super) fn get(&self, id: &str) -> Option<Call> {
        self.lock().get(id).cloned()
    }

    /// Changes a call; `None` when there is none.
    pub(super) fn change<T>(&self, id: &str, change: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.lock().get_mut(id).map(change)
    }

    /// Calls that have not ended.
    pub(super) fn live(&self) -> usize {
        self.lock().values().filter(|call| call.ended.is_none()).count()
    }

    /// Takes the media socket's place: the call, or why not.
    pub(super) fn join(
        &self,
        id: &str,
        token: Option<&str>,
        commands: mpsc::Sender<ClientMessage>,
    ) -> Result<Call, (u16, &'static str, &'static str)> {
        let mut calls = self.lock();
        let call = calls.get_mut(id).ok_or((404, "join_unknown", "there is no such call"))?;
        if token != Some(&call.token) {
            return Err((403, "join_url_changed", "the join URL must be used as it is"));
        }
        if call.ended.is_some() {
            return Err((410, "join_after_end", "the call is over"));
        }
        if call.joined.is_some() {
            return Err((409, "join_twice", "a call has one client"));
        }
        call.joined = Some(Utc::now());
        call.commands = Some(commands);
        Ok(call.clone())
    }

    /// Ends a call that has not ended; the call as it is then.
    pub(super) fn end(&self, id: &str, reason: &'static str) -> Option<Call> {
        let mut calls = self.lock();
        let call = calls.get_mut(id).filter(|call| call.ended.is_none())?;
        call.ended = Some(Utc::now());
        call.end_reason = Some(reason);
        call.commands = None;
        Some(call.clone())
    }

    pub(super) fn note(&self, id: &str, noted: Noted) {
        self.change(id, |call| match noted {
            Noted::Message(mut message) => {
                message["callStageId"] = call.id.as_str().into();
                message["callStageMessageIndex"] = call.messages.len().into();
                call.messages.push(message);
            }
            Noted::Event { severity, kind, text } => {
                let since = call.joined.map(|joined| (Utc::now() - joined).as_seconds_f64());
                call.events.push(json!({
                    "callId": call.id,
                    "callStageId": call.id,
                    "callTimestamp": format!("{:.3}s", since.unwrap_or_default()),
                    "severity": severity,
                    "type": kind,
                    "text": text,
                    "extras": null,
                }));
            }
        });
    }

    pub(super) fn messages(&self, id: &str) -> Option<Vec<Value>> {
        self.lock().get(id).map(|call| call.messages.clone())
    }

    pub(super) fn events(&self, id: &str) -> Option<Vec<Value>> {
        self.lock().get(id).map(|call| call.events.clone())
    }

    /// Hands a message to the media session; `false` when there is none.
    pub(super) fn command(&self, id: &str, message: ClientMessage) -> Option<bool> {
        let commands = self.lock().get(id).map(|call| call.commands.clone())?;
        Some(commands.is_some_and(|commands| commands.try_send(message).is_ok()))
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Call>> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
