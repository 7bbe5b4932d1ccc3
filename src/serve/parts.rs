//! From configuration to parts: what each section of `tandem.toml` becomes.

mod edge;

use std::sync::Arc;

use anyhow::Context as _;

use crate::call::Prompts;
use crate::call::assistant::{Patience, Recovery};
use crate::call::recording::RecordingWriter;
use crate::config::{self, Config, InboundAuth, OptionsPolicy, ProviderSection, UnknownSources};
use crate::cost::{Alarm, Costs, PriceBook, Rules};
use crate::provider::NoiseReduction;
use crate::provider::breaker::Policy;
use crate::provider::openai::{OpenAiConfig, SessionDefaults};
use crate::provider::registry::{ProviderConfig, Providers};
use crate::provider::scripted::ScriptedConfig;
use crate::provider::ultravox::{CallSettings, UltravoxConfig, Vad};
use crate::provider::ultravox_sip::{SipAgent, SipAgentConfig, SipAgents};
use crate::routing::flow::read_sound;
use crate::routing::media::{MediaSettings, codecs};
use crate::routing::plan::Planner;
use crate::rtp::{PortPool, PortPoolConfig};
use crate::sip::endpoint::{EndpointConfig, Listener};
use crate::sip::profile::Profile;
use crate::sip::transaction::TimerValues;
use crate::sip::trunk::{Trunk, Trunks};
use crate::sip::ua::UaConfig;
use crate::sip::uri::Uri;
use crate::tools::registry::Registry;

/// What makes flows runnable: the providers and the prompts.
pub(super) fn planner(config: &Config, tools: Registry) -> anyhow::Result<Planner> {
    let sections = config.providers.iter().filter_map(|(name, section)| {
        let provider = match section {
            ProviderSection::Openai(section) => ProviderConfig::OpenAi(Box::new(openai(name, section))),
            ProviderSection::Scripted(section) => {
                let script = section.script.as_ref().map(|path| path.display().to_string());
                ProviderConfig::Scripted(ScriptedConfig { name: name.clone(), script })
            }
            ProviderSection::Ultravox(section) => ProviderConfig::Ultravox(Box::new(ultravox(name, section))),
            // Agents called by SIP have no sessions.
            ProviderSection::UltravoxSip(_) => return None,
        };
        Some((provider, section.breaker().map(policy).unwrap_or_default()))
    });
    let providers = Providers::build(sections).map_err(|errors| {
        anyhow::anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let routing = &config.routing;
    Ok(Planner {
        providers: Arc::new(providers),
        sip_agents: Arc::new(sip_agents(config)?),
        kinds: config.providers.iter().map(|(name, section)| (name.clone(), section.kind())).collect(),
        default_chain: routing.default_chain.clone().into(),
        prompts: Prompts::spoken(),
        recovery: Recovery {
            hedge_after: routing.hedge_after,
            patience: Patience { stall_after: routing.stall_after, filler_after: routing.filler_after },
            filler: filler(routing)?,
        },
        tools,
        records: config.recording.enabled,
        hold_music: config.media.hold_music.is_some(),
    })
}

/// Agents that are called by SIP.
fn sip_agents(config: &Config) -> anyhow::Result<SipAgents> {
    let mut agents = SipAgents::new();
    for (name, section) in &config.providers {
        let ProviderSection::UltravoxSip(section) = section else { continue };
        Uri::parse(section.agent.as_bytes())
            .map_err(|error| anyhow::anyhow!("providers.{name}.agent = \"{}\": {error}", section.agent))?;
        let agent = SipAgent::new(SipAgentConfig {
            name: name.clone(),
            uri: section.agent.clone(),
            trunk: section.trunk.clone(),
            api_url: section.api_url.clone(),
            api_keys: section.api_keys.clone(),
            webhook_secrets: section.webhook_secrets.clone(),
            ring_timeout: section.ring_timeout,
            account_timeout: section.account_timeout,
        });
        agents.insert(name.clone(), Arc::new(agent.map_err(anyhow::Error::msg)?));
    }
    Ok(agents)
}

/// Prices and limits.
pub(super) fn costs(config: &Config, alarm: Option<Box<dyn Alarm>>) -> anyhow::Result<Costs> {
    let section = &config.cost;
    let book = match &section.prices {
        None => PriceBook::built_in(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("reading the price table cost.prices = {}", file.display()))?;
            PriceBook::parse(&text).with_context(|| format!("the price table {}", file.display()))?
        }
    };
    // An Ultravox minute costs the same however it came.
    let kind = |section: &ProviderSection| match section {
        ProviderSection::UltravoxSip(_) => "ultravox",
        other => other.kind(),
    };
    let kinds = config.providers.iter().map(|(name, section)| (name.clone(), kind(section).to_owned()));
    let rules = Rules {
        max_per_call: section.max_per_call,
        max_per_day: section.max_per_day,
        on_limit: section.on_limit,
        farewell: section.farewell.as_str().into(),
    };
    Ok(Costs::new(book, kinds.collect(), rules, alarm))
}

fn policy(section: &config::Breaker) -> Policy {
    Policy {
        failures: section.failures,
        cool_down: section.cool_down,
        slow: section.slow,
        probes: section.probes,
    }
}

/// What a caller hears who waits for another provider.
fn filler(routing: &config::Routing) -> anyhow::Result<Option<Arc<[i16]>>> {
    match &routing.filler_file {
        Some(file) => {
            let read = read_sound(file);
            read.map(Some).map_err(|error| anyhow::anyhow!("reading routing.filler_file: {error}"))
        }
        None if routing.filler.trim().is_empty() => Ok(None),
        None => Ok(Some(crate::audio::voice::speak(&routing.filler).into())),
    }
}

fn openai(name: &str, section: &config::OpenAi) -> OpenAiConfig {
    let wanted = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    OpenAiConfig {
        name: name.to_owned(),
        url: section.url.clone(),
        model: section.model.clone(),
        api_keys: section.api_keys.clone(),
        connect_timeout: section.connect_timeout,
        uplink_interval_ms: section.uplink_interval_ms,
        quiet_uplink_interval_ms: section.quiet_uplink_interval_ms,
        session_limit: Some(section.session_limit).filter(|limit| !limit.is_zero()),
        session: SessionDefaults {
            voice: wanted(&section.voice),
            transcription_model: wanted(&section.transcription_model),
            noise_reduction: match section.noise_reduction {
                config::NoiseReduction::Off => None,
                config::NoiseReduction::NearField => Some(NoiseReduction::NearField),
                config::NoiseReduction::FarField => Some(NoiseReduction::FarField),
            },
            max_output_tokens: Some(section.max_output_tokens).filter(|most| *most > 0),
        },
        ..OpenAiConfig::default()
    }
}

fn ultravox(name: &str, section: &config::Ultravox) -> UltravoxConfig {
    let vad = &section.vad;
    UltravoxConfig {
        name: name.to_owned(),
        url: section.url.clone(),
        api_keys: section.api_keys.clone(),
        connect_timeout: section.connect_timeout,
        call: CallSettings {
            model: section.model.clone(),
            voice: section.voice.clone(),
            temperature: section.temperature,
            input_sample_rate: section.input_sample_rate,
            output_sample_rate: section.output_sample_rate,
            client_buffer_ms: section.client_buffer_ms,
            join_timeout: section.join_timeout,
            max_duration: section.max_duration,
            tool_timeout: section.tool_timeout,
            vad: Vad {
                turn_endpoint_delay: Some(vad.turn_endpoint_delay),
                minimum_turn: Some(vad.minimum_turn),
                minimum_interruption: Some(vad.minimum_interruption),
                activation_threshold: Some(vad.activation_threshold),
            },
        },
        ..UltravoxConfig::default()
    }
}

/// The RTP ports.
fn port_pool(config: &Config) -> PortPoolConfig {
    let range = &config.media.rtp_ports;
    PortPoolConfig {
        first: range.first,
        last: range.last,
        quarantine: config.media.port_quarantine,
        ..PortPoolConfig::default()
    }
}

/// What legs' media is made with.
pub(super) fn media(config: &Config) -> anyhow::Result<MediaSettings> {
    let media = &config.media;
    Ok(MediaSettings {
        ports: PortPool::new(port_pool(config))?,
        codecs: media.codecs.iter().flat_map(|c| codecs(c.as_str())).copied().collect(),
        inband_dtmf: media.inband_dtmf,
        reorder_wait: media.reorder_window,
        playout_limit: media.max_playout,
        media_timeout: Some(media.rtp_timeout).filter(|timeout| !timeout.is_zero()),
    })
}

/// The writer of recordings, if this installation records.
pub(super) fn recordings(config: &Config) -> anyhow::Result<Option<RecordingWriter>> {
    if !config.recording.enabled {
        return Ok(None);
    }
    RecordingWriter::start(config.recordings_dir()).map(Some).context("starting the recording writer")
}

/// What a party hears that is kept waiting.
pub(super) fn hold_music(config: &Config) -> anyhow::Result<Option<Arc<[i16]>>> {
    let read = config.media.hold_music.as_deref().map(read_sound).transpose();
    let music = read.map_err(|error| anyhow::anyhow!("reading media.hold_music: {error}"))?;
    // Nothing at all would be played over and over without end.
    Ok(music.filter(|music| !music.is_empty()))
}

/// The SIP endpoint: listeners, trunks, limits.
pub(super) fn endpoint(config: &Config) -> anyhow::Result<EndpointConfig> {
    let sip = &config.sip;
    let listen = sip
        .listen
        .iter()
        .map(|listen| Listener { transport: edge::transport(listen.transport), address: listen.address });
    let mut endpoint = EndpointConfig::new(listen.collect(), trunks(config)?);
    endpoint.ua = UaConfig {
        advertise: sip.advertise,
        user_agent: sip.user_agent.clone(),
        timers: TimerValues { t1: sip.t1, t2: sip.t2, ..TimerValues::default() },
        legs_max: config.call_limit() as usize,
        ring_timeout: sip.ring_timeout,
        retry_after: config.drain.retry_after,
        answer_options: sip.options == OptionsPolicy::Auto,
        refuse_unknown: sip.unknown_sources == UnknownSources::Refuse,
        ..UaConfig::default()
    };
    endpoint.ua.flood = edge::flood(&sip.flood);
    endpoint.ua.advertise_for = edge::advertise_for(config);
    let secure = sip.listen.iter().any(|listen| listen.transport.is_secure());
    endpoint.tls = sip.tls.as_ref().filter(|tls| secure || tls.show_to_servers).map(edge::tls_files);
    endpoint.tls_roots = edge::tls_roots(config);
    endpoint.keep_alive = sip.keep_alive;
    endpoint.limits.message_bytes = sip.max_message_bytes as usize;
    endpoint.connections_max = sip.max_connections as usize;
    endpoint.idle_timeout = sip.idle_timeout;
    Ok(endpoint)
}

/// The trunks. Without any, a node that listens on loopback alone takes calls from this machine.
pub(super) fn trunks(config: &Config) -> anyhow::Result<Trunks> {
    if config.trunk.is_empty() && config.sip.listen.iter().all(|listen| listen.address.ip().is_loopback()) {
        let mut local = Trunk::new("local", profile(config, "generic")?);
        local.srtp = super::carriers::default_srtp(config.media.srtp);
        local.allow = ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect();
        return Ok(Trunks::new([local]));
    }
    let trunks =
        config.trunk.iter().map(|section| trunk(config, section)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Trunks::new(trunks))
}

fn trunk(config: &Config, section: &config::Trunk) -> anyhow::Result<Trunk> {
    let mut profile = profile(config, &section.profile)?;
    if let Some(codecs) = &section.codecs {
        let names = codecs.iter().map(|codec| codec.as_str().to_owned()).collect();
        profile = Arc::new(Profile { codecs: names, ..Profile::clone(&profile) });
    }
    let mut trunk = Trunk::new(&section.name, profile);
    trunk.allow = section.allow.iter().map(|network| network.0).collect();
    trunk.media_networks = section.media_networks.iter().map(|network| network.0).collect();
    trunk.srtp = super::carriers::srtp(section, trunk.srtp, config.media.srtp);
    trunk.username.clone_from(&section.username);
    trunk.password.clone_from(&section.password);
    trunk.inbound_auth = section.inbound_auth == InboundAuth::Digest;
    trunk.max_calls = section.max_calls as usize;
    super::carriers::outward(&mut trunk, section).with_context(|| format!("trunk {}", section.name))?;
    Ok(trunk)
}

/// A profile of `sip.profiles_dir`, or one that is built in.
fn profile(config: &Config, name: &str) -> anyhow::Result<Arc<Profile>> {
    let file = config.sip.profiles_dir.join(format!("{name}.toml"));
    match std::fs::read_to_string(&file) {
        Ok(text) => Profile::from_toml(name, &text)
            .map(Arc::new)
            .with_context(|| format!("reading {}", file.display())),
        Err(error) => Profile::builtin(name).with_context(|| {
            format!("no SIP profile `{name}`: {} ({error}), and none is built in", file.display())
        }),
    }
}
