//! What one leg of a bridge is told about the end of the other (RFC 3326, RFC 3398).
//!
//! A final status of the far leg is either about the callee, and is passed, or about the hop between it and us
//! (its challenge to our credentials, its view of our session timer, its overload), which is no business of
//! the caller: that becomes a failure of ours. The `Reason` header says in Q.850 what the callee's network
//! meant, in both directions.

use super::header::cause::cause_for_status;
use super::header::reason::Reason;
use super::message::StatusCode;
use super::ua::HangupReason;

/// The status the caller gets for a call that the far leg ended with `status`.
pub fn status_across(status: u16) -> StatusCode {
    let passed = match status {
        // Redirects are followed or not followed here; the caller has reached who it can reach.
        0..400 => 480,
        // Between the far hop and us.
        401 | 402 | 407 | 420 | 421 | 422 | 423 | 481 | 482 | 483 | 491 | 493 | 494 => 500,
        // RFC 3261 section 16.7: 503 says "send me nothing", and that is not the caller's trunk.
        503 => 500,
        400..700 => status,
        _ => 500,
    };
    StatusCode::new(passed).unwrap_or(StatusCode::SERVER_INTERNAL_ERROR)
}

/// The `Reason` of a final response, or of the BYE to a caller who was answered already, for a far leg that
/// refused with `status`, and with `cause` (Q.850) if it said so.
pub fn reason_across(status: u16, cause: Option<u16>, text: &str) -> HangupReason {
    let cause = cause.filter(|cause| (1..=127).contains(cause));
    let cause = cause.unwrap_or_else(|| StatusCode::new(status).map_or(31, cause_for_status));
    HangupReason { protocol: "Q.850", cause, text: text.to_owned() }
}

/// The `Reason` of the BYE or CANCEL to one leg when the other was hung up by its peer, which gave `cause` (Q.850), if
/// it did; `reason` is its `Reason` header, or words of ours. A reason in terms of SIP, such as a call that was
/// completed elsewhere, is passed as it is.
pub fn goodbye_across(cause: Option<u16>, reason: &str) -> HangupReason {
    let read = Reason::parse(reason.as_bytes()).ok().filter(|read| read.cause.is_some());
    if let Some(Reason { protocol, cause: Some(status), text }) = &read
        && protocol.eq_ignore_ascii_case("SIP")
        && (200..700).contains(status)
    {
        return HangupReason { protocol: "SIP", cause: *status, text: text.clone().unwrap_or_default() };
    }
    let cause = cause.filter(|cause| (1..=127).contains(cause)).unwrap_or(16);
    let text = read.map_or_else(|| reason.to_owned(), |read| read.text.unwrap_or_default());
    HangupReason { protocol: "Q.850", cause, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_callee_is_passed_and_what_is_about_the_hop_is_not() {
        for (far, near) in [
            (486, 486),
            (404, 404),
            (480, 480),
            (488, 488),
            (600, 600),
            (603, 603),
            (302, 480),
            (401, 500),
            (407, 500),
            (420, 500),
            (422, 500),
            (482, 500),
            (483, 500),
            (503, 500),
            (504, 504),
            (799, 500),
        ] {
            assert_eq!(status_across(far).get(), near, "{far}");
        }
    }

    #[test]
    fn the_reason_says_in_q850_what_the_callees_network_meant() {
        for (status, cause) in [(486, 17), (404, 1), (480, 18), (503, 41), (603, 21), (487, 16)] {
            assert_eq!(reason_across(status, None, "x").cause, cause, "{status}");
        }
        assert_eq!(reason_across(503, Some(34), "x").cause, 34);
        assert_eq!(goodbye_across(Some(34), "x").cause, 34);
        assert_eq!(goodbye_across(None, "x").cause, 16);
        assert_eq!(goodbye_across(Some(300), "x").cause, 16);
        let elsewhere = goodbye_across(Some(16), "SIP;cause=200;text=\"Call completed elsewhere\"");
        assert_eq!((elsewhere.protocol, elsewhere.cause), ("SIP", 200));
        let busy = goodbye_across(Some(17), "Q.850;cause=17;text=\"User busy\"");
        assert_eq!((busy.protocol, busy.cause, busy.text.as_str()), ("Q.850", 17, "User busy"));
        assert_eq!(goodbye_across(None, "no RTP for 60 s").text, "no RTP for 60 s");
    }
}
