//! One phone on the wire: RTP over UDP, or an AudioSocket.

use std::net::{SocketAddr, TcpStream as StdStream, UdpSocket as StdSocket};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

use super::generator::{Heard, Phone};
use super::grid::{Arrival, Faults, Stream};
use super::marker::{self, Onset, Schedule};
use crate::audio::g711::MULAW;
use crate::audiosocket::codec::{AudioKind, Decoder, Message};

/// One phone.
pub struct Line {
    far: Far,
    schedule: Schedule,
    waker: Waker,
    sent: u64,
    stream: Stream,
    onset: Onset,
    phone: Phone,
}

enum Far {
    Rtp(Rtp),
    AudioSocket(AudioSocket),
}

struct Rtp {
    socket: UdpSocket,
    packet: [u8; HEADER + SAMPLES],
    sequence: u16,
    timestamp: u32,
}

struct AudioSocket {
    /// Absent once it is closed.
    socket: Option<TcpStream>,
    kind: AudioKind,
    decoder: Decoder,
    since: Instant,
    received: u64,
}

/// Loud packets, made once.
#[derive(Default)]
pub struct Loud {
    rtp: Vec<u8>,
    /// Whole messages of one kind: a loud one, a quiet one.
    messages: Option<(AudioKind, Vec<u8>, Vec<u8>)>,
}

impl Loud {
    fn rtp(&mut self) -> &[u8] {
        if self.rtp.is_empty() {
            MULAW.encode(&marker::loud_packet(8_000), &mut self.rtp);
        }
        &self.rtp
    }

    fn message(&mut self, kind: AudioKind, loud: bool) -> &[u8] {
        if self.messages.as_ref().is_none_or(|(made, ..)| *made != kind) {
            let samples = marker::loud_packet(kind.rate());
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let (mut loud, mut quiet) = (Vec::new(), Vec::new());
            // Whole samples, of 20 ms: both can be written.
            let _fits = Message::Audio(kind, &bytes).write(&mut loud);
            let _fits = Message::Audio(kind, &vec![0; bytes.len()]).write(&mut quiet);
            self.messages = Some((kind, loud, quiet));
        }
        self.messages.as_ref().map_or(&[], |(_, sound, silence)| if loud { sound } else { silence })
    }
}

impl Line {
    /// RTP from this socket, bound and not connected, to there.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    pub fn rtp(call: usize, socket: StdSocket, remote: SocketAddr, waker: Waker) -> std::io::Result<Self> {
        socket.connect(remote)?;
        let mut packet = [MULAW.silence(); HEADER + SAMPLES];
        packet[..HEADER].copy_from_slice(&[0; HEADER]);
        packet[0] = 0x80;
        packet[8..12].copy_from_slice(&(call as u32 + 1).to_be_bytes());
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self::new(call, Far::Rtp(Rtp { socket, packet, sequence: 0, timestamp: 0 }), waker))
    }

    /// A connection that has named itself.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    pub fn audiosocket(
        call: usize,
        socket: StdStream,
        kind: AudioKind,
        since: Instant,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let socket = Some(TcpStream::from_std(socket)?);
        let far = AudioSocket { socket, kind, decoder: Decoder::default(), since, received: 0 };
        Ok(Self::new(call, Far::AudioSocket(far), waker))
    }

    fn new(call: usize, far: Far, waker: Waker) -> Self {
        let schedule = Schedule::of(call);
        let (stream, onset, phone) = (Stream::default(), Onset::default(), Phone::default());
        Self { far, schedule, waker, sent: 0, stream, onset, phone }
    }

    /// Whether an AudioSocket is up.
    pub fn is_alive(&self) -> bool {
        match &self.far {
            Far::Rtp(_) => true,
            Far::AudioSocket(far) => far.socket.is_some() && far.received > 0,
        }
    }

    /// What it has to tell in the end.
    pub fn tell(self) -> (Phone, Faults) {
        (self.phone, self.stream.faults)
    }

    /// Sends the next packet. `epoch` is that of stamps, if packets have them.
    pub fn send(&mut self, now: Instant, epoch: Option<Instant>, loud: &mut Loud, heard: &mut Heard) {
        let n = self.sent;
        let is_loud = epoch.is_none() && self.schedule.is_loud(n);
        let sent = match &mut self.far {
            Far::Rtp(rtp) => rtp.send(n, is_loud.then(|| loud.rtp()), epoch.map(|epoch| now - epoch)),
            Far::AudioSocket(far) => {
                let Some(socket) = &far.socket else { return };
                let message = loud.message(far.kind, is_loud);
                // As Asterisk: one write, and what is not taken is lost.
                rustix::net::send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    .is_ok_and(|count| count == message.len())
            }
        };
        if epoch.is_none() && self.schedule.is_marker(n) {
            self.phone.marked.push(now);
        }
        heard.send_errors += u64::from(!sent);
        self.sent += 1;
    }

    /// Reads until there is nothing more. All that is found came at `now`.
    pub fn receive(
        &mut self,
        now: Instant,
        epoch: Option<Instant>,
        samples: &mut Vec<i16>,
        measuring: bool,
        heard: &mut Heard,
    ) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        match &mut self.far {
            Far::Rtp(rtp) => loop {
                let mut bytes = [0; LARGEST];
                let mut buffer = ReadBuf::new(&mut bytes);
                match rtp.socket.poll_recv(&mut cx, &mut buffer) {
                    Poll::Ready(Ok(())) => {
                        let Some((arrival, payload)) = packet(&mut self.stream, buffer.filled(), now) else {
                            continue;
                        };
                        if epoch.is_none() {
                            samples.clear();
                            MULAW.decode(payload, samples);
                            if self.onset.hear(marker::is_loud(samples)) {
                                self.phone.heard.push(now);
                            }
                        }
                        if !measuring {
                            continue;
                        }
                        if let Some(epoch) = epoch {
                            match stamped(payload) {
                                Some(left) => heard.delay.add((now - epoch).saturating_sub(left)),
                                None => heard.unstamped += 1,
                            }
                        }
                        count(arrival, heard);
                    }
                    // An ICMP error of a packet that came too early or too late.
                    Poll::Ready(Err(_)) => heard.send_errors += 1,
                    Poll::Pending => return,
                }
            },
            Far::AudioSocket(far) => loop {
                while let Ok(Some(message)) = far.decoder.message() {
                    let Message::Audio(_, audio) = message else { continue };
                    far.received += 1;
                    if far.received == 1 {
                        heard.begun.add(now - far.since);
                    }
                    samples.clear();
                    samples.extend(audio.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)));
                    if self.onset.hear(marker::is_loud(samples)) {
                        self.phone.heard.push(now);
                    }
                    // The first come from the listener; then a worker has the call.
                    let Some(n) = far.received.checked_sub(FIRST) else { continue };
                    let arrival = self.stream.packet(n as u16, n as u32 * SAMPLES as u32, false, now);
                    if measuring {
                        count(arrival, heard);
                    }
                }
                let Some(socket) = &mut far.socket else { return };
                let mut buffer = ReadBuf::new(far.decoder.space());
                match Pin::new(socket).poll_read(&mut cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        let read = buffer.filled().len();
                        far.decoder.filled(read);
                    }
                    Poll::Ready(Ok(()) | Err(_)) => {
                        heard.closed += 1;
                        far.socket = None;
                    }
                    Poll::Pending => return,
                }
            },
        }
    }
}

impl Rtp {
    fn send(&mut self, n: u64, loud: Option<&[u8]>, stamped: Option<Duration>) -> bool {
        // Payload type 0; the marker bit begins the stream.
        self.packet[1] = if n == 0 { 0x80 } else { 0 };
        self.packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        self.packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        match loud {
            Some(loud) => self.packet[HEADER..].copy_from_slice(loud),
            None => self.packet[HEADER..].fill(MULAW.silence()),
        }
        if let Some(left) = stamped {
            stamp(&mut self.packet[HEADER..], left);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(SAMPLES as u32);
        rustix::net::send(&self.socket, &self.packet, SendFlags::DONTWAIT).is_ok()
    }
}

/// What a datagram is, if it is a packet of the call.
fn packet<'a>(stream: &mut Stream, bytes: &'a [u8], now: Instant) -> Option<(Option<Arrival>, &'a [u8])> {
    // RTP version 2, PCMU, without extensions: all that was negotiated. Keys are not pressed.
    let (header, payload) = bytes.split_at_checked(HEADER)?;
    if header[0] != 0x80 || header[1] & 0x7f != 0 {
        return None;
    }
    let sequence = u16::from_be_bytes([header[2], header[3]]);
    let timestamp = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Some((stream.packet(sequence, timestamp, header[1] & 0x80 != 0, now), payload))
}

fn count(arrival: Option<Arrival>, heard: &mut Heard) {
    heard.received += 1;
    if let Some(arrival) = arrival {
        heard.gap_error.add(arrival.gap_error);
        heard.grid_error.extend(arrival.grid_error);
    }
}

/// Writes when a packet left into its payload.
fn stamp(payload: &mut [u8], left: Duration) {
    payload[..4].copy_from_slice(&STAMP);
    payload[4..12].copy_from_slice(&(left.as_nanos() as u64).to_be_bytes());
}

/// When a packet left, if it says so.
fn stamped(payload: &[u8]) -> Option<Duration> {
    let nanos = payload.strip_prefix(&STAMP)?.first_chunk::<8>()?;
    Some(Duration::from_nanos(u64::from_be_bytes(*nanos)))
}

const SAMPLES: usize = 160;
const HEADER: usize = 12;
const LARGEST: usize = 512;
const STAMP: [u8; 4] = *b"tdm!";
/// Frames of an AudioSocket whose pace says nothing of a worker: half a second.
const FIRST: u64 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_sound_is_none() {
        let mut payload = [MULAW.silence(); SAMPLES];
        assert_eq!(stamped(&payload), None);
        stamp(&mut payload, Duration::from_nanos(1_234_567_890_123));
        assert_eq!(stamped(&payload), Some(Duration::from_nanos(1_234_567_890_123)));
    }

    #[test]
    fn a_loud_message_is_of_the_kind_that_is_asked_for() {
        let mut loud = Loud::default();
        assert_eq!(loud.message(AudioKind::Slin24, true)[..3], [0x13, 3, 0xc0]);
        assert_eq!(loud.message(AudioKind::Slin, false)[..5], [0x10, 1, 0x40, 0, 0]);
    }
}
