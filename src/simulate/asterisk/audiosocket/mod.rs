//! The client of an AudioSocket server: the application and the channel driver.

mod link;
mod session;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::TcpStream;

use super::call::{Call, Channel};
use super::measure::Pace;
use super::person::{Far, Person};
use super::release::Release;
use super::uuid::Uuid;
use link::Link;
use session::Session;

/// What in Asterisk opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `AudioSocket(uuid,host:port)`: always 8 kHz; two seconds without anything in either direction end it.
    Application,
    /// `Dial(AudioSocket/host:port/uuid/c(slin24))`, or ARI's externalMedia: linear audio of this rate in Hz.
    Channel(u32),
}

/// How the call differs from the plain one.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What opened it.
    pub door: Door,
    /// Which Asterisk it is.
    pub release: Release,
    /// How what we send is cut into segments.
    pub delivery: Delivery,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// The channel's thread enters its read before the server has sent anything, and sends no audio until it has
    /// (issue 2089 of Asterisk, about one call in four).
    pub starved: bool,
    /// Who is on the channel.
    pub person: Option<Arc<Person>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            door: Door::Application,
            release: Release::Headers,
            delivery: Delivery::Whole,
            fault: None,
            starved: false,
            person: None,
        }
    }
}

impl Setup {
    /// A channel at this rate in Hz.
    pub fn channel(rate: u32) -> Self {
        Self { door: Door::Channel(rate), ..Self::default() }
    }

    /// Another release.
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Something goes wrong.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The audio's rate in Hz.
    pub fn rate(&self) -> u32 {
        match self.door {
            Door::Application => 8_000,
            Door::Channel(rate) => rate,
        }
    }
}

/// How messages meet the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Each in a segment of its own.
    Whole,
    /// In segments of so many bytes.
    Pieces(usize),
    /// So many together.
    Together(usize),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The channel was never answered: the connection closes before the UUID.
    NotAnswered,
    /// The UUID is never sent; the connection stays.
    NoUuid,
    /// Audio comes before the UUID.
    AudioFirst,
    /// After this long nothing is read any more, and nothing sent.
    StandStill(Duration),
    /// After this long nothing is read any more, while audio is sent.
    StopReading(Duration),
    /// After this long the connection is reset.
    Reset(Duration),
    /// After this long a message of this kind is sent, with so many bytes of noise.
    Garbage(Duration, u8, u16),
    /// After this long half of a message is sent, and then the connection closed.
    HalfMessage(Duration),
    /// After this long an error frame is sent (0xff, with this code).
    Error(Duration, u8),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The server sent a hang-up.
    ServerHungUp,
    /// The server closed the connection.
    ServerClosed,
    /// The connection was reset or failed; in words.
    Reset(String),
    /// The caller hung up.
    HungUp,
    /// Two seconds without anything in either direction.
    Silent,
    /// The server broke the protocol; in words.
    Broken(String),
    /// The server did not read, and a write was cut short.
    NotRead(String),
    /// The [`Fault`] that was asked for.
    Fault,
}

/// What is known of a call.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub uuid: String,
    /// In Hz.
    pub rate: u32,
    /// How it ended; absent while it has not.
    pub ended: Option<How>,
    /// Whether the caller's dialplan goes on with the next priority; if not, the caller was hung up.
    pub dialplan_goes_on: bool,
    /// From the connection to the end, in milliseconds.
    pub lasted_ms: f64,
    /// What came, against the clock.
    pub pace: Pace,
    /// Audio messages sent.
    pub sent: u64,
    /// Digits sent.
    pub digits: String,
    /// Headers that came in pieces, which releases before 20.19, 22.9 and 23.3 misread.
    pub split_headers: u64,
    /// Mistakes of the server, at most [`VIOLATIONS_MAX`].
    pub violations: Vec<String>,
    /// When the end was seen.
    #[serde(skip)]
    pub ended_at: Option<Instant>,
}

impl Report {
    fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX && !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }
}

/// A call over an AudioSocket.
pub type AudioSocketCall = Call<Report>;

impl AudioSocketCall {
    /// Connects as Asterisk does, names the call and begins.
    ///
    /// # Errors
    /// When the connection is not there within two seconds, or the rate is none of Asterisk's.
    pub async fn connect(to: SocketAddr, uuid: Uuid, setup: Setup) -> std::io::Result<Self> {
        if link::kind_of(setup.rate()).is_none() {
            let wrong = format!("Asterisk has no linear format of {} Hz", setup.rate());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, wrong));
        }
        let person = setup.person.clone().unwrap_or_else(Person::new);
        Self::towards(to, uuid, setup, person.clone(), person).await
    }

    /// As [`Self::connect`], with something else than a person behind the channel.
    pub(super) async fn towards(
        to: SocketAddr,
        uuid: Uuid,
        setup: Setup,
        far: Arc<dyn Far>,
        person: Arc<Person>,
    ) -> std::io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(to)).await??;
        let report = Report {
            uuid: uuid.to_string(),
            rate: setup.rate(),
            ended: None,
            dialplan_goes_on: false,
            lasted_ms: 0.0,
            pace: Pace::default(),
            sent: 0,
            digits: String::new(),
            split_headers: 0,
            violations: Vec::new(),
            ended_at: None,
        };
        let (call, Channel { orders, report, finished }) = Self::new(uuid.to_string(), person, report);
        let session = Session::new(Link::new(stream, setup.release)?, uuid, setup, far, report, orders);
        tokio::spawn(async move {
            session.run().await;
            finished.send_replace(true);
        });
        Ok(call)
    }
}

/// Mistakes that are told one by one.
pub const VIOLATIONS_MAX: usize = 100;
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
