//! Webhooks: signed, sent until somebody answers 2xx.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use ring::hmac;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::book::Call;
use super::create::Callback;
use super::fault::Fault;
use super::record::{Collector, Record};
use super::socket::now;

/// Tells of calls.
pub(super) struct Webhooks {
    pub client: reqwest::Client,
    pub collector: Arc<Collector>,
    /// From the first attempt to the second; doubled each time.
    pub retry: Duration,
    /// Told of every call's events.
    pub account: Mutex<Vec<Callback>>,
    pub stop: CancellationToken,
}

impl Webhooks {
    /// Tells all who want to know, and comes back when that is done or given up.
    pub(super) async fn tell(&self, event: &str, call: &Call) {
        let body = json!({"event": event, "call": call.to_json()});
        let body = text_of(&body);
        let twice = call.faults.contains(&Fault::WebhooksTwice);
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let to: Vec<&Callback> = call.callback(event).into_iter().chain(&account).collect();
        let sending = to.into_iter().map(async |callback| {
            self.send(event, call, callback, &body).await;
            if twice {
                self.send(event, call, callback, &body).await;
            }
        });
        tokio::select! {
            _ = futures_util::future::join_all(sending) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn send(&self, event: &str, call: &Call, callback: &Callback, body: &str) {
        let mut pause = self.retry;
        for attempt in 1..=ATTEMPTS_MAX {
            let status = self.attempt(call, callback, body).await;
            let record = Record::Webhook { event: event.to_owned(), attempt, status };
            self.collector.add(call.number, now(), record);
            if (200..300).contains(&status) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn attempt(&self, call: &Call, callback: &Callback, body: &str) -> u16 {
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let forged = call.faults.contains(&Fault::WebhooksForged);
        let sign = |secret: &String| match forged {
            true => signature("another secret", body.as_bytes(), &timestamp),
            false => signature(secret, body.as_bytes(), &timestamp),
        };
        let signatures: Vec<String> = callback.secrets.iter().map(sign).collect();
        let mut request = self.client.post(&callback.url).header("content-type", "application/json");
        if !signatures.is_empty() {
            request = request
                .header("x-ultravox-webhook-timestamp", &timestamp)
                .header("x-ultravox-webhook-signature", signatures.join(","));
        }
        match request.body(body.to_owned()).send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(error) => {
                tracing::debug!(%error, "a webhook of the simulator was not answered");
                0
            }
        }
    }
}

/// Hex HMAC-SHA256 of the body followed by the timestamp.
pub fn signature(secret: &str, body: &[u8], timestamp: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(body);
    context.update(timestamp.as_bytes());
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text_of(value: &Value) -> String {
    value.to_string()
}

const ATTEMPTS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_body_and_time() {
        // RFC 4231, test case 2: the text is cut in two at an arbitrary place.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", b"what do ya want ", "for nothing?"), expected);
    }
}
