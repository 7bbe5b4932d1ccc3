//! Turns a flow's steps into steps with everything at hand: sounds read, assistants and providers found.
//!
//! Runs on the ordinary runtime, before the call is placed, so that nothing on a media worker waits for a
//! disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::directory::{Route, Snapshot};
use super::flow::{Planned, read_sound};
use crate::call::Prompts;
use crate::call::assistant::manners::Manners;
use crate::call::assistant::{AssistantPlan, Recovery};
use crate::call::bridge::DialStep;
use crate::call::dial::{DialRequest, DialSource, DialTarget};
use crate::call::sip_agent::SipAgentStep;
use crate::config::flow::Step;
use crate::config::manners::{BargeInMode, CLOSING};
use crate::config::{self, Money, resources};
use crate::provider::registry::Providers;
use crate::provider::ultravox_sip::{SipAgent, SipAgents};
use crate::provider::{
    Eagerness, HistoryItem, NoiseReduction, Provider, SessionSpec, Speaker, TurnDetection,
};
use crate::sip::identity::IncomingIdentity;
use crate::sip::ua::IncomingInvite;
use crate::sip::uri::Uri;
use crate::store::Assistant;
use crate::tools::Context;
use crate::tools::builtin::WITHOUT_ASSISTANT;
use crate::tools::registry::{Registry, Wish};
use crate::tools::toolbox::Toolbox;

/// The call a plan is made for.
#[derive(Default)]
pub struct Situation {
    /// The number it shows.
    pub from: Option<String>,
    /// Hops it may still take.
    pub max_forwards: Option<u8>,
    /// Who called whom.
    pub inbound: Option<Arc<IncomingIdentity>>,
    /// Trunks its own calls go over; empty: those the installation calls out over.
    pub trunks: Vec<String>,
}

impl Situation {
    /// The situation of an incoming call.
    pub fn of(invite: &IncomingInvite) -> Self {
        Self {
            from: invite.caller.clone(),
            max_forwards: Some(invite.max_forwards.min(HOPS_MOST).saturating_sub(1)),
            inbound: Some(Arc::new(IncomingIdentity::clone(&invite.identity))),
            trunks: Vec::new(),
        }
    }

    fn dial(
        &self,
        to: &str,
        ring_timeout: Duration,
        organization: Option<String>,
        last: bool,
        prompts: &Prompts,
    ) -> Planned {
        let max_forwards = self.max_forwards.unwrap_or(HOPS_MOST);
        if max_forwards == 0 {
            return Planned::Impossible {
                status: 483,
                reason: "the call has taken too many hops".to_owned(),
            };
        }
        let to = match DialTarget::parse(to) {
            Ok(to) => to,
            Err(reason) => return Planned::Impossible { status: 484, reason },
        };
        let request = DialRequest {
            trunks: self.trunks.clone(),
            from: self.from.clone(),
            max_forwards,
            inbound: self.inbound.clone(),
            organization,
            ring_timeout,
            ..DialRequest::new(to, DialSource::Flow)
        };
        Planned::Dial(Box::new(DialStep { request, last, prompts: prompts.clone() }))
    }
}

impl Situation {
    /// A call to an agent of the service, which is no stranger: the trunk is the one of its section.
    fn sip_agent(
        &self,
        agent: &Arc<SipAgent>,
        route: &Route,
        (assistant, max_cost): (&str, Option<Money>),
        last: bool,
        prompts: &Prompts,
    ) -> Planned {
        let max_forwards = self.max_forwards.unwrap_or(HOPS_MOST);
        if max_forwards == 0 {
            let reason = "the call has taken too many hops".to_owned();
            return Planned::Impossible { status: 483, reason };
        }
        let Ok(uri) = Uri::parse(agent.uri().as_bytes()) else {
            let reason = "the address of the agent is no SIP URI".to_owned();
            return Planned::Impossible { status: 500, reason };
        };
        let request = DialRequest {
            trunks: vec![agent.trunk().to_owned()],
            from: self.from.clone(),
            max_forwards,
            organization: route.organization.clone(),
            ring_timeout: agent.ring_timeout(),
            ..DialRequest::new(DialTarget::Uri(uri), DialSource::Flow)
        };
        let dial = DialStep { request, last, prompts: prompts.clone() };
        Planned::SipAgent(Box::new(SipAgentStep {
            agent: Arc::clone(agent),
            dial,
            assistant: assistant.to_owned(),
            max_cost,
        }))
    }
}

/// What plans are made from.
#[derive(Clone)]
pub struct Planner {
    /// By the name of their `[providers.NAME]` section.
    pub providers: Arc<Providers>,
    /// Agents that are called by SIP, which stand in chains beside providers.
    pub sip_agents: Arc<SipAgents>,
    /// For assistants without a chain of their own.
    pub default_chain: Arc<[String]>,
    /// What each provider is.
    pub kinds: BTreeMap<String, &'static str>,
    /// Ours, made once.
    pub prompts: Prompts,
    /// What assistants can do.
    pub tools: Registry,
    /// Calls can be recorded.
    pub records: bool,
    /// Callers who wait can be given music.
    pub hold_music: bool,
    /// What is done when a provider fails.
    pub recovery: Recovery,
}

impl Planner {
    /// Why no provider of the default chain can be used now; `None` when one can.
    pub fn complaint(&self) -> Option<String> {
        if self.default_chain.iter().any(|name| self.sip_agents.contains_key(name)) {
            return None;
        }
        let chain: Vec<_> = self.default_chain.iter().filter_map(|name| self.providers.get(name)).collect();
        if chain.is_empty() {
            return Some("no provider of routing.default_chain is configured".to_owned());
        }
        let complaints: Option<Vec<_>> = chain.iter().map(|provider| provider.unusable()).collect();
        Some(complaints?.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// The steps of a route, ready to run.
    pub async fn plan(&self, directory: &Snapshot, route: &Route, situation: &Situation) -> Vec<Planned> {
        let mut steps = Vec::with_capacity(route.flow.len());
        for (index, step) in route.flow.iter().enumerate() {
            let last = index + 1 == route.flow.len();
            let planned = match step {
                Step::Assistant { assistant } => {
                    steps.extend(self.assistants(directory, route, situation, assistant, last).await);
                    continue;
                }
                Step::Dial { to, timeout } => {
                    situation.dial(to, timeout.0, route.organization.clone(), last, &self.prompts)
                }
                other => plain(other).await,
            };
            steps.push(planned);
        }
        steps
    }

    /// The steps of an assistant: agents that are called by SIP are steps of their own, before, between and after the
    /// providers of its chain.
    async fn assistants(
        &self,
        directory: &Snapshot,
        route: &Route,
        situation: &Situation,
        name: &str,
        last: bool,
    ) -> Vec<Planned> {
        let stored = directory.assistant(route.organization.as_deref(), name);
        let chain = stored.map(|a| a.chain.as_slice()).filter(|chain| !chain.is_empty());
        let chain = chain.unwrap_or(&self.default_chain);
        let max_cost = stored.and_then(|assistant| assistant.max_cost);
        let is_agent = |name: &String| self.sip_agents.contains_key(name);
        if !chain.iter().any(is_agent) {
            return vec![self.assistant_step(directory, route, situation, (name, chain), last).await];
        }
        let mut runs = chain.chunk_by(|one, other| !is_agent(one) && !is_agent(other)).peekable();
        let mut steps = Vec::new();
        while let Some(run) = runs.next() {
            let last = last && runs.peek().is_none();
            let agent = run.first().and_then(|name| self.sip_agents.get(name));
            steps.push(match agent {
                Some(agent) => situation.sip_agent(agent, route, (name, max_cost), last, &self.prompts),
                None => self.assistant_step(directory, route, situation, (name, run), last).await,
            });
        }
        steps
    }

    async fn assistant_step(
        &self,
        directory: &Snapshot,
        route: &Route,
        situation: &Situation,
        (name, chain): (&str, &[String]),
        last: bool,
    ) -> Planned {
        let mut planned = self.assistant(directory, route, situation, (name, chain), last);
        let stored = directory.assistant(route.organization.as_deref(), name);
        if let (Planned::Assistant(plan), Some(file)) =
            (&mut planned, stored.and_then(|assistant| assistant.greeting_file.clone()))
        {
            plan.greeting_sound(file).await;
        }
        planned
    }

    fn assistant(
        &self,
        directory: &Snapshot,
        route: &Route,
        situation: &Situation,
        (name, chain): (&str, &[String]),
        last: bool,
    ) -> Planned {
        let stored = directory.assistant(route.organization.as_deref(), name);
        if stored.is_none() && !name.is_empty() {
            return Planned::Impossible {
                status: 480,
                reason: "the flow names an unknown assistant".to_owned(),
            };
        }
        let chain: Vec<_> = chain.iter().filter_map(|name| self.providers.get(name)).collect();
        // A voice and a model are one service's own.
        let kind = |provider: &Arc<dyn Provider>| self.kinds.get(provider.name()).copied();
        let first = chain.first().and_then(kind);
        let foreign = chain.iter().map(|provider| kind(provider) != first).collect();
        if chain.is_empty() {
            let reason = "no provider of the assistant's chain is configured".to_owned();
            return Planned::Impossible { status: 503, reason };
        }
        let toolbox = self.toolbox(stored, route, situation);
        Planned::Assistant(Box::new(AssistantPlan {
            chain,
            foreign,
            last,
            recovery: self.recovery.clone(),
            spec: spec(stored, &toolbox, route),
            greeting: stored.and_then(|a| a.greeting.clone()).filter(|text| !text.trim().is_empty()),
            toolbox,
            max_duration: stored.and_then(|a| a.max_duration_s).map(|s| Duration::from_secs(u64::from(s))),
            manners: manners(stored),
            max_cost: stored.and_then(|a| a.max_cost),
            prompts: self.prompts.clone(),
        }))
    }
}

impl Planner {
    /// What the assistant may do on this call.
    fn toolbox(&self, stored: Option<&Assistant>, route: &Route, situation: &Situation) -> Toolbox {
        let unnamed = WITHOUT_ASSISTANT.map(str::to_owned);
        let (toolbox, unknown) = self.tools.toolbox(Wish {
            names: stored.map_or(unnamed.as_slice(), |assistant| &assistant.tools),
            destinations: stored.map(|assistant| assistant.transfer_to.clone()).unwrap_or_default(),
            context: Context {
                organization: route.organization.clone(),
                assistant: stored.map(|assistant| assistant.name.clone()),
                from: situation.from.clone(),
            },
            hold_music: self.hold_music,
            recorded: self.records && route.recording,
        });
        if !unknown.is_empty() {
            tracing::warn!(?unknown, "the assistant names tools that are not there now");
        }
        toolbox
    }
}

/// A step that needs nothing of the call.
async fn plain(step: &Step) -> Planned {
    match step {
        Step::Answer {} => Planned::Answer,
        Step::Progress { seconds, file: None } => Planned::Progress { span: seconds.0, audio: None },
        Step::Progress { seconds, file: Some(file) } => match sound(file.clone()).await {
            Ok(audio) => Planned::Progress { span: seconds.0, audio: Some(audio) },
            Err(impossible) => impossible,
        },
        Step::Play { file } => sound(file.clone()).await.map_or_else(|planned| planned, Planned::Play),
        // These two are the call's own.
        Step::Assistant { .. } | Step::Dial { .. } => {
            Planned::Impossible { status: 501, reason: "this call cannot dial".to_owned() }
        }
        Step::Echo { seconds } => Planned::Echo(seconds.map(|seconds| seconds.0)),
        Step::Wait { seconds } => Planned::Wait(seconds.0),
        Step::Hangup {} => Planned::Hangup,
        Step::Reject { status } => Planned::Reject(*status),
    }
}

fn spec(stored: Option<&Assistant>, toolbox: &Toolbox, route: &Route) -> SessionSpec {
    // The organization's own keys serve its calls, with an assistant of its own or without.
    let organization = route.organization.as_deref().map(Into::into);
    let mut spec = SessionSpec { tools: toolbox.specs(), organization, ..SessionSpec::default() };
    let Some(assistant) = stored else { return spec };
    spec.organization = Some(assistant.organization.as_str().into());
    spec.instructions.clone_from(&assistant.instructions);
    spec.voice.clone_from(&assistant.voice);
    spec.model.clone_from(&assistant.model);
    spec.language.clone_from(&assistant.language);
    spec.script.clone_from(&assistant.script);
    spec.noise_reduction = assistant.noise_reduction.map(|wanted| match wanted {
        config::NoiseReduction::Off => NoiseReduction::Off,
        config::NoiseReduction::NearField => NoiseReduction::NearField,
        config::NoiseReduction::FarField => NoiseReduction::FarField,
    });
    spec.speed = assistant.speed;
    spec.max_output_tokens = assistant.max_output_tokens;
    spec.turns.interrupt_response = manners(stored).barge_in.mode != BargeInMode::Off;
    if let Some(turn_detection) = &assistant.turn_detection {
        match serde_json::from_value::<resources::TurnDetection>(turn_detection.clone()) {
            Ok(turn_detection) => turns(turn_detection, &mut spec),
            Err(error) => tracing::warn!(%error, "turn_detection cannot be read; the default is used"),
        }
    }
    spec
}

fn turns(wanted: resources::TurnDetection, spec: &mut SessionSpec) {
    use resources::TurnDetection as Wanted;
    let (create, interrupt) = match wanted {
        Wanted::ServerVad {
            threshold,
            prefix_padding_ms,
            silence_duration_ms,
            idle_timeout_ms,
            create_response,
            interrupt_response,
        } => {
            spec.turn_detection =
                TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms };
            spec.turns.idle_timeout_ms = idle_timeout_ms;
            (create_response, interrupt_response)
        }
        Wanted::SemanticVad { eagerness, create_response, interrupt_response } => {
            let eagerness = eagerness.map(|wanted| match wanted {
                resources::Eagerness::Low => Eagerness::Low,
                resources::Eagerness::Medium => Eagerness::Medium,
                resources::Eagerness::High => Eagerness::High,
                resources::Eagerness::Auto => Eagerness::Auto,
            });
            spec.turn_detection = TurnDetection::SemanticVad { eagerness };
            (create_response, interrupt_response)
        }
    };
    spec.turns.create_response = create.unwrap_or(spec.turns.create_response);
    spec.turns.interrupt_response = interrupt.unwrap_or(spec.turns.interrupt_response);
}

fn manners(stored: Option<&Assistant>) -> Manners {
    let closing = stored.and_then(|assistant| assistant.closing.as_deref()).unwrap_or(CLOSING);
    Manners {
        first: stored.and_then(|assistant| assistant.first_speaker).unwrap_or_default(),
        greeting: None,
        closing: closing.into(),
        silence: stored.and_then(|assistant| assistant.silence.clone()),
        barge_in: stored.and_then(|assistant| assistant.barge_in).unwrap_or_default(),
    }
}

impl AssistantPlan {
    /// It greets with this sound, if that can be read; otherwise in its own voice.
    async fn greeting_sound(&mut self, file: PathBuf) {
        let shown = file.display().to_string();
        let read = tokio::task::spawn_blocking(move || read_sound(&file)).await;
        match read {
            Ok(Ok(sound)) if sound.len() <= LONGEST_GREETING => {
                let words = self.greeting.as_deref().unwrap_or("(You greeted the caller with a recording.)");
                self.spec.history.push(HistoryItem::said(Speaker::Assistant, words));
                self.manners.greeting = Some(sound);
            }
            Ok(Ok(_)) => tracing::warn!(file = shown, "the greeting is longer than a minute; it is not used"),
            Ok(Err(cause)) => tracing::warn!(file = shown, cause, "the greeting cannot be read"),
            Err(error) => tracing::error!(%error, "reading a greeting failed"),
        }
    }
}

async fn sound(file: PathBuf) -> Result<Arc<[i16]>, Planned> {
    let read = tokio::task::spawn_blocking(move || read_sound(&file)).await;
    match read {
        Ok(Ok(audio)) => Ok(audio),
        Ok(Err(cause)) => Err(Planned::Impossible { status: 500, reason: cause }),
        Err(_) => Err(Planned::Impossible { status: 500, reason: "a sound could not be read".to_owned() }),
    }
}

/// A greeting of a minute, in samples.
const LONGEST_GREETING: usize = 60 * crate::audio::BRIDGE_RATE as usize;
/// Hops a call may take, whatever its INVITE says (RFC 3261 section 8.1.1.6).
pub(super) const HOPS_MOST: u8 = 70;
