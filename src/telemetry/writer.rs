//! Log lines leave through a thread of their own, so that a full pipe on standard error never holds up a
//! call.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers that hand whole lines to the thread. When its queue is full, lines are dropped and
/// counted in `tandem_log_lines_dropped_total`.
#[derive(Clone)]
pub(super) struct Lines(SyncSender<Entry>);

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Writes out what is queued when dropped: keep it until the end of `main`.
#[must_use = "log lines may be lost at the end of the process without it"]
pub struct LogGuard(SyncSender<Entry>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if self.0.send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_PATIENCE); // A stuck pipe must not keep the process.
        }
    }
}

/// Starts the thread that writes lines to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, LogGuard)> {
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    std::thread::Builder::new().name("log".into()).spawn(move || write_out(&receiver, out))?;
    Ok((Lines(sender.clone()), LogGuard(sender)))
}

fn write_out(entries: &Receiver<Entry>, mut out: impl Write) {
    for entry in entries {
        // Nobody is left to tell when standard error is closed.
        let _ = match entry {
            Entry::Line(line) => out.write_all(&line),
            Entry::Flush(done) => {
                let flushed = out.flush();
                let _ = done.send(());
                flushed
            }
        };
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::with_capacity(256) }
    }
}

/// One line on its way.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.text.is_empty() {
            return;
        }
        match self.lines.0.try_send(Entry::Line(std::mem::take(&mut self.text))) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => metrics::counter!("tandem_log_lines_dropped_total").increment(1),
        }
    }
}

const QUEUE_LINES: usize = 8_192;
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_queued_is_written_before_the_guard_is_gone() {
        let out = Shared::default();
        let (lines, guard) = start(out.clone()).expect("a thread");
        for n in 0..100 {
            writeln!(lines.make_writer(), "line {n}").expect("queued");
        }
        drop(guard);
        let text = String::from_utf8(out.0.lock().expect("no writer panicked").clone()).expect("text");
        assert_eq!(text.lines().count(), 100);
        assert!(text.ends_with("line 99\n"));
    }
}
