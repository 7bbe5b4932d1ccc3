//! SIP: signalling towards carriers and PBXs (RFC 3261 and its company).
//!
//! From the bottom up: bytes become messages (`parse`, `framing`), messages are ordered headers with
//! typed views (`headers`, `header`, `uri`), bodies are session descriptions (`sdp`) that two sides agree
//! on (`negotiation`), and `digest` proves who asks. All of that is pure: bytes and a `now` in, values out.

pub mod digest;
pub mod framing;
pub mod header;
pub mod headers;
pub mod limits;
pub mod message;
pub mod negotiation;
pub mod parse;
pub mod sdp;
pub mod uri;

pub use header::cseq::CSeq;
pub use header::name_addr::NameAddr;
pub use header::via::Via;
pub use headers::{HeaderError, HeaderName, HeaderValue, Headers};
pub use limits::Limits;
pub use message::{Message, Method, Request, Response, StatusCode, Transport};
pub use parse::{ParseError, parse_datagram};
pub use uri::{Host, Scheme, Uri};

// Machines that use the messages: transactions, dialogs, the user agent and its sockets.

pub mod carrier;
pub mod cause;
pub mod certificate;
mod connections;
mod deadlines;
pub mod dialog;
pub mod dns;
pub mod endpoint;
pub mod flood;
pub mod identity;
pub mod leg;
pub mod profile;
pub mod registrar;
pub mod resolver;
mod stun;
pub mod tap;
mod tcp;
pub mod tls;
pub mod trace;
pub mod transaction;
pub mod transport;
pub mod trunk;
pub mod ua;
pub mod udp;
pub mod ws;
