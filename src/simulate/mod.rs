//! Far ends that speak the real wire protocols, for tests, load and `tandem demo`.

pub mod openai;
pub mod phone;
