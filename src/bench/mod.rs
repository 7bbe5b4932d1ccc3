//! How many calls this machine carries, measured.
