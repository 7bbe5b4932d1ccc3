//! The journal's files and numbers, and those who listen to it.

use tandem::event::{Disposition, Ephemeral, EventSink as _};
use tandem::store::journal::{Journal, QUEUE};
use tandem::store::{Committed, FeedItem, StoreError};

use super::support::{Home, Told, ended, healthy, homes, on_each, phase, run, seqs};

#[test]
fn replaying_the_same_file_twice_changes_nothing() {
    for home in homes() {
        let call = Told::new(1, Some("acme"));
        let copy = home.folder().join("copy");
        run(async {
            let (_, journal, _) = home.journal().await;
            journal.open_call(call.created()).await.unwrap();
            home.sql("ALTER TABLE transcript_lines RENAME TO away").await;
            call.whole().into_iter().for_each(|event| journal.record(event));
            journal.flush().await.unwrap();
            std::fs::copy(home.journal_file("spill.jsonl"), &copy).unwrap();
        });
        run(home.sql("ALTER TABLE away RENAME TO transcript_lines"));
        let mut logs = Vec::new();
        for _ in 0..2 {
            std::fs::copy(&copy, home.journal_file("spill.jsonl")).unwrap();
            logs.push(run(async {
                let (store, journal, _) = home.journal().await;
                assert_eq!(journal.interrupted(), []);
                let log = store.wall_since(None, 0, 1000).await.unwrap();
                let record = store.call(call.id).await.unwrap().unwrap();
                journal.close().await;
                (
                    log.iter().map(Committed::body).collect::<Vec<_>>(),
                    record,
                    store.transcript(call.id).await.unwrap(),
                )
            }));
        }
        assert_eq!(logs[0], logs[1]);
        assert_eq!(logs[0].0.len() as u64, call.last_seq());
    }
}

#[test]
fn a_torn_line_at_the_end_of_the_file_is_skipped() {
    let home = Home::sqlite();
    let call = Told::new(1, None);
    run(async {
        let (_, journal, _) = home.journal().await;
        home.sql("ALTER TABLE call_events RENAME TO away").await;
        journal.open_call(call.created()).await.unwrap();
        journal.record(call.whole()[0].clone());
        journal.flush().await.unwrap();
    });
    let file = home.journal_file("spill.jsonl");
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"event_id\":\"evt_");
    std::fs::write(&file, text).unwrap();
    run(async {
        home.sql("ALTER TABLE away RENAME TO call_events").await;
        let (store, ..) = home.journal().await;
        assert_eq!(seqs(&store.events_since(call.id, 0, 10).await.unwrap()), [1, 2, 3]);
    });
}

#[test]
fn a_file_of_another_database_is_stored_with_new_numbers() {
    let (home, other) = (Home::sqlite(), Home::sqlite());
    let (here, there) = (Told::new(1, Some("acme")), Told::new(2, Some("acme")));
    run(async {
        let (_, journal, _) = other.journal().await;
        other.sql("ALTER TABLE call_events RENAME TO away").await;
        journal.open_call(there.created()).await.unwrap();
        there.whole().into_iter().for_each(|event| journal.record(event));
        journal.flush().await.unwrap();
    });
    run(async {
        let (_, journal, _) = home.journal().await;
        journal.open_call(here.created()).await.unwrap();
        here.whole().into_iter().for_each(|event| journal.record(event));
        journal.close().await;
    });
    std::fs::copy(other.journal_file("spill.jsonl"), home.journal_file("spill.jsonl")).unwrap();
    run(async {
        let (store, ..) = home.journal().await;
        let wall = store.wall_since(Some("acme"), 0, 1000).await.unwrap();
        let all = here.last_seq() + there.last_seq();
        assert_eq!(
            wall.iter().map(|e| e.org_seq.unwrap()).collect::<Vec<_>>(),
            (1..=all).collect::<Vec<_>>()
        );
        assert!(store.call(there.id).await.unwrap().unwrap().ended_at.is_some());
    });
}

#[test]
fn a_full_queue_overflows_into_a_file_and_keeps_the_order() {
    let home = Home::sqlite();
    run(async {
        let (store, journal, feed) = home.journal().await;
        let calls: Vec<_> = (1..=3).map(|n| Told::new(n, Some("acme"))).collect();
        for call in &calls {
            journal.open_call(call.created()).await.unwrap();
        }
        // Nothing is awaited, so the writer cannot keep up: most of these find the queue full.
        let each = QUEUE as u64;
        for seq in 2..=each {
            calls.iter().for_each(|call| journal.record(call.event(seq, phase())));
        }
        assert!(home.journal_file("overflow.jsonl").exists());
        journal.flush().await.unwrap();
        for call in &calls {
            assert_eq!(feed.call_head(call.id).await.unwrap(), each);
            journal.record(call.event(each + 1, ended()));
        }
        journal.close().await;
        assert!(!home.journal_file("overflow.jsonl").exists());
        assert!(!home.journal_file("overflow.draining.jsonl").exists());
        for call in &calls {
            let events = store.events_since(call.id, 0, 1_000_000).await.unwrap();
            assert_eq!(seqs(&events), (1..=each + 1).collect::<Vec<_>>());
        }
    });
}

#[test]
fn what_is_told_after_the_end_is_found_by_the_next_start() {
    on_each(async |home| {
        let call = Told::new(1, Some("acme"));
        let (_, journal, _) = home.journal().await;
        journal.open_call(call.created()).await.unwrap();
        journal.close().await;
        journal.close().await;
        assert!(matches!(journal.open_call(call.created()).await, Err(StoreError::Closed)));
        // The numbers between were lost with the process; they were never shown.
        journal.record(call.event(7, phase()));
        journal.record(call.event(8, ended()));
        drop(journal);
        let (store, journal, _) = home.journal().await;
        assert_eq!(journal.interrupted(), []);
        assert_eq!(seqs(&store.events_since(call.id, 0, 100).await.unwrap()), [1, 2, 3]);
        assert_eq!(store.call(call.id).await.unwrap().unwrap().disposition, Some(Disposition::Completed));
    });
}

#[test]
fn a_call_is_refused_when_neither_database_nor_files_take_it() {
    let home = Home::sqlite();
    run(async {
        let (store, journal, feed) = home.journal().await;
        let (known, refused) = (Told::new(1, None), Told::new(2, None));
        journal.open_call(known.created()).await.unwrap();
        std::fs::create_dir(home.journal_file("spill.jsonl")).unwrap();
        home.sql("ALTER TABLE call_events RENAME TO away").await;
        let error = journal.open_call(refused.created()).await.unwrap_err();
        assert!(matches!(error, StoreError::NotDurable), "{error}");
        known.whole().into_iter().for_each(|event| journal.record(event));
        assert_eq!(feed.wall_head(None), 1);
        std::fs::remove_dir(home.journal_file("spill.jsonl")).unwrap();
        home.sql("ALTER TABLE away RENAME TO call_events").await;
        journal.flush().await.unwrap();
        healthy(&journal).await;
        let events = store.wall_since(None, 0, 100).await.unwrap();
        assert!(events.iter().all(|event| event.call == known.id));
        assert_eq!(seqs(&events), (1..=known.last_seq()).collect::<Vec<_>>());
    });
}

#[test]
fn a_single_event_the_database_refuses_does_not_stop_the_others() {
    let home = Home::sqlite();
    run(async {
        let (store, journal, feed) = home.journal().await;
        let mut listener = feed.subscribe();
        let call = Told::new(1, Some("acme"));
        journal.open_call(call.created()).await.unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON call_events WHEN new.type = 'dtmf.received' \
             BEGIN SELECT RAISE(ABORT, 'refused'); END";
        home.sql(refuse).await;
        call.whole().into_iter().for_each(|event| journal.record(event));
        journal.flush().await.unwrap();
        assert!(!journal.health().degraded);
        let wall = store.wall_since(None, 0, 100).await.unwrap();
        assert!(wall.iter().all(|event| &*event.kind != "dtmf.received"));
        let numbers: Vec<_> = wall.iter().map(|event| event.wall_seq).collect();
        assert_eq!(numbers, (1..call.last_seq()).collect::<Vec<_>>());
        assert_eq!(store.call(call.id).await.unwrap().unwrap().disposition, Some(Disposition::Completed));
        assert!(
            std::fs::read_to_string(home.journal_file("rejected.jsonl")).unwrap().contains("dtmf.received")
        );
        for event in &wall {
            let FeedItem::Committed(live) = listener.next().await.unwrap() else { panic!("no event") };
            assert_eq!(live.wall_seq, event.wall_seq);
        }
    });
}

#[test]
fn two_journals_on_one_database_give_out_no_number_twice() {
    on_each(async |home| {
        let (store, first, _) = home.journal().await;
        let (second, _) = Journal::start(store.clone(), "other", &home.folder().join("other")).await.unwrap();
        for n in 1..=10 {
            let journal = if n % 2 == 0 { &first } else { &second };
            let call = Told::new(n, Some("acme"));
            journal.open_call(call.created()).await.unwrap();
            call.whole().into_iter().for_each(|event| journal.record(event));
            journal.flush().await.unwrap();
        }
        assert!(!first.health().degraded && !second.health().degraded);
        let wall = store.wall_since(Some("acme"), 0, 1000).await.unwrap();
        let all = 10 * Told::new(1, None).last_seq();
        let numbers: Vec<_> = wall.iter().map(|event| (event.wall_seq, event.org_seq.unwrap())).collect();
        assert_eq!(numbers, (1..=all).map(|n| (n, n)).collect::<Vec<_>>());
    });
}

#[test]
fn two_journals_do_not_share_a_directory() {
    on_each(async |home| {
        let (store, journal, _) = home.journal().await;
        let second = Journal::start(store, "node", &home.data()).await.unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        journal.close().await;
        home.journal().await;
    });
}

#[test]
fn a_slow_listener_is_told_and_finds_the_rest_in_the_log() {
    let home = Home::sqlite();
    run(async {
        let (_, journal, feed) = home.journal().await;
        let mut listener = feed.subscribe();
        let call = Told::new(1, None);
        journal.open_call(call.created()).await.unwrap();
        for seq in 2..=10_000 {
            journal.record(call.event(seq, phase()));
        }
        journal.show(call.id, Ephemeral::Level { caller_dbov: -20, assistant_dbov: -90 });
        journal.flush().await.unwrap();
        let Some(FeedItem::Lagged(missed)) = listener.next().await else { panic!("not told") };
        let mut seen: Vec<u64> = Vec::new();
        while (seen.len() as u64) < missed {
            let page = feed.wall_since(None, seen.len() as u64, 500).await.unwrap();
            seen.extend(page.iter().map(|event| event.wall_seq));
        }
        while seen.len() < 10_000 {
            match listener.next().await.unwrap() {
                FeedItem::Committed(event) if event.wall_seq > seen.len() as u64 => seen.push(event.wall_seq),
                FeedItem::Committed(_) | FeedItem::Shown(_) | FeedItem::System(_) => {}
                FeedItem::Lagged(_) => panic!("lagged again"),
            }
        }
        assert_eq!(seen, (1..=10_000).collect::<Vec<_>>());
        let Some(FeedItem::Shown(shown)) = listener.next().await else { panic!("not shown") };
        assert_eq!(shown.call, call.id);
    });
}
