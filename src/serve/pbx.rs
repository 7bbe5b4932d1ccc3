//! The doors of a PBX: which of them the configuration opens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ari::{AriHandle, MediaParts};
use crate::chan_websocket::client::ClientSettings;
use crate::chan_websocket::connector::Connector;
use crate::config::Config;
use crate::pbx::{Announcements, Lobby, PbxSettings, Visitor};
use crate::routing::doors;
use crate::routing::outbound::PbxOut;
use crate::routing::switchboard::Exchange;
use crate::rtp::PortPool;
use crate::{ari, audiosocket, chan_websocket};

/// The doors, and who has come in by them.
pub(super) struct Doors {
    /// Where they lead.
    pub lobby: Lobby,
    /// What media of their legs is made with.
    pub settings: PbxSettings,
    /// Where AudioSocket connections come in.
    pub audiosocket: Option<SocketAddr>,
    /// Where WebSocket media comes in.
    pub websocket: Option<SocketAddr>,
    /// Fetches calls that wait at Asterisk for a WebSocket.
    pub connector: Option<Connector>,
    /// The PBX that is controlled.
    pub ari: Option<AriHandle>,
    /// Until they are admitted.
    waiting: Option<mpsc::Receiver<Visitor>>,
}

impl Doors {
    /// Opens what is configured. Whoever comes waits for [`Self::admit`].
    ///
    /// # Errors
    /// When an address cannot be had, or ARI's settings cannot be used.
    pub async fn open(config: &Config, ports: &PortPool) -> anyhow::Result<Self> {
        let (visitors, waiting) = mpsc::channel(VISITORS);
        let announcements = Announcements::new(StdRng::from_rng(&mut rand::rng()));
        let (drain, stop, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let lobby = Lobby { visitors, announcements, drain, stop, tasks };
        let audiosocket = match &config.audiosocket {
            Some(section) => {
                let open = audiosocket::server::start(section.into(), lobby.clone()).await;
                Some(open.with_context(|| busy("audiosocket.listen", section.listen))?)
            }
            None => None,
        };
        let (mut websocket, mut connector) = (None, None);
        if let Some(section) = &config.asterisk_websocket {
            let door = Arc::new(chan_websocket::door(section.max_calls as usize, lobby.clone()));
            connector =
                ClientSettings::of(section).map(|settings| Connector::new(settings, Arc::clone(&door)));
            if let Some(settings) = chan_websocket::server::Settings::of(section) {
                let listen = settings.listen;
                let open = chan_websocket::server::start(settings, door).await;
                websocket = Some(open.with_context(|| busy("asterisk_websocket.listen", listen))?);
            }
        }
        let ari = match &config.ari {
            Some(section) => {
                let Lobby { visitors, announcements, drain, tasks, .. } = lobby.clone();
                let parts = MediaParts {
                    audiosocket: audiosocket.map(|door| (announcements, door.port())),
                    ports: ports.clone(),
                    websocket: None,
                };
                let settings = ari::Settings::of(config, section).map_err(anyhow::Error::msg)?;
                let open = ari::start(settings, parts, visitors, drain, &tasks);
                Some(open.map_err(anyhow::Error::msg)?)
            }
            None => None,
        };
        let settings =
            PbxSettings { playout_limit: config.media.max_playout, inband_dtmf: config.media.inband_dtmf };
        Ok(Self { lobby, settings, audiosocket, websocket, connector, ari, waiting: Some(waiting) })
    }

    /// The way out over channels of the PBX, where it is configured.
    pub fn way_out(&self, config: &Config) -> Option<PbxOut> {
        let dials = config.ari.as_ref().is_some_and(|section| section.dial.is_some());
        let by = Arc::new(self.ari.clone().filter(|_| dials)?);
        Some(PbxOut { by, settings: self.settings.clone() })
    }

    /// From now on callers become calls.
    pub fn admit(&mut self, exchange: &Arc<Exchange>, admissions: &TaskTracker) {
        if let Some(waiting) = self.waiting.take() {
            let exchange = Arc::clone(exchange);
            let run = doors::run(exchange, self.settings.clone(), waiting, admissions.clone());
            // Ways in may be held by who will not use them any more.
            tokio::spawn(self.lobby.stop.clone().run_until_cancelled_owned(run));
        }
    }

    /// Lets no new call in any more; who is in stays, and their legs still get media.
    pub fn shut(&self) {
        self.lobby.drain.cancel();
    }

    /// Closes the doors for good, and waits until the PBX knows that every call is over, at most for `patience`.
    pub async fn settle(&self, patience: Duration) {
        self.lobby.stop.cancel();
        self.lobby.tasks.close();
        if tokio::time::timeout(patience, self.lobby.tasks.wait()).await.is_err() {
            tracing::warn!("a door of the PBX did not close in time");
        }
    }
}

fn busy(key: &str, address: SocketAddr) -> String {
    format!("listening on {address}; choose another address in {key} or stop what uses it")
}

/// Callers at the doors who may wait to be admitted; more are refused at the door.
const VISITORS: usize = 256;
