//! How much of anything one message may hold. A peer decides nothing about our memory.

/// Bounds on what the parsers accept. Every field has a default; see [`Limits::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a whole message. Default 65 536. Over it: 413, or 513 and close on a stream.
    pub message_bytes: usize,
    /// Octets of the request or status line. Default 8 192. Over it: 414.
    pub start_line_bytes: usize,
    /// Octets of one header row with its folds. Default 16 384. Over it: 400.
    pub header_line_bytes: usize,
    /// Header rows. Default 256. Over it: 400.
    pub header_rows: usize,
    /// `Via` values. Default 70, the usual Max-Forwards. Over it: 400.
    pub vias: usize,
    /// `Route` values, and as many `Record-Route` values. Default 64. Over it: 400.
    pub routes: usize,
    /// `Contact` values. Default 32. Over it: 400.
    pub contacts: usize,
    /// Parameters of one header value. Default 64. Over it: 400.
    pub params: usize,
    /// Empty lines accepted before a start line. Default 64 octets of CR and LF.
    pub leading_blank_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 65_536,
            start_line_bytes: 8_192,
            header_line_bytes: 16_384,
            header_rows: 256,
            vias: 70,
            routes: 64,
            contacts: 32,
            params: 64,
            leading_blank_bytes: 64,
        }
    }
}
