//! externalMedia over RTP: no SDP, one payload type, a source that is learned once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::port::Port;
use crate::pbx::Coding;
use crate::simulate::asterisk::measure::SLOT;
use crate::simulate::asterisk::person::Far as _;
use crate::simulate::asterisk::voice::Voice;

/// Asterisk's static payload types.
pub(super) fn payload_type(coding: Coding) -> u8 {
    match coding {
        Coding::Ulaw => 0,
        Coding::Alaw => 8,
        Coding::G722 => 9,
        Coding::Opus => 107,
        Coding::Linear(12_000) => 122,
        Coding::Linear(16_000) => 118,
        Coding::Linear(24_000) => 123,
        Coding::Linear(32_000) => 124,
        Coding::Linear(44_100) => 125,
        Coding::Linear(48_000) => 126,
        Coding::Linear(96_000) => 127,
        Coding::Linear(192_000) => 96,
        Coding::Linear(_) => 11,
    }
}

pub(super) async fn run(
    (shared, id): (Arc<Shared>, String),
    socket: UdpSocket,
    to: SocketAddr,
    coding: Coding,
    port: Arc<Port>,
    stop: CancellationToken,
) {
    let Ok(mut voice) = Voice::of(coding) else { return };
    let (kind, ssrc) = (payload_type(coding), rand::random::<u32>());
    let ticks = match coding {
        Coding::Opus => 960,
        Coding::G722 | Coding::Ulaw | Coding::Alaw => 160,
        Coding::Linear(rate) => rate / 50,
    };
    let (mut sequence, mut time) = (rand::random::<u16>(), rand::random::<u32>());
    let (mut frame, mut buffer) = (Vec::new(), vec![0; 16_384]);
    let mut source: Option<(SocketAddr, u32)> = None;
    let mut slots = tokio::time::interval(SLOT);
    let samples = (u64::from(voice.rate()) / 50) as usize;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = slots.tick() => {
                (sequence, time) = (sequence.wrapping_add(1), time.wrapping_add(ticks));
                if !port.speak(voice.rate(), samples, &mut frame) {
                    continue;
                }
                let mut packet = vec![0x80, kind];
                packet.extend(sequence.to_be_bytes());
                packet.extend(time.to_be_bytes());
                packet.extend(ssrc.to_be_bytes());
                packet.extend(swapped(coding, voice.encode(&frame)));
                // Nobody there yet is no news.
                let _ = socket.send_to(&packet, to).await;
            }
            came = socket.recv_from(&mut buffer) => {
                let Ok((length, from)) = came else { continue };
                let packet = &buffer[..length];
                if length < 12 || packet[0] >> 6 != 2 {
                    shared.violation(format!("{id}: a datagram that is no RTP"));
                    continue;
                }
                let theirs = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                let (known, their_ssrc) = *source.get_or_insert((from, theirs));
                if known != from {
                    shared.violation(format!("{id}: RTP from another source than at first: dropped"));
                    continue;
                }
                if their_ssrc != theirs {
                    shared.violation(format!("{id}: the SSRC changes"));
                    source = Some((from, theirs));
                }
                let offset = 12 + 4 * usize::from(packet[0] & 0x0f);
                match packet[1] & 0x7f {
                    theirs if theirs == kind || (theirs == 10 && kind == 11) => {
                        let payload = packet.get(offset..).unwrap_or_default().to_vec();
                        let pcm = voice.decode(&swapped(coding, payload));
                        port.listen(Instant::now(), voice.rate(), &pcm);
                    }
                    // telephone-event, comfort noise
                    101 | 13 => {}
                    other => shared.violation(format!("{id}: RTP of payload type {other} where {kind} is sent")),
                }
            }
        }
    }
}

/// Linear audio is big endian on RTP, and nowhere else.
fn swapped(coding: Coding, mut payload: Vec<u8>) -> Vec<u8> {
    if let Coding::Linear(_) = coding {
        payload.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
    }
    payload
}
