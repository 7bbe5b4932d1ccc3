//! SRTP and SRTCP: packets that only the two ends can read and forge (RFC 3711).
