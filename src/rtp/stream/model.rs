//! The receiver against random networks: loss, reordering and duplication within its window.

use super::tests::{Line, config};
use super::*;
use crate::audio::{Codec, SampleRate};
use crate::rtp::packet::Header;
use proptest::prelude::*;

/// One packet of 20 ms at 24 kHz without filters, so that its samples are found again as they were sent.
const CODEC: Codec = Codec::L16(SampleRate::HZ_24000);

#[derive(Debug, Clone)]
struct Fate {
    lost: bool,
    twice: bool,
    delay_ms: u64,
}

fn fate() -> impl Strategy<Value = Fate> {
    (0u8..100, 0u8..100, 0u8..100, 0u64..28).prop_map(|(lost, twice, slow, delay)| Fate {
        lost: lost < 7,
        twice: twice < 5,
        // Most arrive in time; a delay beyond 20 ms reorders.
        delay_ms: if slow < 15 { delay } else { delay / 8 },
    })
}

/// Every sample of packet `n` is `n + 1`; silence is 0, and concealment repeats or fades what was before.
fn payload(n: u16) -> Vec<u8> {
    (0..480).flat_map(|_| (n as i16 + 1).to_be_bytes()).collect()
}

fn arrivals(fates: &[Fate]) -> Vec<(u64, u16)> {
    let mut arrivals = Vec::new();
    for (n, fate) in fates.iter().enumerate() {
        let at = n as u64 * 20 + fate.delay_ms;
        // The ends are kept, so that the span is known.
        if !fate.lost || n == 0 || n + 1 == fates.len() {
            arrivals.push((at, n as u16));
        }
        if fate.twice && !fate.lost {
            arrivals.push((at + 3, n as u16));
        }
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_network_does_time_is_kept_and_no_packet_is_heard_twice(
        fates in proptest::collection::vec(fate(), 2..120),
        first_sequence: u16,
        first_timestamp: u32,
    ) {
        let mut fates = fates;
        fates[0].delay_ms = 0;
        let mut line = Line::new(StreamConfig { inband_dtmf: false, ..config(CODEC, 96) });
        let arrivals = arrivals(&fates);
        for (at, n) in &arrivals {
            let header = Header {
                payload_type: 96,
                marker: false,
                sequence: first_sequence.wrapping_add(*n),
                timestamp: first_timestamp.wrapping_add(u32::from(*n) * 480),
                ssrc: 7,
            };
            line.hear_as(*at, header, &payload(*n), super::tests::PEER);
        }
        // Give the last hole its time, but not so long that silence is owed.
        let last = arrivals.last().map_or(0, |(at, _)| *at);
        line.run(last + 45);

        prop_assert_eq!(line.audio.len(), fates.len() * 480, "samples equal RTP time");
        let quality = line.stream.quality();
        let came: std::collections::BTreeSet<u16> = arrivals.iter().map(|(_, n)| *n).collect();
        prop_assert_eq!(quality.packets_lost, (fates.len() - came.len()) as u64);
        prop_assert_eq!(quality.packets_received, came.len() as u64);
        prop_assert_eq!(quality.packets_duplicate, (arrivals.len() - came.len()) as u64);
        // Each packet that was in time is where RTP time says, whole; all others are made up.
        let mut whole = 0;
        for (n, frame) in line.audio.chunks(480).enumerate() {
            whole += u64::from(frame.iter().skip(240).all(|sample| usize::from(sample.unsigned_abs()) == n + 1));
        }
        prop_assert!(whole >= quality.packets_received - quality.packets_late, "{} {:?}", whole, quality);
    }

    #[test]
    fn whatever_is_played_cleared_and_skipped_the_packets_are_well_numbered(
        steps in proptest::collection::vec((0u8..10, 0u16..2000), 1..200),
    ) {
        let mut line = Line::new(config(Codec::Pcmu, 0));
        let mut expected: Option<(u16, u32)> = None;
        let (mut ms, mut item) = (0, 0);
        for (step, size) in steps {
            let key = ItemKey::from(item.to_string().as_str());
            match step {
                0 | 1 => drop(line.stream.play(&key, &vec![5000; usize::from(size)])),
                2 => line.stream.end_item(&key),
                3 => {
                    line.stream.clear();
                    item += 1;
                }
                4 => drop(line.stream.send_dtmf("5", Duration::from_millis(60))),
                5 => {
                    line.stream.skip(u32::from(size % 7));
                    ms += u64::from(size % 7) * 20;
                    expected = expected.map(|(s, t)| (s, t.wrapping_add(u32::from(size % 7) * 160)));
                }
                _ => {
                    ms += 20;
                    let (tick, header, _) = line.tick(ms).expect("one packet per slot");
                    if let Some((sequence, timestamp)) = expected {
                        prop_assert_eq!(header.sequence, sequence);
                        // Events keep the timestamp of their beginning.
                        prop_assert!(header.timestamp == timestamp || tick.dtmf);
                        expected = Some((sequence.wrapping_add(1), timestamp.wrapping_add(160)));
                    } else {
                        // The first packet may be an event's, which begins in its own slot.
                        expected = Some((header.sequence.wrapping_add(1), header.timestamp.wrapping_add(160)));
                    }
                }
            }
        }
    }
}
