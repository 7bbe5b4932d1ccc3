//! An Ultravox Realtime service for tests, load and demonstrations: REST, media sockets and webhooks.
//!
//! It is strict where the service is strict and records every mistake of its client, those too that the
//! service itself would pass over: audio that is not real time, results that come too late. The session
//! is a plain value ([`session::CallSession`]) that knows neither socket nor clock; [`server`] carries its
//! messages. What the "model" says comes from a [`Script`](super::script::Script), how it sounds from
//! [`Speech`], and what goes wrong from [`fault::Fault`].
//!
//! With [`sip::SipConfig`] it also answers calls to `agent_…`, whose audio it speaks by SIP and RTP.
//!
//! Simplifications: `serverWebSocket` is the only medium that can be asked for by REST; tools that the service
//! would run itself, apart from `hangUp`, are accepted and never run; agents, corpora, stages and
//! recordings have no resources of their own; `priorCallId` is refused.

mod agent;
mod book;
pub mod cli;
pub mod create;
pub mod fault;
mod hearing;
mod invocations;
pub mod record;
mod rest;
pub mod server;
pub mod session;
pub mod sip;
mod socket;
mod spoken;
pub mod tools;
pub mod uplink;
mod webhook;
pub mod wire;

#[cfg(test)]
mod flows_tests;
#[cfg(test)]
mod sockets_tests;

pub use super::speech::Speech;
pub use record::{Observer, Report, Summary};
pub use server::{Running, SimConfig, StartError, UltravoxSimulator};
pub use session::Behaviour;
pub use webhook::signature;
