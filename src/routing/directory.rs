//! Who is called: numbers, flows and assistants, as calls see them.
//!
//! A snapshot in memory, so that calls are routed while the database is away. It is read at start and
//! after every change of resources.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Money;
use crate::config::flow::{Seconds, Step};
use crate::store::{Assistant, Number, Organization, Phone, RecordingSetting, Store, StoreError};

/// Numbers, assistants and organizations at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    organizations: HashMap<String, Organization>,
    assistants: HashMap<(String, String), Assistant>,
    numbers: HashMap<String, Entry>,
    phones: HashMap<String, Phone>,
}

#[derive(Debug)]
struct Entry {
    organization: String,
    flow: Arc<[Step]>,
}

/// What a called number leads to.
#[derive(Debug, Clone)]
pub struct Route {
    /// Owner, by name; `None` for the flow of a fresh installation.
    pub organization: Option<String>,
    /// What happens, in order.
    pub flow: Arc<[Step]>,
    /// Whether the owner has consented to recordings.
    pub recording: bool,
}

/// Where a call of a phone goes.
#[derive(Debug, Clone)]
pub struct PhoneRoute {
    /// What happens.
    pub route: Route,
    /// The trunks it goes out over; empty: it stays in the house, or goes as a flow says.
    pub trunks: Vec<String>,
}

/// Why nobody was found to talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// No assistant of that name.
    Unknown,
    /// More than one; their names and owners.
    Several(String),
}

impl Snapshot {
    /// Reads everything from the store. A flow that cannot be read is left out and logged: it was checked
    /// when it was applied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        let organizations = store.organizations().await?.into_iter().map(|s| s.value);
        let assistants = store.assistants(None).await?.into_iter().map(|s| s.value);
        let numbers = store.numbers(None).await?.into_iter().map(|s| s.value);
        let phones = store.phones(None).await?.into_iter().map(|s| s.value);
        let mut snapshot = Self::of(organizations, assistants, numbers);
        snapshot.phones = phones.map(|phone| (phone.user.clone(), phone)).collect();
        Ok(snapshot)
    }

    fn of(
        organizations: impl IntoIterator<Item = Organization>,
        assistants: impl IntoIterator<Item = Assistant>,
        numbers: impl IntoIterator<Item = Number>,
    ) -> Self {
        let entry = |number: Number| match serde_json::from_value::<Vec<Step>>(number.flow) {
            Ok(flow) => Some((number.number, Entry { organization: number.organization, flow: flow.into() })),
            Err(error) => {
                tracing::error!(%error, "a stored flow cannot be read; apply its number again");
                None
            }
        };
        Self {
            organizations: organizations.into_iter().map(|o| (o.name.clone(), o)).collect(),
            assistants: assistants
                .into_iter()
                .map(|a| ((a.organization.clone(), a.name.clone()), a))
                .collect(),
            phones: HashMap::new(),
            numbers: numbers.into_iter().filter_map(entry).collect(),
        }
    }

    /// Where a call to `called` goes: exactly that number, the same with or without `+`, or `*`. While no
    /// number is declared at all, every call goes to the built-in assistant.
    pub fn route(&self, called: &str) -> Option<Route> {
        if self.numbers.is_empty() {
            let step = Step::Assistant { assistant: String::new() };
            return Some(Route { organization: None, flow: [step].into(), recording: false });
        }
        let entry = spellings(called).into_iter().find_map(|spelling| self.numbers.get(&spelling))?;
        Some(Route {
            organization: Some(entry.organization.clone()),
            flow: Arc::clone(&entry.flow),
            recording: self.records(&entry.organization),
        })
    }

    /// Most the calls of this organization may cost on one day.
    pub fn daily_budget(&self, organization: &str) -> Option<Money> {
        self.organizations.get(organization)?.daily_budget
    }

    /// The phone of this user.
    pub fn phone(&self, user: &str) -> Option<&Phone> {
        self.phones.get(user)
    }

    /// All phones.
    pub fn phones(&self) -> impl Iterator<Item = &Phone> {
        self.phones.values()
    }

    /// Where a call from inside goes: to a number of `organization` and, if `public`, to any in E.164 that is ours.
    /// `*` is no number.
    pub fn route_within(&self, called: &str, organization: Option<&str>, public: bool) -> Option<Route> {
        let entry =
            spellings(called).into_iter().filter(|spelling| spelling != "*").find_map(|spelling| {
                let fits = |entry: &&Entry| {
                    Some(entry.organization.as_str()) == organization || (public && spelling.starts_with('+'))
                };
                self.numbers.get(&spelling).filter(fits)
            })?;
        Some(Route {
            organization: Some(entry.organization.clone()),
            flow: Arc::clone(&entry.flow),
            recording: self.records(&entry.organization),
        })
    }

    /// Where a call of a registered phone goes: to a number of its organization (or any in E.164 that is ours), to a
    /// phone of its organization, out over the trunks it may use, or to its organization's `*`.
    ///
    /// # Errors
    /// The SIP status that fits.
    pub fn route_of_phone(&self, user: &str, called: &str) -> Result<PhoneRoute, u16> {
        let phone = self.phones.get(user).ok_or(403u16)?;
        if let Some(route) = self.route_within(called, Some(&phone.organization), true) {
            return Ok(PhoneRoute { route, trunks: Vec::new() });
        }
        let own = |entry: &&Entry| entry.organization == phone.organization;
        let inside = |flow, trunks| {
            let organization = Some(phone.organization.clone());
            PhoneRoute {
                route: Route { organization, flow, recording: self.records(&phone.organization) },
                trunks,
            }
        };
        let dial = |to: String| [Step::Dial { to, timeout: Seconds(RING) }].into();
        if self.phones.get(called).is_some_and(|other| other.organization == phone.organization) {
            return Ok(inside(dial(format!("phone:{called}")), Vec::new()));
        }
        let number = called.chars().any(|c| c.is_ascii_digit()) && !called.contains(':');
        if number && !phone.trunks.is_empty() {
            return Ok(inside(dial(called.to_owned()), phone.trunks.clone()));
        }
        match self.numbers.get("*").filter(own) {
            Some(entry) => Ok(inside(Arc::clone(&entry.flow), Vec::new())),
            None if number && called.len() >= OUTSIDE_DIGITS => Err(403),
            None => Err(404),
        }
    }

    /// Whether the organization has agreed to recordings.
    pub fn records(&self, organization: &str) -> bool {
        self.organizations
            .get(organization)
            .is_some_and(|organization| organization.recording == RecordingSetting::On)
    }

    /// The assistant of that organization and name.
    pub fn assistant(&self, organization: Option<&str>, name: &str) -> Option<&Assistant> {
        self.assistants.get(&(organization?.to_owned(), name.to_owned()))
    }

    /// What a call of ours does once it is answered: talks to `assistant`. A name that only one
    /// organization has needs no `organization`; without a name, the only assistant there is talks, or the
    /// built-in one while none is declared.
    ///
    /// # Errors
    /// When that is nobody, or more than one.
    pub fn conversation(
        &self,
        organization: Option<&str>,
        assistant: Option<&str>,
    ) -> Result<Route, Unclear> {
        let fits = |(owner, name): &&(String, String)| {
            organization.is_none_or(|organization| organization == owner)
                && assistant.is_none_or(|assistant| assistant == name)
        };
        let mut found: Vec<_> = self.assistants.keys().filter(fits).collect();
        found.sort();
        match (found.as_slice(), assistant) {
            ([(owner, name)], _) => Ok(Route {
                organization: Some(owner.clone()),
                flow: [Step::Assistant { assistant: name.clone() }].into(),
                recording: self.records(owner),
            }),
            ([], None) => Ok(Route {
                organization: organization.map(str::to_owned),
                flow: [Step::Assistant { assistant: String::new() }].into(),
                recording: organization.is_some_and(|organization| self.records(organization)),
            }),
            ([], Some(_)) => Err(Unclear::Unknown),
            (several, _) => {
                let names = several.iter().map(|(owner, name)| format!("{name} of {owner}"));
                Err(Unclear::Several(names.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The name of the first assistant of a flow, for the call's record.
    pub fn first_assistant(route: &Route) -> Option<String> {
        route.flow.iter().find_map(|step| match step {
            Step::Assistant { assistant } if !assistant.is_empty() => Some(assistant.clone()),
            _ => None,
        })
    }
}

/// How a called number may be written in the directory, most exact first.
fn spellings(called: &str) -> Vec<String> {
    let plain: String = called.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    let mut all = vec![called.to_owned(), plain.clone()];
    if plain.chars().all(|c| c.is_ascii_digit()) {
        all.push(format!("+{plain}"));
        if let Some(rest) = plain.strip_prefix("00") {
            all.push(format!("+{rest}"));
        }
    } else if let Some(rest) = plain.strip_prefix('+') {
        all.push(rest.to_owned());
    }
    all.push("*".to_owned());
    all
}

/// The present snapshot, shared.
#[derive(Debug, Clone)]
pub struct Directory(Arc<watch::Sender<Arc<Snapshot>>>);

impl Directory {
    /// A directory that begins with this snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(snapshot))))
    }

    /// The present snapshot. Calls keep the one they began with.
    pub fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.borrow())
    }

    /// Reads the store anew.
    ///
    /// # Errors
    /// When the database cannot be read; the snapshot stays as it was.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let snapshot = Snapshot::read(store).await?;
        self.0.send_replace(Arc::new(snapshot));
        Ok(())
    }
}

/// How long a phone rings that another one calls.
const RING: Duration = Duration::from_secs(60);
/// From so many digits on somebody wants to call out.
const OUTSIDE_DIGITS: usize = 6;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::PhoneSecret;

    #[test]
    fn a_number_is_found_with_and_without_its_plus() {
        let snapshot = snapshot(&["+15550100", "100"]);
        for called in ["+15550100", "15550100", "0015550100", "+1 555-0100", "100"] {
            assert!(snapshot.route(called).is_some(), "{called}");
        }
        assert!(snapshot.route("+15550199").is_none());
    }

    #[test]
    fn a_star_takes_what_has_no_entry_of_its_own() {
        let snapshot = snapshot(&["100", "*"]);
        assert!(snapshot.route("anything").is_some());
    }

    #[test]
    fn a_fresh_installation_answers_every_call() {
        let route = Snapshot::default().route("100").expect("the built-in flow");
        assert_eq!(route.flow.len(), 1);
    }

    #[test]
    fn a_phone_reaches_its_house_and_what_it_may_beyond() {
        let mut all = snapshot(&["100", "+15550100"]);
        let phone = |organization: &str, user: &str, trunks: &[&str]| {
            let secret = PhoneSecret { realm: String::new(), md5: "".into(), sha256: "".into() };
            let trunks = trunks.iter().map(|trunk| (*trunk).to_owned()).collect();
            Phone { organization: organization.into(), user: user.into(), number: None, trunks, secret }
        };
        for phone in [phone("acme", "101", &[]), phone("acme", "102", &["out"]), phone("other", "201", &[])] {
            all.phones.insert(phone.user.clone(), phone);
        }
        let to = |user: &str, called: &str| match all.route_of_phone(user, called) {
            Ok(PhoneRoute { route, trunks }) => match &route.flow[0] {
                Step::Dial { to, .. } => format!("dials {to} over {trunks:?}"),
                step => step.name().to_owned(),
            },
            Err(status) => status.to_string(),
        };
        assert_eq!(to("101", "102"), "dials phone:102 over []");
        assert_eq!(to("101", "100"), "hangup");
        assert_eq!(to("201", "15550100"), "hangup", "a public number");
        assert_eq!(to("201", "100"), "404", "an extension of somebody else");
        assert_eq!(to("101", "201"), "404", "a phone of somebody else");
        assert_eq!(to("101", "+15550199"), "403");
        assert_eq!(to("102", "+15550199"), "dials +15550199 over [\"out\"]");
        assert_eq!(to("nobody", "100"), "403");
        all.numbers.insert("*".into(), Entry { organization: "acme".into(), flow: [Step::Answer {}].into() });
        let star = all.route_of_phone("101", "+15550199").expect("the star");
        assert_eq!(star.route.flow[0].name(), "answer");
        assert!(all.route_of_phone("201", "+15550199").is_err(), "the star is acme's");
    }

    #[test]
    fn a_transfer_stays_within_its_organization_but_for_public_numbers() {
        let snapshot = snapshot(&["100", "+15550100", "*"]);
        let finds =
            |called, organization, public| snapshot.route_within(called, organization, public).is_some();
        assert!(finds("100", Some("acme"), false) && finds("15550100", Some("acme"), false));
        assert!(!finds("100", Some("other"), true) && !finds("100", None, true), "somebody else's extension");
        assert!(finds("15550100", Some("other"), true) && finds("+15550100", None, true));
        assert!(!finds("+15550100", Some("other"), false), "the API keeps to its own");
        assert!(
            !finds("101", Some("acme"), true) && !finds("*", Some("acme"), true),
            "the star is no number"
        );
    }

    #[test]
    fn a_call_of_ours_finds_the_one_assistant_that_is_meant() {
        let assistant = |organization: &str, name: &str| {
            let body = json!({"organization": organization, "name": name});
            serde_json::from_value::<Assistant>(body).expect("an assistant")
        };
        let none = Snapshot::default();
        assert!(none.conversation(None, None).is_ok(), "the built-in one");
        assert_eq!(none.conversation(None, Some("desk")).err(), Some(Unclear::Unknown));
        let one = Snapshot::of([], [assistant("acme", "desk")], []);
        for asked in [(None, None), (None, Some("desk")), (Some("acme"), None), (Some("acme"), Some("desk"))]
        {
            let route = one.conversation(asked.0, asked.1).expect("one fits");
            assert_eq!(route.organization.as_deref(), Some("acme"));
        }
        assert_eq!(one.conversation(Some("other"), Some("desk")).err(), Some(Unclear::Unknown));
        let two = Snapshot::of([], [assistant("acme", "desk"), assistant("zeta", "desk")], []);
        assert!(two.conversation(Some("zeta"), None).is_ok());
        assert!(
            matches!(two.conversation(None, Some("desk")), Err(Unclear::Several(names)) if names.contains("zeta"))
        );
    }

    fn snapshot(numbers: &[&str]) -> Snapshot {
        let number = |number: &&str| {
            let flow = json!([{"step": "hangup"}]);
            let body = json!({"organization": "acme", "number": number, "flow": flow});
            serde_json::from_value::<Number>(body).expect("a number")
        };
        Snapshot::of([], [], numbers.iter().map(number))
    }
}
