//! Everything that happens on a call, as values.
//!
//! A [`CallEvent`] is durable: the call numbers it (1, 2, 3, … without gaps), the store writes it with
//! the state it changes, and only then does the live feed show it. [`Ephemeral`] events carry no number
//! and may be dropped or merged.

use serde::{Deserialize, Serialize};

use crate::id::{CallId, LineId};
use crate::time::UnixMs;

/// One durable event of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    /// The call.
    pub call: CallId,
    /// 1, 2, 3, … per call.
    pub seq: u64,
    /// When it happened.
    pub at: UnixMs,
    /// What happened.
    #[serde(flatten)]
    pub kind: CallEventKind,
}

/// What can happen; `type` and `data` are the live feed's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum CallEventKind {
    /// The INVITE arrived (or is about to be sent) and the call's record exists.
    #[serde(rename = "call.created")]
    Created(CallCreated),
    /// The caller hears us.
    #[serde(rename = "call.answered")]
    Answered {
        /// Codec of the caller's leg, such as `PCMU/8000`.
        codec: String,
    },
    /// The call moved on.
    #[serde(rename = "call.phase")]
    Phase {
        /// Where it is.
        phase: Phase,
        /// Who may speak to the caller.
        floor: Floor,
    },
    /// The media path changed: hold, unhold, codec, address.
    #[serde(rename = "call.media")]
    Media {
        /// `active`, `held_by_peer` or `held_by_us`.
        state: String,
        /// Codec in use.
        codec: String,
    },
    /// RTP statistics, at the end and now and then before it.
    #[serde(rename = "call.quality")]
    Quality(Quality),
    /// The call is over; its record is closed.
    #[serde(rename = "call.ended")]
    Ended(CallEnded),
    /// One line of the transcript.
    #[serde(rename = "transcript.final")]
    Transcript(TranscriptLine),
    /// A key was pressed on the phone.
    #[serde(rename = "dtmf.received")]
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`. Masked as `?` while digits are confidential.
        digit: char,
        /// How it came: `rtp`, `info`, `inband`.
        method: String,
    },
    /// A tool starts.
    #[serde(rename = "tool.started")]
    ToolStarted {
        /// Provider's id of the call.
        id: String,
        /// Tool name.
        name: String,
        /// Arguments with personal values masked.
        args: serde_json::Value,
    },
    /// A tool has finished.
    #[serde(rename = "tool.finished")]
    ToolFinished {
        /// Provider's id of the call.
        id: String,
        /// Tool name.
        name: String,
        /// Run time.
        ms: u64,
        /// Whether it succeeded.
        ok: bool,
        /// How it ended: `ok`, `refused` (not run: unknown, or its arguments do not fit), `error`, `timeout`,
        /// `unreachable`, `cancelled`.
        #[serde(default)]
        outcome: String,
    },
    /// Somebody marked the call.
    #[serde(rename = "call.tagged")]
    Tagged {
        /// The mark.
        tag: String,
        /// `assistant`.
        by: String,
    },
    /// Somebody noted something about the call.
    #[serde(rename = "call.noted")]
    Noted {
        /// In words.
        text: String,
        /// `assistant`.
        by: String,
    },
    /// The AI joined.
    #[serde(rename = "provider.connected")]
    ProviderConnected {
        /// Provider name.
        provider: String,
        /// From dialling to a configured session.
        connect_ms: u64,
        /// It goes on with a conversation that another session has begun.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resumed: bool,
        /// Of one that goes on: how long the caller had no session; 0 when it was renewed in time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gap_ms: Option<u64>,
    },
    /// The AI is gone, or was not to be had.
    #[serde(rename = "provider.lost")]
    ProviderLost {
        /// Provider name.
        provider: String,
        /// Why.
        reason: String,
    },
    /// The caller spoke over the assistant.
    #[serde(rename = "barge_in")]
    BargeIn {
        /// The line that was cut.
        line_id: LineId,
        /// Milliseconds of it the caller heard.
        played_ms: u64,
        /// From reading the speech-start event to the last assistant frame on the wire.
        stop_ms: f64,
    },
    /// A further leg is dialled for the call.
    #[serde(rename = "leg.added")]
    LegAdded {
        /// The leg.
        leg: String,
        /// Whose it is.
        direction: Direction,
        /// The number or URI dialled.
        to: String,
        /// Trunk it goes over.
        trunk: Option<String>,
        /// Its Call-ID header, where it is known beforehand.
        sip_call_id: Option<String>,
    },
    /// A further leg is over, or was never answered.
    #[serde(rename = "leg.ended")]
    LegEnded {
        /// The leg.
        leg: String,
        /// The status that fits.
        status: u16,
        /// In words.
        reason: String,
        /// `caller`, `callee`, `system`.
        by: String,
        /// RTP statistics, of a leg that had media.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quality: Option<Box<Quality>>,
    },
    /// Two legs hear each other.
    #[serde(rename = "call.bridged")]
    Bridged {
        /// Both.
        legs: Vec<String>,
        /// `relay` (packets pass unchanged) or `transcode`.
        mode: String,
    },
    /// Somebody moves the call to a third party.
    #[serde(rename = "call.transfer")]
    Transfer {
        /// `asked`, `accepted`, `completed`, `failed` or `refused`.
        state: String,
        /// The third party.
        to: String,
        /// The status so far.
        status: u16,
    },
    /// What the call has cost so far; the last one is the sum. At most every five seconds, and before the end.
    #[serde(rename = "cost.updated")]
    Cost(Box<Cost>),
    /// A limit is near or was reached.
    #[serde(rename = "cost.limit")]
    CostLimit(CostLimit),
    /// Recording began or ended.
    #[serde(rename = "recording.state")]
    Recording {
        /// `started`, `stopped`, `paused`, `resumed` or `failed`.
        state: String,
        /// File name within the data directory.
        file: String,
    },
}

/// Data of `call.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCreated {
    /// Who called whom.
    pub direction: Direction,
    /// Calling number or URI user.
    pub from: String,
    /// Called number or URI user.
    pub to: String,
    /// Trunk it came over.
    pub trunk: Option<String>,
    /// Owner, by name.
    pub organization: Option<String>,
    /// Assistant that will answer, by name.
    pub assistant: Option<String>,
    /// Call-ID header of the first leg.
    pub sip_call_id: Option<String>,
    /// What the carrier says about the caller's number (STIR/SHAKEN), such as `TN-Validation-Passed-A`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verstat: Option<String>,
    /// Number the call was diverted from, the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversion: Option<String>,
}

/// Data of `cost.updated`. Amounts are whole numbers of 10⁻ˢᶜᵃˡᵉ units of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// ISO 4217.
    pub currency: String,
    /// Decimal places of every amount.
    pub scale: u8,
    /// Of everything that has a price.
    pub total: u64,
    /// The same, by what it was for.
    pub by: CostParts,
    /// Each thing used.
    pub items: Vec<CostItem>,
}

/// Amounts by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CostParts {
    /// Carriers' minutes.
    pub trunk: u64,
    /// Writing down what was said.
    pub stt: u64,
    /// The model: what it reads and writes, or the time of its session.
    pub llm: u64,
    /// The model's voice.
    pub tts: u64,
    /// Tools that have a price.
    pub tools: u64,
}

impl CostParts {
    /// The one of this part.
    pub fn part(&mut self, part: CostPart) -> &mut u64 {
        match part {
            CostPart::Trunk => &mut self.trunk,
            CostPart::Stt => &mut self.stt,
            CostPart::Llm => &mut self.llm,
            CostPart::Tts => &mut self.tts,
            CostPart::Tools => &mut self.tools,
        }
    }
}

/// One thing used in a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostItem {
    /// What it is for.
    pub part: CostPart,
    /// The provider, or the trunk.
    pub provider: String,
    /// The model; of a trunk's minutes the prefix their price is for. Empty for what has none.
    pub model: String,
    /// Such as `text_in`, `audio_cached`, `session`, `outbound`.
    pub what: String,
    /// How much of it.
    pub quantity: u64,
    /// `tokens`, `ms` or `calls`.
    pub unit: String,
    /// What it costs; `None`: it has no price.
    pub amount: Option<u64>,
}

/// What something paid for is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "CostParts says it")]
pub enum CostPart {
    Trunk,
    Stt,
    Llm,
    Tts,
    Tools,
}

impl CostPart {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trunk => "trunk",
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Tts => "tts",
            Self::Tools => "tools",
        }
    }
}

/// Data of `cost.limit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostLimit {
    /// Whose limit.
    pub scope: CostScope,
    /// 80: it is near; 100: it was reached.
    pub percent: u8,
    /// ISO 4217.
    pub currency: String,
    /// Decimal places of the amounts.
    pub scale: u8,
    /// Spent so far.
    pub spent: u64,
    /// The limit.
    pub limit: u64,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostScope {
    /// This call's.
    Call,
    /// The organization's, of one day.
    Organization,
    /// The installation's, of one day.
    Installation,
}

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They called us.
    Inbound,
    /// We called them.
    Outbound,
}

impl Direction {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the console's")]
pub enum Phase {
    Ringing,
    Connecting,
    InCall,
    WrapUp,
    Ended,
    Failed,
}

impl Phase {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Connecting => "connecting",
            Self::InCall => "in_call",
            Self::WrapUp => "wrap_up",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// Who may speak to the caller. Exactly one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Floor {
    /// Nobody yet, or a prompt.
    None,
    /// The AI.
    Assistant,
    /// A human agent, by user id.
    Agent(String),
    /// Music or silence.
    Hold,
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Assistant => f.write_str("assistant"),
            Self::Agent(user) => write!(f, "agent:{user}"),
            Self::Hold => f.write_str("hold"),
        }
    }
}

impl Serialize for Floor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Floor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "none" => Self::None,
            "assistant" => Self::Assistant,
            "hold" => Self::Hold,
            other => match other.strip_prefix("agent:") {
                Some(user) => Self::Agent(user.to_owned()),
                None => return Err(serde::de::Error::custom(format!("`{other}` is no floor"))),
            },
        })
    }
}

/// One stretch of speech by one party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptLine {
    /// Stable name of the line; its partials carry it too.
    pub line_id: LineId,
    /// `caller`, `assistant`, `agent:{id}` or `employee:{id}`.
    pub who: String,
    /// The words. For a cut line these are all words that were generated.
    pub text: String,
    /// From the start of the call.
    pub start_ms: u64,
    /// From the start of the call.
    pub end_ms: u64,
    /// Whether the caller heard all of it.
    pub heard: Heard,
    /// For a cut line: the part the caller heard, to the nearest word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_text: Option<String>,
}

/// Whether a line was heard to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// To the end.
    Full,
    /// The caller spoke over it, or the call ended.
    Cut,
}

/// Data of `call.quality`. Fields without data are absent, never 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// RTP packets received, duplicates not counted.
    pub packets_received: u64,
    /// RTP packets sent.
    pub packets_sent: u64,
    /// Packets that never came.
    pub packets_lost: u64,
    /// Packets that came too late to be used.
    pub packets_late: u64,
    /// Packets that came twice.
    pub packets_duplicate: u64,
    /// Packets that overtook another and were put back in order.
    pub packets_reordered: u64,
    /// Packets from a source that is not the peer.
    pub packets_foreign: u64,
    /// Audio made up for lost packets.
    pub concealed_ms: u64,
    /// Silence fed because no packets came.
    pub silence_ms: u64,
    /// Longest time without a packet.
    pub max_gap_ms: u64,
    /// RFC 3550 interarrival jitter at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// From RTCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Loss the peer reported for our packets, 0..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_loss: Option<f64>,
    /// E-model estimate (ITU-T G.107) of what we heard, 1..=4.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos: Option<f64>,
    /// Packets sent more than 2 ms off the 20 ms grid.
    pub pacing_late: u64,
    /// 99th percentile of the distance from the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pacing_p99_ms: Option<f64>,
    /// Times the assistant's audio ran dry in mid-item.
    pub underruns: u64,
    /// 99th percentile of RTP in to provider socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_p99_ms: Option<f64>,
    /// Assistant audio received from the provider.
    pub assistant_generated_ms: u64,
    /// Assistant audio that left on RTP.
    pub assistant_played_ms: u64,
}

/// Data of `call.ended`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEnded {
    /// How it ended, in one word.
    pub disposition: Disposition,
    /// Who ended it: `caller`, `callee` (whom we called, be it the first leg of a call we placed or a further one;
    /// `leg.ended` says which), `assistant`, `api`, `system`.
    pub ended_by: String,
    /// SIP status or Q.850-equivalent status that fits the end.
    pub sip_status: u16,
    /// In words.
    pub reason: String,
    /// From INVITE to the end.
    pub duration_ms: u64,
    /// From answer to the end; 0 when never answered.
    pub billable_ms: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Answered, and ended by somebody in the ordinary way.
    Completed,
    /// Given up by the caller before the answer.
    Cancelled,
    /// Refused by us.
    Rejected,
    /// Refused by the callee as busy.
    Busy,
    /// Not answered in time.
    NoAnswer,
    /// Ended by a fault of ours, the network's or a provider's.
    Failed,
    /// The server stopped while the call was up.
    Interrupted,
}

impl Disposition {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Events that are shown and forgotten.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "data")]
pub enum Ephemeral {
    /// Words so far of a line.
    #[serde(rename = "transcript.partial")]
    Partial {
        /// The line.
        line_id: LineId,
        /// Who speaks.
        who: String,
        /// All words so far.
        text: String,
    },
    /// Who speaks how loudly, at most five times a second.
    #[serde(rename = "speech.level")]
    Level {
        /// Caller's level in dBov, 0 is full scale.
        caller_dbov: i16,
        /// Assistant's level in dBov.
        assistant_dbov: i16,
    },
}

/// Who is told of a call's events. Implemented by the store's writer and by tests.
pub trait EventSink: Send + Sync {
    /// Hands over a durable event. Never blocks; a sink that is full applies its written answer.
    fn record(&self, event: CallEvent);

    /// Shows an ephemeral event to whoever listens now.
    fn show(&self, call: CallId, event: Ephemeral);
}
