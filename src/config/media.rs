//! The `[media]` section: RTP ports, codecs, workers.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{PortRange, duration};

/// RTP and the threads that handle it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// UDP ports for media, first to last, inclusive. A call takes an even port for RTP and the next for RTCP.
    #[schemars(example = &"20000-29999")]
    pub rtp_ports: PortRange,
    /// Media worker threads. 0: one per core. At most 256.
    #[schemars(range(max = 256))]
    pub workers: u16,
    /// Codecs offered and accepted, best first. An answer takes the first of the peer's that is listed here.
    #[schemars(length(min = 1), example = ["PCMU", "PCMA"])]
    pub codecs: Vec<CodecName>,
    /// Encryption of media (SRTP, keys by SDES) on trunks that do not set `srtp` and whose profile has it off: `off`
    /// refuses it, `optional` takes it when it is offered, `required` makes no call without it, `opportunistic` also
    /// offers it beside plain RTP (RFC 8643).
    pub srtp: Srtp,
    /// Hang up after this long without RTP, unless the call is on hold. 0s never does. At most 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "1d"))]
    pub rtp_timeout: Duration,
    /// How long a missing packet is waited for before it is concealed. 20ms to 200ms.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "20ms", "x-maximum" = "200ms"))]
    pub reorder_window: Duration,
    /// Listen for DTMF tones in the audio, for peers without telephone-event. Costs CPU and can take
    /// speech for a key, so it is off.
    pub inband_dtmf: bool,
    /// WAV file that a party hears over and over while another keeps it waiting. Absent: silence.
    #[schemars(example = &"/etc/tandem/hold.wav")]
    pub hold_music: Option<PathBuf>,
    /// Priority of the workers under real-time scheduling (SCHED_FIFO), 1 to 99, where the system allows
    /// it. 0: ordinary scheduling.
    #[schemars(range(max = 99))]
    pub realtime_priority: u8,
    /// Most assistant audio queued for one caller; more is dropped. 10s to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "10s", "x-maximum" = "1h"))]
    pub max_playout: Duration,
    /// How long the ports of an ended call stay unused, so that a late sender does not reach the next caller. At most 10m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "10m"))]
    pub port_quarantine: Duration,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            rtp_ports: PortRange { first: 20_000, last: 29_999 },
            workers: 0,
            codecs: vec![CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma, CodecName::L16],
            srtp: Srtp::Off,
            rtp_timeout: Duration::from_secs(60),
            reorder_window: Duration::from_millis(40),
            inband_dtmf: false,
            hold_music: None,
            realtime_priority: 10,
            max_playout: Duration::from_secs(600),
            port_quarantine: Duration::from_secs(30),
        }
    }
}

/// Encryption of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Srtp {
    /// None: a peer that insists is refused.
    #[default]
    Off,
    /// Offers plain RTP and takes SRTP when it is offered.
    Optional,
    /// SRTP or no call.
    Required,
    /// Offers plain RTP with keys beside it (RFC 8643), and takes both.
    Opportunistic,
}

/// A codec, by its name in SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CodecName {
    /// G.711 μ-law, 8 kHz.
    #[serde(rename = "PCMU")]
    Pcmu,
    /// G.711 A-law, 8 kHz.
    #[serde(rename = "PCMA")]
    Pcma,
    /// G.722, 16 kHz.
    #[serde(rename = "G722")]
    G722,
    /// Opus, handled at 24 kHz.
    #[serde(rename = "opus")]
    Opus,
    /// Linear 16-bit, 8 to 48 kHz.
    #[serde(rename = "L16")]
    L16,
}

impl CodecName {
    /// As in SDP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16 => "L16",
        }
    }
}
