//! The database fails, hangs or dies under a running journal.

use tandem::event::{Disposition, EventSink as _};
use tandem::store::journal::Journal;
use tandem::store::{FeedItem, Store};

use super::support::{Home, State, Told, Wire, healthy, homes, on_each, phase, run, seqs};

#[test]
fn a_database_outage_loses_and_doubles_nothing() {
    on_each(async |home| {
        let (store, journal, feed) = home.journal().await;
        let mut listener = feed.subscribe();
        let before = Told::new(1, Some("acme"));
        journal.open_call(before.created()).await.unwrap();
        journal.record(before.whole()[0].clone());
        journal.flush().await.unwrap();

        home.sql("ALTER TABLE call_events RENAME TO away").await;
        let during = Told::new(2, Some("acme"));
        journal.open_call(during.created()).await.unwrap();
        before.whole().into_iter().skip(1).for_each(|event| journal.record(event));
        during.whole().into_iter().for_each(|event| journal.record(event));
        journal.flush().await.unwrap();
        assert!(journal.health().degraded && !journal.health().stuck);
        assert_eq!(journal.health().spilled, before.last_seq() + during.last_seq() - 2);
        assert_eq!(store.call(during.id).await.unwrap(), None);

        home.sql("ALTER TABLE away RENAME TO call_events").await;
        healthy(&journal).await;
        assert_eq!(store.call(during.id).await.unwrap().unwrap().disposition, Some(Disposition::Completed));
        let mut shown = Vec::new();
        for event in &store.wall_since(None, 0, 1000).await.unwrap() {
            let FeedItem::Committed(live) = listener.next().await.unwrap() else { panic!("no event") };
            assert_eq!(live.body(), event.body());
            shown.push((live.wall_seq, live.org_seq));
        }
        let all = before.last_seq() + during.last_seq();
        assert_eq!(shown, (1..=all).map(|n| (n, Some(n))).collect::<Vec<_>>());
        assert!(!home.journal_file("spill.jsonl").exists());

        let after = Told::new(3, Some("acme"));
        journal.open_call(after.created()).await.unwrap();
        assert_eq!(feed.wall_head(Some("acme")), all + 1);
    });
}

#[test]
fn during_an_outage_the_log_can_be_read_without_gaps() {
    // SQLite only: the database takes no events but can be read.
    let home = Home::sqlite();
    run(async {
        let (_, journal, feed) = home.journal().await;
        let calls: Vec<_> = (1..=4).map(|n| Told::new(n, (n % 2 == 0).then_some("acme"))).collect();
        for call in &calls[..2] {
            journal.open_call(call.created()).await.unwrap();
            call.whole().into_iter().for_each(|event| journal.record(event));
        }
        journal.flush().await.unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON calls BEGIN SELECT missing FROM nowhere; END";
        home.sql(refuse).await;
        for call in &calls[2..] {
            journal.open_call(call.created()).await.unwrap();
            call.whole().into_iter().for_each(|event| journal.record(event));
        }
        journal.flush().await.unwrap();
        assert!(journal.health().degraded);

        let each = calls[0].last_seq();
        let mut wall = Vec::new();
        while let Some(last) = feed.wall_since(None, wall.len() as u64, 7).await.unwrap().last() {
            wall.extend(
                feed.wall_since(None, wall.len() as u64, 7).await.unwrap().iter().map(|e| e.wall_seq),
            );
            assert_eq!(wall.last(), Some(&last.wall_seq));
        }
        assert_eq!(wall, (1..=4 * each).collect::<Vec<_>>());
        let acme = feed.wall_since(Some("acme"), 0, 1000).await.unwrap();
        let numbers: Vec<_> = acme.iter().map(|event| event.org_seq.unwrap()).collect();
        assert_eq!(numbers, (1..=2 * each).collect::<Vec<_>>());
        let call = feed.call_since(calls[3].id, 2, 1000).await.unwrap();
        assert_eq!(seqs(&call), (3..=each).collect::<Vec<_>>());
        assert_eq!(feed.call_head(calls[3].id).await.unwrap(), each);
        assert_eq!(feed.owner(calls[3].id).await.unwrap(), Some(Some("acme".into())));
    });
}

#[test]
fn a_server_that_is_cut_off_or_behind_a_dead_network_loses_nothing() {
    for fault in [State::Cut, State::Hanging] {
        let Some(home) = Home::postgres() else { return };
        run(async {
            let (_, port) = home.url.rsplit_once("@127.0.0.1:").expect("the test server is on loopback");
            let (port, database) = port.split_once('/').expect("the URL names a database");
            let wire = Wire::to(port.parse().unwrap()).await;
            let url = format!("postgres://tandem@127.0.0.1:{}/{database}", wire.port);
            let store = Store::open(&url).await.unwrap();
            store.migrate().await.unwrap();
            let (journal, feed) = Journal::start(store.clone(), "node", &home.data()).await.unwrap();
            let call = Told::new(1, None);
            journal.open_call(call.created()).await.unwrap();
            wire.state.send_replace(fault);
            for event in call.whole() {
                journal.record(event);
                journal.flush().await.unwrap();
            }
            assert!(journal.health().degraded);
            assert_eq!(feed.wall_head(None), call.last_seq());
            if fault == State::Cut {
                let page = feed.call_since(call.id, 1, 100).await.unwrap();
                assert_eq!(seqs(&page), (2..=call.last_seq()).collect::<Vec<_>>());
            }
            wire.state.send_replace(State::Whole);
            healthy(&journal).await;
            // Through a wire of its own: those that hung stay as they are.
            let store = home.store().await;
            let events = store.events_since(call.id, 0, 100).await.unwrap();
            assert_eq!(seqs(&events), (1..=call.last_seq()).collect::<Vec<_>>());
            assert_eq!(store.live_calls().await.unwrap(), 0);
        });
    }
}

#[test]
fn a_killed_server_keeps_what_was_shown_and_closes_its_calls() {
    for home in homes() {
        let (done, open) = (Told::new(1, Some("acme")), Told::new(2, Some("acme")));
        // The runtime goes away in the middle, as a process does: nothing is flushed, nothing is closed.
        let shown = run(async {
            let (_, journal, feed) = home.journal().await;
            let mut listener = feed.subscribe();
            journal.open_call(done.created()).await.unwrap();
            journal.open_call(open.created()).await.unwrap();
            open.whole().into_iter().take(5).for_each(|event| journal.record(event));
            journal.flush().await.unwrap();
            home.sql("ALTER TABLE call_events RENAME TO away").await;
            done.whole().into_iter().for_each(|event| journal.record(event));
            journal.flush().await.unwrap();
            let mut shown = Vec::new();
            for _ in 0..done.last_seq() + 6 {
                let FeedItem::Committed(event) = listener.next().await.unwrap() else { panic!("no event") };
                shown.push(event.body());
            }
            // These may or may not make it; nobody was shown them.
            (7..17).for_each(|seq| journal.record(open.event(seq, phase())));
            shown
        });
        run(async {
            home.sql("ALTER TABLE away RENAME TO call_events").await;
            let (store, journal, feed) = home.journal().await;
            assert_eq!(journal.interrupted(), [open.id]);
            let log = store.wall_since(None, 0, 1000).await.unwrap();
            for body in &shown {
                assert!(log.iter().any(|event| event.body() == *body), "{}: lost {body}", home.kind);
            }
            assert_eq!(
                log.iter().map(|e| e.wall_seq).collect::<Vec<_>>(),
                (1..=log.len() as u64).collect::<Vec<_>>()
            );
            let record = store.call(open.id).await.unwrap().unwrap();
            assert_eq!(record.disposition, Some(Disposition::Interrupted));
            assert!(record.ended_at.is_some() && record.duration_ms.is_some());
            assert_eq!(store.call(done.id).await.unwrap().unwrap().disposition, Some(Disposition::Completed));
            assert_eq!(store.live_calls().await.unwrap(), 0);
            let of_open = store.events_since(open.id, 0, 100).await.unwrap();
            assert_eq!(seqs(&of_open), (1..=record.last_seq).collect::<Vec<_>>());
            assert_eq!(feed.wall_head(None), log.len() as u64);
        });
    }
}
