//! What is configured: organizations, phones, keys, numbers, tokens.

use std::collections::BTreeMap;

use tandem::id::ProviderKeyId;
use tandem::store::provider_keys::{ProviderKey, SealedKey};
use tandem::store::{
    Applied, FeedItem, Organization, Phone, PhoneSecret, RecordingSetting, Role, StoreError, SystemLog, User,
};
use tandem::time::UnixMs;

use super::support::{assistant, homes, number, on_each, organization, phone, run};

#[test]
fn both_back_ends_have_the_same_tables_and_columns() {
    let mut seen: Vec<(&str, BTreeMap<String, Vec<String>>)> = Vec::new();
    for home in homes() {
        seen.push((home.kind, run(home.columns())));
    }
    assert!(seen[0].1["call_events"].contains(&"wall_seq BIGINT NOT NULL".to_owned()), "{:?}", seen[0].1);
    for (kind, tables) in &seen[1..] {
        assert_eq!(tables, &seen[0].1, "{kind} and {}", seen[0].0);
    }
}

#[test]
fn storing_a_resource_twice_changes_nothing() {
    on_each(async |home| {
        let store = home.store().await;
        let acme = organization("acme");
        assert_eq!(store.put_organization(&acme).await.unwrap(), Applied::Created);
        assert_eq!(store.put_organization(&acme).await.unwrap(), Applied::Unchanged);
        let recorded = Organization { recording: RecordingSetting::On, ..acme };
        assert_eq!(store.put_organization(&recorded).await.unwrap(), Applied::Updated);
        assert_eq!(store.organization("acme").await.unwrap().unwrap().value, recorded);

        let mut reception = assistant("acme", "reception");
        assert_eq!(store.put_assistant(&reception).await.unwrap(), Applied::Created);
        assert_eq!(store.put_assistant(&reception).await.unwrap(), Applied::Unchanged);
        reception.voice = Some("marin".to_owned());
        assert_eq!(store.put_assistant(&reception).await.unwrap(), Applied::Updated);
        assert_eq!(store.assistant("acme", "reception").await.unwrap().unwrap().value, reception);
        assert_eq!(store.assistants(Some("acme")).await.unwrap().len(), 1);
        assert_eq!(store.assistants(Some("other")).await.unwrap().len(), 0);

        let number = number("acme", "+15550100");
        assert_eq!(store.put_number(&number).await.unwrap(), Applied::Created);
        assert_eq!(store.put_number(&number).await.unwrap(), Applied::Unchanged);

        let mut jo = User {
            organization: Some("acme".to_owned()),
            email: "Jo@example.com".to_owned(),
            name: "Jo".to_owned(),
            role: Role::Agent,
        };
        assert_eq!(store.put_user(&jo).await.unwrap(), Applied::Created);
        assert_eq!(store.put_user(&jo).await.unwrap(), Applied::Unchanged);
        jo.organization = None;
        assert_eq!(store.put_user(&jo).await.unwrap(), Applied::Updated);
        assert_eq!(store.user("JO@example.com").await.unwrap().unwrap().value.organization, None);
    });
}

#[test]
fn a_phone_is_kept_without_its_password_until_it_is_removed() {
    on_each(async |home| {
        let store = home.store().await;
        store.put_organization(&organization("acme")).await.unwrap();
        store.put_organization(&organization("other")).await.unwrap();
        let mut ann = phone("acme", "101");
        assert_eq!(store.put_phone(&ann).await.unwrap(), Applied::Created);
        assert_eq!(store.put_phone(&ann).await.unwrap(), Applied::Unchanged);
        for change in 0..4 {
            match change {
                0 => ann.number = Some("+15550142".to_owned()),
                1 => ann.trunks.clear(),
                2 => ann.secret.md5 = "1".repeat(32).into(),
                _ => ann.secret.realm = "elsewhere".to_owned(),
            }
            assert_eq!(store.put_phone(&ann).await.unwrap(), Applied::Updated, "change {change}");
        }
        let stored = store.phone("101").await.unwrap().unwrap();
        assert_eq!(
            (stored.value.number.as_deref(), stored.value.secret.realm.as_str()),
            (Some("+15550142"), "elsewhere")
        );
        let shown = serde_json::to_string(&stored).unwrap() + &format!("{stored:?}");
        assert!(!shown.contains(&"1".repeat(32)) && !shown.contains(&"b".repeat(64)), "{shown}");
        let stolen = store.put_phone(&phone("other", "101")).await.unwrap_err();
        assert!(matches!(stolen, StoreError::Conflict { .. }), "{stolen}");
        let unhashed = PhoneSecret { md5: "secret".into(), ..ann.secret.clone() };
        let unhashed = store.put_phone(&Phone { secret: unhashed, ..ann }).await.unwrap_err();
        assert!(matches!(unhashed, StoreError::Invalid { .. }), "{unhashed}");
        assert_eq!(store.phones(Some("acme")).await.unwrap().len(), 1);
        assert!(store.remove_phone("101").await.unwrap() && !store.remove_phone("101").await.unwrap());
        assert!(store.phones(None).await.unwrap().is_empty());
    });
}

#[test]
fn a_providers_key_is_kept_once_and_resealed_only_as_it_was_read() {
    on_each(async |home| {
        let store = home.store().await;
        store.put_organization(&organization("acme")).await.unwrap();
        let key = |organization: Option<&str>, fingerprint: &str| SealedKey {
            key: ProviderKey {
                id: ProviderKeyId::fresh(),
                provider: "openai".to_owned(),
                organization: organization.map(str::to_owned),
                fingerprint: fingerprint.to_owned(),
                created_at: UnixMs::new(5),
            },
            sealed: "v1.0.AA".to_owned(),
        };
        let (of_acme, of_all) = (key(Some("acme"), "0011aabb"), key(None, "0011aabb"));
        store.add_provider_key(&of_acme).await.unwrap();
        store.add_provider_key(&of_all).await.unwrap();
        for again in [key(Some("acme"), "0011aabb"), key(None, "0011aabb")] {
            let error = store.add_provider_key(&again).await.unwrap_err();
            assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        }
        let error = store.add_provider_key(&key(Some("nobody"), "0011aabb")).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
        let mut kept = store.provider_keys().await.unwrap();
        kept.sort_by_key(|kept| kept.key.organization.clone());
        assert_eq!(kept, [of_all.clone(), of_acme.clone()]);
        assert!(store.reseal_provider_key(&of_acme, "v1.1.BB").await.unwrap());
        assert!(
            !store.reseal_provider_key(&of_acme, "v1.2.CC").await.unwrap(),
            "it is no longer as it was read"
        );
        assert!(!store.remove_provider_key("other", of_all.key.id).await.unwrap());
        assert!(store.remove_provider_key("openai", of_all.key.id).await.unwrap());
        assert!(!store.remove_provider_key("openai", of_all.key.id).await.unwrap());
        assert_eq!(store.provider_keys().await.unwrap()[0].sealed, "v1.1.BB");
    });
}

#[test]
fn what_happens_to_the_installation_is_numbered_on_through_restarts() {
    on_each(async |home| {
        for round in 0..2u64 {
            let (store, journal, feed) = home.journal().await;
            let mut listener = feed.subscribe();
            let log = SystemLog::start(store, feed.clone()).await.unwrap();
            assert_eq!(feed.system_head(), round);
            log.tell("breaker.opened", serde_json::json!({"provider": "openai", "round": round}));
            let FeedItem::System(shown) = listener.next().await.unwrap() else { panic!("no event") };
            assert_eq!((shown.seq, &*shown.kind), (round + 1, "breaker.opened"));
            drop(log);
            journal.close().await;
        }
        let kept = home.store().await.system_since(1, 10).await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].data.get(), r#"{"provider":"openai","round":1}"#);
    });
}

#[test]
fn a_resource_of_a_missing_organization_is_refused_by_name() {
    on_each(async |home| {
        let store = home.store().await;
        let refused = [
            store.put_assistant(&assistant("nobody", "a")).await.unwrap_err(),
            store.put_number(&number("nobody", "100")).await.unwrap_err(),
            store.put_phone(&phone("nobody", "101")).await.unwrap_err(),
            store.create_token("x", Role::Agent, Some("nobody"), None).await.unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(&error, StoreError::NotFound { name, .. } if name == "nobody"), "{error}");
        }
    });
}

#[test]
fn a_call_goes_to_its_number_in_any_spelling_or_to_the_star() {
    on_each(async |home| {
        let store = home.store().await;
        store.put_organization(&organization("acme")).await.unwrap();
        store.put_organization(&organization("other")).await.unwrap();
        for entry in ["+15550100", "15550199", "100"] {
            store.put_number(&number("acme", entry)).await.unwrap();
        }
        let found =
            async |called: &str| store.number_for_call(called).await.unwrap().map(|entry| entry.value.number);
        assert_eq!(found("+15550100").await.as_deref(), Some("+15550100"));
        assert_eq!(found("15550100").await.as_deref(), Some("+15550100"));
        assert_eq!(found("0015550100").await.as_deref(), Some("+15550100"));
        assert_eq!(found("+15550199").await.as_deref(), Some("15550199"));
        assert_eq!(found("100").await.as_deref(), Some("100"));
        assert_eq!(found("101").await, None);
        store.put_number(&number("other", "*")).await.unwrap();
        assert_eq!(found("101").await.as_deref(), Some("*"));
        assert_eq!(found("a\0b").await.as_deref(), Some("*"));
        let stolen = store.put_number(&number("other", "100")).await.unwrap_err();
        assert!(matches!(stolen, StoreError::Conflict { .. }), "{stolen}");
    });
}

#[test]
fn a_token_works_until_it_expires_or_is_revoked() {
    on_each(async |home| {
        let store = home.store().await;
        store.put_organization(&organization("acme")).await.unwrap();
        let now = UnixMs::new(1_790_000_000_000);
        let expires = UnixMs::new(now.get() + 1000);
        let new = store.create_token("ci", Role::Manager, Some("acme"), Some(expires)).await.unwrap();
        let known = store.verify_token(&new.secret, now).await.unwrap().unwrap();
        assert_eq!((known.role, known.organization.as_deref()), (Role::Manager, Some("acme")));
        assert_eq!(store.verify_token(&new.secret, expires).await.unwrap(), None);
        assert_eq!(store.tokens().await.unwrap()[0].last_used_at, Some(now));

        let forever = store.create_token("admin", Role::Admin, None, None).await.unwrap();
        assert!(store.verify_token(&forever.secret, now).await.unwrap().is_some());
        assert!(store.revoke_token(forever.token.id).await.unwrap());
        assert!(!store.revoke_token(forever.token.id).await.unwrap());
        assert_eq!(store.verify_token(&forever.secret, now).await.unwrap(), None);
        for wrong in ["", "tandem_", "tandem_aaaa", &new.secret.to_uppercase()] {
            assert_eq!(store.verify_token(wrong, now).await.unwrap(), None);
        }
        assert!(store.create_token("x", Role::Admin, Some("acme"), None).await.is_err());
    });
}
