//! Packets on the wire: RTP and RTCP towards one far end.
//!
//! [`Stream`] is one party's media: it puts received packets back in order, conceals what is missing,
//! turns payloads into 24 kHz bridge samples, and in the other direction queues audio per item and cuts
//! it into one packet per 20 ms slot. It is driven by bytes, slots and a `now`; it owns no socket, clock
//! or task. [`SlotWheel`] says which stream's slot is due, and [`PortPool`] (the only part that touches
//! sockets) hands out port pairs as guards.
//!
//! Invariants: samples handed to the bridge equal elapsed RTP time; no packet is heard twice; towards the
//! far end timestamps follow time and sequence numbers follow packets; nothing played after
//! [`Stream::clear`] but a fade of a few milliseconds inside the next frame; every queue has a bound.

pub mod dtmf;
pub mod emodel;
pub mod histogram;
pub mod latch;
pub mod media;
pub mod pacer;
pub mod packet;
pub mod playout;
pub mod ports;
pub mod reception;
pub mod relay;
pub mod rtcp;
pub mod sequence;
pub mod slots;
pub mod srtp;
pub mod stream;
pub mod timeline;
pub mod timer;

pub use dtmf::{DtmfError, DtmfMethod};
pub use histogram::Histogram;
pub use latch::LatchPolicy;
pub use playout::{ItemKey, PlayError, PlayedItem};
pub use ports::{PortError, PortPair, PortPool, PortPoolConfig};
pub use slots::{Due, SlotWheel};
pub use stream::{Direction, Stream, StreamConfig, StreamCounts, StreamEvent, Tick};
