//! The edge towards the network: transports, certificates, addresses, and how much one source may ask.

use crate::config::{self, Config, SipTransport};
use crate::sip::flood::FloodPolicy;
use crate::sip::message::Transport;
use crate::sip::tls::{TlsFiles, TlsRoots};
use crate::sip::ua::Advertised;

pub(super) fn transport(written: SipTransport) -> Transport {
    match written {
        SipTransport::Udp => Transport::Udp,
        SipTransport::Tcp => Transport::Tcp,
        SipTransport::Tls => Transport::Tls,
        SipTransport::Ws => Transport::Ws,
        SipTransport::Wss => Transport::Wss,
    }
}

pub(super) fn tls_files(section: &config::SipTls) -> TlsFiles {
    let files = TlsFiles::new(&section.certificate, &section.private_key);
    TlsFiles { reload_every: section.reload, ..files }
}

pub(super) fn tls_roots(config: &Config) -> TlsRoots {
    let file = config.sip.tls.as_ref().and_then(|tls| tls.roots.clone());
    file.map_or(TlsRoots::WebPki, TlsRoots::File)
}

pub(super) fn flood(section: &config::SipFlood) -> FloodPolicy {
    FloodPolicy {
        requests_per_second: section.requests_per_second,
        burst: section.burst,
        invites_per_second: section.invites_per_second,
        auth_failures: section.auth_failures,
        ban: section.ban,
    }
}

pub(super) fn advertise_for(config: &Config) -> Vec<Advertised> {
    let advertised = |written: &config::AdvertiseFor| Advertised {
        network: written.network.0,
        listener: written.listener.map(|listen| listen.address),
        address: written.address,
        port: written.port,
    };
    config.sip.advertise_for.iter().map(advertised).collect()
}
