//! Tools of an organization that its own web server answers.
//!
//! The request is a POST of JSON, signed: `Tandem-Signature: t=SECONDS,v1=HEX`, where the latter is HMAC-SHA256 of
//! `SECONDS.BODY` under the tool's secret. `Idempotency-Key` and `Tandem-Tool-Call` are the same for every attempt of
//! one tool call; only an attempt that never reached the server is repeated. Redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sha2::Sha256;

use super::guard::Guard;
use super::schema::Schema;
use super::{Definition, Failure, Handler, Invocation, Origin, Remote, RemoteFuture, Tool};
use crate::config::secret_of_process;
use crate::store;
use crate::time::UnixMs;
use crate::web;

/// Makes tools of what organizations declare.
#[derive(Debug, Clone)]
pub struct Webhooks {
    client: reqwest::Client,
    guard: Guard,
}

impl Webhooks {
    /// Asks where `guard` lets it.
    ///
    /// # Errors
    /// When there is no client to be had.
    pub fn new(guard: Guard) -> Result<Self, String> {
        let client = web::guarded_client(Arc::new(guard.clone()), LONGEST)?;
        Ok(Self { client, guard })
    }

    /// The tool that a resource declares. Reads its secrets.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub fn tool(&self, stored: &store::Tool) -> Result<Tool, String> {
        let url: Url = stored.url.parse().map_err(|error| format!("url: {error}"))?;
        self.guard.check(&url).map_err(|cause| format!("url: {cause}"))?;
        let secret = stored.secret_env.as_deref().map(secret_of_process).transpose()?;
        let mut headers = HeaderMap::new();
        for (name, variable) in &stored.headers_env {
            let secret = secret_of_process(variable)?;
            let value = HeaderValue::from_str(secret.expose_secret())
                .map_err(|_| format!("{variable} holds what no header can hold"))?;
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
            headers.insert(name, value);
        }
        headers.values_mut().for_each(|value| value.set_sensitive(true));
        let hook = Hook { client: self.client.clone(), url, secret, headers, name: stored.name.clone() };
        let definition = Definition {
            name: stored.name.clone(),
            description: stored.description.clone(),
            parameters: stored.parameters.clone(),
            timeout: Duration::from_secs(u64::from(stored.timeout_s.unwrap_or(store::Tool::TIMEOUT_S))),
            speak: stored.speak.clone().filter(|text| !text.trim().is_empty()),
            cancel_on_barge_in: stored.cancel_on_barge_in,
            origin: Origin::Webhook { organization: stored.organization.clone() },
        };
        Tool::new(definition, Handler::Remote(Arc::new(hook)))
    }
}

/// Whether a tool that is to be declared could be used, as far as that can be told without its secrets.
///
/// # Errors
/// In words: what is wrong with it.
pub fn check(stored: &store::Tool, guard: &Guard) -> Result<(), String> {
    super::check_name(&stored.name).map_err(|cause| format!("name: {cause}"))?;
    let url: Url = stored.url.parse().map_err(|error| format!("url: {error}"))?;
    guard.check(&url).map_err(|cause| format!("url: {cause}"))?;
    for name in stored.headers_env.keys() {
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("headers_env: `{name}` is no header name"))?;
    }
    Schema::compile(&stored.parameters).map(drop)
}

/// One tool's web server.
struct Hook {
    client: reqwest::Client,
    url: Url,
    secret: Option<SecretString>,
    headers: HeaderMap,
    name: String,
}

impl Remote for Hook {
    fn run(&self, invocation: Invocation) -> RemoteFuture {
        let body = body(&self.name, &invocation);
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let seconds = UnixMs::now().get() / 1000;
        let signed = self.secret.as_ref().map(|secret| signature(secret.expose_secret(), seconds, &body));
        for (name, value) in [
            ("tandem-signature", signed),
            ("tandem-tool-call", Some(invocation.id.clone())),
            ("idempotency-key", Some(invocation.id)),
        ] {
            // An id that is no header value is the provider's; the body has it.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let (client, url) = (self.client.clone(), self.url.clone());
        Box::pin(async move {
            let ask = || client.post(url.clone()).headers(headers.clone()).body(body.clone()).send();
            let response = match ask().await {
                Err(error) if error.is_connect() => {
                    tokio::time::sleep(RETRY).await;
                    ask().await
                }
                other => other,
            };
            read(response.map_err(|error| unreachable(&error))?).await
        })
    }
}

fn body(tool: &str, invocation: &Invocation) -> String {
    let context = &invocation.context;
    json!({
        "type": "tool.call",
        "tool": tool,
        "tool_call_id": invocation.id,
        "arguments": invocation.arguments,
        "call": {
            "id": invocation.call,
            "organization": context.organization,
            "assistant": context.assistant,
            "from": context.from,
        },
    })
    .to_string()
}

/// `t=SECONDS,v1=HEX`.
fn signature(secret: &str, seconds: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        // HMAC takes keys of every length.
        return String::new();
    };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    let code = mac.finalize().into_bytes();
    let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

fn unreachable(error: &reqwest::Error) -> Failure {
    // The URL may hold a key, and the model has no use for it.
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    tracing::debug!(cause = %crate::telemetry::Wire::from(cause.to_string().as_str()), "a tool's server cannot be reached");
    Failure::unreachable("the system behind this tool cannot be reached at the moment")
}

async fn read(mut response: reqwest::Response) -> Result<String, Failure> {
    let status = response.status();
    if status.is_redirection() {
        return Err(Failure::error(
            "the system behind this tool answered with a redirect, which is not followed",
        ));
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= ANSWER_MOST => bytes.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(Failure::error("the system behind this tool answered with too much")),
            Ok(None) => break,
            Err(_) => return Err(Failure::unreachable("the system behind this tool broke off its answer")),
        }
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    match status.as_u16() {
        200..300 if text.is_empty() => Ok(json!({"ok": true}).to_string()),
        200..300 => Ok(text),
        // What is wrong with the request is the model's to mend; what is wrong with the server is not.
        code @ 400..500 => Err(Failure::error(format!("HTTP {code}: {text}"))),
        code => Err(Failure::error(format!("the system behind this tool failed (HTTP {code})"))),
    }
}

/// No tool may take longer.
const LONGEST: Duration = Duration::from_secs(125);
/// Before a server that did not take the connection is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Bytes of an answer.
const ANSWER_MOST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        // Computed with Python's hmac module.
        assert_eq!(
            signature("whsec_test", 1_700_000_000, r#"{"a":1}"#),
            "t=1700000000,v1=38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789"
        );
    }

    #[test]
    fn a_tool_that_would_ask_a_private_address_is_refused_with_what_to_do() {
        let hooks = Webhooks::new(Guard::default()).unwrap();
        let stored = store::Tool {
            organization: "acme".to_owned(),
            name: "lookup".to_owned(),
            url: "https://192.168.1.10/hook".to_owned(),
            parameters: json!({"type": "object"}),
            ..store::Tool::default()
        };
        let cause = hooks.tool(&stored).err().unwrap();
        assert!(cause.contains("tools.allow_networks"), "{cause}");
    }
}
