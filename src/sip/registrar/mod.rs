//! Where the phones that register with us are (RFC 3261 section 10).
