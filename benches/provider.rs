//! How much a frame costs on its way into and out of a provider's JSON.
//!
//! The goal is 200 ns for a 20 ms frame into its message: at 50 frames a second that is 0.01 ms of CPU per
//! call-second, a hundredth of what a call may cost.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tandem::provider::openai::map::Mapper;
use tandem::provider::openai::request::{append_message, push_pcm};

fn frame_into_an_append_message(c: &mut Criterion) {
    let pcm: Vec<i16> = (0..480).map(|n| (n * 61) as i16).collect();
    let mut bytes = Vec::new();
    c.bench_function("20 ms frame into an append message", |b| {
        b.iter(|| {
            bytes.clear();
            push_pcm(&mut bytes, black_box(&pcm));
            append_message(&bytes)
        });
    });
}

fn delta_into_samples(c: &mut Criterion) {
    let mut group = c.benchmark_group("delta into samples");
    for ms in [20, 100, 400] {
        let pcm: Vec<i16> = (0..24 * ms).map(|n| (n * 61) as i16).collect();
        let mut bytes = Vec::new();
        push_pcm(&mut bytes, &pcm);
        let delta = base64_simd::STANDARD.encode_to_string(&bytes);
        let json = format!(
            r#"{{"type":"response.output_audio.delta","event_id":"event_C1","response_id":"resp_C1","item_id":"item_C1","output_index":0,"content_index":0,"delta":"{delta}"}}"#
        );
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{ms} ms")), &json, |b, json| {
            let mut mapper = Mapper::new(String::new(), "m".into());
            b.iter(|| {
                mapper.handle_text(black_box(json));
                mapper.poll_event()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frame_into_an_append_message, delta_into_samples);
criterion_main!(benches);
