//! Locating SIP servers: which address is tried in which order (RFC 3263, RFC 2782).
