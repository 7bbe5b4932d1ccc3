//! Every tool this server has or will have, in one place.
//!
//! A tool whose subsystem is not in this version is named here with that subsystem, so that `tandem provider tools
//! --all` can say what it waits for; it has no handler, and no model ever sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::action::{Action, Collect};
use super::{Definition, Handler, Origin, Tool};

/// What a built-in tool needs of the call or the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it always works.
    Nothing,
    /// Destinations of the assistant (`transfer_to`).
    Destinations,
    /// `media.hold_music`.
    HoldMusic,
    /// The call is recorded.
    Recording,
}

/// A part of Tandem that tools wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subsystem {
    /// Agents, queues, consultation.
    Desk,
    /// Employees, departments, business hours.
    Directory,
    /// Customers and the systems that know them.
    Customers,
    /// Tickets.
    Tickets,
    /// Messages taken, intake forms, leads, surveys.
    Intake,
    /// Appointments and call-backs.
    Calendar,
    /// Documents to search.
    Knowledge,
    /// Outgoing SMS and mail.
    Messaging,
    /// Campaigns and the do-not-call list.
    Campaigns,
}

impl Subsystem {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desk => "agents and queues",
            Self::Directory => "employee directory and business hours",
            Self::Customers => "customers",
            Self::Tickets => "tickets",
            Self::Intake => "messages, intake, leads and surveys",
            Self::Calendar => "appointments and call-backs",
            Self::Knowledge => "knowledge base",
            Self::Messaging => "SMS and e-mail",
            Self::Campaigns => "campaigns and the do-not-call list",
        }
    }
}

/// Named tools that wait for a subsystem.
pub const WAITING: &[(&str, Subsystem)] = &[
    ("book_appointment", Subsystem::Calendar),
    ("business_hours", Subsystem::Directory),
    ("cancel_appointment", Subsystem::Calendar),
    ("capture_lead", Subsystem::Intake),
    ("check_availability", Subsystem::Directory),
    ("complete_intake", Subsystem::Intake),
    ("create_ticket", Subsystem::Tickets),
    ("escalate_to_human", Subsystem::Desk),
    ("lookup_customer", Subsystem::Customers),
    ("mark_do_not_call", Subsystem::Campaigns),
    ("order_status", Subsystem::Customers),
    ("record_survey_answer", Subsystem::Intake),
    ("save_intake", Subsystem::Intake),
    ("schedule_callback", Subsystem::Calendar),
    ("search_directory", Subsystem::Directory),
    ("search_knowledge", Subsystem::Knowledge),
    ("send_email", Subsystem::Messaging),
    ("send_sms", Subsystem::Messaging),
    ("take_message", Subsystem::Intake),
    ("update_customer", Subsystem::Customers),
    ("update_ticket", Subsystem::Tickets),
    ("warm_transfer", Subsystem::Desk),
];

/// A built-in tool and what it needs.
pub struct BuiltIn {
    /// What the call must have for it.
    pub need: Need,
    /// The tool.
    pub tool: Arc<Tool>,
}

/// All tools that work in this version.
pub fn all() -> Vec<BuiltIn> {
    let tool = |need, name: &str, description: &str, parameters: Value, act| {
        let tool = built(name, description, parameters, act)?;
        Some(BuiltIn { need, tool })
    };
    let tools = [
        tool(
            Need::Nothing,
            END_CALL,
            "Ends the phone call. Say goodbye first; the call ends once your words have been heard.",
            object(
                json!({"reason": {"type": "string", "maxLength": 200, "description": "Why the call is over, in a few words"}}),
                &[],
            ),
            end_call,
        ),
        tool(
            Need::Nothing,
            "send_dtmf",
            "Presses keys on the phone towards the other side, for example to get through a menu.",
            object(
                json!({"digits": {"type": "string", "description": "Keys in order: 0-9 * # A-D", "pattern": "^[0-9*#A-Da-d]{1,32}$", "x-sensitive": true}}),
                &["digits"],
            ),
            |arguments| Ok(Action::SendDtmf { digits: text(arguments, "digits").to_ascii_uppercase() }),
        ),
        tool(Need::Destinations, TRANSFER, TRANSFER_TEXT, transfer_parameters(&[]), transfer_action),
        tool(
            Need::HoldMusic,
            "hold",
            "Plays music to the caller while they wait. Tell them first. It ends when other tools that run have \
             answered, when the caller speaks, or after the given time; you are told then.",
            object(
                json!({"seconds": {"type": "integer", "minimum": 1, "maximum": 300, "description": "The longest the music plays"}}),
                &["seconds"],
            ),
            |arguments| {
                Ok(Action::Hold { span: Duration::from_secs(number(arguments, "seconds").unwrap_or(60)) })
            },
        ),
        tool(
            Need::Nothing,
            COLLECT_DIGITS,
            "Waits for the caller to press keys on the phone, such as a customer number or a PIN, and gives them to \
             you. Ask for them first. The keys are not written down.",
            object(
                json!({
                    "count": {"type": "integer", "minimum": 1, "maximum": 32, "description": "How many keys; leave out if that varies"},
                    "terminator": {"type": "string", "enum": ["#", "*"], "description": "The key that ends the entry, if any"},
                    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 60, "description": "How long to wait for the first key; 10 if left out"}
                }),
                &[],
            ),
            |arguments| {
                Ok(Action::CollectDigits(Collect {
                    count: number(arguments, "count").and_then(|count| usize::try_from(count).ok()),
                    terminator: text(arguments, "terminator").chars().next(),
                    first: Duration::from_secs(number(arguments, "timeout_seconds").unwrap_or(10)),
                    pause: KEY_PAUSE,
                }))
            },
        ),
        tool(
            Need::Recording,
            "pause_recording",
            "Leaves what follows out of the recording, for example while the caller says a card number. Call \
             resume_recording afterwards.",
            object(json!({}), &[]),
            |_| Ok(Action::PauseRecording),
        ),
        tool(
            Need::Recording,
            "resume_recording",
            "Records again after pause_recording.",
            object(json!({}), &[]),
            |_| Ok(Action::ResumeRecording),
        ),
        tool(
            Need::Nothing,
            "set_language",
            "Says which language the caller speaks, so that they are understood better. Call it when the caller \
             changes the language or asks for another one, and go on in that language.",
            object(
                json!({"language": {"type": "string", "pattern": "^[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8}){0,2}$", "description": "BCP 47, such as en, de or pt-BR"}}),
                &["language"],
            ),
            |arguments| Ok(Action::SetLanguage { language: text(arguments, "language") }),
        ),
        tool(
            Need::Nothing,
            "add_tag",
            "Marks the call with a short tag, so that people find it later.",
            object(
                json!({"tag": {"type": "string", "minLength": 1, "maxLength": 40, "description": "One to three words, such as refund"}}),
                &["tag"],
            ),
            |arguments| {
                let tag = text(arguments, "tag").trim().to_lowercase();
                let fits = |c: char| c.is_alphanumeric() || " _.:-".contains(c);
                if tag.is_empty() || !tag.chars().all(fits) {
                    return Err("`tag`: letters, digits, blanks and _ . : - only".to_owned());
                }
                Ok(Action::AddTag { tag })
            },
        ),
        tool(
            Need::Nothing,
            "add_note",
            "Writes a note about the call for the people who read its record. The caller does not hear it.",
            object(
                json!({"text": {"type": "string", "minLength": 1, "maxLength": 2000, "description": "The note"}}),
                &["text"],
            ),
            |arguments| Ok(Action::AddNote { text: text(arguments, "text") }),
        ),
    ];
    tools.into_iter().flatten().collect()
}

/// The transfer tool of an assistant that may move calls to these names.
pub fn transfer(destinations: &BTreeMap<String, String>) -> Option<Arc<Tool>> {
    let names: Vec<&str> = destinations.keys().map(String::as_str).collect();
    built(TRANSFER, TRANSFER_TEXT, transfer_parameters(&names), transfer_action)
}

/// What an assistant has that nobody has declared: it can end its calls, and press keys.
pub const WITHOUT_ASSISTANT: [&str; 2] = [END_CALL, "send_dtmf"];

/// The tool that moves calls.
pub const TRANSFER: &str = "transfer_call";
const END_CALL: &str = "end_call";
/// An assistant that has it may be told a PIN.
pub const COLLECT_DIGITS: &str = "collect_digits";
const TRANSFER_TEXT: &str = "Moves the call to somebody else and ends your part of it. Tell the caller first. You are told only if \
     nobody answers there; then the caller is still with you.";

fn built(
    name: &str,
    description: &str,
    parameters: Value,
    act: fn(&Value) -> Result<Action, String>,
) -> Option<Arc<Tool>> {
    let definition = Definition {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
        timeout: Duration::from_secs(60),
        speak: None,
        cancel_on_barge_in: false,
        origin: Origin::BuiltIn,
    };
    // A test compiles every one; a transfer's names come from people, and a strange one is left out.
    Tool::new(definition, Handler::Call(act)).ok().map(Arc::new)
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn transfer_parameters(names: &[&str]) -> Value {
    let mut to = json!({"type": "string", "description": "Where to"});
    if !names.is_empty() {
        to["enum"] = names.into();
    }
    object(json!({ "to": to }), &["to"])
}

fn transfer_action(arguments: &Value) -> Result<Action, String> {
    Ok(Action::Transfer { to: text(arguments, "to") })
}

fn end_call(arguments: &Value) -> Result<Action, String> {
    let reason = text(arguments, "reason");
    let reason = if reason.trim().is_empty() { "the conversation is over".to_owned() } else { reason };
    Ok(Action::EndCall { reason })
}

fn text(arguments: &Value, name: &str) -> String {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(arguments: &Value, name: &str) -> Option<u64> {
    arguments.get(name).and_then(Value::as_u64)
}

/// Between two keys of one entry.
const KEY_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_of_the_catalogue_is_there_once() {
        let tools = all();
        let mut names: Vec<&str> = tools.iter().map(|tool| tool.tool.definition.name.as_str()).collect();
        assert_eq!(names.len(), 10, "none fell out because its schema cannot be compiled");
        names.extend(WAITING.iter().map(|(name, _)| *name));
        let all = "end_call transfer_call warm_transfer escalate_to_human take_message schedule_callback \
             search_directory check_availability business_hours lookup_customer update_customer order_status \
             create_ticket update_ticket save_intake complete_intake book_appointment cancel_appointment capture_lead \
             record_survey_answer add_tag add_note set_language search_knowledge send_dtmf collect_digits send_sms \
             send_email hold pause_recording resume_recording mark_do_not_call";
        let mut wanted: Vec<&str> = all.split_whitespace().collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
    }

    #[test]
    fn a_transfer_goes_only_where_the_assistant_may_send_calls() {
        let destinations = BTreeMap::from([("sales".to_owned(), "+15550100".to_owned())]);
        let tool = transfer(&destinations).unwrap();
        assert!(tool.schema.problems(&json!({"to": "sales"})).is_empty());
        assert!(!tool.schema.problems(&json!({"to": "+19005550100"})).is_empty());
    }
}
