//! SRTP and SRTCP (RFC 3711, RFC 6188, RFC 7714) for the keys of one leg.
//!
//! [`SrtpSession::protect`] and [`SrtpSession::unprotect`] work in place. Invariants: nothing of a packet is
//! believed, and no state changes, before its tag was found right, in constant time; no packet is taken twice
//! (a window of 128 numbers); rollover counters are kept per source, because the synchronization source is
//! part of every nonce; when keys change, what was encrypted with the old ones is still understood for 2 s.
//! Whatever cannot be encrypted is not sent.

mod keys;
mod transform;
mod window;

use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use keys::{MasterKey, SrtpKeys, Suite};

use transform::{Half, MAX_KNOWN, Place, Transform};
use window::Window;

/// Why a packet is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SrtpError {
    /// Too short, or its header contradicts its length.
    #[error("no packet of SRTP")]
    Malformed,
    /// The tag is wrong: another key, or somebody's tampering.
    #[error("the packet does not authenticate")]
    Authentication,
    /// It was taken before, or is older than the window.
    #[error("the packet was taken before, or is too old to tell")]
    Replay,
    /// A key is not as long as its suite asks for.
    #[error("the keys do not fit their suite")]
    Keys,
}

/// Both directions of one leg.
pub struct SrtpSession {
    keys: SrtpKeys,
    sender: Sender,
    receiver: Receiver,
    /// What came before the last change of keys, and until when it is understood.
    before: Option<(Receiver, Instant)>,
    /// A copy to try the older keys with: Galois mode spoils what does not authenticate.
    copy: Vec<u8>,
}

struct Sender {
    rtp: Transform,
    rtcp: Transform,
    ssrc: u32,
    window: Window,
    /// Of the next packet of RTCP.
    rtcp_index: u32,
}

struct Receiver {
    rtp: Transform,
    rtcp: Transform,
    mki: Vec<u8>,
    /// The last used is at the end.
    sources: Vec<Source>,
}

#[derive(Clone)]
struct Source {
    ssrc: u32,
    rtp: Window,
    rtcp: Window,
}

impl SrtpSession {
    /// A session that begins with rollover counter 0 both ways.
    ///
    /// # Errors
    /// [`SrtpError::Keys`] when a key does not fit the suite.
    pub fn new(keys: &SrtpKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            sender: Sender::new(keys)?,
            receiver: Receiver::new(keys)?,
            keys: keys.clone(),
            before: None,
            copy: Vec::new(),
        })
    }

    /// Takes the keys of a new offer and answer. A direction whose key is the same goes on as it was.
    ///
    /// # Errors
    /// [`SrtpError::Keys`]; then nothing has changed.
    pub fn rekey(&mut self, keys: &SrtpKeys, now: Instant) -> Result<(), SrtpError> {
        let same_suite = keys.suite == self.keys.suite;
        let sender = (!same_suite || keys.send != self.keys.send).then(|| Sender::new(keys)).transpose()?;
        let same_way = same_suite && keys.receive == self.keys.receive && keys.mki == self.keys.mki;
        if !same_way {
            let receiver = std::mem::replace(&mut self.receiver, Receiver::new(keys)?);
            self.before = Some((receiver, now + OVERLAP));
        }
        if let Some(sender) = sender {
            self.sender = sender;
        }
        self.keys = keys.clone();
        Ok(())
    }

    /// Encrypts a packet of RTP of ours. One that is none comes out empty.
    pub fn protect(&mut self, packet: &mut Vec<u8>) {
        let Ok(header) = RtpHeader::read(packet) else { return packet.clear() };
        self.sender.protect(header, packet);
    }

    /// Decrypts a packet of RTP and answers what it was.
    ///
    /// # Errors
    /// When it is not to be believed; its octets are of no use then.
    pub fn unprotect<'a>(&mut self, now: Instant, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let length = self.with_either(now, packet, Receiver::unprotect)?;
        Ok(&packet[..length])
    }

    /// Encrypts a compound packet of RTCP of ours. One that is none comes out empty.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) {
        let Some(ssrc) = word_at(packet, 4) else { return packet.clear() };
        self.sender.protect_rtcp(ssrc, packet);
    }

    /// Decrypts a compound packet of RTCP and answers what it was.
    ///
    /// # Errors
    /// When it is not to be believed; its octets are of no use then.
    pub fn unprotect_rtcp<'a>(&mut self, now: Instant, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let length = self.with_either(now, packet, Receiver::unprotect_rtcp)?;
        Ok(&packet[..length])
    }

    /// Tries the keys and, shortly after they have changed, those before them.
    fn with_either(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        open: fn(&mut Receiver, &mut [u8]) -> Result<usize, SrtpError>,
    ) -> Result<usize, SrtpError> {
        if self.before.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.before = None;
        }
        let Some((before, _)) = &mut self.before else { return open(&mut self.receiver, packet) };
        self.copy.clear();
        self.copy.extend_from_slice(packet);
        match open(&mut self.receiver, packet) {
            Err(SrtpError::Authentication) => {
                packet.copy_from_slice(&self.copy);
                open(before, packet)
            }
            other => other,
        }
    }
}

impl fmt::Debug for SrtpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSession").field("suite", &self.keys.suite).finish_non_exhaustive()
    }
}

impl Sender {
    fn new(keys: &SrtpKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Transform::new(keys.suite, &keys.send, Half::Rtp)?,
            rtcp: Transform::new(keys.suite, &keys.send, Half::Rtcp)?,
            ssrc: 0,
            window: Window::default(),
            rtcp_index: 0,
        })
    }

    fn protect(&mut self, header: RtpHeader, packet: &mut Vec<u8>) {
        if self.ssrc != header.ssrc {
            // A source never comes back: its numbers would begin anew under the same key.
            (self.ssrc, self.window) = (header.ssrc, Window::default());
        }
        let index = self.window.estimate(header.sequence);
        self.window.take(index);
        let place = Place { ssrc: header.ssrc, index, head: header.length };
        self.rtp.seal(place, rollover(index), false, packet);
    }

    fn protect_rtcp(&mut self, ssrc: u32, packet: &mut Vec<u8>) {
        self.rtcp_index = self.rtcp_index.wrapping_add(1) & !ENCRYPTED;
        let place = Place { ssrc, index: u64::from(self.rtcp_index), head: RTCP_HEAD };
        self.rtcp.seal(place, (self.rtcp_index | ENCRYPTED).to_be_bytes(), true, packet);
    }
}

impl Receiver {
    fn new(keys: &SrtpKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Transform::new(keys.suite, &keys.receive, Half::Rtp)?,
            rtcp: Transform::new(keys.suite, &keys.receive, Half::Rtcp)?,
            mki: keys.mki.clone().unwrap_or_default(),
            sources: Vec::new(),
        })
    }

    fn unprotect(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header = RtpHeader::read(packet)?;
        let window = self.sources.iter().find(|source| source.ssrc == header.ssrc);
        let index = window.map_or(u64::from(header.sequence), |s| s.rtp.estimate(header.sequence));
        if window.is_some_and(|source| !source.rtp.is_new(index)) {
            return Err(SrtpError::Replay);
        }
        let place = Place { ssrc: header.ssrc, index, head: header.length };
        let tag_len = self.rtp.tag_len();
        let end = packet.len().checked_sub(tag_len + self.mki.len()).ok_or(SrtpError::Malformed)?;
        if end < header.length {
            return Err(SrtpError::Malformed);
        }
        let is_aead = self.rtp.is_aead();
        let (sealed, rest) = packet.split_at_mut(if is_aead { end + tag_len } else { end });
        let (mki, tag) = rest.split_at(self.mki.len().min(rest.len()));
        if mki != self.mki {
            return Err(SrtpError::Authentication);
        }
        self.rtp.open(place, rollover(index), false, sealed, tag)?;
        self.source(header.ssrc).rtp.take(index);
        Ok(end)
    }

    fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = word_at(packet, 4).ok_or(SrtpError::Malformed)?;
        let is_aead = self.rtcp.is_aead();
        let tag_len = self.rtcp.tag_len();
        // Counter mode: index, identifier, tag. Galois mode: tag, index, identifier (RFC 7714 section 9.2).
        let after_index = self.mki.len() + if is_aead { 0 } else { tag_len };
        let at = packet.len().checked_sub(after_index + 4).ok_or(SrtpError::Malformed)?;
        let end = at.checked_sub(if is_aead { tag_len } else { 0 }).ok_or(SrtpError::Malformed)?;
        if end < RTCP_HEAD {
            return Err(SrtpError::Malformed);
        }
        let word = word_at(packet, at).ok_or(SrtpError::Malformed)?;
        let index = u64::from(word & !ENCRYPTED);
        let known = self.sources.iter().find(|source| source.ssrc == ssrc);
        if known.is_some_and(|source| !source.rtcp.is_new(index)) {
            return Err(SrtpError::Replay);
        }
        let (sealed, rest) = packet.split_at_mut(at);
        let (mki, tag) = rest[4..].split_at(self.mki.len());
        // What is not encrypted was never agreed on.
        if mki != self.mki || word & ENCRYPTED == 0 {
            return Err(SrtpError::Authentication);
        }
        let place = Place { ssrc, index, head: RTCP_HEAD };
        self.rtcp.open(place, word.to_be_bytes(), true, sealed, tag)?;
        self.source(ssrc).rtcp.take(index);
        Ok(end)
    }

    /// What is known of an authenticated source. The one that was silent longest makes room.
    fn source(&mut self, ssrc: u32) -> &mut Source {
        let last = self.sources.len();
        match self.sources.iter().position(|source| source.ssrc == ssrc) {
            Some(at) => self.sources[at..].rotate_left(1),
            None => {
                if last == SOURCES {
                    self.sources.remove(0);
                }
                self.sources.push(Source { ssrc, rtp: Window::default(), rtcp: Window::default() });
            }
        }
        let last = self.sources.len() - 1;
        &mut self.sources[last]
    }
}

/// What must be known of a header before anything is believed.
#[derive(Debug, Clone, Copy)]
struct RtpHeader {
    sequence: u16,
    ssrc: u32,
    /// Contributing sources and extension included.
    length: usize,
}

impl RtpHeader {
    fn read(packet: &[u8]) -> Result<Self, SrtpError> {
        let (fixed, rest) = packet.split_first_chunk::<12>().ok_or(SrtpError::Malformed)?;
        let [flags, _, s0, s1, _, _, _, _, r0, r1, r2, r3] = *fixed;
        let mut length = 12 + 4 * usize::from(flags & 0x0f);
        if flags & 0x10 != 0 {
            let at = length - 12;
            let &[_, _, high, low] = rest.get(at..at + 4).ok_or(SrtpError::Malformed)? else {
                return Err(SrtpError::Malformed);
            };
            length += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        if flags >> 6 != 2 || length > packet.len() || length > MAX_KNOWN - 4 {
            return Err(SrtpError::Malformed);
        }
        let ssrc = u32::from_be_bytes([r0, r1, r2, r3]);
        Ok(Self { sequence: u16::from_be_bytes([s0, s1]), ssrc, length })
    }
}

fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

fn word_at(octets: &[u8], at: usize) -> Option<u32> {
    let (word, _) = octets.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn tail(packet: &mut [u8], from: usize) -> &mut [u8] {
    packet.get_mut(from..).unwrap_or_default()
}

/// What stays in the clear of RTCP: the first header and the source.
const RTCP_HEAD: usize = 8;
/// The bit before the index of RTCP.
const ENCRYPTED: u32 = 1 << 31;
/// Sources whose numbers are remembered.
const SOURCES: usize = 8;
/// How long packets under the keys before are understood.
const OVERLAP: Duration = Duration::from_secs(2);
/// The most that a packet grows by: tag, index of RTCP.
pub const MAX_OVERHEAD: usize = 20;

#[cfg(test)]
mod tests;
