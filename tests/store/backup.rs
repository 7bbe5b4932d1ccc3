//! Backups of either back end, restored into either.

use tandem::event::EventSink as _;
use tandem::store::{Role, StoreError};
use tandem::time::UnixMs;

use super::support::{Home, Told, assistant, bodies, homes, number, organization, phone, run};

#[test]
fn a_backup_goes_from_either_back_end_into_either() {
    let (sources, number) = (homes(), Told::new(1, Some("acme")));
    for source in &sources {
        let file = source.folder().join("backup.jsonl");
        let (token, before) = run(async {
            let (store, journal, _) = source.journal().await;
            store.put_organization(&organization("acme")).await.unwrap();
            store.put_assistant(&assistant("acme", "reception")).await.unwrap();
            store.put_number(&self::number("acme", "+15550100")).await.unwrap();
            store.put_phone(&phone("acme", "101")).await.unwrap();
            let token = store.create_token("ci", Role::Agent, Some("acme"), None).await.unwrap();
            for n in 1..=600 {
                let call = Told::new(n, Some("acme"));
                journal.open_call(call.created()).await.unwrap();
                call.whole().into_iter().for_each(|event| journal.record(event));
            }
            journal.flush().await.unwrap();
            let summary = store.backup(&file).await.unwrap();
            assert_eq!(summary.calls, 600);
            assert!(matches!(store.backup(&file).await, Err(StoreError::Conflict { .. })));
            assert!(matches!(store.restore(&file).await, Err(StoreError::Conflict { .. })));
            (token, store.wall_since(None, 0, 100_000).await.unwrap())
        });
        for target in homes() {
            run(async {
                let store = target.store().await;
                let epoch = store.epoch().await.unwrap();
                assert_eq!(store.restore(&file).await.unwrap().calls, 600);
                assert_ne!(store.epoch().await.unwrap(), epoch);
                let after = store.wall_since(None, 0, 100_000).await.unwrap();
                assert_eq!(bodies(&after), bodies(&before), "{} to {}", source.kind, target.kind);
                assert!(store.verify_token(&token.secret, UnixMs::now()).await.unwrap().is_some());
                assert_eq!(
                    store.number_for_call("15550100").await.unwrap().unwrap().value.organization,
                    "acme"
                );
                assert_eq!(store.transcript(number.id).await.unwrap().len(), 2);
                assert_eq!(store.phone("101").await.unwrap().unwrap().value.trunks, ["out"]);
            });
        }
    }
}

#[test]
fn a_damaged_backup_leaves_the_database_empty() {
    let (source, target) = (Home::sqlite(), Home::sqlite());
    let file = source.folder().join("backup.jsonl");
    run(async {
        let store = source.store().await;
        store.put_organization(&organization("acme")).await.unwrap();
        store.put_organization(&organization("other")).await.unwrap();
        store.backup(&file).await.unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        let missing = [&lines[..1], &lines[2..]].concat().join("\n");
        let foreign = text.replace("\"recording\"", "\"colour\"");
        let newer = text.replacen("\"schema\":", "\"schema\":99", 1);
        let store = target.store().await;
        for damaged in [cut, missing, foreign, newer, String::new(), "hello".to_owned()] {
            std::fs::write(&file, damaged).unwrap();
            let error = store.restore(&file).await.unwrap_err();
            assert!(matches!(error, StoreError::Backup { .. } | StoreError::TooNew { .. }), "{error}");
            assert!(store.organizations().await.unwrap().is_empty());
        }
    });
}
