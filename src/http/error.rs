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
    is_timeout: bool,
}

/// Stands in the extensions of an answer for which the store failed: the reason, to be counted.
#[derive(Clone, Copy, Debug)]
pub struct StoreFailed(pub &'static str);

impl ApiError {
    /// Why the store failed, if it did: for whoever cannot put it into an answer any more.
    pub fn store_failed(&self) -> Option<StoreFailed> {
        self.store
    }

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

    /// 429.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
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

    /// Whether the store failed; else this is the client's, or too much at once.
    pub fn is_of_store(&self) -> bool {
        self.store.is_some()
    }

    /// Whether the store's time was over: it is away or busy, or was asked too much.
    pub fn is_timeout(&self) -> bool {
        self.is_timeout
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
            is_timeout: false,
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
        // What else is asked of a store is small.
        let is_timeout = matches!(
            error,
            StoreError::Timeout {
                what: "a query" | "a histogram",
                ..
            }
        );
        let message = match error {
            StoreError::Timeout { after, .. } if is_timeout => format!(
                "the store did not answer within {after:?}: it is away or busy, or the question is too large; \
                 a shorter range of time or one more filter makes it smaller"
            ),
            _ => "the store does not answer".to_owned(),
        };
        Self {
            store: Some(StoreFailed(error.reason())),
            is_timeout,
            ..Self::unavailable(message)
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
                // The same question at once would take as long again.
                let seconds = if self.is_timeout { "10" } else { "1" };
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
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
    fn a_question_that_takes_too_long_is_not_asked_again_at_once() {
        let late = StoreError::Timeout {
            what: "a histogram",
            after: std::time::Duration::from_secs(7),
        };
        // Of a kind whose telling no other test watches.
        let other = StoreError::Other("a cursor broke".to_owned());
        for (error, words, seconds) in [
            (late, ["within 7s", "away", "range of time"], "10"),
            (other, ["the store", "does not", "answer"], "1"),
        ] {
            let error = ApiError::from(error);
            for words in words {
                assert!(error.message().contains(words), "{}", error.message());
            }
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }

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
