//! Requests over HTTP.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use super::request::{Method, Outcome, Request};
use super::settings::Access;
use crate::web;

/// Asks one PBX. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    authorization: HeaderValue,
    http: reqwest::Client,
    permits: Arc<Semaphore>,
}

impl Client {
    /// Of the PBX at `access`.
    ///
    /// # Errors
    /// In words, when the address or the user cannot be used.
    pub fn new(access: &Access) -> Result<Self, String> {
        let parsed =
            reqwest::Url::parse(&access.url).map_err(|error| format!("`{}`: {error}", access.url))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("`{}` must start with http:// or https://", access.url));
        }
        Ok(Self {
            base: access.url.clone(),
            authorization: authorization(access)?,
            http: web::neighbour_client(LIMIT, IDLE)?,
            permits: Arc::new(Semaphore::new(AT_A_TIME)),
        })
    }

    /// Makes a request. It waits while too many are under way.
    pub async fn ask(&self, request: &Request) -> Outcome {
        let Ok(_permit) = self.permits.acquire().await else {
            return Outcome::Lost("the client is closed".to_owned());
        };
        match self.send(request).await {
            Ok(outcome) => outcome,
            // The PBX may have closed a connection that was kept open.
            Err(error) if request.is_idempotent() && !error.is_timeout() => match self.send(request).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Lost(in_words(&error)),
            },
            Err(error) => Outcome::Lost(in_words(&error)),
        }
    }

    async fn send(&self, request: &Request) -> Result<Outcome, reqwest::Error> {
        let http = request.http();
        let method = match http.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
        };
        let asked = self.http.request(method, format!("{}{}", self.base, http.path));
        let asked = asked.header(AUTHORIZATION, self.authorization.clone());
        let asked = match &http.body {
            Some(body) => asked.header("content-type", "application/json").body(body.to_string()),
            None => asked,
        };
        let mut answer = asked.send().await?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MOST_OCTETS {
                return Ok(Outcome::Lost("the answer is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Outcome::of(status, body))
    }
}

/// Basic authentication, RFC 7617.
pub(super) fn authorization(access: &Access) -> Result<HeaderValue, String> {
    let plain = format!("{}:{}", access.username, access.password.expose_secret());
    let text = format!("Basic {}", base64_simd::STANDARD.encode_to_string(plain));
    let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", LIMIT.as_secs());
    }
    // The innermost cause says it; the rest repeats the address.
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

const LIMIT: Duration = Duration::from_secs(5);
/// Asterisk closes a connection that was idle for 15 s.
const IDLE: Duration = Duration::from_secs(10);
/// Asterisk takes 100 sessions by default, from everybody.
const AT_A_TIME: usize = 32;
/// Thousands of channels.
const MOST_OCTETS: usize = 16 << 20;
