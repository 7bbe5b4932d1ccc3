//! The writer while the database is away: when it tries again, and how spilled events get into the
//! database when it is back.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::apply::probe;
use super::numbers::Entry;
use super::writer::{BATCH, COMMIT_PATIENCE, Refusal, Writer};

/// The database is away.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    pub(super) retry_at: Instant,
    pause: Duration,
}

impl Writer {
    pub(super) fn begin_outage(&mut self, cause: &str) {
        warn!(cause, "the database takes no events; they go to the journal's file until it does");
        gauge!("tandem_journal_degraded").set(1.0);
        let now = Instant::now();
        self.outage = Some(Outage { since: now, retry_at: now + RETRY_FIRST, pause: RETRY_FIRST });
        self.tell_health();
    }

    /// One attempt to bring spilled events into the database, and to write what is held.
    pub(super) async fn retry(&mut self) {
        let replayed = self.replay_some().await;
        if let Some(outage) = &mut self.outage {
            match replayed {
                Ok(true) => outage.retry_at = Instant::now(),
                Ok(false) => {
                    info!(seconds = outage.since.elapsed().as_secs(), "the database takes events again");
                    gauge!("tandem_journal_degraded").set(0.0);
                    self.outage = None;
                }
                Err(cause) => {
                    outage.pause = (outage.pause * 2).min(RETRY_LAST);
                    outage.retry_at = Instant::now() + outage.pause;
                    warn!(cause, retry_ms = outage.pause.as_millis() as u64, "the database is still away");
                }
            }
        }
        if !self.held.is_empty() {
            let events = std::mem::take(&mut self.held);
            let written = self.write_all(&events).await;
            self.held.extend(events.into_iter().skip(written));
        }
        self.tell_health();
        if self.held.is_empty() {
            self.nothing_held(true);
        }
    }

    /// Replays the next chunk; answers whether there was one.
    async fn replay_some(&mut self) -> Result<bool, String> {
        let chunk = self.spilled.next(BATCH).await.map_err(|e| e.to_string())?;
        if chunk.is_empty() {
            timeout(COMMIT_PATIENCE, probe(&self.store))
                .await
                .map_err(|_| format!("no answer within {COMMIT_PATIENCE:?}"))?
                .map_err(|e| e.to_string())?;
            self.spilled.clear().await.map_err(|e| e.to_string())?;
            return Ok(false);
        }
        self.replay(&chunk.entries).await?;
        counter!("tandem_journal_replayed_events_total").increment(chunk.entries.len() as u64);
        self.spilled.replayed(&chunk).await.map_err(|e| e.to_string())?;
        Ok(true)
    }

    async fn replay(&mut self, entries: &[Entry]) -> Result<(), String> {
        match self.commit(entries).await {
            Ok(()) => Ok(()),
            Err(Refusal::Outage(cause)) => Err(cause),
            Err(Refusal::Taken(cause)) => {
                warn!(%cause, "another process took numbers that were shown; these events get new ones");
                let heads = timeout(COMMIT_PATIENCE, self.store.heads())
                    .await
                    .map_err(|_| format!("no answer within {COMMIT_PATIENCE:?}"))?
                    .map_err(|e| e.to_string())?;
                self.numbers.raise_heads(heads);
                let renumbered = self.numbers.renumber(entries);
                match self.commit(&renumbered).await {
                    Ok(()) => {
                        self.numbers.advance(&renumbered);
                        Ok(())
                    }
                    Err(Refusal::Outage(cause)) => Err(cause),
                    Err(Refusal::Taken(cause) | Refusal::Values(cause)) => Err(cause.to_string()),
                }
            }
            Err(Refusal::Values(cause)) if entries.len() == 1 => {
                self.reject(entries, &cause);
                Ok(())
            }
            Err(Refusal::Values(_)) => {
                for entry in entries {
                    Box::pin(self.replay(std::slice::from_ref(entry))).await?;
                }
                Ok(())
            }
        }
    }

    /// The last chance to bring everything into the database; what it does not take stays in the files.
    pub(super) async fn finish(&mut self) {
        while self.outage.is_some() {
            match self.replay_some().await {
                Ok(true) => {}
                Ok(false) => self.outage = None,
                Err(cause) => {
                    warn!(
                        cause,
                        events = self.spilled.waiting(),
                        "events stay in the journal's file for the next start"
                    );
                    break;
                }
            }
        }
        let events = std::mem::take(&mut self.held);
        let written = self.write_all(&events).await;
        if written < events.len() {
            error!(
                events = events.len() - written,
                "events could be written nowhere; trying the overflow file"
            );
            // Those that came from that file are found in it twice, which does no harm.
            events.into_iter().skip(written).for_each(|event| self.overflow.push(event, Some));
        } else {
            self.nothing_held(true);
        }
        self.tell_health();
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
