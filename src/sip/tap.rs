//! A tap on signalling: sees every message, and never holds one up.
