//! Settings of the user agent.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::sip::flood::FloodPolicy;
use crate::sip::message::Transport;
use crate::sip::transaction::TimerValues;
use crate::time::UnixMs;

/// Settings of the [`super::UserAgent`].
#[derive(Debug, Clone)]
pub struct UaConfig {
    /// Address put into Via and Contact; absent: the local address of the message or target.
    pub advertise: Option<IpAddr>,
    /// Addresses to show to peers of certain networks, instead of `advertise`; the first that fits.
    pub advertise_for: Vec<Advertised>,
    /// Requests larger than this many octets go by TCP instead of UDP (RFC 3261 section 18.1.1); 0: never.
    pub udp_switch_bytes: usize,
    /// Where the shell listens, for peers whose route changes the transport. Filled in by the shell.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// One moment by both clocks, so that the ids of legs carry the time. Absent: they are random alone.
    pub epoch: Option<(Instant, UnixMs)>,
    /// `Server` and `User-Agent`; empty: none is sent.
    pub user_agent: String,
    /// Timers of RFC 3261.
    pub timers: TimerValues,
    /// Most legs at a time; further INVITEs get 503 with Retry-After.
    pub legs_max: usize,
    /// Most server transactions at a time; further requests outside of dialogs get 503 without state.
    pub transactions_max: usize,
    /// How long an incoming call may stay unanswered before it gets 480.
    pub ring_timeout: Duration,
    /// Seconds in the `Retry-After` of a 503.
    pub retry_after: Duration,
    /// What OPTIONS gets from known sources: `true` 200 (503 when draining), `false` 405.
    pub answer_options: bool,
    /// What a source outside every allow-list gets: `false` nothing, `true` a bare 403.
    pub refuse_unknown: bool,
    /// Most bare 403 a second to one unknown source.
    pub stateless_replies_per_second: u32,
    /// Smallest session interval we take (RFC 4028 section 5). At least 90 s.
    pub min_session_expires: Duration,
    /// What one source may ask of us.
    pub flood: FloodPolicy,
}

/// The address we have for the peers of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Where the peer is.
    pub network: IpNet,
    /// Only for messages over this listener; absent: over any.
    pub listener: Option<SocketAddr>,
    /// What such a peer is shown in Via, Contact and SDP.
    pub address: IpAddr,
    /// The port shown; absent: the listener's.
    pub port: Option<u16>,
}

impl Default for UaConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            advertise_for: Vec::new(),
            udp_switch_bytes: 1_300,
            listeners: Vec::new(),
            epoch: None,
            user_agent: "Tandem".into(),
            timers: TimerValues::default(),
            legs_max: 1_000,
            transactions_max: 20_000,
            ring_timeout: Duration::from_secs(180),
            retry_after: Duration::from_secs(10),
            answer_options: true,
            refuse_unknown: false,
            stateless_replies_per_second: 10,
            min_session_expires: Duration::from_secs(90),
            flood: FloodPolicy::default(),
        }
    }
}
