//! One datagram at the SIP port: read, looked at the way the layers above do, printed and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::sip::negotiation::session_description;
use tandem::sip::{Limits, Message, NameAddr, Response, StatusCode, Uri, Via, parse_datagram};

fuzz_target!(|octets: &[u8]| {
    let limits = Limits::default();
    let message = match parse_datagram(octets, &limits) {
        Ok(message) => message,
        Err(error) => {
            let _ = error.to_string();
            if let Some(reply) = error.reply("t") {
                // It copies what it answers, so it need not be readable.
                let _ = reply.to_bytes();
            }
            return;
        }
    };
    let printed = message.to_bytes();
    if let Ok(again) = parse_datagram(&printed, &limits) {
        assert_eq!(again.to_bytes(), printed, "printing is stable");
    }
    look_at(&message);
});

fn look_at(message: &Message) {
    let headers = message.headers();
    for address in [headers.from(), headers.to(), headers.contact()].into_iter().flatten() {
        let printed = address.to_value();
        assert_eq!(NameAddr::parse(printed.as_bytes()).as_ref(), Ok(&address));
        assert_eq!(Uri::parse(address.uri.as_str()).as_ref(), Ok(&address.uri));
        let _ = (address.uri.dialled(), address.uri.equivalent(&address.uri), address.uri.to_request_uri());
        let _ = (address.display_name(), address.tag());
    }
    if let Ok(vias) = headers.vias() {
        for via in vias {
            let again = Via::parse(via.to_value().as_bytes()).expect("a printed Via can be read");
            assert_eq!(again.to_value(), via.to_value());
            let _ = (via.received(), via.rport(), via.sent_by(), via.branch());
        }
    }
    let _ = (headers.cseq(), headers.call_id(), headers.reasons(), headers.require(), headers.expires());
    let _ = (headers.routes(), headers.max_forwards());
    let _ = session_description(headers, message.body());
    if let Message::Request(request) = message {
        let _ = Response::to_request(request, StatusCode::NOT_FOUND, Some("t")).to_bytes();
    }
}
