//! SIP statuses and Q.850 causes, one made of the other (RFC 3326, RFC 3398).
