//! The SIP-native medium: calls to `agent_…` are answered, spoken with, and told of like all others.
//!
//! The line is a [`Phone`] that performs the script: what it says is a turn, and the
//! caller's turn is whatever sounds before the next one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::book::Call;
use super::create::CallRequest;
use super::fault::Fault;
use super::record::Record;
use super::server::Shared;
use super::session::Noted;
use crate::audio::{BRIDGE_RATE, Codec};
use crate::simulate::error::ApiError;
use crate::simulate::phone::{Act, AnswerPlan, Arrival, CallReport, Phone};
use crate::sip::message::StatusCode;

/// Where SIP is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipConfig {
    /// UDP and TCP; port 0 takes a free one.
    pub listen: SocketAddr,
    /// First and last port of RTP.
    pub rtp_ports: (u16, u16),
}

/// Opens the line.
pub(super) async fn open(config: SipConfig) -> anyhow::Result<Phone> {
    let local: IpAddr = config.listen.ip();
    Phone::start_answering(local, config.listen.port(), config.rtp_ports, 1).await
}

/// Takes calls until the simulator stops.
pub(super) async fn serve(shared: Arc<Shared>, phone: Arc<Phone>) {
    loop {
        let arrival = tokio::select! {
            arrival = phone.arrival() => arrival,
            () = shared.stop.cancelled() => None,
        };
        let Some(arrival) = arrival else { return };
        let (shared, phone) = (Arc::clone(&shared), Arc::clone(&phone));
        let stop = shared.stop.clone();
        shared.clone().spawn(async move {
            tokio::select! {
                () = answer(&shared, &phone, arrival) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(shared: &Arc<Shared>, phone: &Phone, arrival: Arrival) {
    let number = shared.next_number();
    let faults = shared.faults(number);
    if !arrival.invite.called.starts_with("agent_") {
        let message = format!("`{}` is no agent; agent_ID is called", arrival.invite.called);
        shared.violation(number, "INVITE", &ApiError::new("sip_no_agent", message));
        return phone.refuse(&arrival, StatusCode::NOT_FOUND);
    }
    let mut ring = Duration::ZERO;
    for fault in &faults {
        match *fault {
            Fault::Refuse { status, .. } => {
                let reason = "as asked for".to_owned();
                shared.record(number, Record::Refused { status, reason });
                let status = StatusCode::new(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                return phone.refuse(&arrival, status);
            }
            Fault::NoHandshake => return shared.stop.cancelled().await,
            Fault::SlowHandshake(after) => ring = after,
            _ => {}
        }
    }
    let Ok(request) = request(&arrival) else { return phone.refuse(&arrival, StatusCode::DECLINE) };
    let asked = shown(&arrival);
    let id = shared.open_sip(number, request, asked, faults.clone());
    let limit = faults.iter().find_map(|fault| match fault {
        Fault::Die(after) | Fault::Close(after) | Fault::Expire(after) => Some(*after),
        _ => None,
    });
    let plan = AnswerPlan {
        ring,
        codecs: vec![Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus],
        acts: acts(shared, &faults),
        limit: limit.unwrap_or(LONGEST),
    };
    shared.joined(&id).await;
    let reason = match phone.take(arrival, plan).await {
        Ok(report) => {
            write_down(shared, &id, &report);
            if report.hang_up.is_some() { "hangup" } else { "agent_hangup" }
        }
        Err(error) => {
            tracing::warn!(%error, "the simulator could not take a call");
            "system_error"
        }
    };
    shared.end(&id, reason).await;
}

/// The request a call by SIP amounts to.
fn request(arrival: &Arrival) -> Result<CallRequest, ApiError> {
    let mut request = CallRequest::read(&json!({"medium": {"serverWebSocket": {"inputSampleRate": 8_000}}}))?;
    let invite = &arrival.invite;
    let known = [
        ("ultravox.sip.caller_id", invite.caller.clone()),
        ("ultravox.sip.from_display_name", invite.caller_name.clone()),
        ("ultravox.sip.from_uri", Some(invite.from.uri.as_str().to_owned())),
    ];
    for (name, value) in known {
        request.metadata.insert(name.to_owned(), value.unwrap_or_default().into());
    }
    Ok(request)
}

/// What was asked for, as the record shows it.
fn shown(arrival: &Arrival) -> Value {
    let headers = arrival.invite.request.headers.iter();
    let own = headers.filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-"));
    let context: serde_json::Map<String, Value> = own
        .map(|(name, value)| {
            let name = name[2..].to_ascii_lowercase().replace('-', "_");
            let text = String::from_utf8_lossy(value).into_owned();
            (name, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
        .collect();
    json!({"medium": {"sip": {"incoming": {}}}, "agent": arrival.invite.called, "templateContext": context})
}

/// The script as a person performs it.
fn acts(shared: &Shared, faults: &[Fault]) -> Vec<Act> {
    let behaviour = shared.behaviour();
    let turns = faults.iter().find_map(|fault| match fault {
        Fault::HangUp(turns) => Some(*turns as usize),
        _ => None,
    });
    let mut acts = Vec::new();
    for index in 0..turns.unwrap_or(TURNS_MAX) {
        let turn = behaviour.script.turn(index);
        let say = behaviour.say(Some(turn), turn.say.clone().unwrap_or_default());
        if index > 0 {
            acts.push(Act::WaitForSpeech(HEARD_AFTER));
            acts.push(Act::WaitForSilence(ENDPOINT));
        }
        acts.push(Act::Say(shared.samples(&say, BRIDGE_RATE).into()));
    }
    if turns.is_some() {
        acts.push(Act::HangUp);
    }
    acts
}

/// Who said what, as far as it came to it.
fn write_down(shared: &Shared, id: &str, report: &CallReport) {
    let behaviour = shared.behaviour();
    let Some(answered) = report.answered else { return };
    let since = |at: Instant| format!("{:.3}s", at.saturating_duration_since(answered).as_secs_f64());
    let mut before = answered;
    for (index, (began, ended)) in report.spoke.iter().enumerate() {
        let note = |role: &str, text: &str, from: Instant, to: Instant| {
            let span = json!({"start": since(from), "end": since(to)});
            let medium = "MESSAGE_MEDIUM_VOICE";
            let message = json!({"role": role, "text": text, "medium": medium, "timespan": span});
            shared.book.note(id, Noted::Message(message));
        };
        if index > 0 {
            note("MESSAGE_ROLE_USER", &behaviour.script.hears(index - 1), before, *began);
        }
        let words = behaviour.script.turn(index).say.clone().unwrap_or_default();
        note("MESSAGE_ROLE_AGENT", &words, *began, *ended);
        before = *ended;
    }
}

/// Where a call by SIP stands in the book.
pub(super) fn entry(number: u64, id: String, request: CallRequest, asked: Value, faults: Vec<Fault>) -> Call {
    let mut call = Call::new((number, id, String::new()), String::new(), request, asked, faults);
    call.by_sip = true;
    call
}

const LONGEST: Duration = Duration::from_secs(3_600);
const TURNS_MAX: usize = 50;
const HEARD_AFTER: Duration = Duration::from_millis(100);
const ENDPOINT: Duration = Duration::from_millis(384);
