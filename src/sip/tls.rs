//! TLS for SIP: certificates, their reload, and whom we believe (RFC 5922).
