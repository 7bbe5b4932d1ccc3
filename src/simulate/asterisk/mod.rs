//! The far end of all three doors that an Asterisk has towards a media server.
//!
//! ```text
//! ari           a whole PBX: REST, events, bridges, external media, people who call
//! audiosocket   an AudioSocket() application or an AudioSocket channel: a TCP client that speaks first
//! call          what whoever tries something holds of a call by one of the doors
//! person        who is on the line: what they say, what they hear and when
//! websocket     a WebSocket channel: a queue of its own, drained by a timer of its own
//! release       which Asterisk it is: what older ones could not do, and got wrong
//! ```
//!
//! Everything is as strict as Asterisk's own source: what it would reject, drop or hang up on is done likewise,
//! and told as a violation.

pub mod ari;
pub mod audiosocket;
pub mod call;
pub mod cli;
pub mod measure;
pub mod person;
pub mod release;
pub mod uuid;
mod voice;
pub mod websocket;
