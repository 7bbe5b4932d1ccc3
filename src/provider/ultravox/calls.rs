//! The REST side of calls: a shell around one HTTP client.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use crate::provider::ProviderError;
use crate::provider::connect::retry_after;
use crate::time::UnixMs;
use crate::web;

use super::request::{CallObject, refusal};

/// Calls of one account.
#[derive(Debug, Clone)]
pub struct Calls {
    provider: String,
    /// With `/api`, without a slash at the end.
    base: String,
    http: reqwest::Client,
}

impl Calls {
    /// Of the service at `url`, `https://api.ultravox.ai` for example.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] when the address or a certificate cannot be used.
    pub fn new(
        provider: &str,
        url: &str,
        extra_roots: &[CertificateDer<'static>],
        limit: Duration,
    ) -> Result<Self, ProviderError> {
        let wrong = |cause| ProviderError::Misconfigured { provider: provider.to_owned(), cause };
        let root = url.trim_end_matches('/').trim_end_matches("/api");
        let base = format!("{root}/api");
        let parsed =
            reqwest::Url::parse(&base).map_err(|error| wrong(format!("the address `{url}`: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong(format!("the address `{url}` must start with https:// or http://")));
        }
        let http = web::client(extra_roots, limit)
            .map_err(|error| wrong(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { provider: provider.to_owned(), base, http })
    }

    /// Whether the service is asked over TLS.
    pub fn is_secure(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// Makes a call.
    ///
    /// # Errors
    /// Unreachable, refused with its HTTP status, or an answer that is no call.
    pub async fn create(
        &self,
        key: Option<&SecretString>,
        body: String,
    ) -> Result<CallObject, ProviderError> {
        // What is said first is ours to decide.
        let request = self.http.post(format!("{}/calls?enableGreetingPrompt=false", self.base));
        let request = with_key(request, key).header("content-type", "application/json").body(body);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, retry) = (answer.status(), retry_after(answer.headers(), UnixMs::now()));
        let body = text(answer).await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(refusal(&self.provider, status.as_u16(), retry, &body));
        }
        serde_json::from_str(&body).map_err(|error| ProviderError::Unreachable {
            provider: self.provider.clone(),
            cause: format!("its answer describes no call: {error}"),
        })
    }

    /// A call as it is now; `None`: that cannot be found out.
    pub async fn get(&self, key: Option<&SecretString>, id: &str) -> Option<CallObject> {
        let mut url = reqwest::Url::parse(&self.base).ok()?;
        url.path_segments_mut().ok()?.extend(["calls", id]);
        let answer = with_key(self.http.get(url), key).send().await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        serde_json::from_str(&text(answer).await.ok()?).ok()
    }

    fn unreachable(&self, error: &reqwest::Error) -> ProviderError {
        // The address holds nothing secret, but it is long and known.
        let mut cause = format!("asking for a call: {error}");
        let mut deeper = std::error::Error::source(error);
        while let Some(error) = deeper {
            cause.push_str(&format!(": {error}"));
            deeper = error.source();
        }
        ProviderError::Unreachable { provider: self.provider.clone(), cause }
    }
}

fn with_key(request: RequestBuilder, key: Option<&SecretString>) -> RequestBuilder {
    match key.map(|key| reqwest::header::HeaderValue::from_str(key.expose_secret().trim())) {
        Some(Ok(mut value)) => {
            value.set_sensitive(true);
            request.header("x-api-key", value)
        }
        // The keys have been checked.
        Some(Err(_)) | None => request,
    }
}

/// The body, as far as a call can be long.
async fn text(mut answer: Response) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MOST_OCTETS {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// A call with a long prompt and many tools is tens of kilobytes.
const MOST_OCTETS: usize = 4 << 20;
