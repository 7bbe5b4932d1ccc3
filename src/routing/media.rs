//! What legs' media is made with: the installation's settings and the trunk's habits.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::audio::Codec;
use crate::rtp::{LatchPolicy, PortPool};
use crate::sip::leg::LegMedia;
use crate::sip::negotiation::Capabilities;
use crate::sip::trunk::Trunk;

/// What holds for every leg.
#[derive(Debug, Clone)]
pub struct MediaSettings {
    /// RTP ports.
    pub ports: PortPool,
    /// Codecs of trunks that name none.
    pub codecs: Vec<Codec>,
    /// Listen for keys in the audio itself.
    pub inband_dtmf: bool,
    /// How long a packet that overtook another waits for it.
    pub reorder_wait: Duration,
    /// Most assistant audio that may wait to be heard.
    pub playout_limit: Duration,
    /// Hang up after this long without RTP; `None` never.
    pub media_timeout: Option<Duration>,
}

impl MediaSettings {
    /// The media of a leg over `trunk` whose peer signals from `peer` and reaches us at `local`.
    pub fn leg(&self, trunk: &Trunk, local: IpAddr, peer: IpAddr) -> LegMedia {
        let profile = &trunk.profile;
        let own: Vec<Codec> = profile.codecs.iter().flat_map(|name| codecs(name)).copied().collect();
        let known = if own.is_empty() { self.codecs.clone() } else { own };
        let ptime_ms = u16::try_from(profile.ptime_ms).unwrap_or(20);
        LegMedia {
            ports: self.ports.clone(),
            address: local,
            peer,
            capabilities: Capabilities {
                codecs: known,
                single_codec: true,
                ptime_ms,
                ptimes_ms: packet_times(profile.max_ptime_ms),
                srtp: trunk.srtp,
                ..Capabilities::default()
            },
            latch: LatchPolicy { allowed: media_sources(trunk, peer), ..LatchPolicy::default() },
            inband_dtmf: self.inband_dtmf,
            reorder_wait: self.reorder_wait,
            playout_limit: self.playout_limit,
            media_timeout: match profile.media_timeout_s {
                0 => self.media_timeout,
                seconds => Some(Duration::from_secs(seconds)),
            },
            dtmf: trunk.dtmf,
        }
    }
}

/// The packet times we are able to send, but none longer than `most` milliseconds (0: any).
fn packet_times(most: u32) -> Vec<u16> {
    let mut times = Capabilities::default().ptimes_ms;
    times.retain(|ms| most == 0 || u32::from(*ms) <= most);
    times
}

/// Who may send media beside the address in the SDP: the trunk's media networks and whoever signals.
fn media_sources(trunk: &Trunk, signalling: IpAddr) -> Vec<IpNet> {
    let mut allowed = trunk.allowed_media_networks().to_vec();
    allowed.push(signalling.into());
    allowed
}

/// The codecs of a name used in configuration and profiles, none for an unknown one. `L16` alone stands for
/// every rate we speak it at, the highest first.
pub fn codecs(name: &str) -> &'static [Codec] {
    use crate::audio::SampleRate as Rate;
    match name.to_ascii_lowercase().as_str() {
        "pcmu" => &[Codec::Pcmu],
        "pcma" => &[Codec::Pcma],
        "g722" => &[Codec::G722],
        "opus" => &[Codec::Opus],
        "l16" => &[Codec::L16(Rate::HZ_24000), Codec::L16(Rate::HZ_16000), Codec::L16(Rate::HZ_8000)],
        "l16/8000" => &[Codec::L16(Rate::HZ_8000)],
        "l16/16000" => &[Codec::L16(Rate::HZ_16000)],
        "l16/24000" => &[Codec::L16(Rate::HZ_24000)],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_no_longer_than_the_peer_bears() {
        assert_eq!(packet_times(0), [20, 40, 60]);
        assert_eq!(packet_times(40), [20, 40]);
    }
}
