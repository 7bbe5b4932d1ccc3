//! A URI of any scheme: what is read is printed the same, and all of its parts can be asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::sip::{NameAddr, Uri};

fuzz_target!(|octets: &[u8]| {
    if let Ok(uri) = Uri::parse(octets) {
        assert_eq!(Uri::parse(uri.as_str()).as_ref(), Ok(&uri));
        let _ = (uri.scheme(), uri.user(), uri.user_decoded(), uri.dialled(), uri.password(), uri.host());
        let _ = (uri.port(), uri.transport(), uri.is_loose_route(), uri.headers_text());
        let _ = (uri.params().count(), uri.headers().count());
        assert!(uri.equivalent(&uri), "a URI is equivalent to itself");
        let request = uri.to_request_uri();
        assert_eq!(Uri::parse(request.as_str()).as_ref(), Ok(&request));
        if let Ok(more) = uri.with_param("lr", None) {
            assert_eq!(Uri::parse(more.as_str()).as_ref(), Ok(&more));
        }
    }
    if let Ok(address) = NameAddr::parse(octets) {
        assert_eq!(NameAddr::parse(address.to_value().as_bytes()).as_ref(), Ok(&address));
        let _ = (address.display_name(), address.tag());
    }
});
