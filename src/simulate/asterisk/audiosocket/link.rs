//! The connection, read the way `res_audiosocket` of each release reads it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::simulate::asterisk::release::Release;

/// What a read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// Linear audio of this kind; the samples are in [`Link::payload`].
    Audio(u8),
    /// The server asked to hang up; so many bytes were to follow, which must be none.
    HangUp(usize),
    /// The server closed its side.
    Closed,
    /// The connection was reset, or the network failed.
    Reset(String),
    /// What Asterisk takes for the end of the session, in words.
    Broken(String),
}

/// A connection to an AudioSocket server.
pub(super) struct Link {
    stream: TcpStream,
    release: Release,
    /// Of the latest [`Received::Audio`].
    pub(super) payload: Vec<u8>,
    /// Headers that came in pieces.
    pub(super) split_headers: u64,
}

impl Link {
    pub(super) fn new(stream: TcpStream, release: Release) -> io::Result<Self> {
        stream.set_nodelay(release >= Release::Pieces)?;
        Ok(Self { stream, release, payload: Vec::new(), split_headers: 0 })
    }

    /// Waits until something is there to be read, or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // Not the runtime's word for it, which may be that of the last read: whoever reads on it waits in the read.
        self.stream.peek(&mut [0]).await.map(drop)
    }

    /// Reads one message, and does nothing else until it has one, as Asterisk's channel thread does.
    pub(super) async fn receive(&mut self) -> Received {
        let header = match self.header().await {
            Ok(header) => header,
            Err(end) => return end,
        };
        let [kind, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind == HANG_UP {
            // The rest is never looked at.
            return Received::HangUp(length);
        }
        let audio = is_audio(kind) && (kind == SLIN || self.release.has_rates());
        if !audio {
            return Received::Broken(format!(
                "a message of kind 0x{kind:02x}; only audio and hang-up may be sent"
            ));
        }
        if length == 0 {
            return Received::Broken("an audio message without audio".to_owned());
        }
        match self.fill(length).await {
            Ok(()) => Received::Audio(kind),
            Err(end) => end,
        }
    }

    async fn header(&mut self) -> Result<[u8; 3], Received> {
        let (mut header, mut done) = ([0; 3], 0);
        while done < header.len() {
            let place = match self.release {
                // These wrote every piece to the beginning.
                Release::Early | Release::Keys | Release::Pieces | Release::Rates => 0,
                Release::Headers => done,
            };
            let room = header.len() - done;
            match self.stream.try_read(&mut header[place..place + room]) {
                Ok(0) => return Err(Received::Closed),
                Ok(count) => {
                    done += count;
                    self.split_headers += u64::from(done == count && done < header.len());
                    if self.release < Release::Rates {
                        // These took what one read brought for the whole header.
                        break;
                    }
                }
                // A hang-up is known by its first byte, but the rest is waited for all the same.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stream.readable().await.is_err() {
                        return Err(Received::Reset("the connection failed".to_owned()));
                    }
                }
                Err(error) => return Err(Received::Reset(error.to_string())),
            }
        }
        Ok(header)
    }

    async fn fill(&mut self, length: usize) -> Result<(), Received> {
        self.payload.resize(length, 0);
        let mut done = 0;
        while done < length {
            match self.stream.try_read(&mut self.payload[done..]) {
                Ok(0) => {
                    return Err(Received::Broken(format!(
                        "closed after {done} of {length} bytes of a payload"
                    )));
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let stalled =
                        || Received::Broken(format!("a payload stood still after {done} of {length} bytes"));
                    if self.release < Release::Pieces {
                        return Err(stalled());
                    }
                    match tokio::time::timeout(PAYLOAD_PATIENCE, self.stream.readable()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(Received::Reset(error.to_string())),
                        Err(_) => return Err(stalled()),
                    }
                }
                Err(error) => return Err(Received::Reset(error.to_string())),
            }
        }
        Ok(())
    }

    /// Writes without waiting.
    ///
    /// # Errors
    /// When not everything is taken: Asterisk does not try again.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.try_write(bytes)? {
            count if count == bytes.len() => Ok(()),
            count => Err(io::Error::new(
                ErrorKind::WriteZero,
                format!("{count} of {} bytes were taken", bytes.len()),
            )),
        }
    }

    /// Writes in pieces of at most this many bytes, each a segment of its own, as a network may do it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn write_in_pieces(&mut self, bytes: &[u8], most: usize) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        for piece in bytes.chunks(most.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                self.stream.writable().await?;
                match self.stream.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Has the closing of the connection be a reset.
    pub(super) fn reset(self) {
        // Without the option it is an ordinary close, which is an end, too.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// One message.
pub(super) fn message(kind: u8, payload: &[u8], into: &mut Vec<u8>) {
    into.push(kind);
    into.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    into.extend_from_slice(payload);
}

/// The kind that audio of this rate has.
pub(super) fn kind_of(rate: u32) -> Option<u8> {
    RATES.iter().position(|known| *known == rate).map(|place| SLIN + place as u8)
}

/// The rate of audio of this kind.
pub(super) fn rate_of(kind: u8) -> Option<u32> {
    RATES.get(usize::from(kind.checked_sub(SLIN)?)).copied()
}

fn is_audio(kind: u8) -> bool {
    rate_of(kind).is_some()
}

pub(super) const HANG_UP: u8 = 0x00;
pub(super) const UUID: u8 = 0x01;
pub(super) const DIGIT: u8 = 0x03;
pub(super) const SLIN: u8 = 0x10;
/// Of the kinds from [`SLIN`] on.
const RATES: [u32; 9] = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
/// How long a payload may stand still in the middle.
const PAYLOAD_PATIENCE: Duration = Duration::from_millis(5);
