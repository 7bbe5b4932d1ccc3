//! Phones: from the store to the registrar, and what people do with them.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tracing::warn;

use crate::config::{Config, SipRegistrar};
use crate::http::problem::{FieldError, Problem, store_problem};
use crate::http::{BoxFuture, ManagePhones, NewPhone};
use crate::routing::directory::{Directory, Snapshot};
use crate::sip::digest::{Algorithm, ha1};
use crate::sip::endpoint::EndpointHandle;
use crate::sip::registrar::{self, PhoneBook, RegistrarConfig, Secret};
use crate::sip::trunk::SrtpPolicy;
use crate::store::{Applied, Phone, PhoneSecret, Store};
use crate::time::UnixMs;

/// What phones are managed with.
#[derive(Clone)]
pub(super) struct PhoneDesk {
    pub(super) store: Store,
    pub(super) directory: Directory,
    pub(super) endpoint: EndpointHandle,
    pub(super) settings: SipRegistrar,
    pub(super) trunks: Vec<String>,
    pub(super) srtp: SrtpPolicy,
}

impl PhoneDesk {
    pub(super) fn new(
        config: &Config,
        store: &Store,
        directory: &Directory,
        endpoint: &EndpointHandle,
    ) -> Self {
        Self {
            store: store.clone(),
            directory: directory.clone(),
            endpoint: endpoint.clone(),
            settings: config.sip.registrar.clone(),
            trunks: config.trunk.iter().map(|trunk| trunk.name.clone()).collect(),
            srtp: super::carriers::default_srtp(config.media.srtp),
        }
    }

    /// Lets the registrar know the phones of the directory; nothing while it is off.
    pub(super) fn open(&self) -> anyhow::Result<()> {
        if !self.settings.enabled {
            return Ok(());
        }
        let book = book(&self.settings, self.srtp, &self.directory.now());
        self.endpoint.phones(Arc::new(book)).context("opening the registrar")
    }

    /// Reads what is stored, and lets calls and the registrar see it.
    pub(super) async fn refresh(&self) -> Result<(), Problem> {
        let told =
            self.directory.refresh(&self.store).await.map_err(anyhow::Error::from).and_then(|()| self.open());
        told.map_err(|error| {
            warn!(%error, "resources are stored but could not be read back");
            Problem::unavailable("the resources are stored but not yet in use; apply them again")
        })
    }

    async fn put_one(&self, new: NewPhone) -> Result<(Applied, Value), Problem> {
        let mut errors = Vec::new();
        let mut error = |pointer: &str, message: String| {
            errors.push(FieldError { pointer: pointer.to_owned(), code: "invalid", message });
        };
        if new.password.expose_secret().len() < PASSWORD_MIN {
            error(
                "/password",
                format!("at least {PASSWORD_MIN} characters: phones are attacked by guessing"),
            );
        }
        for (index, trunk) in new.trunks.iter().enumerate() {
            if !self.trunks.contains(trunk) {
                error(&format!("/trunks/{index}"), "there is no trunk of this name".to_owned());
            }
        }
        if let Some(number) = &new.number
            && let Err(wrong) = crate::config::values::check_format("number", number)
        {
            error("/number", wrong.to_string());
        }
        if !errors.is_empty() {
            return Err(Problem::unprocessable("some fields are wrong", errors));
        }
        let phone = Phone {
            secret: secret(&self.settings.realm, &new.user, new.password.expose_secret()),
            organization: new.organization,
            user: new.user,
            number: new.number,
            trunks: new.trunks,
        };
        let applied = self.store.put_phone(&phone).await.map_err(store_problem)?;
        self.refresh().await?;
        let shown = self.shown(&phone.user).await?;
        Ok((applied, shown.ok_or_else(|| Problem::unavailable("the phone was removed meanwhile"))?))
    }

    async fn shown(&self, user: &str) -> Result<Option<Value>, Problem> {
        let stored = self.store.phone(user).await.map_err(store_problem)?;
        let Some(stored) = stored else { return Ok(None) };
        let mut shown =
            serde_json::to_value(&stored).map_err(|_| Problem::unavailable("the phone cannot be shown"))?;
        let now = std::time::Instant::now();
        let bindings = self.endpoint.bindings(user).await;
        let contacts = bindings.iter().map(|binding| {
            let left = binding.expires.saturating_duration_since(now);
            let until =
                UnixMs::new(UnixMs::now().get() + i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 2));
            json!({
                "contact": binding.contact.as_str(),
                "address": binding.target.remote.to_string(),
                "transport": binding.target.transport.to_string(),
                "until": until,
            })
        });
        shown["contacts"] = contacts.collect();
        shown["registered"] = (!bindings.is_empty()).into();
        if stored.value.secret.realm != self.settings.realm {
            shown["problem"] = "its password was set for another realm; set it again".into();
        }
        Ok(Some(shown))
    }
}

impl ManagePhones for PhoneDesk {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, Problem>> {
        Box::pin(async move {
            let mut shown = Vec::new();
            for stored in self.store.phones(None).await.map_err(store_problem)? {
                shown.extend(self.shown(&stored.value.user).await?);
            }
            Ok(shown)
        })
    }

    fn show(&self, user: String) -> BoxFuture<'_, Result<Option<Value>, Problem>> {
        Box::pin(async move { self.shown(&user).await })
    }

    fn put(&self, phone: NewPhone) -> BoxFuture<'_, Result<(Applied, Value), Problem>> {
        Box::pin(self.put_one(phone))
    }

    fn remove(&self, user: String) -> BoxFuture<'_, Result<bool, Problem>> {
        Box::pin(async move {
            let removed = self.store.remove_phone(&user).await.map_err(store_problem)?;
            self.refresh().await?;
            Ok(removed)
        })
    }
}

/// The hashes that are kept in place of a password.
pub(super) fn secret(realm: &str, user: &str, password: &str) -> PhoneSecret {
    let hash = |algorithm| ha1(algorithm, user, realm, password).into();
    PhoneSecret { realm: realm.to_owned(), md5: hash(Algorithm::Md5), sha256: hash(Algorithm::Sha256) }
}

fn book(settings: &SipRegistrar, srtp: SrtpPolicy, directory: &Snapshot) -> PhoneBook {
    let mut elsewhere = 0;
    let phones = directory.phones().filter_map(|phone| {
        if phone.secret.realm != settings.realm {
            elsewhere += 1;
            return None;
        }
        let secret = Secret::Ha1 { md5: phone.secret.md5.clone(), sha256: phone.secret.sha256.clone() };
        let mut known =
            registrar::Phone::new(&phone.user, secret, phone.number.clone(), phone.trunks.clone());
        Arc::make_mut(&mut known.trunk).srtp = srtp;
        Some((phone.user.clone(), known))
    });
    let phones = phones.collect();
    if elsewhere > 0 {
        warn!(
            phones = elsewhere,
            "phones cannot register: their passwords were set for another sip.registrar.realm"
        );
    }
    PhoneBook {
        realm: settings.realm.clone(),
        domains: settings.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
        phones,
        settings: RegistrarConfig {
            min_expires: settings.min_expires,
            max_expires: settings.max_expires,
            contacts_max: settings.contacts_max as usize,
        },
    }
}

/// Phones on the open net are guessed at day and night.
pub(super) const PASSWORD_MIN: usize = 8;
