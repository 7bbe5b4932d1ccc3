//! The memory within its bounds.

use std::time::Duration;

use super::*;

fn seen(bytes: &[u8]) -> Seen<'_> {
    let address = "127.0.0.1:5060".parse().expect("an address");
    Seen { outgoing: false, transport: Transport::Udp, local: address, remote: address, bytes }
}

fn keep(traces: &mut Traces, text: &str) -> u64 {
    let epoch = (Instant::now(), UnixMs::new(0));
    traces.keep(Kept::new(epoch, epoch.0, &seen(text.as_bytes())))
}

fn invite(call_id: &str, cseq: u32) -> String {
    format!("INVITE sip:a SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: {cseq} INVITE\r\n\r\n")
}

fn answer(call_id: &str, status: u16, method: &str) -> String {
    format!("SIP/2.0 {status} X\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\r\n")
}

fn limits(calls: usize) -> TraceLimits {
    TraceLimits { calls, ..TraceLimits::default() }
}

#[test]
fn the_oldest_call_that_has_ended_is_forgotten_first() {
    let mut traces = Traces::new(limits(3));
    for id in ["live", "over", "refused"] {
        keep(&mut traces, &invite(id, 1));
    }
    keep(&mut traces, &answer("over", 200, "INVITE"));
    keep(&mut traces, &answer("over", 200, "BYE"));
    keep(&mut traces, &answer("refused", 486, "INVITE"));
    assert_eq!(keep(&mut traces, &invite("new", 1)), 3, "three messages made room");
    let known = ["live", "over", "refused", "new"].map(|id| traces.of(id).is_some());
    assert_eq!(known, [true, false, true, true]);
}

#[test]
fn a_challenged_call_is_not_over() {
    let mut traces = Traces::new(limits(2));
    keep(&mut traces, &invite("challenged", 1));
    keep(&mut traces, &answer("challenged", 401, "INVITE"));
    keep(&mut traces, &invite("challenged", 2));
    keep(&mut traces, &invite("b", 1));
    keep(&mut traces, &answer("b", 404, "INVITE"));
    keep(&mut traces, &invite("c", 1));
    assert!(traces.of("challenged").is_some() && traces.of("b").is_none());
}

#[test]
fn requests_outside_of_calls_do_not_push_calls_out() {
    let mut traces = Traces::new(limits(16));
    for n in 0..8 {
        keep(&mut traces, &invite(&format!("call-{n}"), 1));
        keep(&mut traces, &answer(&format!("call-{n}"), 486, "INVITE"));
    }
    for n in 0..100 {
        keep(&mut traces, &format!("OPTIONS sip:a SIP/2.0\r\nCall-ID: ping-{n}\r\nCSeq: 1 OPTIONS\r\n\r\n"));
    }
    assert_eq!(traces.len(), 16);
    assert!((0..8).all(|n| traces.of(&format!("call-{n}")).is_some()));
}

#[test]
fn a_long_call_keeps_its_beginning_and_its_end() {
    let mut traces = Traces::new(TraceLimits { bytes_per_call: 20_000, ..TraceLimits::default() });
    for cseq in 0..500 {
        keep(&mut traces, &invite("a", cseq));
    }
    let trace = traces.of("a").expect("it is kept");
    let cseq = |message: &Kept| String::from_utf8_lossy(&message.bytes).lines().nth(2).map(str::to_owned);
    assert_eq!(cseq(&trace.messages[0]).as_deref(), Some("CSeq: 0 INVITE"));
    assert_eq!(trace.messages.last().and_then(cseq).as_deref(), Some("CSeq: 499 INVITE"));
    assert_eq!(trace.messages.len() as u64 + trace.dropped, 500);
    assert!(traces.bytes() <= 20_000);
}

#[test]
fn all_together_stay_within_their_bound_and_the_sum_is_right() {
    let mut traces = Traces::new(TraceLimits { bytes_total: 10_000, ..TraceLimits::default() });
    for n in 0..300 {
        keep(&mut traces, &invite(&format!("c{}", n % 60), n));
        keep(&mut traces, &answer(&format!("c{}", n % 60), 486, "INVITE"));
        assert!(traces.bytes() <= 10_000);
    }
    let sum: usize = traces.by_call_id.values().flat_map(|ring| &ring.messages).map(cost).sum();
    assert_eq!(sum, traces.bytes());
    let rows: usize = traces.order.iter().map(BTreeMap::len).sum();
    assert_eq!(rows, traces.len());
}

#[test]
fn repetitions_are_marked_and_share_their_octets() {
    let mut traces = Traces::new(TraceLimits::default());
    for _ in 0..3 {
        keep(&mut traces, &invite("a", 1));
    }
    let trace = traces.of("a").expect("it is kept");
    assert_eq!(trace.messages.iter().map(|m| m.repeated).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(trace.messages[0].bytes.as_ptr(), trace.messages[2].bytes.as_ptr());
}

#[test]
fn what_has_no_call_id_is_counted_and_not_kept() {
    let mut traces = Traces::new(TraceLimits::default());
    assert_eq!(keep(&mut traces, "OPTIONS sip:a SIP/2.0\r\n\r\n"), 1);
    assert!(traces.is_empty());
}

#[test]
fn moments_are_told_on_the_wall_clock() {
    let now = Instant::now();
    let epoch = (now, UnixMs::new(1_000));
    let kept = Kept::new(epoch, now + Duration::from_micros(1_500), &seen(b""));
    assert_eq!(kept.at_us, 1_001_500);
}
