//! Answers: status, headers and bytes as the real server and the proxies before it send them.

use serde_json::{Value, json};

pub(super) const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// How the bytes go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Reset,
    HalfThenReset,
    Drip(usize, std::time::Duration),
    Never,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Whether Authentik itself answers, and not something before it: adds its usual headers.
    pub(super) by_authentik: bool,
    pub(super) delivery: Delivery,
    pub(super) delay: Option<std::time::Duration>,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type,
            body: body.into(),
            headers: Vec::new(),
            by_authentik: true,
            delivery: Delivery::Whole,
            delay: None,
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, JSON, body.to_string())
    }

    pub(super) fn detail(status: u16, detail: &str) -> Self {
        Self::json(status, &json!({ "detail": detail }))
    }

    /// A page of Authentik's web interface.
    pub(super) fn page(status: u16, title: &str) -> Self {
        Self::new(
            status,
            HTML,
            format!(
                "\n\n<!DOCTYPE html>\n<html\n    lang=\"en\"\n    data-theme=\"light\"\n>\n    <head>\n        \
                 <meta charset=\"UTF-8\">\n        <title>\nauthentik\n</title>\n    </head>\n    <body>\n\
                 <ak-message-container></ak-message-container>\n<h1 class=\"pf-c-title pf-m-3xl\" \
                 data-test-id=\"card-title\">\n{title}\n</h1>\n<a id=\"ak-back-home\" href=\"/\">Go home</a>\n    \
                 </body>\n</html>\n"
            ),
        )
    }

    /// A page of a proxy before Authentik.
    pub(super) fn proxy(status: u16, title: &str) -> Self {
        let mut answer = Self::new(
            status,
            "text/html",
            format!(
                "<html>\n<head><title>{status} {title}</title></head>\n<body>\n<center><h1>{status} {title}</h1>\
                 </center>\n<hr><center>nginx</center>\n</body>\n</html>\n"
            ),
        );
        answer.by_authentik = false;
        answer.headers.push(("server", "nginx".to_owned()));
        answer
    }

    /// The router of Authentik, when it cannot reach the server: by `Accept` as JSON, HTML or text.
    pub(super) fn router(status: u16, accept: &str, message: &str, old: bool) -> Self {
        let mut answer = if old {
            let message = format!("failed to connect to authentik backend: {message}");
            let body = if accept == "application/json" {
                format!("{}\n", json!({ "error": message }))
            } else {
                message
            };
            // The older router never says that what it sends is JSON.
            Self::new(status, "text/plain; charset=utf-8", body)
        } else if accept.contains("application/json") {
            // The encoder of the router ends its JSON with a newline.
            Self::new(
                status,
                "application/json",
                format!("{}\n", json!({ "error": message })),
            )
        } else if accept.contains("text/html") {
            Self::new(
                status,
                "text/html",
                format!(
                    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>authentik</title>\
                     </head><body><p>{message}</p></body></html>\n"
                ),
            )
        } else {
            Self::new(status, "text/plain", message)
        };
        answer.by_authentik = false;
        answer
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
