//! Our side of a medium: ports, an expected connection, a connection of ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::model::Channel;
use super::request::ExternalMedia;
use super::settings::{Settings, with_port, without_port};
use super::shell::Message;
use crate::audio::{Codec, SampleRate};
use crate::chan_websocket::client;
use crate::config::AriMedium;
use crate::id::LegId;
use crate::pbx::announce::Announcement;
use crate::pbx::{Announcements, Awaited, Coding, PendingMedia};
use crate::rtp::media::DetachedMedia;
use crate::rtp::ports::{PortPair, PortPool};
use crate::rtp::stream::{Stream, StreamConfig};
use crate::time::UnixMs;

/// What media is made with.
#[derive(Debug, Clone)]
pub struct MediaParts {
    /// Where connections of AudioSocket's are announced, and the port they come to.
    pub audiosocket: Option<(Announcements, u16)>,
    /// Ports of RTP.
    pub ports: PortPool,
    /// How the PBX's media WebSocket is reached, other than by the address of the interface.
    pub websocket: Option<client::ClientSettings>,
}

/// A medium that is prepared or delivered. Dropped, what is not a leg's yet is given up.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Ports that wait for the PBX's address.
    Rtp(PortPair),
    /// A connection is expected; or one of ours is being made.
    Waiting { _task: AbortOnDropHandle<()>, _announced: Option<Announced> },
    /// The PBX must be asked first.
    Nothing,
}

/// An announcement that is taken back when it is not wanted any more.
#[derive(Debug)]
pub(super) struct Announced {
    table: Announcements,
    key: String,
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.table.cancel(Instant::now(), &self.key);
    }
}

/// Whom a medium is for.
#[derive(Debug, Clone)]
pub(super) struct For {
    pub(super) leg: LegId,
    pub(super) count: u32,
    /// The leg's.
    pub(super) media: mpsc::Sender<PendingMedia>,
    /// The shell's.
    pub(super) messages: mpsc::Sender<Message>,
}

impl For {
    /// Hands it over and says so.
    async fn hand_over(self, medium: Result<PendingMedia, String>) {
        let result = match medium {
            Ok(medium) => self.media.send(medium).await.map_err(|_| "the leg is over".to_owned()),
            Err(problem) => Err(problem),
        };
        let _over = self.messages.send(Message::Delivered(self.leg, self.count, result)).await;
    }
}

/// Whether channels of that release send each rate as a kind of its own. A version without numbers is a recent one.
pub(super) fn sizes_audio(version: &str) -> bool {
    let version = version.rsplit('/').next().unwrap_or_default();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return true };
    match major {
        ..20 => false,
        20 => minor >= 17,
        21 => minor >= 12,
        22 => minor >= 7,
        23 => minor >= 1,
        24.. => true,
    }
}

/// Prepares our side. `sized`: see [`sizes_audio`].
///
/// # Errors
/// In words, when it cannot be.
pub(super) fn prepare(
    settings: &Settings,
    parts: &MediaParts,
    who: For,
    sized: bool,
) -> Result<(ExternalMedia, Prepared), String> {
    let host = &settings.media_host;
    match settings.medium {
        AriMedium::Rtp => {
            let ports = parts.ports.allocate(any_like(without_port(host)), Instant::now());
            let ports = ports.map_err(|error| error.to_string())?;
            let to = with_port(without_port(host), ports.guard.port());
            Ok((ExternalMedia::Rtp { to }, Prepared::Rtp(ports)))
        }
        AriMedium::Audiosocket => {
            let door = parts.audiosocket.as_ref();
            let (table, port) = door.ok_or("the AudioSocket door is not open; add [audiosocket]")?;
            let (sender, mut receiver) = mpsc::channel(1);
            let mut announcement = Announcement::new(Awaited::Leg(sender), CONNECT_LIMIT);
            // Others say it with their first frame; until then the silence of 8 kHz is right, and no other is.
            if let Coding::Linear(rate) = settings.coding
                && !sized
            {
                announcement.rate = Some(rate);
            }
            let key = table.expect(Instant::now(), None, announcement).map_err(|error| error.to_string())?;
            let task = tokio::spawn(async move {
                let medium = match tokio::time::timeout(CONNECT_LIMIT, receiver.recv()).await {
                    Ok(Some(medium)) => Ok(medium),
                    _ => {
                        Err("the PBX did not connect to the AudioSocket door; see ari.media_host".to_owned())
                    }
                };
                who.hand_over(medium).await;
            });
            let announced = Announced { table: table.clone(), key: key.clone() };
            let waiting =
                Prepared::Waiting { _task: AbortOnDropHandle::new(task), _announced: Some(announced) };
            Ok((ExternalMedia::AudioSocket { to: with_port(host, *port), uuid: key }, waiting))
        }
        AriMedium::Websocket => Ok((ExternalMedia::WebSocket, Prepared::Nothing)),
    }
}

/// The PBX has made its side: finishes ours. `None`: what is needed is under way already.
pub(super) fn deliver(
    settings: &Settings,
    parts: &MediaParts,
    who: For,
    prepared: Prepared,
    channel: &Channel,
) -> Prepared {
    let variable = |name: &str| channel.channelvars.get(name).map(String::as_str);
    let work = match prepared {
        Prepared::Rtp(ports) => {
            let medium = stream(settings, &who, ports, variable);
            tokio::spawn(who.hand_over(medium))
        }
        Prepared::Nothing => {
            let url = settings.access.media_url();
            let mut client = parts.websocket.clone().unwrap_or_else(|| client::ClientSettings::new(url));
            client.fallback = settings.coding;
            let id = variable("MEDIA_WEBSOCKET_CONNECTION_ID").unwrap_or_default().to_owned();
            tokio::spawn(async move {
                let medium = match client::connect(&client, &id).await {
                    Ok(connected) => Ok(PendingMedia::Wire(Box::new(connected.wire))),
                    Err(error) => Err(error.to_string()),
                };
                who.hand_over(medium).await;
            })
        }
        waiting @ Prepared::Waiting { .. } => return waiting,
    };
    Prepared::Waiting { _task: AbortOnDropHandle::new(work), _announced: None }
}

/// RTP without signalling: where to is in the answer, payload types are Asterisk's own table.
fn stream<'a>(
    settings: &Settings,
    who: &For,
    ports: PortPair,
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Result<PendingMedia, String> {
    let unknown = || "the PBX did not say where it receives RTP".to_owned();
    let ip: IpAddr =
        variable("UNICASTRTP_LOCAL_ADDRESS").and_then(|ip| ip.parse().ok()).ok_or_else(unknown)?;
    let port: u16 =
        variable("UNICASTRTP_LOCAL_PORT").and_then(|port| port.parse().ok()).ok_or_else(unknown)?;
    let (codec, payload_type) =
        rtp_format(settings.coding).ok_or("the codec does not go over RTP; see ari.media_format")?;
    let mut config = StreamConfig::new(codec, payload_type, SocketAddr::new(ip, port));
    if codec == Codec::L16(SampleRate::HZ_8000) {
        config.receive.push((10, codec));
    }
    config.telephone_event = Some((101, codec.clock_rate()));
    config.cname = who.leg.to_string();
    config.playout_limit = settings.playout_limit;
    // Callers may be silent as long as they like; the PBX says when they go.
    config.media_timeout = None;
    config.wall_clock = UnixMs::now();
    let stream = Stream::new(config, &mut rand::rng(), Instant::now()).map_err(|error| error.to_string())?;
    Ok(PendingMedia::Rtp(Box::new(DetachedMedia::new(stream, ports))))
}

/// Asterisk's static payload types, RFC 3551 section 6.
fn rtp_format(coding: Coding) -> Option<(Codec, u8)> {
    Some(match coding {
        Coding::Ulaw => (Codec::Pcmu, 0),
        Coding::Alaw => (Codec::Pcma, 8),
        Coding::G722 => (Codec::G722, 9),
        Coding::Linear(8_000) => (Codec::L16(SampleRate::HZ_8000), 11),
        // It has dynamic ones for faster linear audio and sends by them, but takes nothing that comes by them.
        Coding::Linear(_) | Coding::Opus => return None,
    })
}

fn any_like(host: &str) -> IpAddr {
    match host.parse() {
        Ok(IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Shared by all.
pub(super) type Shared = Arc<(Settings, MediaParts)>;

/// Asterisk gives up connecting after 2 s for each address.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_says_whether_its_audio_tells_the_rate() {
        for (version, sized) in [
            ("18.26.4", false),
            ("20.16.0", false),
            ("20.17.0", true),
            ("21.11.1", false),
            ("21.12.0", true),
            ("22.6.0-rc1", false),
            ("22.7.0", true),
            ("23.0.0", false),
            ("23.1.0", true),
            ("24.0.0-pre1", true),
            ("certified/20.7-cert5", false),
            ("GIT-master-1a2b3c", true),
        ] {
            assert_eq!(sizes_audio(version), sized, "{version}");
        }
    }
}
