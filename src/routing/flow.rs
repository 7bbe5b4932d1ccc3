//! Runs a flow: one step after the other on one call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::audio::wav::Wav;
use crate::call::assistant::AssistantPlan;
use crate::call::bridge::DialStep;
use crate::call::sip_agent::SipAgentStep;
use crate::call::{Call, Over};
use crate::sip::message::StatusCode;

/// A step with everything it needs at hand.
#[derive(Clone)]
pub enum Planned {
    /// Answers.
    Answer,
    /// Rings, or plays early media.
    Progress {
        /// For how long.
        span: Duration,
        /// What is played.
        audio: Option<Arc<[i16]>>,
    },
    /// Plays audio to its end.
    Play(Arc<[i16]>),
    /// Connects an assistant.
    Assistant(Box<AssistantPlan>),
    /// Joins the caller with an agent that is called by SIP; the next step runs when it cannot be had.
    SipAgent(Box<SipAgentStep>),
    /// Calls somebody and joins the two.
    Dial(Box<DialStep>),
    /// Gives the caller their audio back.
    Echo(Option<Duration>),
    /// Lets time pass.
    Wait(Duration),
    /// Hangs up.
    Hangup,
    /// Refuses.
    Reject(u16),
    /// A step that cannot be run; the call ends with this status and reason.
    Impossible {
        /// SIP status.
        status: u16,
        /// For the record.
        reason: String,
    },
}

/// Runs the steps in order, and whatever transfers lead to, and closes the call.
pub async fn run(mut call: Box<Call>, steps: Vec<Planned>) {
    run_steps(&mut call, steps).await;
    // Boxed: few calls are transferred.
    Box::pin(transferred(&mut call)).await;
    call.finish();
}

/// Those who have taken the place of the flow, and the flows that take the place of others.
async fn transferred(call: &mut Call) {
    loop {
        call.talk_with_joined().await;
        let Some(onward) = call.take_onward() else { return };
        onward.run(call).await;
    }
}

/// Runs the steps in order, until the call is over or goes on with something else.
pub(super) async fn run_steps(call: &mut Call, steps: Vec<Planned>) {
    if !matches!(steps.first(), Some(Planned::Reject(_) | Planned::Impossible { .. })) {
        for step in steps {
            if run_step(call, step).await == Err(Over) {
                break;
            }
        }
    } else if let Some(step) = steps.into_iter().next() {
        // Over is what a refusal ends in.
        let _over = run_step(call, step).await;
    }
}

async fn run_step(call: &mut Call, step: Planned) -> Result<(), Over> {
    match step {
        Planned::Answer => call.answer().await,
        Planned::Progress { span, audio } => progress(call, span, audio).await,
        Planned::Play(audio) => {
            call.answer().await?;
            call.play(&audio, None).await
        }
        Planned::Assistant(plan) => {
            if !call.is_answered() {
                call.ring();
            }
            // Boxed: a conversation's state is large, and a call that does something else needs none of it.
            Box::pin(call.converse(&plan)).await
        }
        Planned::SipAgent(step) => Box::pin(call.talk_with_sip_agent(&step)).await,
        // Boxed as well: only a call that is bridged has two legs.
        Planned::Dial(step) => Box::pin(call.dial(&step)).await,
        Planned::Echo(span) => {
            call.answer().await?;
            call.echo(span).await
        }
        Planned::Wait(span) => call.wait(span).await,
        Planned::Hangup => {
            call.hang_up("system", "the flow hangs up");
            Err(Over)
        }
        Planned::Reject(status) => {
            call.reject(status_code(status), "the flow refuses the call");
            Err(Over)
        }
        Planned::Impossible { status, reason } => {
            warn!(reason, "a flow cannot be run");
            call.reject(status_code(status), &reason);
            Err(Over)
        }
    }
}

async fn progress(call: &mut Call, span: Duration, audio: Option<Arc<[i16]>>) -> Result<(), Over> {
    match audio {
        Some(audio) => {
            call.early_media();
            call.play(&audio, Some(span)).await
        }
        None => {
            call.ring();
            call.wait(span).await
        }
    }
}

/// Reads a sound file and brings it to the bridge's rate. Blocking.
///
/// # Errors
/// When the file cannot be read or is no WAV file we understand.
pub fn read_sound(file: &Path) -> Result<Arc<[i16]>, String> {
    let opened = std::fs::File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let wav = Wav::read(opened, LONGEST_SOUND).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(wav.to_bridge().into())
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::new(status).unwrap_or(StatusCode::DECLINE)
}

/// Bytes of a sound file: about an hour of telephone quality.
const LONGEST_SOUND: u64 = 64 << 20;
