//! The service's side: the OpenAI simulator on a thread of its own, and ears on its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::thread::Pid;
use tokio::sync::oneshot;

use super::marker::{self, Ear};
use super::{Options, machine};
use crate::simulate::openai::format::AudioFormat;
use crate::simulate::openai::script::{Script, Turn};
use crate::simulate::openai::{Behaviour, Observer, OpenAiSimulator, SimConfig, Speech, Summary};

/// The simulator at work.
pub struct Service {
    /// For a provider's `url`.
    pub url: String,
    /// The thread it runs on.
    pub thread: Pid,
    ears: Arc<Ears>,
    stop: oneshot::Sender<()>,
    summary: oneshot::Receiver<(Summary, bool)>,
}

/// What the service saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// By call number: when its markers arrived, and when the first audio of each answer was sent.
    pub calls: HashMap<usize, Moments>,
    /// Connections whose call could not be told.
    pub unknown: usize,
    /// Frames of caller audio.
    pub frames: u64,
    /// The simulator's sums.
    pub summary: Summary,
    /// Some sessions were not closed by the server, long after the phones had hung up.
    pub left_open: bool,
}

/// Moments of one connection.
#[derive(Debug, Default, Clone)]
pub struct Moments {
    /// The first loud frame after a quiet one was read.
    pub heard: Vec<Instant>,
    /// The first sample of an answer was handed to the socket.
    pub spoke: Vec<Instant>,
}

impl Service {
    /// Starts the simulator.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(options: &Options, cores: Vec<usize>) -> anyhow::Result<Self> {
        let ears = Arc::new(Ears::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, summary) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let config = config(options, Arc::clone(&ears));
        let serve = move || {
            machine::pin(&cores);
            machine::realtime(PRIORITY);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            runtime.block_on(async {
                match OpenAiSimulator::start(config).await {
                    Ok(running) => {
                        let begun = ready.send(Ok((running.url(), machine::this_thread())));
                        // Whoever holds the other end asks to stop, or has gone away.
                        let _asked = stopped.await;
                        if begun.is_ok() {
                            // The server closes its sessions itself once the phones have hung up.
                            let closed = running.wait_until(|r| r.summary.ended >= r.summary.sessions);
                            let open = tokio::time::timeout(GOODBYE, closed).await.is_err();
                            let summary = running.stop().await.map(|report| report.summary);
                            let _unwanted = tell.send((summary.unwrap_or_default(), open));
                        }
                    }
                    Err(error) => drop(ready.send(Err(anyhow::Error::from(error)))),
                }
            });
        };
        std::thread::Builder::new().name("bench-service".to_owned()).spawn(serve)?;
        let (url, thread) = started.recv().context("the simulator's thread stopped")??;
        Ok(Self { url, thread, ears, stop, summary })
    }

    /// Closes every session and tells what was seen.
    ///
    /// # Errors
    /// When the simulator has died.
    pub async fn stop(self) -> anyhow::Result<Seen> {
        let _gone = self.stop.send(());
        let (summary, left_open) = self.summary.await.context("the simulator stopped by itself")?;
        let mut seen = Seen { summary, left_open, ..Seen::default() };
        for (_, connection) in self.ears.lock().drain() {
            seen.frames += connection.frames;
            match connection.ear.call {
                Some(call) => drop(seen.calls.insert(call, connection.moments)),
                None => seen.unknown += 1,
            }
        }
        Ok(seen)
    }
}

fn config(options: &Options, ears: Arc<Ears>) -> SimConfig {
    let turn = Turn { say: Some("This is the answer.".to_owned()), ..Turn::default() };
    SimConfig {
        behaviour: Behaviour {
            script: Script { speech: None, hears: Vec::new(), restart: false, turns: vec![turn] },
            speech: Speech::Tone { hz: 440.0 },
            answer_ms: marker::ANSWER_MS,
            delta_ms: options.delta_ms,
            session_limit: options.span + Duration::from_secs(3_600),
            ..Behaviour::default()
        },
        observer: Some(ears),
        ..SimConfig::default()
    }
}

/// Listens to every connection. All calls come from the simulator's one thread, so the lock is free.
#[derive(Default)]
struct Ears(Mutex<HashMap<u64, Connection>>);

#[derive(Default)]
struct Connection {
    ear: Ear,
    frames: u64,
    moments: Moments,
    samples: Vec<i16>,
}

impl Ears {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Ears {
    fn appended(&self, connection: u64, at: Instant, audio: &[u8], format: AudioFormat) {
        let mut connections = self.lock();
        let connection = connections.entry(connection).or_default();
        connection.samples.clear();
        format.decode(audio, &mut connection.samples);
        for frame in connection.samples.chunks(format.rate() as usize / 50) {
            connection.frames += 1;
            if connection.ear.hear(marker::is_loud(frame)) {
                connection.moments.heard.push(at);
            }
        }
    }

    fn delta_sent(&self, connection: u64, at: Instant, _item: &str, first_sample: u64, _samples: u64) {
        if first_sample == 0 {
            self.lock().entry(connection).or_default().moments.spoke.push(at);
        }
    }
}

/// Below the generator's: an arrival may wait for a departure, not the other way round.
const PRIORITY: u8 = 20;
const GOODBYE: Duration = Duration::from_secs(5);
