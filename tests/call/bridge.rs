//! Calls that are joined to a second leg; the far end is a second server.

use tandem::audio::Codec;
use tandem::event::Disposition;
use tandem::simulate::phone::Act;

use super::dial::pair;
use super::support::{data_of, kinds, ms, say, tone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_parties_hear_each_other_until_one_hangs_up() {
    let (near, far) = pair().await;
    // The far end gives back what it hears.
    let acts = vec![Act::Wait(ms(400)), say(tone(500.0, 9000.0, 1500)), Act::Wait(ms(700)), Act::HangUp];
    let report = near.call("600", acts).await;
    assert!(report.answered.is_some());
    assert!(loud_ms(&report.heard) > 1200, "{} ms came back", loud_ms(&report.heard));
    let (call, events) = near.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    for kind in ["leg.added", "call.bridged", "leg.ended"] {
        assert_eq!(data_of(&events, kind).len(), 1, "{kind}: {:?}", kinds(&events));
    }
    let (there, _) = far.record().await;
    assert_eq!(
        (there.disposition, there.ended_by.as_deref()),
        (Some(Disposition::Completed), Some("caller"))
    );
    assert_eq!(there.to, "400");
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codecs_that_differ_are_transcoded() {
    let (near, far) = pair().await;
    let acts = vec![Act::Wait(ms(400)), say(tone(500.0, 9000.0, 1500)), Act::Wait(ms(700)), Act::HangUp];
    let plan = near.plan("600", Codec::G722, acts);
    let report = near.phone.call(plan).await.expect("the phone can try");
    assert_eq!(report.codec, Some(Codec::G722));
    assert!(loud_ms(&report.heard) > 1200, "{} ms came back", loud_ms(&report.heard));
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_callee_is_busy_for_the_caller() {
    let (near, far) = pair().await;
    let report = near.call("601", Vec::new()).await;
    assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(486));
    let (call, _) = near.record().await;
    assert_eq!((call.disposition, call.sip_status), (Some(Disposition::Busy), Some(486)));
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_answers_the_next_step_runs() {
    let (near, far) = pair().await;
    let report = near.call("603", vec![Act::Wait(ms(300)), Act::HangUp]).await;
    assert!(report.answered.is_some(), "the echo answers");
    near.record().await;
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_gives_up_stops_the_ringing() {
    let (near, far) = pair().await;
    let mut plan = near.plan("602", Codec::Pcmu, Vec::new());
    plan.limit = ms(800);
    let report = near.phone.call(plan).await.expect("the phone can try");
    assert!(report.ringing.is_some() && report.answered.is_none());
    let (call, _) = near.record().await;
    assert_eq!(call.disposition, Some(Disposition::Cancelled));
    let (there, _) = far.record().await;
    assert_eq!(there.disposition, Some(Disposition::Cancelled));
    near.close().await;
    far.close().await;
}

/// Milliseconds that are not silence.
fn loud_ms(pcm: &[i16]) -> usize {
    pcm.chunks(240).filter(|chunk| chunk.iter().any(|sample| sample.unsigned_abs() > 2000)).count() * 10
}
