//! Ultravox in its SIP-native medium: the caller is joined with an agent of the service by SIP, and the
//! call is followed by the service's webhooks.
//!
//! No audio passes a session here, so that this is no [`Provider`](super::Provider): routing dials
//! [`SipAgent::uri`] over [`SipAgent::trunk`], shows the service a mark of the call, and asks
//! [`Following`] afterwards what was said and what it costs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::time::UnixMs;

pub mod account;
pub mod webhook;

use account::{Bill, Line, read_bill, read_page};
use webhook::{Rejected, Webhook};

/// A `[providers.NAME]` section of kind `ultravox_sip`.
#[derive(Debug, Clone)]
pub struct SipAgentConfig {
    /// The section's name.
    pub name: String,
    /// Where the agent answers: `sip:agent_ID@DOMAIN`.
    pub uri: String,
    /// The trunk it is reached over.
    pub trunk: String,
    /// Root of the service's REST.
    pub api_url: String,
    /// Keys of REST, tried in turn.
    pub api_keys: Vec<SecretString>,
    /// Whoever signs webhooks knows one of these.
    pub webhook_secrets: Vec<SecretString>,
    /// How long the agent may take to answer.
    pub ring_timeout: Duration,
    /// How long after the call its transcript and bill are waited for.
    pub account_timeout: Duration,
}

/// An agent that is called by SIP.
pub struct SipAgent {
    config: SipAgentConfig,
    client: reqwest::Client,
    followed: Mutex<Followed>,
}

/// Calls that are followed, by our mark.
#[derive(Default)]
struct Followed {
    by_mark: HashMap<String, Entry>,
    /// Webhooks that came already: event and call.
    seen: HashSet<(String, String)>,
    /// The same, oldest first.
    order: VecDeque<(String, String)>,
}

struct Entry {
    tell: mpsc::Sender<Webhook>,
    /// The caller's number or user, as the service sees it.
    caller: Option<String>,
    since: Instant,
    /// The service's name of the call, once it is known.
    call: Option<String>,
}

impl SipAgent {
    /// An agent.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(config: SipAgentConfig) -> Result<Self, String> {
        let client = crate::web::client(&[], REQUEST_LIMIT)?;
        Ok(Self { config, client, followed: Mutex::default() })
    }

    /// The section's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where it answers.
    pub fn uri(&self) -> &str {
        &self.config.uri
    }

    /// The trunk it is reached over.
    pub fn trunk(&self) -> &str {
        &self.config.trunk
    }

    /// How long it may take to answer.
    pub fn ring_timeout(&self) -> Duration {
        self.config.ring_timeout
    }

    /// Follows the call with this mark from now on.
    pub fn follow(self: &Arc<Self>, mark: String, caller: Option<String>) -> Following {
        let (tell, told) = mpsc::channel(WEBHOOKS_MAX);
        let entry = Entry { tell, caller, since: Instant::now(), call: None };
        self.followed().by_mark.insert(mark.clone(), entry);
        Following { agent: Arc::clone(self), mark, told }
    }

    /// Takes a webhook. Duplicates and calls that are not ours are accepted without effect.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn take(
        &self,
        timestamp: Option<&str>,
        signature: Option<&str>,
        body: &[u8],
    ) -> Result<(), Rejected> {
        let secrets = &self.config.webhook_secrets;
        let webhook = webhook::verify(timestamp, signature, body, secrets, UnixMs::now())?;
        self.followed().take(webhook, Instant::now());
        Ok(())
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, Followed> {
        // Each change under the lock is complete in itself.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the service; a key that is refused or limited makes way for the next.
    async fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}/api/calls/{path}", self.config.api_url.trim_end_matches('/'));
        let mut last = "there is no API key".to_owned();
        for key in &self.config.api_keys {
            let request = self.client.get(&url).header("x-api-key", key.expose_secret().trim());
            let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
            match answer.status().as_u16() {
                200 => return json(answer).await,
                status @ (401 | 403 | 429) => last = format!("the service answers {status}"),
                status => return Err(format!("the service answers {status}")),
            }
        }
        Err(last)
    }
}

/// The body, as far as an account of a call can be long.
async fn json(mut answer: reqwest::Response) -> Result<Value, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > MOST_OCTETS {
            return Err(format!("the service answers with more than {MOST_OCTETS} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| format!("the service's answer is no JSON: {error}"))
}

/// A long call's messages, a page at a time, are some hundred kilobytes.
const MOST_OCTETS: usize = 4 << 20;

impl Followed {
    fn take(&mut self, webhook: Webhook, now: Instant) {
        let Some(call) = webhook.call_id().map(str::to_owned) else { return };
        let key = (webhook.event.clone(), call.clone());
        if !self.seen.insert(key.clone()) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let Some(entry) = self.entry(&webhook, &call, now) else { return };
        entry.call = Some(call);
        // As many as there are kinds fit in.
        let _full = entry.tell.try_send(webhook);
    }

    /// By the service's name of the call, by our mark, or, where the service shows neither, by the caller: when exactly
    /// one call of this caller has begun lately and is not known yet.
    fn entry(&mut self, webhook: &Webhook, call: &str, now: Instant) -> Option<&mut Entry> {
        let known = |(_, entry): &(&String, &Entry)| entry.call.as_deref() == Some(call);
        let marked = |(mark, _): &(&String, &Entry)| webhook.is_marked(mark);
        let mark = match self.by_mark.iter().find(known).or_else(|| self.by_mark.iter().find(marked)) {
            Some((mark, _)) => mark.clone(),
            None => {
                let caller = webhook.caller()?;
                let fits = |(_, entry): &(&String, &Entry)| {
                    let recent = now.saturating_duration_since(entry.since) < CALLER_WINDOW;
                    recent && entry.call.is_none() && entry.caller.as_deref() == Some(caller)
                };
                let mut fitting = self.by_mark.iter().filter(fits);
                let only = fitting.next().map(|(mark, _)| mark.clone()).filter(|_| fitting.next().is_none());
                only?
            }
        };
        self.by_mark.get_mut(&mark)
    }
}

/// A call that is followed until this is dropped.
pub struct Following {
    agent: Arc<SipAgent>,
    mark: String,
    told: mpsc::Receiver<Webhook>,
}

/// What the service tells of a call that is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Who said what, in order.
    pub lines: Vec<Line>,
    /// The model that spoke.
    pub model: String,
    /// What is billed; `None`: not known in time.
    pub bill: Option<Bill>,
    /// What could not be had, in words.
    pub missing: Option<String>,
}

impl Following {
    /// The agent's name.
    pub fn provider(&self) -> &str {
        self.agent.name()
    }

    /// Waits for the service's account of a call that is over, as long as the section allows.
    pub async fn account(mut self) -> Account {
        let limit = self.agent.config.account_timeout;
        let mut account = Account::default();
        if tokio::time::timeout(limit, self.collect(&mut account)).await.is_err() {
            account.missing.get_or_insert_with(|| "the service did not tell in time".to_owned());
        }
        account
    }

    async fn collect(&mut self, account: &mut Account) {
        let Some(ended) = self.webhook(|event| matches!(event, "call.ended" | "call.billed")).await else {
            return;
        };
        let Some(call) = ended.call_id().map(str::to_owned) else { return };
        account.model = ended.call["model"].as_str().unwrap_or_default().chars().take(100).collect();
        match self.lines(&call).await {
            Ok(lines) => account.lines = lines,
            Err(error) => account.missing = Some(format!("the transcript: {error}")),
        }
        account.bill = read_bill(&ended.call);
        if account.bill.is_none()
            && let Some(billed) = self.webhook(|event| event == "call.billed").await
        {
            account.bill = read_bill(&billed.call);
        }
    }

    async fn webhook(&mut self, wanted: impl Fn(&str) -> bool) -> Option<Webhook> {
        loop {
            let webhook = self.told.recv().await?;
            if wanted(&webhook.event) {
                return Some(webhook);
            }
        }
    }

    async fn lines(&self, call: &str) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        let mut path = format!("{call}/messages?mode=in_call");
        for _ in 0..PAGES_MAX {
            let page = read_page(&self.agent.get(&path).await?);
            lines.extend(page.lines);
            let Some(cursor) = page.cursor else { return Ok(lines) };
            path = format!("{call}/messages?mode=in_call&cursor={cursor}");
        }
        Ok(lines)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.agent.followed().by_mark.remove(&self.mark);
    }
}

/// All agents of this installation that are called by SIP, by name.
pub type SipAgents = HashMap<String, Arc<SipAgent>>;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const WEBHOOKS_MAX: usize = 16;
/// Webhooks remembered, so that none counts twice.
const SEEN_MAX: usize = 10_000;
const PAGES_MAX: usize = 100;
/// A call whose webhook shows no mark is found by its caller only this long after it began.
const CALLER_WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(caller: &str) -> (Entry, mpsc::Receiver<Webhook>) {
        let (tell, told) = mpsc::channel(4);
        (Entry { tell, caller: Some(caller.to_owned()), since: Instant::now(), call: None }, told)
    }

    fn webhook(event: &str, call: &str, metadata: Value) -> Webhook {
        Webhook { event: event.to_owned(), call: json!({"callId": call, "metadata": metadata}) }
    }

    #[test]
    fn a_webhook_finds_its_call_by_name_mark_or_caller_and_counts_once() {
        let now = Instant::now();
        let mut followed = Followed::default();
        let (one, mut first) = entry("+1");
        let (two, mut second) = entry("+2");
        followed.by_mark.insert("m1".to_owned(), one);
        followed.by_mark.insert("m2".to_owned(), two);
        for _ in 0..2 {
            followed.take(webhook("call.joined", "a", json!({"x": "m1"})), now);
        }
        followed.take(webhook("call.ended", "a", Value::Null), now);
        let events = std::iter::from_fn(|| first.try_recv().ok()).map(|webhook| webhook.event);
        assert_eq!(events.collect::<Vec<_>>(), ["call.joined", "call.ended"]);
        let caller = |id: &str| json!({"ultravox.sip.caller_id": id});
        followed.take(webhook("call.joined", "b", caller("+1")), now);
        assert!(first.try_recv().is_err(), "the call of +1 has a name already");
        followed.take(webhook("call.joined", "c", caller("+2")), now);
        assert_eq!(second.try_recv().unwrap().call_id(), Some("c"));
    }

    #[test]
    fn two_calls_of_one_caller_are_not_guessed_apart() {
        let mut followed = Followed::default();
        let (one, mut first) = entry("+1");
        let (two, mut second) = entry("+1");
        followed.by_mark.insert("m1".to_owned(), one);
        followed.by_mark.insert("m2".to_owned(), two);
        let metadata = json!({"ultravox.sip.caller_id": "+1"});
        followed.take(webhook("call.joined", "a", metadata), Instant::now());
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
    }
}
