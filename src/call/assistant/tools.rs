//! What the assistant does besides speaking.

use std::time::{Duration, Instant};

use serde_json::json;

use super::talk::Talk;
use super::{AssistantPlan, Talked};
use crate::call::tools::Request;
use crate::call::{Call, Over};
use crate::event::CallEventKind;
use crate::provider::Command;

pub(super) struct Leaving {
    pub(super) reason: String,
    pub(super) until: Instant,
}

impl Call {
    pub(super) fn run_tool(
        &mut self,
        talk: &mut Talk,
        plan: &AssistantPlan,
        id: String,
        name: &str,
        arguments: &str,
    ) {
        let started = Instant::now();
        let request = plan.toolbox.interpret(name, arguments);
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let args = match &request {
            Ok(Request::SendDtmf { digits }) => json!({"digits": "*".repeat(digits.len())}),
            Ok(Request::EndCall { .. }) | Err(_) => json!({}),
        };
        self.ledger.record(CallEventKind::ToolStarted { id: id.clone(), name: shown.clone(), args });
        let (output, respond, ok) = match request {
            Ok(Request::EndCall { reason }) => {
                talk.leaving = Some(Leaving { reason, until: started + FAREWELL });
                (json!({"ok": true}).to_string(), false, true)
            }
            Ok(Request::SendDtmf { digits }) => {
                self.leg.send_dtmf(&digits);
                (json!({"ok": true, "keys_pressed": digits.len()}).to_string(), true, true)
            }
            Err(refusal) => (json!({"error": refusal.to_string()}).to_string(), true, false),
        };
        talk.send(Command::ToolResult { id: id.clone(), output, ok, respond });
        let ms = started.elapsed().as_millis() as u64;
        self.ledger.record(CallEventKind::ToolFinished { id, name: shown, ms, ok });
    }

    /// Hangs up for the assistant once its last words have left, or its time for them is over.
    pub(super) fn leave_if_heard(&mut self, talk: &mut Talk) -> Talked {
        let Some(leaving) = &talk.leaving else { return Ok(()) };
        let heard = !talk.responding && self.leg.is_idle() && talk.conversation.is_heard_out();
        if heard || Instant::now() >= leaving.until {
            let reason = leaving.reason.clone();
            self.hang_up("assistant", &reason);
            return Err(Over);
        }
        Ok(())
    }
}

/// The assistant's last words may take this long.
pub(super) const FAREWELL: Duration = Duration::from_secs(15);
