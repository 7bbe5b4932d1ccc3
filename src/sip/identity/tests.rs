//! Identity, by table: every built-in profile reads one call and writes one.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::sip::message::{Method, Request};
use crate::sip::profile::{NumberFormat, Profile};
use crate::sip::trunk::Trunk;

fn trunk(profile: &str) -> Trunk {
    let mut trunk = Trunk::new(profile, Profile::builtin(profile).expect("it ships"));
    trunk.peers = vec!["sip.carrier.example".parse().expect("a peer")];
    trunk
}

fn request(uri: &str, rows: &[(&str, &'static str)]) -> Request {
    let mut request = Request::new(Method::Invite, Uri::parse(uri).expect("a URI"));
    for (name, value) in rows {
        request.headers.push_named(name, HeaderValue::from_static(value)).expect("a name");
    }
    request
}

fn local() -> SocketAddr {
    "198.51.100.20:5060".parse().expect("an address")
}

fn call<'a>(called: &'a str, caller: &'a str) -> CallIdentity<'a> {
    CallIdentity {
        called,
        caller: Some(caller),
        caller_name: None,
        withheld: false,
        from_inbound: None,
        extra: &[],
    }
}

fn row<'a>(out: &'a OutgoingIdentity, name: &str) -> Option<&'a str> {
    out.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Profile, caller as it arrives, its E.164, verdict; then Request-URI and From of a call to +15550111 by +15550122.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
    Option<&'static str>,
    [&'static str; 2],
);

const FROM: (&str, &str) = ("From", "\"Ann\" <sip:+15550122@carrier.example>;tag=1");
const PLAIN: (&str, &str) = ("From", "<sip:15550122@carrier.example>;tag=1");
const PAI: (&str, &str) =
    ("P-Asserted-Identity", "<sip:+15550122@carrier.example;verstat=TN-Validation-Passed>");
const FULL: [&str; 2] = ["sip:+15550111@sip.carrier.example", "sip:+15550122@198.51.100.20"];
const OF_TRUNK: [&str; 2] = ["sip:+15550111@sip.carrier.example", "sip:+15550122@sip.carrier.example"];
const NUMBER: Option<&str> = Some("+15550122");

const PROFILES: &[Row] = &[
    ("generic", &[FROM], NUMBER, None, FULL),
    (
        "twilio",
        &[FROM, ("X-Twilio-VerStat", "TN-Validation-Passed-A")],
        NUMBER,
        Some("TN-Validation-Passed-A"),
        OF_TRUNK,
    ),
    (
        "twilio-secure",
        &[FROM, ("X-Twilio-VerStat", "No-TN-Validation")],
        NUMBER,
        Some("No-TN-Validation"),
        OF_TRUNK,
    ),
    (
        "asterisk",
        &[("From", "<sip:200@pbx>;tag=1"), ("Remote-Party-ID", "<sip:+15550122@pbx>;privacy=off")],
        NUMBER,
        None,
        FULL,
    ),
    (
        "freeswitch",
        &[
            ("From", "<sip:200@pbx>;tag=1"),
            ("Remote-Party-ID", "<sip:+15550122@pbx>;party=calling;screen=yes;privacy=off"),
        ],
        NUMBER,
        None,
        FULL,
    ),
    ("telnyx", &[FROM, PAI], NUMBER, Some("TN-Validation-Passed"), FULL),
    (
        "bandwidth",
        &[FROM, ("P-Asserted-Identity", "<sip:+15550122;verstat=TN-Validation-Passed-B@x;user=phone>")],
        NUMBER,
        Some("TN-Validation-Passed-B"),
        FULL,
    ),
    (
        "vonage",
        &[PLAIN],
        NUMBER,
        None,
        ["sip:15550111@sip.carrier.example", "sip:15550122@sip.carrier.example"],
    ),
    ("signalwire", &[FROM], NUMBER, None, OF_TRUNK),
    ("plivo", &[FROM, ("X-Plivo-Stir-Verification", "Not Verified")], NUMBER, Some("Not Verified"), OF_TRUNK),
];

#[test]
fn every_profile_reads_a_call_and_writes_one() {
    let names: Vec<&str> = Profile::builtin_names().collect();
    assert_eq!(names.len(), PROFILES.len());
    for (profile, rows, caller, verstat, [request_uri, from]) in PROFILES {
        let trunk = trunk(profile);
        let read = incoming(&request("sip:+15550111@198.51.100.20", rows), &trunk);
        assert_eq!(read.called_e164.as_deref(), Some("+15550111"), "{profile}");
        assert_eq!(read.caller_e164.as_deref(), *caller, "{profile}");
        assert_eq!(read.verstat.as_deref(), *verstat, "{profile}");
        let out = outgoing(&call("+15550111", "+15550122"), &trunk, local()).expect(profile);
        assert_eq!([out.request_uri.as_str(), out.from.as_str()], [*request_uri, *from], "{profile}");
        assert_eq!(out.to, out.request_uri, "{profile}");
    }
}

#[test]
fn only_a_peer_that_is_trusted_with_it_is_told_a_withheld_number() {
    for (profile, told) in [("twilio", true), ("generic", false), ("vonage", false)] {
        let asked =
            CallIdentity { withheld: true, caller_name: Some("Ann"), ..call("+15550111", "+15550122") };
        let out = outgoing(&asked, &trunk(profile), local()).expect(profile);
        assert_eq!(out.from.as_str(), "sip:anonymous@anonymous.invalid");
        assert_eq!((out.from_display.as_deref(), out.privacy), (Some("Anonymous"), true));
        assert_eq!(row(&out, "Privacy"), Some("id"));
        let asserted = row(&out, "P-Asserted-Identity");
        assert_eq!(asserted.is_some_and(|value| value.contains("+15550122")), told, "{profile}");
        assert!(!out.headers.iter().any(|(_, value)| value.contains("Ann")), "{profile}");
    }
}

#[test]
fn a_trunks_caller_policy_wins() {
    let mut trunk = trunk("twilio");
    trunk.from = "own:+15550199".parse().expect("a policy");
    let out = outgoing(&call("+15550111", "+15550122"), &trunk, local()).expect("a call");
    assert_eq!(out.from.user(), Some("+15550199"));
    assert_eq!(row(&out, "P-Asserted-Identity"), Some("<sip:+15550199@sip.carrier.example>"));
    trunk.from = CallerPolicy::Withhold;
    assert!(outgoing(&call("+15550111", "+15550122"), &trunk, local()).expect("a call").privacy);
    for wrong in ["", "own:", "own:a b", "own:x\r\ny", "hide"] {
        assert!(wrong.parse::<CallerPolicy>().is_err(), "{wrong:?}");
    }
}

#[test]
fn an_anonymous_caller_stays_so_when_the_call_is_sent_on() {
    let inbound = incoming(
        &request("sip:+15550111@h", &[("From", "<sip:anonymous@anonymous.invalid>;tag=1")]),
        &trunk("twilio"),
    );
    assert_eq!((inbound.caller, inbound.caller_e164), (None, None));
    let inbound = IncomingIdentity::default();
    let on = CallIdentity { caller: None, from_inbound: Some(&inbound), ..call("+15550133", "") };
    assert!(outgoing(&on, &trunk("twilio"), local()).expect("a call").privacy);
}

fn carried() -> IncomingIdentity {
    let rows = [
        FROM,
        ("Identity", "eyJ.abc.def;info=<https://c.example/1>;alg=ES256;ppt=shaken"),
        ("X-Order", "42"),
        ("X-Order-Two", "43"),
        ("User-to-User", "abcd;encoding=hex"),
        ("Diversion", "<sip:+15550177@c>;reason=user-busy;counter=2"),
    ];
    incoming(&request("sip:+15550111@h", &rows), &trunk("twilio"))
}

#[test]
fn a_signature_goes_on_only_with_both_its_numbers() {
    let inbound = carried();
    let to = |called| CallIdentity { caller: None, from_inbound: Some(&inbound), ..call(called, "") };
    let sent = |called| outgoing(&to(called), &trunk("telnyx"), local()).expect("a call");
    assert!(row(&sent("+15550111"), "Identity").is_some_and(|value| value.contains("ppt=shaken")));
    assert_eq!(row(&sent("+15550133"), "Identity"), None);
    let mut own = trunk("telnyx");
    own.from = CallerPolicy::Own("+15550199".into());
    assert_eq!(row(&outgoing(&to("+15550111"), &own, local()).expect("a call"), "Identity"), None);
}

#[test]
fn a_call_that_is_sent_on_says_whom_it_came_for() {
    let inbound = carried();
    let on = CallIdentity { caller: None, from_inbound: Some(&inbound), ..call("+15550133", "") };
    let out = outgoing(&on, &trunk("twilio"), local()).expect("a call");
    assert_eq!(out.from.user(), Some("+15550122"));
    assert_eq!(out.from_display.as_deref(), Some("Ann"));
    let rows: Vec<&str> =
        out.headers.iter().filter(|(name, _)| name == "Diversion").map(|(_, value)| value.as_str()).collect();
    assert_eq!(
        rows,
        [
            "<sip:+15550111@sip.carrier.example>;reason=unconditional;counter=1",
            "<sip:+15550177@sip.carrier.example>;reason=user-busy;counter=2",
        ]
    );
    assert_eq!(row(&out, "X-Order"), Some("42"));
    assert_eq!(row(&out, "User-to-User"), Some("abcd;encoding=hex"));
    let mut strict = trunk("twilio");
    strict.headers.pass = Some(vec!["X-Order-*".into()]);
    let out = outgoing(&on, &strict, local()).expect("a call");
    assert_eq!((row(&out, "X-Order"), row(&out, "X-Order-Two")), (None, Some("43")));
}

#[test]
fn the_called_number_is_no_diversion_of_its_own() {
    let rows = [FROM, ("Diversion", "<sip:+15550111@twilio.com>;reason=unconditional")];
    assert!(incoming(&request("sip:+15550111@h", &rows), &trunk("twilio")).diversions.is_empty());
}

#[test]
fn diversions_and_histories_are_read_in_every_row() {
    let rows = [
        (
            "Diversion",
            "\"A\" <sip:+15550101@c>;reason=\"no-answer\";counter=2;limit=5;privacy=full, <tel:+15550102>",
        ),
        ("Diversion", "<sip:anonymous@c>;reason=user-busy"),
        ("Diversion", "broken <"),
    ];
    let read = incoming(&request("sip:+15550111@h", &rows), &trunk("twilio")).diversions;
    assert_eq!(read.len(), 3);
    assert_eq!(
        (read[0].number.as_deref(), read[0].reason.as_deref()),
        (Some("+15550101"), Some("no-answer"))
    );
    assert_eq!((read[0].counter, read[0].limit, read[0].private), (Some(2), Some(5), true));
    assert_eq!((read[1].number.as_deref(), read[2].number.as_deref()), (Some("+15550102"), None));
    let rows = [(
        "History-Info",
        "<sip:+15550101@c?Reason=SIP%3Bcause%3D486>;index=1, <sip:+15550102@c?Reason=SIP%3Bcause%3D302>;index=1.1, <sip:+15550111@c>;index=1.2",
    )];
    let read = incoming(&request("sip:+15550111@h", &rows), &trunk("twilio")).diversions;
    let told: Vec<_> = read.iter().map(|d| (d.number.as_deref(), d.reason.as_deref())).collect();
    assert_eq!(told, [(Some("+15550102"), Some("unconditional")), (Some("+15550101"), Some("user-busy"))]);
}

#[test]
fn nothing_asked_for_can_begin_a_header_of_its_own() {
    for (name, value) in [
        ("X-A", "1\r\nRoute: <sip:evil>"),
        ("X-A\r\nRoute", "1"),
        ("X A", "1"),
        ("", "1"),
        ("Route", "<sip:evil>"),
        ("From", "<sip:+1@evil>"),
        ("P-Asserted-Identity", "<sip:+1@evil>"),
        ("i", "another-call"),
        ("Content-Length", "0"),
        ("X-A", "\u{0}"),
    ] {
        let extra = [(name.to_owned(), value.to_owned())];
        let asked = CallIdentity { extra: &extra, ..call("+15550111", "+15550122") };
        let refused = outgoing(&asked, &trunk("twilio"), local()).expect_err(name);
        assert!(matches!(refused, NumberError::Header(_)), "{name:?}");
    }
    for called in ["100;phone-context=x", "100@evil", "a b", "100?Route=x", "<sip:x>", "1\r\n2", ""] {
        assert!(outgoing(&call(called, "+15550122"), &trunk("generic"), local()).is_err(), "{called:?}");
    }
    let named = CallIdentity { caller_name: Some("A\r\nB \"q\""), ..call("+15550111", "+15550122") };
    let out = outgoing(&named, &trunk("twilio"), local()).expect("a call");
    assert!(!out.headers.iter().any(|(_, value)| value.contains(['\r', '\n'])));
    let extra = [("X-Fine".to_owned(), "yes".to_owned()), ("Subject".to_owned(), "hi".to_owned())];
    let asked = CallIdentity { extra: &extra, ..call("+15550111", "+15550122") };
    let out = outgoing(&asked, &trunk("twilio"), local()).expect("a call");
    assert_eq!((row(&out, "X-Fine"), row(&out, "Subject")), (Some("yes"), Some("hi")));
}

#[test]
fn headers_that_are_too_long_or_too_many_are_not_carried() {
    let mut asked = request("sip:+15550111@h", &[FROM]);
    asked.headers.push_named("X-Long", HeaderValue::cleaned("x".repeat(1025))).expect("a name");
    for index in 0..40 {
        asked.headers.push_named(&format!("X-{index}"), HeaderValue::from(index)).expect("a name");
    }
    let read = incoming(&asked, &trunk("generic"));
    assert_eq!(read.passed.len(), 32);
    assert!(!read.passed.iter().any(|(name, _)| name == "X-Long"));
}

#[test]
fn the_asserted_identity_wins_where_it_is_trusted() {
    let rows = [
        ("From", "\"Fake\" <sip:+19990000@x>;tag=1"),
        ("P-Asserted-Identity", "<tel:+1-555-0122>, <sip:ann@x>"),
    ];
    let asked = request("sip:+1-555-0111@198.51.100.20", &rows);
    assert_eq!(incoming(&asked, &trunk("twilio")).caller.as_deref(), Some("+15550122"));
    let generic = incoming(&asked, &trunk("generic"));
    assert_eq!((generic.caller.as_deref(), generic.called.as_str()), (Some("+19990000"), "+15550111"));
}

#[test]
fn a_withheld_number_is_none() {
    for from in ["<sip:Anonymous@anonymous.invalid>;tag=1", "<sip:+266696687@x>;tag=1", "<sip:x.y>;tag=1"] {
        let read = incoming(&request("sip:+15550111@h", &[("From", from)]), &trunk("twilio"));
        assert_eq!((read.caller, read.caller_name), (None, None), "{from}");
    }
    for privacy in
        [("Privacy", "id"), ("Privacy", "header;critical"), ("Remote-Party-ID", "<sip:+1@x>;privacy=full")]
    {
        let read = incoming(&request("sip:+15550111@h", &[FROM, privacy]), &trunk("twilio"));
        assert_eq!((read.caller, read.privacy), (None, true), "{privacy:?}");
    }
}

#[test]
fn numbers_become_e164_where_the_plan_tells() {
    let open = NumberPolicy::default();
    let america = NumberPolicy::of_country("1");
    let germany = NumberPolicy::of_country("49");
    let plain = NumberPolicy { format: Some(NumberFormat::E164Plain), ..NumberPolicy::default() };
    for (dialled, plan, number) in [
        ("+1 (555) 555-0100", &open, Some("+15555550100")),
        ("tel:+1-555-555-0100", &open, Some("+15555550100")),
        ("+15555550100;npdi;rn=+15555550000", &open, Some("+15555550100")),
        ("0044 20 7946 0000", &open, Some("+442079460000")),
        ("15555550100", &open, None),
        ("100", &open, None),
        ("ann", &open, None),
        ("+0123456789", &open, None),
        ("+1234567890123456", &open, None),
        ("5555550100", &america, Some("+15555550100")),
        ("15555550100", &america, Some("+15555550100")),
        ("011442079460000", &america, Some("+442079460000")),
        ("5550100", &america, None),
        ("911", &america, None),
        ("030 123456", &germany, Some("+4930123456")),
        ("00442079460000", &germany, Some("+442079460000")),
        ("30123456", &germany, None),
        ("447700900000", &plain, Some("+447700900000")),
    ] {
        assert_eq!(e164(dialled, plan).as_deref(), number, "{dialled}");
    }
}

#[test]
fn numbers_are_written_as_the_trunk_wants() {
    for (number, country, written) in [
        ("+15555550100", "1", "15555550100"),
        ("+442079460000", "1", "011442079460000"),
        ("+4930123456", "49", "030123456"),
        ("+442079460000", "49", "00442079460000"),
    ] {
        assert_eq!(write(number, NumberFormat::National, &NumberPolicy::of_country(country)), written);
    }
    let mut trunk = trunk("telnyx");
    trunk.numbers = NumberPolicy { format: Some(NumberFormat::National), ..NumberPolicy::of_country("49") };
    let out = outgoing(&call("030 123456", "+4930999999"), &trunk, local()).expect("a call");
    assert_eq!((out.to.user(), out.from.user()), (Some("030123456"), Some("030999999")));
    let asked = request("sip:030123456@h", &[("From", "<sip:030999999@x>;tag=1")]);
    let read = incoming(&asked, &trunk);
    assert_eq!(read.called_e164.as_deref(), Some("+4930123456"));
}

#[test]
fn emergency_and_premium_numbers_are_blocked_unless_allowed() {
    let mut trunk = trunk("generic");
    trunk.numbers.country = Some("1".into());
    let verdict = |trunk: &Trunk, called: &str| outgoing(&call(called, "+15550122"), trunk, local()).err();
    for (called, number) in [("911", "911"), ("112", "112")] {
        assert_eq!(verdict(&trunk, called), Some(NumberError::Emergency(number)), "{called}");
    }
    for (called, rule) in [("+19005550100", "+1900"), ("9005550100", "+1900"), ("+97912345678", "+979")] {
        assert_eq!(verdict(&trunk, called), Some(NumberError::Premium(rule)), "{called}");
    }
    assert_eq!(verdict(&self::trunk("asterisk"), "110"), None, "an extension of a PBX");
    trunk.numbers.emergency = true;
    assert_eq!(verdict(&trunk, "112"), None);
    trunk.numbers.allowed = vec!["+1".into(), "+44".into()];
    assert_eq!(verdict(&trunk, "+19005550100"), Some(NumberError::Premium("+1900")), "too wide a rule");
    trunk.numbers.allowed = vec!["+1900555".into()];
    assert_eq!(verdict(&trunk, "+19005550100"), None);
    trunk.numbers.allowed.clear();
    assert_eq!(verdict(&trunk, "+911123456789"), None, "India is no emergency");
    trunk.numbers.allowed = vec!["+1555".into(), "200".into()];
    assert_eq!(verdict(&trunk, "+442079460000"), Some(NumberError::NotAllowed));
    assert_eq!((verdict(&trunk, "+15555550100"), verdict(&trunk, "200")), (None, None));
    assert_eq!(verdict(&self::trunk("twilio"), "100"), Some(NumberError::NotANumber));
}

#[test]
fn a_trunks_own_headers_and_names_hold() {
    let mut out = trunk("twilio");
    out.headers.add = vec![("X-Account".into(), "acme".into())];
    out.caller_headers = Vec::new();
    out.send_diversion = false;
    let inbound = carried();
    let on = CallIdentity { caller: None, from_inbound: Some(&inbound), ..call("+15550133", "") };
    let sent = outgoing(&on, &out, local()).expect("a call");
    assert_eq!((row(&sent, "X-Account"), row(&sent, "X-Order")), (Some("acme"), Some("42")));
    assert_eq!((row(&sent, "P-Asserted-Identity"), row(&sent, "Diversion")), (None, None));
    let mut from = trunk("vonage");
    from.headers.pass = Some(vec!["X-Order".into()]);
    from.headers.rename = vec![("X-Twilio-CallSid".into(), "X-Carrier-Call".into())];
    let rows = [FROM, ("X-Order", "42"), ("x-twilio-callsid", "CA1"), ("X-Other", "1")];
    let read = incoming(&request("sip:15550111@h", &rows), &from);
    let kept: Vec<_> = read.passed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(kept, [("X-Order", "42"), ("X-Carrier-Call", "CA1")]);
}

#[test]
fn a_trunks_domain_is_the_request_uris_host_whatever_the_peer() {
    let mut trunk = trunk("twilio");
    trunk.domain = Some("acme.pstn.twilio.com".into());
    let out = outgoing(&call("+15550111", "+15550122"), &trunk, local()).expect("a call");
    assert_eq!(out.request_uri.as_str(), "sip:+15550111@acme.pstn.twilio.com");
    let mut pbx = Trunk::new("pbx", Arc::new(Profile::default()));
    assert_eq!(outgoing(&call("100", "200"), &pbx, local()).err(), Some(NumberError::NoHost));
    pbx.peers = vec!["[2001:db8::1]:5080".parse().expect("a peer")];
    let out = outgoing(&call("100", "200"), &pbx, local()).expect("a call");
    assert_eq!(out.to.as_str(), "sip:100@[2001:db8::1]:5080");
}
