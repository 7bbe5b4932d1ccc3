//! Tandem: a native SIP/RTP media server that puts a realtime speech AI and human agents on the same
//! phone call.
//!
//! # The house, from the top down
//!
//! ```text
//! cli/                      what a person types; main.rs -> cli/<command>.rs
//! demo  bench  serve        whole programs: wire the floors below together
//! http/      simulate/      REST, live feed, metrics;  far ends that speak the real wire protocols
//! routing/                  flows: what happens to an inbound call, step by step
//! call/                     the call: its task, bridge, conversation, recording, media workers
//! tools/                    what assistants can do: one registry, checked arguments, webhooks, MCP servers
//! ari/                      channels of an Asterisk, controlled through its REST interface
//! sip/       provider/      legs towards phones and towards AIs
//! audiosocket/              audio of an Asterisk over TCP;  chan_websocket/  over WebSocket
//! pbx/                      what legs towards a PBX have in common: samples, a wire, a channel
//! rtp/                      packets: reception, playout, DTMF events, RTCP, ports, the 20 ms grid
//! audio/                    samples: codecs, resampling, mixing, tones, voice activity, WAV
//! store/                    SQLite or PostgreSQL, the journal, the feed of committed events
//! telemetry/  web           logs, metrics, personal data;  requests to other people's web servers
//! cost/       config/       price tables, meters, budgets;  settings
//! event  id  time           the ground: what happens, names, moments
//! ```
//!
//! Data flows one way: a datagram enters `rtp` on a call's media worker, becomes 24 kHz samples in
//! `audio`, and leaves through the call's `provider` session; the answer comes back the same way. What
//! happens on the way is a [`event::CallEvent`], written by `store` and shown by `http`.
//!
//! # Entry points
//!
//! - A call comes in: `sip::endpoint` -> `serve` -> `routing::switchboard` -> a worker of `call::worker`.
//! - A frame comes in: `sip::leg::SipLeg::poll` -> `call::Call` -> `provider::Session::send_audio`.
//! - A person asks: `cli` -> `http` -> `call::handle::Calls` -> the call's mailbox.
//!
//! # Invariants
//!
//! - Each floor imports only floors below (`tests/tidy.rs` holds this and the next two).
//! - A protocol core names no socket, no task and no clock: it takes bytes, events and a `now`.
//! - Only `provider/openai` (and its simulator) knows OpenAI's JSON.
//! - A call is owned by one task on one media worker; others hold a handle and send messages.
//! - Every queue has a bound and a written answer to "full".
//! - Nothing is shown on the feed before it is on disk.
//!
//! # Deliberately absent
//!
//! No `Arc<Mutex<..>>` in the media path, no thread hop between RTP and the AI's WebSocket, no playout
//! delay towards the AI, no test that sleeps.

pub mod ari;
pub mod audio;
pub mod audiosocket;
pub mod bench;
pub mod call;
pub mod chan_websocket;
pub mod cli;
pub mod config;
pub mod cost;
pub mod demo;
pub mod event;
pub mod http;
pub mod id;
pub mod pbx;
pub mod provider;
pub mod routing;
pub mod rtp;
pub mod serve;
pub mod simulate;
pub mod sip;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod tools;
pub mod web;
