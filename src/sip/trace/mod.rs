//! What was said in signalling, kept for people: ladders, captures, export.
