//! ARI: channels of an Asterisk, controlled through its REST interface and followed by its events.
