//! What a [`Stream`](super::Stream) is told by signalling, and what it tells back.

use std::net::SocketAddr;
use std::time::Duration;

use crate::audio::Codec;
use crate::rtp::dtmf::DtmfMethod;
use crate::rtp::latch::LatchPolicy;
use crate::rtp::playout::ItemKey;
use crate::rtp::srtp::SrtpKeys;
use crate::time::UnixMs;

/// What offer and answer agreed on, and the habits of the trunk.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// Codec we send.
    pub codec: Codec,
    /// Payload type we send, 0..=127.
    pub payload_type: u8,
    /// What the far end may send: payload type and codec. It may switch between them in mid-stream.
    /// The sending codec under its own payload type is always understood.
    pub receive: Vec<(u8, Codec)>,
    /// RFC 4733 telephone events we send: payload type and clock rate in Hz; `None` when not negotiated.
    pub telephone_event: Option<(u8, u32)>,
    /// Telephone events the far end may send, one payload type for each clock. Those we send are always understood.
    pub receive_events: Vec<(u8, u32)>,
    /// Audio per packet we send. Whole multiples of 20 ms up to 120 ms; others are rounded. Default 20 ms.
    pub ptime: Duration,
    /// Where the far end wants its RTP. An unspecified address (`0.0.0.0`) means: send none.
    pub remote: SocketAddr,
    /// Where the far end wants its RTCP.
    pub remote_rtcp: SocketAddr,
    /// RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// Which way media flows, as seen by us.
    pub direction: Direction,
    /// Who else than `remote` may be the far end.
    pub latch: LatchPolicy,
    /// RTCP CNAME, RFC 7022: random per call, no host name. At most 255 bytes are used.
    pub cname: String,
    /// Listen for keys in the audio itself. Default off.
    pub inband_dtmf: bool,
    /// How long a packet that overtook another waits for it. Default 30 ms, sensible 20–40 ms.
    pub reorder_wait: Duration,
    /// How many packets may wait at once; one more gives the hole up. Default 3.
    pub reorder_packets: usize,
    /// No RTP for this long while we may receive is a [`StreamEvent::MediaTimeout`]. Default 60 s;
    /// `None` never.
    pub media_timeout: Option<Duration>,
    /// Bound of the playout queue in played time. Audio beyond it is refused. Default 10 min.
    pub playout_limit: Duration,
    /// Keys of SRTP and SRTCP; `None`: everything goes in the clear. Default none.
    pub srtp: Option<SrtpKeys>,
    /// Packets that go to an address before it has shown life, so that nobody can aim us at a third party;
    /// then none until something is heard from it. Networks of [`LatchPolicy::allowed`] are not limited.
    /// Default 250, 5 s of audio.
    pub unproven_packets: u32,
    /// What the wall clock showed at the `now` of [`Stream::new`](super::Stream::new), for RTCP.
    pub wall_clock: UnixMs,
}

impl StreamConfig {
    /// A two-way stream of one codec with `remote`, RTCP on the port above it, all else by default.
    pub fn new(codec: Codec, payload_type: u8, remote: SocketAddr) -> Self {
        let mut remote_rtcp = remote;
        remote_rtcp.set_port(remote.port().wrapping_add(1));
        Self {
            codec,
            payload_type,
            receive: vec![(payload_type, codec)],
            telephone_event: None,
            receive_events: Vec::new(),
            ptime: Duration::from_millis(20),
            remote,
            remote_rtcp,
            rtcp_mux: false,
            direction: Direction::BOTH,
            latch: LatchPolicy::default(),
            cname: String::new(),
            inband_dtmf: false,
            reorder_wait: Duration::from_millis(30),
            reorder_packets: 3,
            media_timeout: Some(Duration::from_secs(60)),
            playout_limit: Duration::from_secs(600),
            srtp: None,
            unproven_packets: 250,
            wall_clock: UnixMs::new(0),
        }
    }

    /// Where the far end's RTCP belongs.
    pub(crate) fn rtcp_remote(&self) -> SocketAddr {
        if self.rtcp_mux { self.remote } else { self.remote_rtcp }
    }

    /// Whether RTP may be sent at all: the direction says so and there is somewhere to send it.
    pub(crate) fn may_send(&self) -> bool {
        self.direction.send && !self.remote.ip().is_unspecified() && self.remote.port() != 0
    }
}

/// Which way media flows, as seen by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// We send.
    pub send: bool,
    /// We receive; packets that come all the same are counted and dropped.
    pub receive: bool,
}

impl Direction {
    /// `sendrecv`.
    pub const BOTH: Self = Self { send: true, receive: true };
    /// `sendonly`.
    pub const SEND_ONLY: Self = Self { send: true, receive: false };
    /// `recvonly`.
    pub const RECEIVE_ONLY: Self = Self { send: false, receive: true };
    /// `inactive`.
    pub const INACTIVE: Self = Self { send: false, receive: false };
}

/// What a stream tells its owner; see [`Stream::poll_event`](super::Stream::poll_event).
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// A key was pressed at the far end; told once per press.
    Dtmf {
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: char,
        /// How it came.
        method: DtmfMethod,
    },
    /// The first packet of the far end was accepted.
    MediaStarted {
        /// Where it came from.
        source: SocketAddr,
    },
    /// The far end sends from another address than signalled; RTP goes there from now on.
    Latched {
        /// The address.
        source: SocketAddr,
    },
    /// Packets from somebody else were dropped. Told at most every 5 s.
    ForeignSource {
        /// One of the strangers.
        source: SocketAddr,
        /// Dropped since the stream began.
        total: u64,
    },
    /// The far end restarted its stream under another synchronization source.
    SsrcChanged {
        /// The new source.
        ssrc: u32,
    },
    /// No RTP for [`StreamConfig::media_timeout`] although we may receive. Told once per silence.
    MediaTimeout {
        /// How long it has been silent.
        silent: Duration,
    },
    /// RTP came again after a [`StreamEvent::MediaTimeout`].
    MediaResumed,
    /// The far end said goodbye over RTCP. Only signalling ends a call; this is a hint.
    PeerBye,
    /// The first samples of an item left in the slot just ticked.
    ItemStarted {
        /// The item.
        item: ItemKey,
    },
    /// The last samples of an ended item left in the slot just ticked.
    ItemFinished {
        /// The item.
        item: ItemKey,
        /// Its whole length.
        played_ms: u64,
    },
    /// All digits of [`Stream::send_dtmf`](super::Stream::send_dtmf) have been sent.
    DtmfSent,
    /// While packets are relayed: the far end has switched to another codec that was agreed on. Ask
    /// [`Stream::can_relay_to`](super::Stream::can_relay_to) again.
    CodecHeard {
        /// The codec.
        codec: Codec,
    },
}

/// What one slot put on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Where the packet goes.
    pub destination: SocketAddr,
    /// The item whose audio is in the packet, if any; of two, the later one.
    pub item: Option<ItemKey>,
    /// Whether the packet carries a telephone event in place of audio.
    pub dtmf: bool,
}
