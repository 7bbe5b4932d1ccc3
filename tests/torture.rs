//! The torture messages of RFC 4475 and RFC 5118, handled as their index files say, and what is left of
//! them after mutation handled without a panic.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};

use tandem::sip::framing::{Frame, StreamFramer};
use tandem::sip::negotiation::{Capabilities, Negotiation, session_description};
use tandem::sip::{
    HeaderName, Host, Limits, Message, Method, NameAddr, ParseError, Request, Response, Scheme, StatusCode,
    Uri, Via, parse_datagram,
};

struct Case {
    set: &'static str,
    name: String,
    expected: String,
    octets: Vec<u8>,
}

/// What may happen to a message in the parser. What a later layer says to it (416, 420, a dialog that is
/// not there) is that layer's test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused(u16),
    Discarded,
}

#[test]
fn every_message_is_handled_as_its_index_says() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert_eq!(cases.len(), 49 + 12);
    for case in &cases {
        let outcome = outcome(&parse(&case.octets));
        if !allowed(&case.expected).contains(&outcome) {
            wrong.push(format!("{}/{}: {outcome:?}, not {}", case.set, case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_refused_can_be_answered_without_state() {
    for case in cases() {
        let Err(error) = parse(&case.octets) else { continue };
        match error.reply("tag") {
            Some(reply) => assert_copied(&case.name, &error, &reply),
            None => assert!(error.is_response(), "{}", case.name),
        }
    }
}

#[test]
fn messages_arrive_the_same_in_chunks_of_one_octet() {
    for case in cases() {
        let whole = parse(&case.octets);
        let mut framer = StreamFramer::new(Limits::default());
        let mut frames = Vec::new();
        for octet in &case.octets {
            framer.feed(&[*octet]);
            while let Some(frame) = framer.next_frame() {
                frames.push(frame);
            }
        }
        match (case.name.as_str(), &frames[..]) {
            // The second declares two octets less than it has; on a stream they are noise.
            ("dblreq", [Frame::Message(first), Frame::Message(second), Frame::Broken(error)]) => {
                assert_eq!(error.to_string(), "not SIP");
                assert_eq!(request(first).method, Method::Register);
                assert_eq!(request(second).method, Method::Invite);
            }
            // Waits for the rest, or for an empty line that never comes; the shell's deadline ends it.
            ("clerr" | "baddn", []) => assert!(!framer.is_idle()),
            ("ncl" | "mcl01", [Frame::Broken(error)]) => {
                assert_eq!(error.status(), whole.unwrap_err().status())
            }
            (_, [Frame::Message(message)]) => assert_eq!(message.to_bytes(), whole.unwrap().to_bytes()),
            (_, [Frame::Malformed(error)]) => assert_eq!(error.problem, whole.unwrap_err().problem),
            // No Content-Length: fine in a datagram, an error on a stream.
            (name, [Frame::Broken(error)]) => {
                assert_eq!(error.to_string(), "Content-Length: missing on a stream", "{name}");
            }
            (name, frames) => panic!("{name}: {frames:?}"),
        }
    }
}

#[test]
fn the_archive_form_with_bare_line_feeds_does_no_harm() {
    let mut read = 0;
    for path in data_files(&root().join("rfc5118/archive")) {
        let octets = std::fs::read(path).unwrap();
        exercise(&octets);
        read += usize::from(parse(&octets).is_ok());
    }
    assert!(read >= 8, "only {read} of the bare-LF messages were understood");
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    for case in cases() {
        if let Ok(message) = parse(&case.octets) {
            assert_survives_printing(&case.name, &message);
        }
    }
}

#[test]
fn mutations_of_the_torture_messages_never_panic() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let corpus: Vec<_> = cases().into_iter().map(|case| case.octets).collect();
    for round in 0..40_000 {
        let mut octets = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(6) {
            mutate(&mut octets, &corpus, &mut chance);
        }
        octets.truncate(8_192);
        exercise(&octets);
        if round % 8 == 0 {
            let mut framer = StreamFramer::new(Limits::default());
            for chunk in octets.chunks(1 + chance.below(64)) {
                framer.feed(chunk);
                while framer.next_frame().is_some() {}
            }
        }
    }
}

#[test]
fn wsinv_means_what_it_means_without_its_white_space() {
    let message = named("wsinv");
    let request = request(&message);
    assert_eq!(request.uri.as_str(), "sip:vivekg@chair-dnrc.example.com;unknownparam");
    let headers = &request.headers;
    let vias = headers.vias().unwrap();
    let branches: Vec<_> = vias.iter().map(|via| via.branch().unwrap()).collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    assert_eq!(vias[1].host(), Host::Name("spindle.example.com"));
    assert_eq!(headers.cseq().unwrap().number, 9);
    assert_eq!(headers.max_forwards(), Ok(Some(68)));
    assert_eq!(headers.to().unwrap().tag(), Some("1918181833n"));
    assert_eq!(headers.from().unwrap().display_name().as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(headers.from().unwrap().tag(), Some("98asjd8"));
    assert_eq!(headers.get("s"), Some(&b""[..]));
    assert_eq!(headers.get("NewFangledHeader"), Some(&b"newfangled value continued newfangled value"[..]));
    assert_eq!(headers.contact().unwrap().uri.as_str(), "sip:jdrosen@example.com");
    let routes = headers.routes().unwrap();
    assert_eq!(routes.len(), 1);
    assert!(routes[0].uri.is_loose_route());
}

#[test]
fn escapes_and_octets_are_kept_as_they_came() {
    let message = named("esc01");
    let uri = &request(&message).uri;
    assert_eq!(uri.user_decoded().as_deref(), Some("sips:user@example.com"));
    assert_eq!(uri.host(), Some(Host::Name("example.net")));

    let message = named("escnull");
    let contacts = message.headers().contacts().unwrap();
    assert_eq!(contacts.len(), 2);
    assert!(!contacts[0].uri.equivalent(&contacts[1].uri));

    let message = named("esc02");
    assert_eq!(request(&message).method, Method::Other("RE%47IST%45R".into()));
    assert_eq!(message.headers().contacts().unwrap().len(), 2);

    let message = named("intmeth");
    assert!(message.headers().get(HeaderName::To).unwrap().contains(&0));
    assert_eq!(message.headers().max_forwards(), Ok(Some(255)));

    let message = named("unreason");
    let Message::Response(response) = &message else { panic!() };
    assert!(response.reason.to_text().starts_with("= 2**3 * 5**2 "));
    let message = named("mpart01");
    assert!(message.body().contains(&0x82));
    assert!(message.headers().call_id().unwrap().ends_with(".."));
}

#[test]
fn uris_are_cut_where_the_grammar_cuts_them() {
    let message = named("semiuri");
    let uri = &request(&message).uri;
    assert_eq!(uri.user(), Some("user;par=u%40example.net"));
    assert_eq!((uri.host(), uri.params().count()), (Some(Host::Name("example.com")), 0));

    let v6 = |text: &str| Some(Host::Ip(text.parse().unwrap()));
    let message = named("port-ambiguous");
    let uri = &request(&message).uri;
    assert_eq!((uri.host(), uri.port()), (v6("2001:db8::10:5070"), None));
    let message = named("port-unambiguous");
    let uri = &request(&message).uri;
    assert_eq!((uri.host(), uri.port()), (v6("2001:db8::10"), Some(5070)));

    let message = named("unkscm");
    assert_eq!(request(&message).uri.scheme(), Scheme::Other);
    let message = named("cparam01");
    let contact = message.headers().contact().unwrap();
    assert!(contact.params.contains("unknownparam") && contact.uri.param("unknownparam").is_none());
    let message = named("cparam02");
    let contact = message.headers().contact().unwrap();
    assert!(!contact.params.contains("unknownparam") && contact.uri.param("unknownparam").is_some());
    let message = named("regescrt");
    let contact = message.headers().contact().unwrap();
    assert_eq!(contact.uri.headers().next(), Some(("Route", "%3Csip:sip.example.com%3E")));
}

#[test]
fn received_is_understood_with_brackets_and_written_without() {
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        let message = named(name);
        let mut via = message.headers().via_top().unwrap();
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()), "{name}");
        via.set_received("2001:db8::1".parse().unwrap());
        assert!(via.to_string().contains(";received=2001:db8::1;branch=z9hG4bKas3"), "{via}");
    }
}

#[test]
fn a_broadcast_response_shows_its_two_vias() {
    assert_eq!(named("bcast").headers().via_count(), 2);
    assert_eq!(named("longreq").headers().via_count(), 34);
}

#[test]
fn a_description_with_bad_attributes_still_makes_a_session() {
    for name in ["wsinv", "sdp01", "mult-ip-in-sdp", "inv2543"] {
        let message = named(name);
        let Ok(Some(offer)) = session_description(message.headers(), message.body()) else {
            panic!("{name}");
        };
        let local: std::net::SocketAddr = "192.0.2.200:4000".parse().unwrap();
        let outcome = Negotiation::new(Capabilities::default(), local, 9).answer(&offer, local.ip());
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }
}

/// The outcomes an index entry allows.
fn allowed(expected: &str) -> Vec<Outcome> {
    let refused = |code| vec![Outcome::Refused(code)];
    match expected {
        "505" => refused(505),
        "discard response" => vec![Outcome::Discarded],
        "400 or 501" => vec![Outcome::Refused(400), Outcome::Refused(501)],
        text if text.starts_with("400") => {
            let either = ["liberal", "or ignore", "or match"].iter().any(|word| text.contains(word));
            if either { vec![Outcome::Refused(400), Outcome::Accepted] } else { refused(400) }
        }
        text if text.ends_with("or 400") => vec![Outcome::Refused(400), Outcome::Accepted],
        _ => vec![Outcome::Accepted],
    }
}

fn outcome(result: &Result<Message, ParseError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Accepted,
        Err(error) => error.status().map_or(Outcome::Discarded, |status| Outcome::Refused(status.get())),
    }
}

fn assert_copied(name: &str, error: &ParseError, reply: &Response) {
    let (theirs, ours) = (error.headers(), &reply.headers);
    assert!(ours.rows(HeaderName::Via).eq(theirs.rows(HeaderName::Via)), "{name}");
    for copied in [HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
        assert_eq!(ours.get(copied), theirs.get(copied), "{name}");
        assert!(ours.rows(copied).count() <= 1, "{name}");
    }
    assert_eq!(Some(reply.status), error.status());
    let printed = reply.to_bytes();
    assert!(printed.ends_with(b"Content-Length: 0\r\n\r\n"), "{name}");
}

fn assert_survives_printing(name: &str, message: &Message) {
    let printed = message.to_bytes();
    let again =
        parse(&printed).unwrap_or_else(|e| panic!("{name}: {e}\n{}", String::from_utf8_lossy(&printed)));
    assert_eq!(again.to_bytes(), printed, "{name}");
    assert_eq!(again.body(), message.body(), "{name}");
    let rows = |message: &Message| -> Vec<(String, Vec<u8>)> {
        let rows = message.headers().iter().filter(|(name, _)| *name != "Content-Length");
        rows.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
    };
    assert_eq!(rows(&again), rows(message), "{name}");
}

/// Everything the server does with octets from a stranger.
fn exercise(octets: &[u8]) {
    match parse(octets) {
        Ok(message) => {
            assert_survives_printing("mutation", &message);
            look_at(&message);
        }
        Err(error) => {
            let _ = error.to_string();
            if let Some(reply) = error.reply("t") {
                let _ = reply.to_bytes();
            }
        }
    }
}

fn look_at(message: &Message) {
    let headers = message.headers();
    let addresses = [headers.from(), headers.to(), headers.contact()];
    for address in addresses.into_iter().flatten() {
        let printed = address.to_value();
        assert_eq!(NameAddr::parse(printed.as_bytes()).unwrap(), address);
        let _ = (address.uri.dialled(), address.uri.equivalent(&address.uri), address.uri.to_request_uri());
        assert_eq!(Uri::parse(address.uri.as_str()).as_ref(), Ok(&address.uri));
    }
    for via in headers.vias().unwrap() {
        let again = Via::parse(via.to_value().as_bytes()).unwrap();
        assert_eq!(again.to_value(), via.to_value());
        let _ = (via.received(), via.rport(), via.sent_by());
    }
    let _ = (headers.cseq(), headers.call_id(), headers.reasons(), headers.require(), headers.expires());
    if let Ok(Some(sdp)) = session_description(headers, message.body()) {
        let local = "192.0.2.200:4000".parse().unwrap();
        let _ = Negotiation::new(Capabilities::default(), local, 9).answer(&sdp, local.ip());
    }
    if let Message::Request(request) = message {
        let response = Response::to_request(request, StatusCode::NOT_FOUND, Some("t"));
        assert!(parse(&response.to_bytes()).is_ok());
    }
}

fn mutate(octets: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    const SPICE: &[u8] = b"\r\n\0 \t:;,=<>\"\\@[]%?/&\xff\x80Zz09-+";
    if octets.is_empty() {
        octets.push(b'X');
    }
    let at = chance.below(octets.len());
    match chance.below(6) {
        0 => octets[at] = SPICE[chance.below(SPICE.len())],
        1 => octets.insert(at, SPICE[chance.below(SPICE.len())]),
        2 => drop(octets.remove(at)),
        3 => octets.truncate(at),
        4 => {
            let length = chance.below(64).min(octets.len() - at);
            let piece = octets[at..at + length].to_vec();
            let to = chance.below(octets.len());
            octets.splice(to..to, piece);
        }
        _ => {
            let other = &corpus[chance.below(corpus.len())];
            let from = chance.below(other.len());
            octets.truncate(at);
            octets.extend_from_slice(&other[from..]);
        }
    }
}

/// xorshift64: the same mutations in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn parse(octets: &[u8]) -> Result<Message, ParseError> {
    parse_datagram(octets, &Limits::default())
}

fn request(message: &Message) -> &Request {
    match message {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a response"),
    }
}

fn named(name: &str) -> Message {
    let case = cases().into_iter().find(|case| case.name == name).unwrap();
    parse(&case.octets).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}

fn data_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "dat")).collect()
}

fn cases() -> Vec<Case> {
    ["rfc4475", "rfc5118"].into_iter().flat_map(cases_of).collect()
}

fn cases_of(set: &'static str) -> Vec<Case> {
    let index = std::fs::read_to_string(root().join(set).join("index.tsv")).unwrap();
    let rows = index.lines().skip(1).filter(|line| !line.is_empty());
    rows.map(|row| {
        let fields: Vec<&str> = row.split('\t').collect();
        let octets = std::fs::read(root().join(set).join(fields[0])).unwrap();
        assert_eq!(octets.len().to_string(), fields[6], "{} was changed", fields[0]);
        Case { set, name: fields[1].into(), expected: fields[4].into(), octets }
    })
    .collect()
}
