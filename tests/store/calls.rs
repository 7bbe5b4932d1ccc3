//! Calls with their events, lines and costs, and how they are listed.

use tandem::event::{CallEventKind, Cost, CostItem, CostPart, CostParts, Disposition, EventSink as _, Phase};
use tandem::id::CallId;
use tandem::store::{Applied, CallFilter, CostBy, FeedItem, Organization, StoreError};
use tandem::time::UnixMs;

use super::support::{Told, on_each, organization, seqs};

#[test]
fn a_call_is_written_with_its_events_lines_and_state() {
    on_each(async |home| {
        let (store, journal, feed) = home.journal().await;
        let mut listener = feed.subscribe();
        let call = Told::new(1, Some("acme"));
        journal.open_call(call.created()).await.unwrap();
        assert_eq!(store.call(call.id).await.unwrap().unwrap().phase, Phase::Ringing);
        assert_eq!(store.live_calls().await.unwrap(), 1);
        for event in call.whole() {
            journal.record(event);
        }
        journal.flush().await.unwrap();

        let record = store.call(call.id).await.unwrap().unwrap();
        assert_eq!(record.disposition, Some(Disposition::Completed));
        assert_eq!((record.phase, record.floor.as_str()), (Phase::Ended, "none"));
        assert_eq!((record.duration_ms, record.billable_ms), (Some(9000), Some(8000)));
        assert_eq!(record.provider.as_deref(), Some("scripted"));
        assert_eq!(record.codec.as_deref(), Some("PCMU/8000"));
        assert_eq!(record.quality.unwrap().packets_received, 400);
        assert_eq!(record.recording.as_deref(), Some("recordings/x.wav"));
        assert_eq!(record.last_seq, call.last_seq());
        let transcript = store.transcript(call.id).await.unwrap();
        assert_eq!(transcript, [call.line(4), call.cut_line(5)]);

        let events = store.events_since(call.id, 0, 100).await.unwrap();
        assert_eq!(seqs(&events), (1..=call.last_seq()).collect::<Vec<_>>());
        for event in &events {
            let FeedItem::Committed(shown) = listener.next().await.unwrap() else { panic!("no event") };
            assert_eq!(shown.body(), event.body());
        }
        assert_eq!(feed.call_head(call.id).await.unwrap(), call.last_seq());
        assert_eq!(feed.owner(call.id).await.unwrap(), Some(Some("acme".into())));
        assert_eq!(feed.owner(CallId::fresh()).await.unwrap(), None);
    });
}

#[test]
fn costs_are_kept_by_call_and_summed_up() {
    on_each(async |home| {
        let (store, journal, _) = home.journal().await;
        let organization =
            |budget: &str| Organization { daily_budget: budget.parse().ok(), ..organization("acme") };
        assert_eq!(store.put_organization(&organization("2.50")).await.unwrap(), Applied::Created);
        assert_eq!(store.put_organization(&organization("2.50")).await.unwrap(), Applied::Unchanged);
        assert_eq!(store.put_organization(&organization("")).await.unwrap(), Applied::Updated);
        assert_eq!(store.organization("acme").await.unwrap().unwrap().value.daily_budget, None);
        let (one, other) = (Told::new(1, Some("acme")), Told::new(2, None));
        for call in [&one, &other] {
            journal.open_call(call.created()).await.unwrap();
        }
        // Twice for one call in one batch: the later one counts.
        journal.record(one.event(2, cost(100, 5)));
        journal.record(one.event(3, cost(250, 7)));
        journal.record(other.event(2, cost(40, 1)));
        journal.flush().await.unwrap();
        journal.record(one.event(4, cost(300, 9)));
        journal.flush().await.unwrap();

        let kept = store.call_cost(one.id).await.unwrap();
        assert_eq!((kept.total, kept.by.llm, kept.unpriced), (300, 300, true));
        assert_eq!(kept.items.iter().map(|item| item.quantity).collect::<Vec<_>>(), [9, 9]);
        assert_eq!(store.call(one.id).await.unwrap().unwrap().cost.unwrap().total, 300);
        let (from, to) = (UnixMs::new(0), UnixMs::new(i64::MAX));
        let sums = async |by, organization| {
            let rows = store.costs(by, from, to, organization).await.unwrap();
            rows.into_iter().map(|row| (row.name, row.calls, row.total, row.unpriced)).collect::<Vec<_>>()
        };
        let row = |name: &str, calls, total, unpriced| (name.to_owned(), calls, total, unpriced);
        assert_eq!(sums(CostBy::Organization, None).await, [row("", 1, 40, 0), row("acme", 1, 300, 0)]);
        assert_eq!(sums(CostBy::Assistant, None).await, [row("reception", 2, 340, 0)]);
        assert_eq!(sums(CostBy::Provider, Some("acme")).await, [row("openai", 1, 300, 1)]);
        assert_eq!(sums(CostBy::Model, None).await, [row("openai/m", 2, 340, 0), row("openai/n", 2, 0, 2)]);
        let day = &one.event(2, cost(0, 0)).at.to_rfc3339()[..10];
        assert_eq!(sums(CostBy::Day, None).await, [row(day, 2, 340, 0)]);
        assert_eq!(store.unpriced_calls(from, to, None).await.unwrap(), 2);
        let mut spent = store.spent_since(from).await.unwrap();
        spent.sort_unstable();
        assert_eq!(spent, [(None, 40), (Some("acme".to_owned()), 300)]);
        assert_eq!(store.spent_since(to).await.unwrap(), []);
    });
}

fn cost(total: u64, quantity: u64) -> CallEventKind {
    let item = |model: &str, amount| CostItem {
        part: CostPart::Llm,
        provider: "openai".to_owned(),
        model: model.to_owned(),
        what: "text_in".to_owned(),
        quantity,
        unit: "tokens".to_owned(),
        amount,
    };
    CallEventKind::Cost(Box::new(Cost {
        currency: "USD".to_owned(),
        scale: 9,
        total,
        by: CostParts { llm: total, ..CostParts::default() },
        items: vec![item("m", Some(total)), item("n", None)],
    }))
}

#[test]
fn the_walls_are_numbered_without_gaps_also_after_a_restart() {
    on_each(async |home| {
        for round in 0..2u128 {
            let (_, journal, _) = home.journal().await;
            let calls = [
                Told::new(10 * round + 1, Some("acme")),
                Told::new(10 * round + 2, None),
                Told::new(10 * round + 3, Some("other")),
            ];
            for call in &calls {
                journal.open_call(call.created()).await.unwrap();
            }
            for place in 0..calls[0].whole().len() {
                calls.iter().for_each(|call| journal.record(call.whole()[place].clone()));
            }
            journal.close().await;
        }
        let store = home.store().await;
        let wall = store.wall_since(None, 0, 1000).await.unwrap();
        let each = Told::new(1, None).last_seq() as usize;
        assert_eq!(
            wall.iter().map(|e| e.wall_seq).collect::<Vec<_>>(),
            (1..=6 * each as u64).collect::<Vec<_>>()
        );
        for name in ["acme", "other"] {
            let wall = store.wall_since(Some(name), 0, 1000).await.unwrap();
            assert!(wall.iter().all(|event| event.organization.as_deref() == Some(name)));
            let numbers: Vec<_> = wall.iter().map(|event| event.org_seq.unwrap()).collect();
            assert_eq!(numbers, (1..=2 * each as u64).collect::<Vec<_>>());
        }
        let page = store.wall_since(Some("acme"), 5, 3).await.unwrap();
        assert_eq!(page.iter().map(|event| event.org_seq.unwrap()).collect::<Vec<_>>(), [6, 7, 8]);
        let heads = store.heads().await.unwrap();
        assert_eq!((heads.wall, heads.organizations["acme"]), (6 * each as u64, 2 * each as u64));
    });
}

#[test]
fn calls_are_listed_latest_first_in_pages_and_by_filter() {
    on_each(async |home| {
        let (store, journal, _) = home.journal().await;
        for n in 1..=25 {
            let call = Told::new(n, if n % 2 == 0 { Some("acme") } else { None });
            journal.open_call(call.created()).await.unwrap();
            if n % 5 != 0 {
                call.whole().into_iter().for_each(|event| journal.record(event));
            }
        }
        journal.flush().await.unwrap();
        let pages = async |filter: &CallFilter| {
            let (mut ids, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = store.calls(filter, cursor.as_deref(), 4).await.unwrap();
                assert!(page.data.len() <= 4 && page.has_more == page.next_cursor.is_some());
                ids.extend(page.data.iter().map(|call| call.id));
                match page.next_cursor {
                    Some(next) => cursor = Some(next),
                    None => return ids,
                }
            }
        };
        let ids = |numbers: &dyn Fn(u128) -> bool| -> Vec<CallId> {
            (1..=25).rev().filter(|n| numbers(*n)).map(|n| Told::new(n, None).id).collect()
        };
        let filter = CallFilter::default;
        assert_eq!(pages(&filter()).await, ids(&|_| true));
        let acme = CallFilter { organization: Some("acme".to_owned()), ..filter() };
        assert_eq!(pages(&acme).await, ids(&|n| n % 2 == 0));
        assert_eq!(pages(&CallFilter { live: Some(true), ..filter() }).await, ids(&|n| n % 5 == 0));
        assert_eq!(pages(&CallFilter { live: Some(false), ..filter() }).await, ids(&|n| n % 5 != 0));
        let completed = CallFilter { disposition: Some(Disposition::Completed), ..filter() };
        assert_eq!(pages(&completed).await, ids(&|n| n % 5 != 0));
        let between = CallFilter {
            since: Some(Told::new(3, None).start),
            until: Some(Told::new(7, None).start),
            ..filter()
        };
        assert_eq!(pages(&between).await, ids(&|n| (3..7).contains(&n)));
        let nobody = CallFilter { from: Some("+1".to_owned()), ..filter() };
        assert_eq!(pages(&nobody).await, []);
        let caller =
            CallFilter { from: Some("+15550111".to_owned()), to: Some("100".to_owned()), ..filter() };
        assert_eq!(pages(&caller).await.len(), 25);
        assert!(matches!(store.calls(&filter(), Some("x"), 5).await, Err(StoreError::Cursor)));
    });
}

#[test]
fn events_told_twice_are_kept_once() {
    on_each(async |home| {
        let (store, journal, feed) = home.journal().await;
        let call = Told::new(1, Some("acme"));
        journal.open_call(call.created()).await.unwrap();
        for event in call.whole().into_iter().chain(call.whole()) {
            journal.record(event);
        }
        journal.flush().await.unwrap();
        assert_eq!(feed.wall_head(None), call.last_seq());
        assert_eq!(store.events_since(call.id, 0, 100).await.unwrap().len() as u64, call.last_seq());
    });
}

#[test]
fn text_no_database_takes_is_stored_with_a_replacement() {
    on_each(async |home| {
        let (store, journal, _) = home.journal().await;
        let call = Told::new(1, None);
        let mut created = call.created();
        if let CallEventKind::Created(data) = &mut created.kind {
            data.from = "a\0b".to_owned();
        }
        journal.open_call(created).await.unwrap();
        let mut line = call.line(2);
        line.text = "one\0two".to_owned();
        journal.record(call.event(2, CallEventKind::Transcript(line)));
        journal.flush().await.unwrap();
        assert!(!journal.health().degraded);
        assert_eq!(store.call(call.id).await.unwrap().unwrap().from, "a\u{fffd}b");
        assert_eq!(store.transcript(call.id).await.unwrap()[0].text, "one\u{fffd}two");
    });
}
