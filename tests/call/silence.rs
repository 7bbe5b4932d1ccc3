//! The caller's phone sends nothing: muted, or silent with DTX.

use tandem::simulate::openai::record::Record;
use tandem::simulate::phone::Act;

use super::PORTS;
use super::clock::in_real_time;
use super::support::{Lab, Setup, acts, answer, listen, ms, say, tone};
use super::waveform::onset;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_without_rtp_are_ten_seconds_of_silence_for_the_service() {
    in_real_time(async || {
        let lab = Lab::open(PORTS, Setup::default().script(&answer("tone:600", 600))).await;
        // The packets stop within the word: only silence that is fed can end the turn.
        let word = |hz| say(tone(hz, 9000.0, 500));
        let talk = [word(500.0), Act::Mute(ms(10_000)), word(900.0), Act::HangUp];
        let report = lab.call("100", acts([&listen(), &talk])).await;
        let sent = lab.ears.pcm(1);
        let (call, _) = lab.record().await;
        let service = lab.close_without_violations().await;

        let turns = |wanted: fn(&Record) -> bool| {
            service.entries.iter().filter(|entry| wanted(&entry.record)).count()
        };
        assert!(turns(|record| matches!(record, Record::SpeechStopped { .. })) >= 1, "the turn ended");
        assert!(turns(|record| matches!(record, Record::ResponseStarted { .. })) >= 2, "and was answered");
        let stopped = service.entries.iter().find_map(|entry| match entry.record {
            Record::SpeechStopped { audio_end_ms, .. } => Some(audio_end_ms),
            _ => None,
        });
        let began = onset(&sent, 0).expect("the first word") as u64 / 24;
        let ended = stopped.expect("it was found") - began;
        assert!((950..1250).contains(&ended), "500 ms of word and 500 of silence, not {ended} ms");

        // From the first word to the second as much time has passed at both ends.
        let span = |pcm: &[i16]| {
            let first = onset(pcm, 0).expect("the first word");
            onset(pcm, first + 48_000).expect("the second word") - first
        };
        let (said, heard) = (span(&report.said), span(&sent));
        assert!(said >= 240_000, "{said}");
        assert!(said.abs_diff(heard) <= 480, "{said} samples became {heard}");
        let quality = call.quality.expect("RTP statistics");
        assert!((9_500..10_600).contains(&quality.silence_ms), "{quality:?}");
        assert_eq!(quality.packets_lost, 0, "nothing was lost: nothing was sent");
    })
    .await;
}
