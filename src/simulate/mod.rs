//! Far ends that speak the real wire protocols, for tests, load and `tandem demo`.

pub mod asterisk;
pub mod error;
pub mod fields;
pub mod openai;
mod options;
pub mod phone;
pub mod recorder;
pub mod report;
pub mod scope;
pub mod script;
mod sound;
pub mod speech;
pub mod ultravox;
pub mod vad;
