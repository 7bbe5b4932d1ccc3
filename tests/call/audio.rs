//! Audio truth: what goes in at one end comes out at the other, judged by the waveforms alone.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use tandem::audio::{Codec, voice, wav};
use tandem::simulate::openai::Speech;
use tandem::simulate::openai::speech::tone_sample;
use tandem::simulate::phone::Act;

use super::PORTS;
use super::clock::in_real_time;
use super::support::{Lab, Setup, codecs, ms, say};
use super::waveform::{decibels, find, onset, rms, roughness, sine, snr, through};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_carries_tones_and_speech_both_ways_unharmed() {
    let program = Program::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("program.wav");
    std::fs::write(&file, wav::mono_file(&program.pcm, 24_000)).expect("it can be written");
    let (program, file) = (&program, &file);
    let each = codecs().map(|codec| in_real_time(async move || check(codec, program, file).await));
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tone_of_the_service_is_heard_sample_for_sample() {
    in_real_time(async || {
        let lab = Lab::open(PORTS, Setup::default().greeting("Good morning.").speech("tone:440")).await;
        let acts = vec![Act::WaitForSpeech(ms(300)), Act::WaitForSilence(ms(400)), Act::HangUp];
        let heard = lab.call("100", acts).await.heard;
        let reference: Vec<i16> = (0..96_000).map(|n| tone_sample(440.0, 24_000, n)).collect();
        let best = through(Codec::Pcmu, &reference);
        let (at, _) = find(&best, &heard, onset(&heard, 0).expect("the tone"), 240);
        let (amplitude, rest) = sine(&heard[at + 480..at + 95_520], 440.0);
        assert!(decibels(amplitude, 8000.0).abs() < 1.0, "{amplitude}");
        let reachable = sine(&best[480..95_520], 440.0).1;
        assert!(rest < reachable + 0.5, "{rest} dB beside the tone, {reachable} dB by the codec alone");
        assert!(rms(&heard[at + 96_240..at + 98_400]) < 10.0, "four seconds and no more");
        lab.close_without_violations().await;
    })
    .await;
}

/// What is sent in both directions.
struct Program {
    pcm: Vec<i16>,
}

impl Program {
    fn new() -> Self {
        let mut pcm = Vec::new();
        for hz in DTMF {
            pcm.extend((0..TONE).map(|n| tone_sample(hz, 24_000, n as u64)));
            pcm.resize(pcm.len() + PAUSE, 0);
        }
        pcm.extend(voice::speak("The quick brown fox jumps over the lazy dog, twice a day."));
        Self { pcm }
    }

    fn tone(index: usize) -> std::ops::Range<usize> {
        let start = index * (TONE + PAUSE);
        start..start + TONE
    }

    fn speech() -> usize {
        DTMF.len() * (TONE + PAUSE)
    }

    /// How near the speech in `heard` is to what was spoken, in dB.
    fn fidelity(&self, heard: &[i16]) -> f64 {
        let spoken = &self.pcm[Self::speech()..];
        let loud = onset(spoken, 0).unwrap_or(0);
        let (at, _) = find(&spoken[loud..], heard, Self::speech() + loud, 480);
        snr(&spoken[loud..], &heard[at..])
    }

    /// Judges a waveform in which the program was heard.
    fn judge(&self, codec: Codec, way: &str, heard: &[i16]) {
        let best = through(codec, &self.pcm);
        let around = onset(heard, 0).unwrap_or_else(|| panic!("{codec} {way}: nothing was heard"));
        let (at, likeness) = find(&best, heard, around, 480);
        assert!(likeness > 0.9, "{codec} {way}: another sound was heard, likeness {likeness}");
        let heard = &heard[at..];
        assert!(heard.len() >= self.pcm.len(), "{codec} {way}: the end is missing");
        for (index, hz) in DTMF.into_iter().enumerate() {
            // Without the edges, which a band limit rounds off.
            let range = Self::tone(index);
            let middle = range.start + 480..range.end - 480;
            let (amplitude, rest) = sine(&heard[middle.clone()], hz);
            let level = decibels(amplitude, 8000.0);
            assert!(level.abs() < 1.0, "{codec} {way}: {hz} Hz is {level:.2} dB off");
            let reachable = sine(&best[middle.clone()], hz).1;
            // Opus adapts to all that went before, so that alone it is as good, but not the same.
            let slack = if codec == Codec::Opus { 6.0 } else { 1.0 };
            assert!(
                rest < reachable + slack,
                "{codec} {way}: {hz} Hz with {rest:.1} dB of else, not {reachable:.1}"
            );
            assert!(rest < -25.0, "{codec} {way}: {hz} Hz with {rest:.1} dB of else");
            assert_smooth(codec, way, &heard[middle.clone()], &best[middle]);
        }
        let speech = Self::speech()..self.pcm.len();
        assert_smooth(codec, way, &heard[speech.clone()], &best[speech.clone()]);
        let fidelity = snr(&best[speech.clone()], &heard[speech.clone()]);
        if codec == Codec::Opus {
            // Its encoder adapts to all that went before: it is as good as alone, not the same.
            let (reachable, reached) = (self.fidelity(&best), self.fidelity(heard));
            eprintln!("{codec} {way}: {reached:.1} dB from the voice itself, {reachable:.1} dB by the codec");
            assert!(reached > reachable - 2.0, "{codec} {way}: {reached:.1} dB where {reachable:.1} are had");
        } else {
            assert!(fidelity > 30.0, "{codec} {way}: {fidelity:.1} dB from the codec's own path");
        }
        let level = decibels(rms(&heard[speech.clone()]), rms(&self.pcm[speech]));
        eprintln!("{codec} {way}: speech {fidelity:.1} dB from the codec alone, level {level:+.2} dB");
        assert!(level.abs() < 1.0, "{codec} {way}: speech is {level:.2} dB off");
    }
}

async fn check(codec: Codec, program: &Program, file: &Path) {
    let setup = Setup { greeting: Some("The programme."), ..Setup::default() };
    let setup = setup.behave(|behaviour| behaviour.speech = Speech::Wav(file.to_owned()));
    let lab = Lab::open(PORTS, setup).await;
    let heard_it_all = vec![Act::WaitForSpeech(ms(4000)), Act::WaitForSilence(ms(900))];
    let acts = [heard_it_all, vec![say(Arc::from(&*program.pcm)), Act::Wait(ms(200)), Act::HangUp]].concat();
    let plan = lab.plan("100", codec, acts);
    let report = lab.phone.call(plan).await.expect("the phone can try");
    assert_eq!(report.codec, Some(codec));
    let sent = lab.ears.pcm(1);
    lab.close_without_violations().await;
    program.judge(codec, "to the phone", &report.heard);
    program.judge(codec, "to the service", &sent);
    assert_same_time(codec, program, &report.said, &sent);
}

/// The service hears as much time as has passed on RTP: between the first tone and the last word, and
/// from the answer to the end.
#[track_caller]
fn assert_same_time(codec: Codec, program: &Program, said: &[i16], sent: &[i16]) {
    let landmarks = |pcm: &[i16]| {
        let first = onset(pcm, 0).unwrap_or_else(|| panic!("{codec}: silence"));
        let (last, _) = find(&program.pcm[Program::speech()..], pcm, first + Program::speech(), 960);
        (first, last - first)
    };
    let ((said_first, said_span), (sent_first, sent_span)) = (landmarks(said), landmarks(sent));
    assert!(said_span.abs_diff(sent_span) <= 480, "{codec}: {said_span} samples became {sent_span}");
    // The call's ends: signalling takes its time, and no more.
    assert!(said_first.abs_diff(sent_first) <= SIGNALLING, "{codec}: {said_first} {sent_first}");
    assert!(said.len().abs_diff(sent.len()) <= SIGNALLING, "{codec}: {} {}", said.len(), sent.len());
}

/// No bend that the codec alone does not make too.
#[track_caller]
fn assert_smooth(codec: Codec, way: &str, heard: &[i16], best: &[i16]) {
    let (bend, natural) = (roughness(heard), roughness(best));
    assert!(
        f64::from(bend) < f64::from(natural) * 1.3 + 100.0,
        "{codec} {way}: a click of {bend}, {natural}"
    );
}

/// The rows and columns of a keypad.
const DTMF: [f64; 8] = [697.0, 770.0, 852.0, 941.0, 1209.0, 1336.0, 1477.0, 1633.0];
/// 400 ms.
const SIGNALLING: usize = 9600;
/// 300 ms.
const TONE: usize = 7200;
/// 100 ms.
const PAUSE: usize = 2400;
