//! A provider whose openings are noted in its [`Health`].

use std::sync::Arc;
use std::time::Instant;

use super::health::Health;
use super::{OpenFuture, Provider, SessionSpec};

/// Passes everything on and notes how each opening ends. One that is given up is not noted.
pub(super) struct Noted {
    pub provider: Arc<dyn Provider>,
    pub health: Arc<Health>,
}

impl Provider for Noted {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let (opening, health) = (self.provider.open(spec), Arc::clone(&self.health));
        Box::pin(async move {
            let opened = opening.await;
            health.note(Instant::now(), opened.as_ref().map(|_| ()));
            opened
        })
    }
}
