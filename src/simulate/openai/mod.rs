//! An OpenAI Realtime server (GA protocol) for tests, load and demonstrations.
//!
//! It is strict where the service is strict and records every mistake of its client. The session is a
//! plain value ([`session::RealtimeSession`]) that knows neither socket nor clock; [`server`] carries
//! its messages. What the "model" says comes from a [`script::Script`], how it sounds from
//! [`speech::Speech`], and what goes wrong from [`fault::Fault`].
//!
//! Simplifications: `semantic_vad` waits for a pause whose length follows the eagerness and does not
//! read words; MCP tools are accepted and never called; `noise_reduction`, `speed`, `truncation`,
//! `prompt` and `reasoning` are checked and shown back without effect.

mod active;
pub mod cli;
mod commands;
pub mod config;
mod connection;
pub mod conversation;
pub mod detection;
pub mod fault;
pub mod format;
mod generate;
pub mod handshake;
pub mod input;
pub mod item;
pub mod record;
pub mod report;
mod response;
pub mod server;
pub mod session;
pub mod settings;
pub mod speech;
pub mod tokens;
mod turns;
pub mod wire;

#[cfg(test)]
mod flows;
#[cfg(test)]
mod sockets;

pub use super::script;
use super::{error, fields, vad};

pub use report::{Observer, Report, Summary};
pub use server::{OpenAiSimulator, Running, SimConfig, StartError};
pub use session::Behaviour;
pub use speech::Speech;
