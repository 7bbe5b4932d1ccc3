//! Passing packets of one stream on to another without decoding them.
