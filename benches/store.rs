//! How many events per second go through the journal into SQLite on disk, numbered, stored with the state
//! they change, synced and shown; and how long opening one call takes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tandem::event::{CallCreated, CallEvent, CallEventKind, Direction, EventSink, Heard, TranscriptLine};
use tandem::id::{CallId, LineId};
use tandem::store::journal::Journal;
use tandem::store::{JournalHandle, Store};
use tandem::time::UnixMs;

const CALLS: usize = 200;
const EVENTS: usize = 10_000;

fn events_through_the_journal(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = runtime.block_on(start(folder.path()));
    let mut group = criterion.benchmark_group("journal on SQLite");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("10,000 transcript lines of 200 calls", |bencher| {
        bencher.iter_batched(
            || runtime.block_on(open_calls(&journal)),
            |calls| {
                for n in 0..EVENTS {
                    journal.record(line(calls[n % CALLS], (n / CALLS) as u64 + 2));
                }
                runtime.block_on(journal.flush()).expect("the journal is open");
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("open one call", |bencher| {
        bencher.iter(|| {
            let call = black_box(CallId::fresh());
            runtime.block_on(journal.open_call(created(call))).expect("the journal is open");
        });
    });
    group.finish();
    runtime.block_on(journal.close());
}

async fn start(folder: &std::path::Path) -> JournalHandle {
    let url = format!("sqlite://{}", folder.join("tandem.db").display());
    let store = Store::open(&url).await.expect("the database can be opened");
    store.migrate().await.expect("the database is empty");
    Journal::start(store, "bench", folder).await.expect("the directory is ours").0
}

async fn open_calls(journal: &JournalHandle) -> Vec<CallId> {
    let mut calls = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let call = CallId::fresh();
        journal.record(created(call));
        calls.push(call);
    }
    journal.flush().await.expect("the journal is open");
    calls
}

fn created(call: CallId) -> CallEvent {
    let created = CallCreated {
        direction: Direction::Inbound,
        from: "+15550111".to_owned(),
        to: "+15550100".to_owned(),
        trunk: Some("twilio".to_owned()),
        organization: Some("acme".to_owned()),
        assistant: Some("reception".to_owned()),
        sip_call_id: Some("a84b4c76e66710@pc33.example.com".to_owned()),
        verstat: None,
        diversion: None,
    };
    CallEvent { call, seq: 1, at: UnixMs::now(), kind: CallEventKind::Created(created) }
}

fn line(call: CallId, seq: u64) -> CallEvent {
    let line = TranscriptLine {
        line_id: LineId::fresh(),
        who: "assistant".to_owned(),
        text: "Acme, good morning! How can I help you today?".to_owned(),
        start_ms: seq * 1000,
        end_ms: seq * 1000 + 900,
        heard: Heard::Full,
        heard_text: None,
    };
    CallEvent { call, seq, at: UnixMs::now(), kind: CallEventKind::Transcript(line) }
}

criterion_group!(benches, events_through_the_journal);
criterion_main!(benches);
