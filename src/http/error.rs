//! Errors as the API tells them: `{"error":{"code","message"}}`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::store::StoreError;
use crate::telemetry::incident::Incident;

/// An error answer.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    store: Option<StoreFailed>,
}

/// Stands in the extensions of an answer for which the store failed: the reason, to be counted.
#[derive(Clone, Copy, Debug)]
pub struct StoreFailed(pub &'static str);

impl ApiError {
    /// 400: what was sent is wrong, and how.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 401: no or unknown credentials.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        )
    }

    /// 408: the body did not come in time.
    pub fn request_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 421: it was meant for another host.
    pub fn misdirected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message)
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts into an answer what is to be counted of this error.
    pub fn mark(&self, response: &mut Response) {
        if let Some(failed) = self.store {
            response.extensions_mut().insert(failed);
        }
    }

    /// Whether the caller is not, or no longer, allowed to ask.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            store: None,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        static FAILED: Mutex<BTreeMap<&str, Incident>> = Mutex::new(BTreeMap::new());
        let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = failed.entry(error.reason()).or_default().note() {
            tracing::warn!(error = %error, untold, "a query failed");
        }
        Self {
            store: Some(StoreFailed(error.reason())),
            ..Self::unavailable("the store does not answer")
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        self.mark(&mut response);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of an unread body is not worth reading.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::captured::Captured;

    #[test]
    fn what_fails_in_the_store_is_told_once_and_not_with_every_request() {
        let (captured, _guard) = Captured::begin();
        for _ in 0..100 {
            let error = ApiError::from(StoreError::Unavailable("nobody answers".to_owned()));
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let _another = ApiError::from(StoreError::Full("no room".to_owned()));
        let told = captured.lines_with("a query failed");
        assert_eq!(told.len(), 2, "{told:?}");
    }
}
