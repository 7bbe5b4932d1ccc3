//! Errors as RFC 9457 problem documents: what happened, what it means, what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::store::StoreError;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    retryable: bool,
    errors: Vec<FieldError>,
    retry_after_s: Option<u32>,
}

/// What is wrong with one field of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer (or the name of a query parameter).
    pub pointer: String,
    /// Short and stable.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Problem {
    /// A problem. `code` is stable; `detail` says what to do.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let retryable = status.is_server_error();
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            retryable,
            errors: Vec::new(),
            retry_after_s: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "The request cannot be understood", detail)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Not signed in",
            "Send `Authorization: Bearer TOKEN`; make a token with `tandem token create --role admin`.",
        )
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Not possible in this state", detail)
    }

    /// 422 with all that is wrong at once.
    pub fn unprocessable(detail: impl Into<String>, errors: Vec<FieldError>) -> Self {
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", detail);
        problem.errors = errors;
        problem
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail);
        problem.retry_after_s = Some(1);
        problem
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "type": format!("/docs/errors#{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
        });
        if !self.errors.is_empty() {
            document["errors"] = self
                .errors
                .iter()
                .map(|e| json!({"pointer": e.pointer, "code": e.code, "message": e.message}))
                .collect();
        }
        document
    }
}

/// The answer when the store fails a request.
pub fn store_problem(error: StoreError) -> Problem {
    match &error {
        StoreError::NotFound { .. } => return Problem::not_found(error.to_string()),
        StoreError::Conflict { .. } => return Problem::conflict(error.to_string()),
        StoreError::Invalid { .. } => return Problem::unprocessable(error.to_string(), Vec::new()),
        _ => {}
    }
    tracing::warn!(%error, "the store did not answer a request");
    Problem::unavailable("the store does not answer now; try again")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.to_json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Read by the middleware that adds the request id to the document.
        response.extensions_mut().insert(self);
        response
    }
}
