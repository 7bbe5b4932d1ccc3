//! Writes the audio a client sent as a mono WAV file.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One connection's recording. A change of rate begins another file.
#[derive(Debug)]
pub struct Recorder {
    stem: PathBuf,
    part: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: BufWriter<File>,
    rate: u32,
    data_bytes: u32,
}

impl Recorder {
    /// Will write `DIR/NAME.wav`, then `DIR/NAME-2.wav` and so on.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { stem: dir.join(name), part: 0, open: None }
    }

    /// Adds signed 16-bit little-endian samples.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, pcm: &[u8], rate: u32) -> std::io::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.rate != rate) {
            self.finish()?;
            self.open = Some(self.next_file(rate)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.write_all(pcm)?;
        open.data_bytes = open.data_bytes.saturating_add(pcm.len() as u32);
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self) -> std::io::Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.file.seek(SeekFrom::Start(0))?;
        open.file.write_all(&header(open.rate, open.data_bytes))?;
        open.file.flush()
    }

    fn next_file(&mut self, rate: u32) -> std::io::Result<Open> {
        self.part += 1;
        let suffix = if self.part == 1 { ".wav".to_owned() } else { format!("-{}.wav", self.part) };
        let mut path = self.stem.clone().into_os_string();
        path.push(suffix);
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header(rate, 0))?;
        Ok(Open { file, rate, data_bytes: 0 })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The owner calls `finish` where it can tell of an error; this is for panics.
        let _ = self.finish();
    }
}

/// A RIFF header for 16-bit mono.
fn header(rate: u32, data_bytes: u32) -> [u8; 44] {
    let mut header = [0; 44];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RIFF");
    put(4, &data_bytes.saturating_add(36).to_le_bytes());
    put(8, b"WAVEfmt ");
    put(16, &16u32.to_le_bytes());
    put(20, &1u16.to_le_bytes());
    put(22, &1u16.to_le_bytes());
    put(24, &rate.to_le_bytes());
    put(28, &(rate * 2).to_le_bytes());
    put(32, &2u16.to_le_bytes());
    put(34, &16u16.to_le_bytes());
    put(36, b"data");
    put(40, &data_bytes.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rate_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(dir.path(), "sess_1");
        recorder.write(&[0; 960], 24_000).unwrap();
        recorder.write(&[0; 320], 8_000).unwrap();
        recorder.finish().unwrap();
        let first = std::fs::read(dir.path().join("sess_1.wav")).unwrap();
        let second = std::fs::read(dir.path().join("sess_1-2.wav")).unwrap();
        assert_eq!(first.len(), 44 + 960);
        assert_eq!(u32::from_le_bytes(first[40..44].try_into().unwrap()), 960);
        assert_eq!(second.len(), 44 + 320);
        assert_eq!(u32::from_le_bytes(second[24..28].try_into().unwrap()), 8_000);
    }
}
