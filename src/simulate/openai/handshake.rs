//! The HTTP side of a connection: what the upgrade request must look like, and how it is refused.

use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};

use super::error::ApiError;
use super::fault::Fault;

/// What the server asks of a request.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The one key that is right; `None`: any.
    pub api_key: Option<String>,
    /// The models there are; empty: any.
    pub models: Vec<String>,
}

/// An upgrade request that was accepted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Accepted {
    /// From the query.
    pub model: String,
    /// The `OpenAI-Safety-Identifier` header.
    pub safety_identifier: Option<String>,
    /// The connection is accepted and the session refused.
    pub session_refused: Option<ApiError>,
    /// Mistakes that do not keep the connection from being accepted: code and words.
    pub violations: Vec<(&'static str, String)>,
}

/// An upgrade request that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// HTTP status.
    pub status: u16,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// The body's error.
    pub error: ApiError,
    /// The client is to blame, not a fault that was asked for.
    pub violation: bool,
}

impl Policy {
    /// Judges a request; `faults` are those of this connection.
    ///
    /// # Errors
    /// How it is refused.
    pub fn judge(&self, request: &Request, faults: &[Fault]) -> Result<Accepted, Box<Rejected>> {
        for fault in faults {
            if let Fault::Refuse { status, retry_after } = *fault {
                let error = refusal(status);
                return Err(Box::new(Rejected { status, retry_after, error, violation: false }));
            }
        }
        let reject = |status, code, message: String| {
            let error = ApiError::new(code, message);
            Box::new(Rejected { status, retry_after: None, error, violation: true })
        };
        if request.uri().path() != PATH {
            let message = format!("Invalid URL (GET {}); this server serves {PATH}", request.uri().path());
            return Err(reject(404, "not_found", message));
        }
        let Some(key) = api_key(request) else {
            let message = "Missing bearer authentication in header".to_owned();
            return Err(reject(401, "missing_api_key", message));
        };
        if self.api_key.as_ref().is_some_and(|right| *right != key) {
            return Err(reject(401, "invalid_api_key", "Incorrect API key provided.".to_owned()));
        }
        self.accept(request).map_err(|error| {
            let status = if error.code == "not_found" { 404 } else { 400 };
            Box::new(Rejected { status, retry_after: None, error, violation: true })
        })
    }

    fn accept(&self, request: &Request) -> Result<Accepted, ApiError> {
        let mut accepted = Accepted {
            safety_identifier: text_of(request, "openai-safety-identifier").map(str::to_owned),
            ..Accepted::default()
        };
        for (name, value) in query(request.uri().query().unwrap_or_default()) {
            match name.as_str() {
                "model" => accepted.model = value,
                "fault" => {}
                "call_id" => return Err(ApiError::new("not_found", "No call with this call_id.")),
                "intent" => {
                    return Err(ApiError::new("invalid_value", "This server has no transcription sessions."));
                }
                other => {
                    accepted.violations.push(("unknown_query_parameter", format!("`{other}` in the URL")))
                }
            }
        }
        if accepted.model.is_empty() {
            return Err(ApiError::new("missing_model", "You must provide a model parameter.").at("model"));
        }
        if !self.models.is_empty() && !self.models.contains(&accepted.model) {
            let message =
                format!("The model '{}' does not exist or you do not have access to it.", accepted.model);
            accepted.session_refused = Some(ApiError::new("model_not_found", message));
        }
        if text_of(request, "openai-beta").is_some() {
            accepted.violations.push(("beta_header", "the OpenAI-Beta header must not be sent".to_owned()));
            let message = "The Realtime Beta API is not supported. Remove the OpenAI-Beta header.";
            accepted.session_refused = Some(ApiError::new("beta_api_shape_disabled", message));
        }
        Ok(accepted)
    }
}

/// Completes the upgrade of an accepted request.
pub fn complete(request: &Request, mut response: Response) -> Response {
    if protocols(request).any(|protocol| protocol == "realtime") {
        let realtime = HeaderValue::from_static("realtime");
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, realtime);
    }
    response
}

impl Rejected {
    /// The HTTP response.
    pub fn response(&self) -> ErrorResponse {
        let body = json!({"error": self.error.to_json(None)}).to_string();
        let mut response = ErrorResponse::new(Some(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The faults a URL asks for. A mistake in one is an error of whoever tests, and said so.
pub fn faults_of(target: &str) -> Result<Vec<Fault>, super::fault::FaultError> {
    let raw = target.split_once('?').map_or("", |(_, query)| query);
    query(raw).into_iter().filter(|(name, _)| name == "fault").map(|(_, value)| value.parse()).collect()
}

fn refusal(status: u16) -> ApiError {
    match status {
        401 => ApiError::new("invalid_api_key", "Incorrect API key provided."),
        403 => ApiError::new("unsupported_country_region_territory", "Access denied."),
        404 => ApiError::new("model_not_found", "The model does not exist or you do not have access to it."),
        429 => ApiError { kind: "requests", ..ApiError::new("rate_limit_exceeded", "Rate limit reached.") },
        _ => ApiError { kind: "server_error", ..ApiError::new("server_error", "The server had an error.") },
    }
}

/// The key from `Authorization` or, as browsers send it, from a subprotocol.
fn api_key(request: &Request) -> Option<String> {
    let bearer = text_of(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = bearer.or_else(|| protocols(request).find_map(|p| p.strip_prefix("openai-insecure-api-key.")));
    key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty())
}

fn protocols(request: &Request) -> impl Iterator<Item = &str> {
    text_of(request, "sec-websocket-protocol").unwrap_or_default().split(',').map(str::trim)
}

fn text_of<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn query(raw: &str) -> Vec<(String, String)> {
    let pairs = raw.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (unescape(n), unescape(v)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The only resource there is.
pub const PATH: &str = "/v1/realtime";

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    const KEY: (&str, &str) = ("authorization", "Bearer sk-test");

    fn status(uri: &str, headers: &[(&str, &str)]) -> u16 {
        let policy = Policy { api_key: Some("sk-test".into()), models: Vec::new() };
        policy.judge(&request(uri, headers), &[]).map_or_else(|rejected| rejected.status, |_| 101)
    }

    #[test]
    fn path_key_and_model_are_required() {
        assert_eq!(status("/v1/realtime?model=m", &[KEY]), 101);
        assert_eq!(status("/v2/realtime?model=m", &[KEY]), 404);
        assert_eq!(status("/v1/realtime?model=m", &[]), 401);
        assert_eq!(status("/v1/realtime?model=m", &[("authorization", "Bearer other")]), 401);
        assert_eq!(status("/v1/realtime", &[KEY]), 400);
        assert_eq!(status("/v1/realtime?call_id=rtc_1", &[KEY]), 404);
        let browser = ("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-test");
        assert_eq!(status("/v1/realtime?model=m", &[browser]), 101);
    }

    #[test]
    fn the_beta_header_costs_the_session() {
        let request = request("/v1/realtime?model=m", &[KEY, ("openai-beta", "realtime=v1")]);
        let accepted = Policy::default().judge(&request, &[]).unwrap();
        assert_eq!(accepted.session_refused.unwrap().code, "beta_api_shape_disabled");
        assert_eq!(accepted.violations[0].0, "beta_header");
    }

    #[test]
    fn a_refusal_carries_its_retry_after() {
        let faults = faults_of("/v1/realtime?model=m&fault=refuse%3A429:7").unwrap();
        let rejected = Policy::default().judge(&request("/x", &[]), &faults).unwrap_err();
        let response = rejected.response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        assert!(faults_of("/?fault=nonsense").is_err());
    }
}
