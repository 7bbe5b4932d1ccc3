//! SIP over WebSocket (RFC 7118).
