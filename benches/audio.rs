//! What does audio cost? Every figure is for 20 ms of one direction of one call.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tandem::audio::resample::Resampler;
use tandem::audio::{BRIDGE_RATE, Codec, Decoder, Encoder, FRAME_SAMPLES, SampleRate, dtmf, mix, vad, voice};

fn towards_the_bridge(c: &mut Criterion) {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let payloads = payloads(codec);
        let mut decoder = Decoder::new(codec).expect("a supported codec");
        let (mut out, mut turn) = (Vec::new(), payloads.iter().cycle());
        c.bench_function(&format!("decode one {codec} packet and bring it to 24 kHz"), |b| {
            b.iter(|| {
                out.clear();
                let payload = turn.next().expect("an endless cycle");
                decoder.decode(black_box(payload), &mut out).expect("a payload of ours")
            });
        });
        c.bench_function(&format!("conceal a lost {codec} packet and decode the next"), |b| {
            b.iter(|| {
                out.clear();
                decoder.conceal(FRAME_SAMPLES, &mut out);
                let payload = turn.next().expect("an endless cycle");
                decoder.decode(black_box(payload), &mut out).expect("a payload of ours")
            });
        });
    }
}

fn towards_the_wire(c: &mut Criterion) {
    let speech = speech();
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722] {
        let mut encoder = Encoder::new(codec).expect("a supported codec");
        let (mut native, mut out, mut turn) =
            (Vec::new(), Vec::new(), speech.chunks_exact(FRAME_SAMPLES).cycle());
        c.bench_function(&format!("bring a 24 kHz frame to {codec}"), |b| {
            b.iter(|| {
                native.clear();
                out.clear();
                encoder.narrow(black_box(turn.next().expect("an endless cycle")), &mut native);
                encoder.encode(&native, &mut out).expect("a frame of 20 ms")
            });
        });
    }
    for complexity in [0, 1, 3, 4, 5, 9] {
        let mut encoder = Encoder::new(Codec::Opus).expect("libopus");
        encoder.set_complexity(complexity).expect("at most 10");
        let (mut out, mut turn) = (Vec::new(), speech.chunks_exact(FRAME_SAMPLES).cycle());
        c.bench_function(&format!("bring a 24 kHz frame to Opus at complexity {complexity}"), |b| {
            b.iter(|| {
                out.clear();
                encoder.encode(black_box(turn.next().expect("an endless cycle")), &mut out).expect("20 ms")
            });
        });
    }
}

fn resampling(c: &mut Criterion) {
    let pairs = [
        (8_000, 24_000),
        (24_000, 8_000),
        (16_000, 24_000),
        (24_000, 16_000),
        (48_000, 24_000),
        (24_000, 48_000),
    ];
    for (from, to) in pairs.map(|(from, to)| (SampleRate::new(from), SampleRate::new(to))) {
        let (from, to) = (from.expect("not zero"), to.expect("not zero"));
        let mut resampler = Resampler::new(from, to).expect("a pair with a design");
        let input = &speech()[12_000..][..from.hz() as usize / 50];
        let mut out = Vec::new();
        c.bench_function(&format!("resample {from} to {to}"), |b| {
            b.iter(|| {
                out.clear();
                resampler.process(black_box(input), &mut out)
            });
        });
    }
}

fn listening(c: &mut Criterion) {
    let speech = speech();
    let mut turn = speech.chunks_exact(FRAME_SAMPLES).cycle();
    let (mut detector, mut edges) = (dtmf::Detector::new(SampleRate::HZ_24000), Vec::new());
    c.bench_function("listen for DTMF in one 24 kHz frame", |b| {
        b.iter(|| detector.feed(black_box(turn.next().expect("an endless cycle")), &mut edges));
    });
    let (mut detector, mut edges) =
        (vad::Detector::new(SampleRate::HZ_24000, vad::Settings::default()), Vec::new());
    c.bench_function("listen for speech in one 24 kHz frame", |b| {
        b.iter(|| {
            edges.clear();
            detector.feed(black_box(turn.next().expect("an endless cycle")), &mut edges);
        });
    });
}

fn mixing(c: &mut Criterion) {
    let speech = speech();
    for legs in [2, 3, 8, 32] {
        let voices: Vec<&[i16]> = speech.chunks_exact(FRAME_SAMPLES).cycle().take(legs).collect();
        let (mut mixer, mut out) = (mix::Mixer::new(), Vec::new());
        c.bench_function(&format!("mix {legs} legs in one 20 ms tick, each hearing the others"), |b| {
            b.iter(|| {
                out.clear();
                mixer.start(FRAME_SAMPLES);
                voices.iter().for_each(|voice| mixer.add(black_box(voice)));
                voices.iter().for_each(|own| mixer.mix_without(own, &mut out));
            });
        });
    }
}

fn speech() -> Vec<i16> {
    voice::speak("Good morning, you have reached the front desk. How can I help you today?")
}

fn payloads(codec: Codec) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec).expect("a supported codec");
    let pack = |frame: &[i16]| {
        let (mut native, mut payload) = (Vec::new(), Vec::new());
        encoder.narrow(frame, &mut native);
        encoder.encode(&native, &mut payload).expect("a frame of 20 ms");
        payload
    };
    assert_eq!(BRIDGE_RATE / 50, FRAME_SAMPLES as u32);
    speech().chunks_exact(FRAME_SAMPLES).map(pack).collect()
}

criterion_group! {
    name = audio;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = towards_the_bridge, towards_the_wire, resampling, listening, mixing
}
criterion_main!(audio);
