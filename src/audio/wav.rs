//! WAV files: a reader for what people upload, and a writer whose file is whole at every moment.
//!
//! The reader takes linear, μ-law and A-law samples, one or two channels, any rate, and believes no
//! length it reads: what the file really holds decides. The writer brings its header up to date every few
//! seconds, so that a recording survives the death of the process.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{BRIDGE_RATE, convert, g711};

/// A WAV file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// The file could not be read.
    #[error("the file could not be read: {0}")]
    Io(#[from] io::Error),
    /// The file is longer than allowed.
    #[error("the file has more than {0} bytes; shorten it or lower its sample rate")]
    TooLarge(u64),
    /// It is no WAV file at all.
    #[error("this is not a WAV file: it does not start with RIFF and WAVE")]
    NotWav,
    /// A part of it is missing.
    #[error("the WAV file has no `{0}` chunk; it may be cut off")]
    Missing(&'static str),
    /// Its samples are of a kind that is not read.
    #[error(
        "WAV format {format} with {bits} bits and {channels} channels at {rate} Hz is not read; \
         save it as 16-bit PCM, mono or stereo, 4,000 to 192,000 Hz"
    )]
    Unsupported {
        /// Format tag of the `fmt` chunk.
        format: u16,
        /// Bits per sample.
        bits: u16,
        /// Channels.
        channels: u16,
        /// Samples per second.
        rate: u32,
    },
}

/// The samples of a WAV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wav {
    /// Samples per second of each channel, from 4,000 to 192,000.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u16,
    /// Samples, interleaved if there are two channels.
    pub samples: Vec<i16>,
}

impl Wav {
    /// Reads a file of at most `limit` bytes ([`USUAL_LIMIT`] suits prompts).
    ///
    /// # Errors
    /// If the file cannot be read, is too long or is none of the kinds described above.
    pub fn read(reader: impl Read, limit: u64) -> Result<Self, WavError> {
        let mut bytes = Vec::new();
        reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(WavError::TooLarge(limit));
        }
        Self::parse(&bytes)
    }

    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// As [`Wav::read`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WavError> {
        let (Some(b"RIFF"), Some(b"WAVE")) = (bytes.get(..4), bytes.get(8..12)) else {
            return Err(WavError::NotWav);
        };
        let format = Format::parse(chunk(bytes, b"fmt ").ok_or(WavError::Missing("fmt "))?)?;
        let data = chunk(bytes, b"data").ok_or(WavError::Missing("data"))?;
        let mut samples = format.coding.decode(data);
        samples.truncate(samples.len() - samples.len() % usize::from(format.channels));
        Ok(Self { rate: format.rate, channels: format.channels, samples })
    }

    /// One channel: the mean of two.
    pub fn mono(&self) -> Vec<i16> {
        if self.channels == 1 {
            return self.samples.clone();
        }
        let mean = |pair: &[i16; 2]| ((i32::from(pair[0]) + i32::from(pair[1])) / 2) as i16;
        self.samples.as_chunks().0.iter().map(mean).collect()
    }

    /// One channel at [`BRIDGE_RATE`]: ready to be played into a call.
    pub fn to_bridge(&self) -> Vec<i16> {
        convert::convert(&self.mono(), self.rate, BRIDGE_RATE)
    }
}

/// Limit for prompts and announcements, in bytes: over five minutes of stereo at 48 kHz.
pub const USUAL_LIMIT: u64 = 64 << 20;

/// How samples are written.
#[derive(Debug, Clone, Copy)]
enum Coding {
    Unsigned8,
    Signed16,
    Alaw,
    Mulaw,
}

impl Coding {
    fn decode(self, data: &[u8]) -> Vec<i16> {
        let mut samples = Vec::new();
        match self {
            Self::Unsigned8 => samples.extend(data.iter().map(|byte| (i16::from(*byte) - 128) << 8)),
            Self::Signed16 => samples.extend(data.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair))),
            Self::Alaw => g711::ALAW.decode(data, &mut samples),
            Self::Mulaw => g711::MULAW.decode(data, &mut samples),
        }
        samples
    }
}

struct Format {
    coding: Coding,
    channels: u16,
    rate: u32,
}

impl Format {
    fn parse(fmt: &[u8]) -> Result<Self, WavError> {
        let short = |at: usize| fmt.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        let rate = u32::from(short(4)) | u32::from(short(6)) << 16;
        let (mut format, channels, bits) = (short(0), short(2), short(14));
        if format == EXTENSIBLE {
            // The real tag starts the sub-format's GUID.
            format = short(24);
        }
        let coding = match (format, bits) {
            (1, 8) => Coding::Unsigned8,
            (1, 16) => Coding::Signed16,
            (6, 8) => Coding::Alaw,
            (7, 8) => Coding::Mulaw,
            _ => return Err(WavError::Unsupported { format, bits, channels, rate }),
        };
        if !(1..=2).contains(&channels) || !(4_000..=192_000).contains(&rate) {
            return Err(WavError::Unsupported { format, bits, channels, rate });
        }
        Ok(Self { coding, channels, rate })
    }
}

const EXTENSIBLE: u16 = 0xfffe;

/// The contents of the first chunk of this name, as much of them as there are. Recorders that were killed
/// leave a `data` length of 0 or of all ones: those run to the end of the file.
fn chunk<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let (head, body) = rest.split_at_checked(8)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if &head[..4] == name {
            let unfinished = name == b"data" && length == 0;
            return Some(if unfinished { body } else { &body[..length.min(body.len())] });
        }
        // Chunks are padded to an even length.
        rest = body.get(length.checked_add(length % 2)?..)?;
    }
}

/// Writes a stereo recording, 16 bits a sample, as it happens.
///
/// The header is brought up to date every [`PATCH_SECONDS`] of audio: whatever ends the process, at most
/// that much is missing for players that believe headers. A file ends at 4 GiB (12 hours at 24 kHz), where
/// the format does; what comes after is refused with [`io::ErrorKind::FileTooLarge`].
#[derive(Debug)]
pub struct StereoWriter<W: Write + Seek> {
    out: W,
    /// Bytes of samples written, and how many of them the header knows of.
    written: u32,
    declared: u32,
    /// Bytes between two patches.
    patch_every: u32,
    /// Whether something failed half-way, so that the next samples do not follow by themselves.
    misplaced: bool,
    bytes: Vec<u8>,
}

/// Seconds of audio between two updates of the header.
pub const PATCH_SECONDS: u32 = 5;

impl<W: Write + Seek> StereoWriter<W> {
    /// Starts a file of `rate` Hz at the writer's present position, which must be its beginning.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn new(mut out: W, rate: u32) -> io::Result<Self> {
        out.write_all(&header(2, rate, 0))?;
        out.flush()?;
        let patch_every = rate.saturating_mul(4 * PATCH_SECONDS).max(4);
        Ok(Self { out, written: 0, declared: 0, patch_every, misplaced: false, bytes: Vec::new() })
    }

    /// Appends interleaved samples: left, right, left, right. A single last sample is dropped.
    ///
    /// # Errors
    /// If the file cannot be written or is full. A later write may succeed and stays aligned.
    pub fn write(&mut self, interleaved: &[i16]) -> io::Result<()> {
        let whole = interleaved.len() & !1;
        self.bytes.clear();
        self.bytes.extend(interleaved[..whole].iter().flat_map(|sample| sample.to_le_bytes()));
        let after = u32::try_from(self.bytes.len()).ok().and_then(|added| self.written.checked_add(added));
        let Some(after) = after.filter(|after| *after <= LARGEST) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if std::mem::replace(&mut self.misplaced, true) {
            self.out.seek(SeekFrom::Start(u64::from(HEADER) + u64::from(self.written)))?;
        }
        self.out.write_all(&self.bytes)?;
        self.misplaced = false;
        self.written = after;
        if self.written - self.declared >= self.patch_every {
            self.patch()?;
        }
        Ok(())
    }

    /// Samples written, of each channel.
    pub fn samples(&self) -> u64 {
        u64::from(self.written / 4)
    }

    /// Brings the header up to date and hands everything to the operating system.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn patch(&mut self) -> io::Result<()> {
        self.misplaced = true;
        self.out.seek(SeekFrom::Start(4))?;
        self.out.write_all(&riff_length(self.written).to_le_bytes())?;
        self.out.seek(SeekFrom::Start(u64::from(HEADER) - 4))?;
        self.out.write_all(&self.written.to_le_bytes())?;
        self.out.seek(SeekFrom::Start(u64::from(HEADER) + u64::from(self.written)))?;
        self.out.flush()?;
        self.declared = self.written;
        self.misplaced = false;
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If it cannot be written; it is then still whole up to the last update.
    pub fn finish(mut self) -> io::Result<()> {
        self.patch()
    }
}

/// The bytes of a whole file: `samples` of one channel at `rate` Hz. What does not fit in 4 GiB is left out.
pub fn mono_file(samples: &[i16], rate: u32) -> Vec<u8> {
    let samples = &samples[..samples.len().min(LARGEST as usize / 2)];
    let mut bytes = header(1, rate, 2 * samples.len() as u32).to_vec();
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// Bytes before the samples.
const HEADER: u32 = 44;

/// Most bytes of samples whose file length a header can tell.
const LARGEST: u32 = (u32::MAX - HEADER) & !3;

fn riff_length(data: u32) -> u32 {
    HEADER - 8 + data
}

fn header(channels: u16, rate: u32, data: u32) -> [u8; HEADER as usize] {
    let frame = channels * 2;
    let mut header = [0; HEADER as usize];
    let parts: [&[u8]; 13] = [
        b"RIFF",
        &riff_length(data).to_le_bytes(),
        b"WAVE",
        b"fmt ",
        &16u32.to_le_bytes(),
        &1u16.to_le_bytes(),
        &channels.to_le_bytes(),
        &rate.to_le_bytes(),
        &rate.saturating_mul(u32::from(frame)).to_le_bytes(),
        &frame.to_le_bytes(),
        &16u16.to_le_bytes(),
        b"data",
        &data.to_le_bytes(),
    ];
    for (place, byte) in header.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    header
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut file = Vec::new();
        let mut writer = StereoWriter::new(Cursor::new(&mut file), 24_000).unwrap();
        writer.write(&[1, -1, 2, -2]).unwrap();
        writer.write(&[i16::MAX, i16::MIN]).unwrap();
        assert_eq!(writer.samples(), 3);
        writer.finish().unwrap();
        let wav = Wav::parse(&file).unwrap();
        let samples = vec![1, -1, 2, -2, i16::MAX, i16::MIN];
        assert_eq!(wav, Wav { rate: 24_000, channels: 2, samples });
        assert_eq!(wav.mono(), [0, 0, 0]);
        assert_eq!(file.len(), 44 + 12);
    }

    #[test]
    fn a_file_whose_writer_died_is_readable_to_within_a_few_seconds() {
        let mut file = Vec::new();
        let mut writer = StereoWriter::new(Cursor::new(&mut file), 8_000).unwrap();
        for _ in 0..13 {
            writer.write(&[5; 16_000]).unwrap();
        }
        drop(writer);
        let wav = Wav::parse(&file).unwrap();
        assert_eq!(wav.samples.len(), 10 * 16_000);
        // Before the first update the header says nothing, and the reader takes what is there.
        let mut file = Vec::new();
        StereoWriter::new(Cursor::new(&mut file), 8_000).unwrap().write(&[5; 10]).unwrap();
        assert_eq!(Wav::parse(&file).unwrap().samples, [5; 10]);
    }

    #[test]
    fn every_coding_is_brought_to_16_bits() {
        assert_eq!(Wav::parse(&file(1, 1, 8_000, 8, &[0, 128, 255])).unwrap().samples, [-32_768, 0, 32_512]);
        assert_eq!(Wav::parse(&file(6, 1, 8_000, 8, &[0xd5, 0x55])).unwrap().samples, [8, -8]);
        assert_eq!(Wav::parse(&file(7, 2, 8_000, 8, &[0xff, 0x80, 0x00])).unwrap().samples, [0, 32_124]);
        assert_eq!(Wav::parse(&file(1, 1, 44_100, 16, &[1, 0, 0xff, 0xff, 9])).unwrap().samples, [1, -1]);
    }

    #[test]
    fn extensible_headers_and_other_chunks_are_understood() {
        let mut bytes = file(EXTENSIBLE, 1, 16_000, 16, &[7, 0]);
        // Extend `fmt ` to 40 bytes, with PCM's tag in the sub-format, and put an odd chunk before it.
        let mut extension = vec![22, 0, 16, 0, 4, 0, 0, 0];
        extension.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
        bytes[16] = 40;
        bytes.splice(36..36, extension);
        bytes.splice(12..12, *b"LIST\x03\0\0\0abc\0");
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [7]);
    }

    #[test]
    fn unusable_files_are_told_apart() {
        let error = |bytes: &[u8]| Wav::parse(bytes).unwrap_err().to_string();
        assert_eq!(error(b"ID3"), "this is not a WAV file: it does not start with RIFF and WAVE");
        assert_eq!(error(b"RIFF\0\0\0\0WAVE"), "the WAV file has no `fmt ` chunk; it may be cut off");
        assert_eq!(
            error(&file(3, 1, 48_000, 32, &[0; 8])),
            "WAV format 3 with 32 bits and 1 channels at 48000 Hz is not read; save it as 16-bit PCM, \
             mono or stereo, 4,000 to 192,000 Hz"
        );
        assert!(matches!(
            Wav::parse(&file(1, 6, 8_000, 16, &[])),
            Err(WavError::Unsupported { channels: 6, .. })
        ));
        assert!(matches!(Wav::parse(&file(1, 1, 1, 16, &[])), Err(WavError::Unsupported { rate: 1, .. })));
        assert!(matches!(Wav::read(&file(1, 1, 8_000, 16, &[0; 60])[..], 100), Err(WavError::TooLarge(100))));
    }

    #[test]
    fn no_truncation_or_wild_length_makes_the_reader_panic() {
        let whole = file(1, 2, 8_000, 16, &[1; 40]);
        for end in 0..whole.len() {
            // Some of these are files, some are not.
            let _answer = Wav::parse(&whole[..end]);
        }
        for at in 0..44 {
            let mut wild = whole.clone();
            wild[at] = 0xff;
            let _answer = Wav::parse(&wild);
        }
    }

    #[test]
    fn a_file_at_an_odd_rate_is_brought_to_the_bridge() {
        let data = vec![0; 2 * 22_050];
        let wav = Wav::read(&file(1, 1, 22_050, 16, &data)[..], USUAL_LIMIT).unwrap();
        assert_eq!(wav.to_bridge().len(), 24_000);
        let made = mono_file(&[3, 4], 8_000);
        assert_eq!(Wav::parse(&made).unwrap(), Wav { rate: 8_000, channels: 1, samples: vec![3, 4] });
    }

    fn file(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = header(channels, rate, data.len() as u32).to_vec();
        bytes[20..22].copy_from_slice(&format.to_le_bytes());
        bytes[34..36].copy_from_slice(&bits.to_le_bytes());
        bytes.extend_from_slice(data);
        bytes
    }
}
