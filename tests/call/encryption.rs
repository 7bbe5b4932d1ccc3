//! Media that is encrypted on the way, or must not be sent.

use std::net::SocketAddr;

use tandem::audio::Codec;
use tandem::config::Srtp;
use tandem::event::Disposition;
use tandem::simulate::phone::{Act, CallReport, Phone, Secrecy};
use tandem::sip::trunk::SrtpPolicy;

use super::PORTS;
use super::dial::setup;
use super::support::{LOCALHOST, Lab, Setup, data_of, kinds, ms, plan, say, tone};

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
    for (ours, theirs, outcome) in [
        (Srtp::Optional, Required, Some(true)),
        (Srtp::Required, Required, Some(true)),
        (Srtp::Opportunistic, Opportunistic, Some(true)),
        (Srtp::Required, Opportunistic, Some(true)),
        (Srtp::Optional, Off, Some(false)),
        (Srtp::Opportunistic, Optional, Some(false)),
        (Srtp::Off, Opportunistic, Some(false)),
        (Srtp::Off, Required, None),
        (Srtp::Required, Off, None),
    ] {
        let (near, phone) = (server(ours).await, phone(theirs).await);
        let report = speak(&phone, near.sip, "400").await;
        let (call, events) = near.record().await;
        match outcome {
            Some(encrypted) => {
                let heard = loud_ms(&report);
                assert!(heard > 900, "{ours:?} {theirs:?}: {heard} ms came back");
                assert_eq!(report.encrypted, encrypted, "{ours:?} {theirs:?}");
            }
            None => {
                let status = report.hang_up.map(|hang_up| hang_up.status);
                assert_eq!(status, Some(488), "{ours:?} {theirs:?}");
                assert_eq!(call.disposition, Some(Disposition::Rejected), "{:?}", kinds(&events));
            }
        }
        phone.stop().await;
        near.close().await;
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
