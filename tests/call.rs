//! Whole calls: a server, the simulated service it talks to and a phone in one process, joined by real
//! SIP, RTP and WebSockets.

#[path = "call/ari.rs"]
mod ari;
#[path = "call/audio.rs"]
mod audio;
#[path = "call/audiosocket.rs"]
mod audiosocket;
#[path = "call/barge_in.rs"]
mod barge_in;
#[path = "call/breaker.rs"]
mod breaker;
#[path = "call/bridge.rs"]
mod bridge;
#[path = "call/browser_phone.rs"]
mod browser_phone;
#[path = "call/capture.rs"]
mod capture;
#[path = "call/chan_websocket.rs"]
mod chan_websocket;
#[path = "call/clock.rs"]
mod clock;
#[path = "call/cost.rs"]
mod cost;
#[path = "call/dial.rs"]
mod dial;
#[path = "call/encryption.rs"]
mod encryption;
#[path = "call/failover.rs"]
mod failover;
#[path = "call/faults.rs"]
mod faults;
#[path = "call/network.rs"]
mod network;
#[path = "call/passing.rs"]
mod passing;
#[path = "call/phones.rs"]
mod phones;
#[path = "call/records.rs"]
mod records;
#[path = "call/relay.rs"]
mod relay;
#[path = "call/silence.rs"]
mod silence;
#[path = "call/strangers.rs"]
mod strangers;
#[path = "call/support.rs"]
mod support;
#[path = "call/switches.rs"]
mod switches;
#[path = "call/tools.rs"]
mod tools;
#[path = "call/transfer.rs"]
mod transfer;
#[path = "call/trunks.rs"]
mod trunks;
#[path = "call/ultravox.rs"]
mod ultravox;
#[path = "call/ultravox_sip.rs"]
mod ultravox_sip;
#[path = "call/waveform.rs"]
mod waveform;
#[path = "call/wire.rs"]
mod wire;

/// First of the RTP ports of this test binary.
const PORTS: u16 = 24_000;
