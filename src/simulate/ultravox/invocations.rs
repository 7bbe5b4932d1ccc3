//! The client's data messages, and the tool calls the agent waits for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::{Doing, Reply};
use super::record::Record;
use super::session::{CallSession, Words};
use super::tools::Runner;
use super::wire::{AfterTool, ClientMessage, Forced, Stage, ToolResult, Urgency};
use crate::simulate::error::ApiError;
use crate::simulate::script::{ToolCall, quoted_text};

/// The tool calls of one call.
#[derive(Debug, Default)]
pub(super) struct Invocations {
    all: Vec<Invocation>,
    /// Whether one of the answers wants to be spoken about.
    speaks: bool,
    hang_up: bool,
}

#[derive(Debug)]
struct Invocation {
    id: String,
    name: String,
    sent: Instant,
    deadline: Instant,
    state: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Open,
    Given,
    TooLate,
}

impl Invocations {
    /// When one of them has waited for too long.
    pub(super) fn next(&self) -> Option<Instant> {
        self.open().map(|invocation| invocation.deadline).min()
    }

    fn open(&self) -> impl Iterator<Item = &Invocation> {
        self.all.iter().filter(|invocation| invocation.state == Answer::Open)
    }
}

impl CallSession {
    /// Does what a data message asks for.
    pub(super) fn obey(&mut self, now: Instant, message: ClientMessage) {
        match message {
            ClientMessage::UserText { text, urgency } => self.take_text(now, text, urgency),
            ClientMessage::OutputMedium { text } => self.text_output = text,
            ClientMessage::ToolResult(result) => self.take_result(now, *result),
            ClientMessage::ForcedAgent(forced) => self.force(now, forced),
            ClientMessage::HangUp { message: None } => self.end("hangup"),
            ClientMessage::HangUp { message: Some(text) } => self.say_last(now, text, "hangup"),
            ClientMessage::Ping { timestamp } => {
                if self.request.medium.messages.pong {
                    self.emit("pong", json!({"timestamp": timestamp}));
                }
            }
        }
    }

    fn take_text(&mut self, now: Instant, text: String, urgency: Urgency) {
        let name = match urgency {
            Urgency::Immediate => "immediate",
            Urgency::Soon => "soon",
            Urgency::Later => "later",
        };
        self.record(now, Record::TextReceived { text: text.clone(), urgency: name });
        (self.idle_next, self.fallback_at) = (0, None);
        let ordinal = self.ordinal();
        self.transcript("user", "text", ordinal, Words::Text(&text, true));
        self.note_message("MESSAGE_ROLE_USER", &text, "text", |_| {});
        let quoted = quoted_text(&text).filter(|_| self.behaviour.say_quoted);
        let reply = match quoted {
            Some(words) => {
                Reply::Words { text: words.to_owned(), uninterruptible: false, tools: Vec::new(), end: None }
            }
            None => Reply::Turn { answers_caller: false },
        };
        match urgency {
            Urgency::Later => {}
            Urgency::Soon => self.think_soon(now, reply),
            Urgency::Immediate => {
                self.interrupt(now, false);
                match self.doing {
                    Doing::Listening | Doing::Thinking { reply: Reply::Turn { .. }, .. } => {
                        self.think(now, reply);
                    }
                    _ => self.think_soon(now, reply),
                }
            }
        }
    }

    fn force(&mut self, now: Instant, forced: Forced) {
        self.fallback_at = None;
        let tools = forced.tool_calls.into_iter().map(|(name, arguments)| ToolCall { name, arguments });
        let reply = Reply::Words {
            text: forced.content,
            uninterruptible: forced.uninterruptible,
            tools: tools.collect(),
            end: None,
        };
        if forced.immediate {
            self.interrupt(now, false);
            if matches!(self.doing, Doing::Listening) {
                return self.think_for(now, reply, FORCED_LATENCY);
            }
            if let Doing::Thinking { reply: other, .. } = std::mem::replace(&mut self.doing, Doing::Listening)
            {
                self.waiting.push_front(other);
                return self.think_for(now, reply, FORCED_LATENCY);
            }
        }
        self.think_soon(now, reply);
    }

    /// Calls tools, after what came before has been spoken.
    pub(super) fn invoke(&mut self, now: Instant, calls: Vec<ToolCall>) {
        self.doing = Doing::Waiting;
        self.set_state("thinking");
        (self.invocations.speaks, self.invocations.hang_up) = (false, false);
        for call in calls {
            let tool = self.tools.iter().find(|tool| tool.name == call.name).cloned();
            match tool.as_ref().map(|tool| tool.by) {
                Some(Runner::Service) if call.name == "hangUp" => return self.end("agent_hangup"),
                Some(Runner::Service | Runner::Elsewhere) => {
                    let text = format!("{} is not simulated", call.name);
                    self.event("warning", "tool_not_simulated", text);
                    self.invocations.speaks = true;
                }
                None | Some(Runner::Client) => {
                    let limit = tool.as_ref().map_or(UNKNOWN_TOOL_LIMIT, |tool| tool.timeout);
                    self.invoke_client(now, call, limit, tool.is_some());
                }
            }
        }
        self.resolve(now);
    }

    fn invoke_client(&mut self, now: Instant, call: ToolCall, limit: Duration, offered: bool) {
        let id = self.fresh_id();
        let parameters = match call.arguments {
            Value::Object(_) => call.arguments,
            // The service parses what its model writes: the client always gets an object.
            Value::String(text) => {
                serde_json::from_str(&text).ok().filter(Value::is_object).unwrap_or(json!({}))
            }
            _ => json!({}),
        };
        self.note_message("MESSAGE_ROLE_TOOL_CALL", &parameters.to_string(), "voice", |shown| {
            shown["invocationId"] = id.as_str().into();
            shown["toolName"] = call.name.as_str().into();
        });
        if self.request.medium.messages.client_tool_invocation {
            let body = json!({"toolName": call.name, "invocationId": id, "parameters": parameters});
            self.emit("client_tool_invocation", body);
        }
        self.record(now, Record::ToolCalled { invocation: id.clone(), name: call.name.clone(), offered });
        let deadline = now + limit;
        self.invocations.all.push(Invocation {
            id,
            name: call.name,
            sent: now,
            deadline,
            state: Answer::Open,
        });
    }

    fn take_result(&mut self, now: Instant, result: ToolResult) {
        let id = result.invocation_id.as_str();
        let known = self.invocations.all.iter_mut().find(|invocation| invocation.id == id);
        let wrong = match known {
            None => ("tool_result_unknown", "the result of an invocation that never was"),
            Some(invocation) if invocation.state == Answer::Given => {
                ("tool_result_twice", "a second result; only the first counts")
            }
            // Said when its time was up.
            Some(invocation) if invocation.state == Answer::TooLate => return,
            Some(invocation) => {
                invocation.state = Answer::Given;
                let (name, sent) = (invocation.name.clone(), invocation.sent);
                return self.answered(now, result, &name, sent);
            }
        };
        self.violation(now, Some("client_tool_result"), ApiError::new(wrong.0, wrong.1));
    }

    fn answered(&mut self, now: Instant, result: ToolResult, name: &str, sent: Instant) {
        let error = result.error.is_some();
        let text = result.result.or(result.error).unwrap_or_default();
        let after_ms = now.saturating_duration_since(sent).as_millis() as u64;
        let invocation = result.invocation_id.clone();
        self.record(now, Record::ToolAnswered { invocation, after_ms, result: text.clone(), error });
        let shown = match &result.then {
            AfterTool::NewStage(stage) => stage.result_text.clone().unwrap_or_else(|| "OK".to_owned()),
            _ => text,
        };
        self.note_message("MESSAGE_ROLE_TOOL_RESULT", &shown, "voice", |shown| {
            shown["invocationId"] = result.invocation_id.as_str().into();
            shown["toolName"] = name.into();
        });
        self.invocations.speaks |= result.speaks;
        match result.then {
            AfterTool::GoOn => {}
            AfterTool::HangUp => self.invocations.hang_up = true,
            AfterTool::NewStage(stage) => self.enter(now, *stage),
        }
        self.resolve(now);
    }

    fn enter(&mut self, now: Instant, stage: Stage) {
        if let Some(tools) = stage.tools {
            self.tools = tools;
        }
        for message in stage.initial_messages.unwrap_or_default() {
            self.note_message(&message.role, &message.text, "voice", |_| {});
        }
        self.record(now, Record::StageChanged { settings: stage.given });
    }

    /// Goes on when no tool is awaited any more.
    fn resolve(&mut self, now: Instant) {
        if !matches!(self.doing, Doing::Waiting) || self.invocations.open().next().is_some() {
            return;
        }
        if self.invocations.hang_up {
            return self.end("agent_hangup");
        }
        if self.invocations.speaks {
            self.think(now, Reply::Turn { answers_caller: false });
        } else {
            self.listen(now);
        }
    }

    pub(super) fn run_invocations(&mut self, now: Instant) {
        let mut late = Vec::new();
        for invocation in &mut self.invocations.all {
            if invocation.state == Answer::Open && invocation.deadline <= now {
                invocation.state = Answer::TooLate;
                late.push(invocation.name.clone());
            }
        }
        if late.is_empty() {
            return;
        }
        for name in late {
            let message = format!("{name} was not answered within its time limit");
            self.violation(now, Some("client_tool_result"), ApiError::new("tool_result_late", message));
            self.invocations.speaks = true;
        }
        self.resolve(now);
    }
}

/// From a forced message to its first sound.
const FORCED_LATENCY: Duration = Duration::from_millis(50);
/// For a tool that the client never offered.
const UNKNOWN_TOOL_LIMIT: Duration = Duration::from_millis(2_500);
