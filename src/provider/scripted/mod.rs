//! The embedded default provider: real voice activity detection and a script, with no network and no key.
//!
//! `script` is the file format, `core` the conversation as a pure core. This file finds and reads scripts,
//! keeps their sound, and gives the core its clock. Reading files and synthesizing speech happen on
//! blocking threads, never on a media worker.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use std::collections::VecDeque;

use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::audio::voice;
use crate::audio::wav::{USUAL_LIMIT, Wav};

use self::core::ScriptedCore;
use self::script::{Line, MAX_TEXT_BYTES, Rendered, Script};
use super::{
    Command, Event, OpenFuture, OpenedSession, Provider, ProviderError, Session, SessionSpec, SessionStats,
};

pub mod core;
pub mod script;

/// One `[providers.NAME]` section of kind `scripted`.
#[derive(Debug, Clone)]
pub struct ScriptedConfig {
    /// The section's name.
    pub name: String,
    /// Script for assistants that name none: a file, or one of [`BUILT_IN`]; `None`: `default`.
    pub script: Option<String>,
}

/// The scripts that come with the program.
pub const BUILT_IN: [(&str, &str); 2] =
    [("default", include_str!("default.toml")), ("demo", include_str!("demo.toml"))];

/// Opens scripted conversations.
#[derive(Debug, Clone)]
pub struct Scripted {
    name: Arc<str>,
    script: Arc<str>,
    library: Arc<Library>,
}

impl Scripted {
    /// A provider with these settings. Scripts are read when a session is opened.
    pub fn new(config: &ScriptedConfig) -> Self {
        let script = config.script.as_deref().unwrap_or(BUILT_IN[0].0);
        Self { name: config.name.as_str().into(), script: script.into(), library: Arc::default() }
    }
}

/// Reads a script, without rendering its speech, and tells what is wrong with it.
///
/// # Errors
/// What to mend, in words.
pub fn check_script(name: &str) -> Result<(), String> {
    let (text, folder) = read_script(name)?;
    let script = Script::parse(&text).map_err(|error| error.to_string())?;
    let rendered = script.render(|wav| read_wav(&folder.join(wav)), |_| Vec::new());
    rendered.map(drop).map_err(|error| error.to_string())
}

impl Provider for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let provider = self.clone();
        Box::pin(async move {
            let name = spec.script.clone().unwrap_or_else(|| provider.script.to_string());
            let library = Arc::clone(&provider.library);
            let read = {
                let name = name.clone();
                tokio::task::spawn_blocking(move || library.get(&name)).await
            };
            let unusable = |cause: String| ProviderError::Misconfigured {
                provider: provider.name.to_string(),
                cause: format!("script `{name}`: {cause}"),
            };
            match read {
                Ok(Ok(script)) => Ok(Box::new(Opened { script, spec }) as Box<dyn OpenedSession>),
                Ok(Err(cause)) => Err(unusable(cause)),
                Err(panicked) => Err(unusable(panicked.to_string())),
            }
        })
    }
}

/// Rendered scripts by name, so that speech is synthesized once and not for each call.
#[derive(Debug, Default)]
struct Library {
    shelf: Mutex<HashMap<String, Shelved>>,
}

#[derive(Debug, Clone)]
struct Shelved {
    /// Of a file, when it was last changed; a changed file is read again.
    changed: Option<SystemTime>,
    script: Arc<Rendered>,
}

impl Library {
    fn get(&self, name: &str) -> Result<Arc<Rendered>, String> {
        let changed = std::fs::metadata(name).and_then(|file| file.modified()).ok();
        let shelved = self.shelf().get(name).filter(|shelved| shelved.changed == changed).cloned();
        if let Some(shelved) = shelved {
            return Ok(shelved.script);
        }
        // Rendered outside the lock: two calls may do it twice, none waits for another's script.
        let (text, folder) = read_script(name)?;
        let script = Script::parse(&text).map_err(|error| error.to_string())?;
        let script = script.render(|wav| read_wav(&folder.join(wav)), voice::speak);
        let script = Arc::new(script.map_err(|error| error.to_string())?);
        let mut shelf = self.shelf();
        if shelf.len() >= MAX_SHELVED {
            shelf.clear();
        }
        shelf.insert(name.to_owned(), Shelved { changed, script: Arc::clone(&script) });
        Ok(script)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, HashMap<String, Shelved>> {
        // A shelf that a panic left behind still holds whole scripts.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a script and the folder its files are beside.
fn read_script(name: &str) -> Result<(String, PathBuf), String> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Ok(((*text).to_owned(), PathBuf::new()));
    }
    let folder = Path::new(name).parent().unwrap_or(Path::new("")).to_path_buf();
    let built_in = BUILT_IN.map(|(name, _)| name).join("` and `");
    let text = std::fs::read_to_string(name).map_err(|error| {
        format!("the file cannot be read: {error}; the scripts that need no file are `{built_in}`")
    })?;
    Ok((text, folder))
}

fn read_wav(path: &Path) -> Result<Vec<i16>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    Wav::read(file, USUAL_LIMIT).map(|wav| wav.to_bridge()).map_err(|error| error.to_string())
}

struct Opened {
    script: Arc<Rendered>,
    spec: SessionSpec,
}

impl OpenedSession for Opened {
    fn settle(self: Box<Self>) -> io::Result<Box<dyn Session>> {
        let core = ScriptedCore::new(self.script, &self.spec, now());
        Ok(Box::new(ScriptedSession { core, timer: None, synthesis: VecDeque::new(), waker: None }))
    }
}

/// A scripted conversation on a media worker.
struct ScriptedSession {
    core: ScriptedCore,
    timer: Option<Pin<Box<Sleep>>>,
    /// Words to say that are being synthesized, in order. As many as there are commands, which are few.
    synthesis: VecDeque<(Arc<str>, JoinHandle<Vec<i16>>)>,
    waker: Option<Waker>,
}

impl Session for ScriptedSession {
    fn send_audio(&mut self, pcm: &[i16]) {
        self.core.receive_audio(now(), pcm);
        self.wake();
    }

    fn send(&mut self, command: Command) {
        match command {
            Command::Say(words) => {
                let mut end = words.len().min(MAX_TEXT_BYTES);
                while !words.is_char_boundary(end) {
                    end -= 1;
                }
                let words: Arc<str> = words[..end].into();
                let text = Arc::clone(&words);
                self.synthesis.push_back((words, tokio::task::spawn_blocking(move || voice::speak(&text))));
            }
            Command::CancelResponse => {
                self.synthesis.clear();
                self.core.command(now(), Command::CancelResponse);
            }
            other => self.core.command(now(), other),
        }
        self.wake_always();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        loop {
            if let Some(event) = self.core.poll_event() {
                return Poll::Ready(event);
            }
            if self.poll_synthesis(cx).is_ready() {
                continue;
            }
            let Some(due) = self.core.next_timeout() else { return Poll::Pending };
            let due = tokio::time::Instant::from_std(due);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            // The timer's own moment, so that the core sees its deadline passed whatever the clock's grain.
            self.core.handle_timeout(now().max(due.into_std()));
        }
    }

    fn stats(&self) -> SessionStats {
        let (audio_sent_ms, audio_received_ms) = self.core.audio_ms();
        SessionStats { audio_sent_ms, audio_received_ms, ..SessionStats::default() }
    }

    fn send_backlog(&mut self, pcm: &[i16]) -> bool {
        self.send_audio(pcm);
        true
    }

    /// A script pauses where it says so, and may have nothing to say about a tool.
    fn can_stall(&self) -> bool {
        false
    }
}

impl ScriptedSession {
    fn poll_synthesis(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, speaking)) = self.synthesis.front_mut() else { return Poll::Pending };
        let Poll::Ready(spoken) = Pin::new(speaking).poll(cx) else { return Poll::Pending };
        if let (Some((text, _)), Ok(pcm)) = (self.synthesis.pop_front(), spoken) {
            self.core.say(now(), Line { text, pcm: pcm.into() });
        }
        Poll::Ready(())
    }

    /// What was fed between two polls may have events or a new deadline.
    fn wake(&self) {
        let timer = self.timer.as_ref().map(|timer| timer.deadline().into_std());
        if self.core.has_events() || self.core.next_timeout() != timer {
            self.wake_always();
        }
    }

    fn wake_always(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Rendered scripts kept; when one more comes, all are forgotten and rendered anew as needed.
const MAX_SHELVED: usize = 32;

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
