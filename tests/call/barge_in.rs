//! The caller speaks over the assistant: what the service is told was heard is what the phone heard.

use tandem::audio::Codec;
use tandem::simulate::phone::Act;

use super::PORTS;
use super::clock::in_real_time;
use super::support::{Lab, Setup, answer, data_of, ms, truncations, utterance};
use super::waveform::{likeness, onset, rms, through};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_truncation_is_where_the_phone_stopped_hearing() {
    in_real_time(interrupted).await;
}

async fn interrupted() {
    let count = interruptions();
    let mut setup = Setup::default().script(&answer("sweep:300-3000", SWEEP_MS)).behave(|behaviour| {
        behaviour.speed = 12.0;
        behaviour.response_latency = ms(20);
    });
    setup.assistant = r#"turn_detection = { kind = "server_vad", silence_duration_ms = 200 }"#;
    let lab = Lab::open(PORTS, setup).await;
    let mut acts = Vec::new();
    for turn in 0..count {
        // Interrupted earlier and later, so that the cut falls anywhere in a slot, a delta and the sweep.
        let listens = 180 + (turn * 137) % 500;
        acts.extend([
            Act::WaitForSpeech(ms(listens as u64)),
            Act::Wait(ms(turn as u64 % 20)),
            utterance(260),
        ]);
    }
    acts.extend([Act::WaitForSpeech(ms(100)), Act::HangUp]);
    let mut plan = lab.plan("100", Codec::Pcmu, acts);
    plan.limit = ms(30_000 + 4_000 * count as u64);
    let call = lab.phone.call(plan).await.expect("the phone can try");
    let heard = call.heard;
    let (_, events) = lab.record().await;
    let report = lab.close_without_violations().await;

    let told = truncations(&report);
    assert_eq!(told.len(), count, "each interruption truncates once");
    let sweep = through(Codec::Pcmu, &Sweep::pcm());
    let mut from = 0;
    let mut errors = Vec::new();
    for (turn, (_, told_ms)) in told.iter().enumerate() {
        let begin = onset(&heard, from).unwrap_or_else(|| panic!("answer {turn} was not heard"));
        let (measured_ms, end) = follow(&sweep, &heard, begin);
        errors.push(measured_ms - *told_ms as f64);
        from = end + 1200;
    }
    let worst = errors.iter().fold(0f64, |worst, error| worst.max(error.abs()));
    let mean = errors.iter().sum::<f64>() / count as f64;
    let mut stops: Vec<f64> =
        data_of(&events, "barge_in").iter().filter_map(|data| data["stop_ms"].as_f64()).collect();
    stops.sort_by(f64::total_cmp);
    assert_eq!(stops.len(), count, "each is an event");
    let (half, most) = (stops[count / 2], stops[count - 1]);
    eprintln!(
        "{count} interruptions: truncation off by {mean:.1} ms on average, {worst:.1} ms at most; stopped after {half:.1} ms, at most {most:.1} ms"
    );
    assert!(worst <= 20.0, "a truncation is {worst} ms off: {errors:?}");
    // The next slot carries the fade; a machine that is busy runs the slot itself late.
    let late = stops.iter().filter(|stop| **stop > 20.0).count();
    assert!(late * 10 <= count, "{late} of {count} stopped late: {stops:?}");
}

/// How many interruptions, by `TANDEM_TEST_INTERRUPTIONS`.
fn interruptions() -> usize {
    std::env::var("TANDEM_TEST_INTERRUPTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(30)
}

/// Follows one answer in `heard` from `begin` on: milliseconds of sound, and where it ended. What is heard
/// last must be what `reference` has there. A slot that a busy machine missed is silence, not the end.
#[track_caller]
fn follow(reference: &[i16], heard: &[i16], begin: usize) -> (f64, usize) {
    let (mut sound, mut silence, mut end) = (0, 0, begin);
    for (index, window) in heard[begin..].chunks(MS).enumerate() {
        if rms(window) > QUIET {
            (sound, silence, end) = (sound + 1, 0, begin + (index + 1) * MS);
        } else {
            silence += 1;
        }
        if silence > PAUSE_MS {
            break;
        }
    }
    let lead = onset(reference, 0).expect("the reference is no silence");
    // 20 ms, without the fade and the edge of a slot.
    let (last, position) = (end.saturating_sub(720), lead + (sound * MS).saturating_sub(720));
    let places = position.saturating_sub(240)..position + 240;
    let likest =
        places.map(|at| likeness(&heard[last..last + 480], &reference[at..at + 480])).fold(0.0, f64::max);
    assert!(likest > 0.9, "after {sound} ms of sound the sweep is elsewhere, likeness {likest}");
    (sound as f64, end)
}

/// What the service's sweep sounds like.
struct Sweep;

impl Sweep {
    fn pcm() -> Vec<i16> {
        use tandem::simulate::openai::format::AudioFormat;
        use tandem::simulate::openai::speech::{Cut, Say, SpeechLibrary};
        let speech = "sweep:300-3000".parse().expect("a sweep");
        let say = Say { text: "An answer of some length.".to_owned(), speech, duration_ms: Some(SWEEP_MS) };
        let cut = Cut { delta_ms: 200, vary: true };
        let utterance = SpeechLibrary::default().utterance(&say, AudioFormat::Pcm, cut, None);
        let text = utterance.base64_of_first(utterance.samples);
        let bytes = base64_simd::STANDARD.decode_to_vec(text).expect("base64");
        let mut pcm = Vec::new();
        AudioFormat::Pcm.decode(&bytes, &mut pcm);
        pcm
    }
}

const SWEEP_MS: u32 = 6_000;
/// Samples in a millisecond.
const MS: usize = 24;
/// 20 dB below the sweep.
const QUIET: f64 = 560.0;
/// Answers are further apart than this.
const PAUSE_MS: u32 = 100;
