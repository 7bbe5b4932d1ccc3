//! The doors of a PBX: which of them the configuration opens.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::pbx::{Announcements, PbxSettings, Visitor};
use crate::routing::doors;
use crate::routing::switchboard::Exchange;
use crate::{audiosocket, chan_websocket};

/// What the doors have in common, before any of them is open.
pub(super) struct Lobby {
    /// Who is expected.
    pub announcements: Announcements,
    /// What media of their legs is made with.
    pub settings: PbxSettings,
    visitors: mpsc::Sender<Visitor>,
    inbox: mpsc::Receiver<Visitor>,
    stop: CancellationToken,
}

/// The open doors.
pub(super) struct Doors {
    /// Where AudioSocket connections come in.
    pub audiosocket: Option<SocketAddr>,
    /// Where WebSocket media comes in.
    pub websocket: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Lobby {
    pub fn new(config: &Config) -> Self {
        let (visitors, inbox) = mpsc::channel(VISITORS);
        Self {
            announcements: Announcements::new(StdRng::from_rng(&mut rand::rng())),
            settings: PbxSettings {
                playout_limit: config.media.max_playout,
                inband_dtmf: config.media.inband_dtmf,
            },
            visitors,
            inbox,
            stop: CancellationToken::new(),
        }
    }

    /// Opens what is configured; callers are admitted by `exchange`.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn open(
        self,
        config: &Config,
        exchange: &Arc<Exchange>,
        admissions: &TaskTracker,
    ) -> anyhow::Result<Doors> {
        let Self { announcements, settings, visitors, inbox, stop } = self;
        let tasks = TaskTracker::new();
        let audiosocket = match &config.audiosocket {
            Some(section) => {
                let settings = audiosocket::server::Settings::from(section);
                let door = (visitors.clone(), announcements.clone(), stop.clone(), tasks.clone());
                let open = audiosocket::server::start(settings, door.0, door.1, door.2, door.3).await;
                Some(open.with_context(|| busy("audiosocket.listen", section.listen))?)
            }
            None => None,
        };
        let section = config.asterisk_websocket.as_ref();
        let websocket = match section.and_then(chan_websocket::server::Settings::of) {
            Some(settings) => {
                let listen = settings.listen;
                let door = (visitors.clone(), announcements.clone(), stop.clone(), tasks.clone());
                let open = chan_websocket::server::start(settings, door.0, door.1, door.2, door.3).await;
                Some(open.with_context(|| busy("asterisk_websocket.listen", listen))?)
            }
            None => None,
        };
        tokio::spawn(doors::run(Arc::clone(exchange), settings, inbox, admissions.clone()));
        Ok(Doors { audiosocket, websocket, stop, tasks })
    }
}

impl Doors {
    /// Lets nobody in any more; who is in stays.
    pub async fn shut(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn busy(key: &str, address: SocketAddr) -> String {
    format!("listening on {address}; choose another address in {key} or stop what uses it")
}

/// Callers at the doors who may wait to be admitted; more are refused at the door.
const VISITORS: usize = 256;
