//! REGISTER requests of phones that proved who they are: whatever they say, the registrar keeps its bounds and its
//! indices agree with what it holds.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tandem::sip::message::{Message, Transport};
use tandem::sip::registrar::{Registrar, RegistrarConfig};
use tandem::sip::transport::{ConnectionId, Target};
use tandem::sip::{Limits, parse_datagram};

const USERS: [&str; 2] = ["101", "102"];
const CONTACTS: usize = 3;

fuzz_target!(|octets: &[u8]| {
    let mut now = Instant::now();
    let mut registrar =
        Registrar::new(RegistrarConfig { contacts_max: CONTACTS, ..RegistrarConfig::default() });
    // Requests are parted by NUL; the octet before each says from where, as whom, and what time it is.
    for part in octets.split(|octet| *octet == 0) {
        let Some((how, text)) = part.split_first() else { continue };
        let user = USERS[usize::from(how & 1)];
        let remote = SocketAddr::from(([192, 0, 2, 1 + (how >> 1 & 1)], 5060 + u16::from(how >> 2 & 1)));
        let connection = ConnectionId(u64::from(how >> 3 & 1));
        let target = Target::new(Transport::Tcp, remote, SocketAddr::from(([198, 51, 100, 1], 5060)));
        let target = Target { connection: Some(connection), ..target };
        match how >> 4 {
            15 => drop(registrar.connection_closed(connection)),
            14 => drop(registrar.keep(|known| known != user)),
            13 => {
                now += Duration::from_secs(1_800);
                registrar.handle_timeout(now);
            }
            _ => {
                if let Ok(Message::Request(request)) = parse_datagram(text, &Limits::default()) {
                    let answer = registrar.register(now, &request, target, user);
                    assert!(answer.status.get() >= 200);
                }
            }
        }
        let mut held = 0;
        for user in USERS {
            let bindings = registrar.bindings(now, user);
            assert!(bindings.len() <= CONTACTS);
            for binding in &bindings {
                assert!(registrar.is_on(&binding.target, user) && registrar.knows_flow(&binding.target));
                assert!(registrar.knows_source(binding.target.remote.ip()));
                assert!(binding.expires <= now + Duration::from_secs(3_600));
            }
            held += bindings.len();
        }
        assert!(registrar.len() >= held);
        assert_eq!(registrar.is_empty(), registrar.next_timeout().is_none());
    }
});
