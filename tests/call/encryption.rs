//! Media that is encrypted on the way, or must not be sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tandem::audio::Codec;
use tandem::config::Srtp;
use tandem::event::Disposition;
use tandem::rtp::srtp::{MasterKey, SrtpKeys, SrtpSession, Suite};
use tandem::simulate::phone::{Act, CallReport, Phone, Secrecy};
use tandem::sip::trunk::SrtpPolicy;
use tokio::net::UdpSocket;

use super::PORTS;
use super::dial::setup;
use super::support::{LOCALHOST, Lab, PATIENCE, Setup, data_of, kinds, ms, plan, say, tone};
use super::wire::{Wire, status};

async fn phone(srtp: SrtpPolicy) -> Phone {
    let secrecy = Secrecy { srtp, ..Secrecy::default() };
    let ports = (PORTS + 1000, PORTS + 1999);
    Phone::start_secretive(LOCALHOST, None, ports, 1, secrecy).await.expect("the phone starts")
}

async fn server(srtp: Srtp) -> Lab {
    Lab::open(PORTS, Setup::default().configure(move |config| config.media.srtp = srtp)).await
}

/// Says a tone to somebody who gives it back.
async fn speak(phone: &Phone, to: SocketAddr, number: &str) -> CallReport {
    let acts = vec![Act::Wait(ms(400)), say(tone(500.0, 9000.0, 1200)), Act::Wait(ms(700)), Act::HangUp];
    phone.call(plan(to, number, Codec::Pcmu, acts)).await.expect("the phone can try")
}

/// Milliseconds that are not silence.
fn loud_ms(report: &CallReport) -> usize {
    let loud = |chunk: &&[i16]| chunk.iter().any(|sample| sample.unsigned_abs() > 2000);
    report.heard.chunks(240).filter(loud).count() * 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_agree_on_encryption_or_on_no_call() {
    use SrtpPolicy::{Off, Opportunistic, Optional, Required};
    let policies = [
        (Srtp::Optional, Required, Some(true)),
        (Srtp::Required, Required, Some(true)),
        (Srtp::Opportunistic, Opportunistic, Some(true)),
        (Srtp::Required, Opportunistic, Some(true)),
        (Srtp::Optional, Off, Some(false)),
        (Srtp::Opportunistic, Optional, Some(false)),
        (Srtp::Off, Opportunistic, Some(false)),
        (Srtp::Off, Required, None),
        (Srtp::Required, Off, None),
    ];
    // Three at a time: each is a whole server.
    for some in policies.chunks(3) {
        join_all(some.iter().map(async |(ours, theirs, outcome)| {
            let (near, phone) = (server(*ours).await, phone(*theirs).await);
            let report = speak(&phone, near.sip, "400").await;
            let (call, events) = near.record().await;
            match outcome {
                Some(encrypted) => {
                    let heard = loud_ms(&report);
                    assert!(heard > 900, "{ours:?} {theirs:?}: {heard} ms came back");
                    assert_eq!(report.encrypted, *encrypted, "{ours:?} {theirs:?}");
                }
                None => {
                    let status = report.hang_up.map(|hang_up| hang_up.status);
                    assert_eq!(status, Some(488), "{ours:?} {theirs:?}");
                    assert_eq!(call.disposition, Some(Disposition::Rejected), "{:?}", kinds(&events));
                }
            }
            phone.stop().await;
            near.close().await;
        }))
        .await;
    }
}

/// A server whose trunk `out` leads to a second one, and both policies.
async fn pair(out: Srtp, far: Srtp) -> (Lab, Lab) {
    let far =
        Lab::open(PORTS + 2000, Setup::default().configure(move |config| config.media.srtp = far)).await;
    let mut setup = setup(vec![far.sip.to_string()]);
    let trunk = std::mem::replace(&mut setup.configure, Box::new(|_| ()));
    let near = setup.configure(move |config| {
        trunk(config);
        config.trunk[0].srtp = Some(out);
    });
    (Lab::open(PORTS, near).await, far)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_is_encrypted_on_each_side_as_that_side_wants() {
    for (out, far, theirs, encrypted) in [
        // Both sides, one key each: relayed.
        (Srtp::Required, Srtp::Required, SrtpPolicy::Required, true),
        // The far end alone: the phone speaks in the clear.
        (Srtp::Opportunistic, Srtp::Required, SrtpPolicy::Off, false),
        // The phone alone.
        (Srtp::Optional, Srtp::Off, SrtpPolicy::Required, true),
    ] {
        let ((near, far), phone) = (pair(out, far).await, phone(theirs).await);
        let report = speak(&phone, near.sip, "600").await;
        let heard = loud_ms(&report);
        assert!(heard > 900, "{out:?} {theirs:?}: {heard} ms came back");
        assert_eq!(report.encrypted, encrypted);
        let (call, events) = near.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
        phone.stop().await;
        near.close().await;
        far.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_without_encryption_is_not_called_where_it_is_required() {
    let ((near, far), phone) = (pair(Srtp::Required, Srtp::Off).await, phone(SrtpPolicy::Required).await);
    let report = speak(&phone, near.sip, "600").await;
    assert!(report.answered.is_none());
    let (_, events) = near.record().await;
    assert_eq!(data_of(&events, "leg.ended")[0]["status"], 488, "{:?}", kinds(&events));
    phone.stop().await;
    near.close().await;
    far.close().await;
}

const SUITE: Suite = Suite::AesCm128Sha80;

fn offer(port: u16, secret: Option<&MasterKey>) -> String {
    let (proto, key) = match secret {
        Some(secret) => {
            let (name, key) = (SUITE.sdp_name(), secret.to_inline());
            ("RTP/SAVP", format!("a=crypto:1 {name} inline:{key}|2^20\r\n"))
        }
        None => ("RTP/AVP", String::new()),
    };
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} {proto} 0\r\n{key}",
        version = 2 + key.len()
    )
}

/// What the server answered: its key, and where its media is.
fn agreed(answer: &str, ours: &MasterKey) -> (SrtpKeys, SocketAddr) {
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let audio = body.lines().find(|line| line.starts_with("m=audio ")).expect("audio");
    assert!(audio.contains(" RTP/SAVP 0"), "{answer}");
    let port = audio.split(' ').nth(1).and_then(|port| port.parse().ok()).expect("a port");
    let key = body.split("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:").nth(1).expect("its key");
    let theirs = MasterKey::from_inline(key.lines().next().unwrap_or_default(), SUITE).expect("a key");
    let keys = SrtpKeys { suite: SUITE, send: ours.clone(), receive: theirs, mki: None };
    (keys, SocketAddr::new(LOCALHOST, port))
}

/// A stream whose packets are the test's own.
struct Stream {
    socket: UdpSocket,
    session: SrtpSession,
    sequence: u16,
}

impl Stream {
    /// Speaks with this loudness (a smaller byte is louder) until it comes back, encrypted.
    async fn hears_itself(&mut self, to: SocketAddr, level: u8) {
        let mut slot = tokio::time::interval(Duration::from_millis(20));
        let speaking = async {
            loop {
                slot.tick().await;
                self.sequence += 1;
                let time = u32::from(self.sequence) * 160;
                let mut packet = vec![0x80, 0];
                packet.extend(self.sequence.to_be_bytes());
                packet.extend(time.to_be_bytes());
                packet.extend([9, 9, 9, 9]);
                packet.extend((0..160).map(|n| if n % 8 < 4 { level } else { level | 0x80 }));
                self.session.protect(&mut packet);
                self.socket.send_to(&packet, to).await.expect("it is sent");
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = self.socket.try_recv_from(&mut buffer) {
                    let packet = &mut buffer[..length];
                    // Reports come to the next port; all else must be under the key that was agreed on.
                    let plain = self.session.unprotect(Instant::now(), packet).expect("it is encrypted");
                    if plain[12..].iter().any(|octet| octet & 0x7f <= level + 4) {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, speaking).await.expect("what was said comes back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_encrypted_gets_new_keys_and_never_goes_back_into_the_clear() {
    let lab = server(Srtp::Optional).await;
    let mut wire = Wire::open("ann").await;
    let mut talk = wire.call(lab.sip, "400").await;
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    let mut rng = StdRng::seed_from_u64(7);
    let [first, second] = [(); 2].map(|()| MasterKey::fresh(SUITE, &mut rng));

    let answer = wire.ask(&mut talk, "INVITE", "", &offer(port, Some(&first))).await;
    let (keys, media) = agreed(&answer, &first);
    let session = SrtpSession::new(&keys).expect("keys that fit");
    let mut stream = Stream { socket, session, sequence: 0 };
    stream.hears_itself(media, 0x40).await;

    let answer = wire.ask(&mut talk, "INVITE", "", &offer(port, Some(&second))).await;
    let (keys, media) = agreed(&answer, &second);
    stream.session.rekey(&keys, Instant::now()).expect("keys that fit");
    // Louder than before: this cannot be an echo of what was said under the first key.
    stream.hears_itself(media, 0x20).await;

    let answer = wire.ask(&mut talk, "INVITE", "", &offer(port, None)).await;
    assert_eq!(status(&answer), 488, "{answer}");
    stream.hears_itself(media, 0x08).await;
    wire.bye(&mut talk).await;
    lab.record().await;
    lab.close().await;
}
