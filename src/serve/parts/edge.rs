//! The edge towards the network: transports, certificates, addresses, and how much one source may ask.

use crate::config::{self, ClientCertificates, Config, SipTransport};
use crate::sip::flood::FloodPolicy;
use crate::sip::message::Transport;
use crate::sip::tls::{TlsClients, TlsFiles, TlsRoots};
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
    let roots = section.client_roots.clone();
    let clients = match (section.client_certificates, roots) {
        (ClientCertificates::Optional, Some(roots)) => TlsClients::Optional(roots),
        (ClientCertificates::Required, Some(roots)) => TlsClients::Required(roots),
        // The check of the configuration refuses the one without the other.
        (ClientCertificates::Off, _) | (_, None) => TlsClients::Any,
    };
    let to_servers = section.show_to_servers;
    TlsFiles { reload_every: section.reload, clients, to_servers, ..files }
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
