//! ITU-T Q.850 causes and SIP statuses, each in terms of the other (RFC 3398 sections 7.2.4.1 and 8.2.6.1).

use crate::sip::message::StatusCode;

/// The status a Q.850 cause maps to, for a call that was not answered: 16 (normal clearing) maps to 487. Causes without
/// a row map to 500; 44 (channel not available), which PBXs give for a far end they cannot reach, has none in the RFC.
pub fn status_for_cause(cause: u16) -> StatusCode {
    match cause {
        1..=3 => StatusCode::NOT_FOUND,
        16 => StatusCode::REQUEST_TERMINATED,
        17 => StatusCode::BUSY_HERE,
        18 => StatusCode::REQUEST_TIMEOUT,
        19 | 20 | 31 => StatusCode::TEMPORARILY_UNAVAILABLE,
        21 | 55 | 57 | 87 => StatusCode::FORBIDDEN,
        22 | 23 => StatusCode::GONE,
        26 => StatusCode::NOT_FOUND,
        27 => StatusCode::BAD_GATEWAY,
        28 => StatusCode::ADDRESS_INCOMPLETE,
        29 | 79 => StatusCode::NOT_IMPLEMENTED,
        34 | 38 | 41 | 42 | 44 | 47 | 58 | 63 | 88 => StatusCode::SERVICE_UNAVAILABLE,
        65 | 70 => StatusCode::NOT_ACCEPTABLE_HERE,
        102 => StatusCode::SERVER_TIMEOUT,
        _ => StatusCode::SERVER_INTERNAL_ERROR,
    }
}

/// The Q.850 cause a final failure maps to. Statuses without a row map to 31 (normal, unspecified).
pub fn cause_for_status(status: StatusCode) -> u16 {
    match status.get() {
        200..=299 | 487 => 16,
        400 | 481 | 500 | 503 => 41,
        401 | 402 | 403 | 407 | 603 => 21,
        404 | 485 | 604 => 1,
        405 => 63,
        406 | 415 | 501 => 79,
        408 | 504 => 102,
        410 => 22,
        413 | 414 | 420 | 421 | 423 | 505 | 513 => 127,
        480 => 18,
        482 | 483 => 25,
        484 => 28,
        486 | 600 => 17,
        488 => 65,
        502 => 38,
        606 => 58,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_statuses_map_as_rfc_3398_says() {
        for (cause, status) in [
            (1, 404),
            (2, 404),
            (3, 404),
            (16, 487),
            (17, 486),
            (18, 408),
            (19, 480),
            (20, 480),
            (31, 480),
            (21, 403),
            (27, 502),
            (28, 484),
            (34, 503),
            (44, 503),
            (65, 488),
            (102, 504),
            (127, 500),
            (99, 500),
        ] {
            assert_eq!(status_for_cause(cause).get(), status);
        }
        for (status, cause) in
            [(404, 1), (486, 17), (480, 18), (487, 16), (503, 41), (488, 65), (603, 21), (499, 31)]
        {
            assert_eq!(StatusCode::new(status).map(cause_for_status), Some(cause));
        }
    }
}
