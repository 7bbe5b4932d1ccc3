//! Carriers: where the calls of a trunk go, and whether they may.
