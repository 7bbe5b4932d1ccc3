//! Sessions against a service inside the test, one that does what it is told.

mod opening;
mod service;
mod session;
