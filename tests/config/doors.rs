//! Where the server listens, and for whom.

use super::*;

#[test]
fn a_secure_listener_needs_a_certificate_that_can_be_read() {
    check(
        "[sip]\nlisten = [\"wss://127.0.0.1:8089\"]\n",
        &[
            "tandem.toml:2:11: error: sip.listen[0]: a wss:// listener needs a certificate\n  fix: add [sip.tls] with certificate and private_key",
        ],
    );
    check(
        "[sip]\nlisten = [\"tls://127.0.0.1:5061\"]\n[sip.tls]\ncertificate = \"tests/tls/named.pem\"\nprivate_key = \"none.pem\"\n",
        &[
            "tandem.toml:5:15: error: sip.tls.private_key: none.pem cannot be read: No such file or directory (os error 2)\n  fix: name a readable PEM file",
        ],
    );
}

#[test]
fn the_audiosocket_door_is_judged() {
    check("[audiosocket]\n", &[]);
    check(
        "[http]\nlisten = \"127.0.0.1:9092\"\n[audiosocket]\nnumber = \"1 00\"\nrate = 11025\nallow = []\nidle_timeout = \"0s\"\n",
        &[
            "tandem.toml:3:2: error: audiosocket.listen: 127.0.0.1:9092 is taken by http.listen (127.0.0.1:9092)\n  fix: give each listener an address and port of its own",
            "tandem.toml:4:10: error: audiosocket.number: \"1 00\" is no number\n  fix: write E.164 without spaces such as \"+15550100\", a SIP user such as \"100\", or \"*\" for all others",
            "tandem.toml:5:8: error: audiosocket.rate: 11025 Hz is no rate of Asterisk's\n  fix: write 8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000 or 192000",
            "tandem.toml:6:9: error: audiosocket.allow: the list is empty\n  fix: write [\"127.0.0.0/8\", \"192.0.2.10\"]",
        ],
    );
    check(
        "[audiosocket]\nnumber = \"*\"\n",
        &[
            "tandem.toml:2:10: error: audiosocket.number: \"*\" is no number that can be called\n  fix: write the number or extension whose flow answers",
        ],
    );
    check(
        "[audiosocket]\nlisten = \"0.0.0.0:9092\"\n",
        &[
            "tandem.toml:2:10: warning: audiosocket.listen: other machines can reach it, but none is let in\n  fix: add the PBX's address to audiosocket.allow",
        ],
    );
    check("[audiosocket]\nlisten = \"0.0.0.0:9092\"\nallow = [\"192.0.2.10\"]\n", &[]);
}

#[test]
fn the_asterisk_websocket_door_is_judged() {
    check(
        "[asterisk_websocket]\n",
        &[
            "tandem.toml:1:1: error: asterisk_websocket: Asterisk has nowhere to connect to\n  fix: add listen = \"127.0.0.1:9093\", or connect = \"ws://127.0.0.1:8088/media\" to connect to Asterisk",
        ],
    );
    check("[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\n", &[]);
    check("[asterisk_websocket]\nconnect = \"wss://pbx.example.net:8089/media\"\n", &[]);
    check(
        "[asterisk_websocket]\nconnect = \"ws://pbx:secret@192.0.2.10:8088/media\"\n",
        &[
            "tandem.toml:2:11: error: asterisk_websocket.connect: user and password have keys of their own\n  fix: write a URL such as \"ws://127.0.0.1:8088/media\"",
        ],
    );
    check(
        "[asterisk_websocket]\nconnect = \"ws://192.0.2.10:8088/media\"\nconnect_username = \"tandem\"\n",
        &[
            "tandem.toml:2:11: warning: asterisk_websocket.connect: the password travels readable\n  fix: use wss://, or keep it within a network you trust",
            "tandem.toml:3:20: error: asterisk_websocket.connect_username: there is a user but no password\n  fix: add connect_password_env = \"ASTERISK_CONNECT_PASSWORD\"",
        ],
    );
    check(
        "[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\npath = \"media?x\"\nallow = []\n",
        &[
            "tandem.toml:3:8: error: asterisk_websocket.path: \"media?x\" is no path\n  fix: write a path such as \"/media\"",
            "tandem.toml:4:9: error: asterisk_websocket.allow: the list is empty\n  fix: write [\"127.0.0.0/8\", \"192.0.2.10\"]",
        ],
    );
    check(
        "[http]\nlisten = \"127.0.0.1:9093\"\n[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\nformat = \"slim16\"\nusername = \"pbx\"\nnumber = \"*\"\n",
        &[
            "tandem.toml:4:10: error: asterisk_websocket.listen: 127.0.0.1:9093 is taken by http.listen (127.0.0.1:9093)\n  fix: give each listener an address and port of its own",
            "tandem.toml:5:10: error: asterisk_websocket.format: \"slim16\" is no format that Tandem speaks\n  fix: write one of slin16, slin24, slin, slin12, slin32, slin44, slin48, slin96, slin192, ulaw, alaw, g722, opus",
            "tandem.toml:6:12: error: asterisk_websocket.username: there is a user but no password\n  fix: add password_env = \"ASTERISK_WEBSOCKET_PASSWORD\"",
            "tandem.toml:7:10: error: asterisk_websocket.number: \"*\" is no number that can be called\n  fix: write the number or extension whose flow answers",
        ],
    );
    // A password that cannot be had must not open the door.
    check(
        "[asterisk_websocket]\nlisten = \"0.0.0.0:9093\"\nusername = \"pbx\"\npassword_env = \"PBX\"\n",
        &[
            "tandem.toml:2:10: warning: asterisk_websocket.listen: other machines can reach it, but none is let in\n  fix: add the PBX's address to asterisk_websocket.allow",
            "tandem.toml:4:16: error: asterisk_websocket.password_env: the environment variable PBX is not set\n  fix: set PBX, or set PBX_FILE to the path of a file that holds the secret",
        ],
    );
    let text =
        "[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\nusername = \"pbx\"\npassword_env = \"PBX\"\n";
    let loaded = load(text, &[("PBX", "open sesame")]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    let shown = config::to_toml(&loaded.config);
    assert!(shown.contains("[asterisk_websocket]") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn the_ari_section_is_judged() {
    let ari = "[ari]\nurl = \"http://192.0.2.7:8088/ari\"\nusername = \"t\"\npassword_env = \"ARI_PASSWORD\"\napplication = \"tandem\"\n";
    let judged = |more: &str| printed(&load(&format!("{ari}{more}"), &[("ARI_PASSWORD", "a")]).findings);
    let readable = "tandem.toml:2:7: warning: ari.url: the password travels readable\n  fix: use https:// (tlsenable in http.conf), or keep it within a network you trust";
    assert_eq!(
        judged(""),
        [
            "tandem.toml:1:1: error: ari: where Asterisk reaches us for audio is not known\n  fix: add media_host: our address as the PBX sees it",
            readable
        ]
    );
    assert_eq!(judged("media_host = \"192.0.2.20\"\n"), [readable]);
    assert_eq!(judged("medium = \"websocket\"\n"), [readable]);
    assert_eq!(
        judged("media_host = \"192.0.2.20\"\nmedia_format = \"slin16\"\n"),
        [
            readable,
            "tandem.toml:7:16: error: ari.media_format: \"slin16\" is no codec for this medium\n  fix: write one of g722, slin, ulaw, alaw",
        ]
    );
    assert_eq!(
        judged(
            "media_host = \"192.0.2.20\"\nmedium = \"audiosocket\"\nmedia_format = \"ulaw\"\ndial = \"PJSIP/100\"\n"
        ),
        [
            readable,
            "tandem.toml:7:10: error: ari.medium: Asterisk would connect to an AudioSocket door that is not there\n  fix: add an [audiosocket] section, or choose medium = \"rtp\"",
            "tandem.toml:8:16: error: ari.media_format: \"ulaw\" is no codec for this medium\n  fix: write one of slin, slin12, slin16, slin24, slin32, slin44, slin48",
            "tandem.toml:9:8: error: ari.dial: every call would go to the same endpoint\n  fix: write the endpoint with {number} in it, such as \"PJSIP/{number}@carrier\"",
        ]
    );
    let local = ari.replace("192.0.2.7", "127.0.0.1");
    check_with(&local, &[("ARI_PASSWORD", "a")], &[]);
}

#[test]
fn tls_alone_is_enough_to_listen_on() {
    let tls = "[sip.tls]\ncertificate = \"tests/tls/named.pem\"\nprivate_key = \"tests/tls/named.key.pem\"\n";
    check(&format!("[sip]\nlisten = [\"tls://127.0.0.1:5061\", \"ws://127.0.0.1:8088\"]\n{tls}"), &[]);
}

#[test]
fn an_address_for_some_peers_is_read() {
    let loaded = load("[[sip.advertise_for]]\nnetwork = \"10.0.0.0/8\"\naddress = \"10.0.0.5\"\n", &[]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    assert_eq!(loaded.config.sip.advertise_for[0].address.to_string(), "10.0.0.5");
}
