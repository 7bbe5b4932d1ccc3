//! The application against a model of a PBX: answers and events in any order, losses, cuts, restarts.

mod away;
mod called;
mod callers;
mod chaos;
mod media;
mod world;
