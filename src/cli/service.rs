//! The running service as the commands beside it reach it: over HTTP, on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use reqwest::{Client, ClientBuilder};
use serde_json::Value;

use crate::config::Config;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What the service is called, wherever it listens.
const NAME: &str = "localhost";

/// A way to the service.
pub(super) struct Service {
    /// The client.
    pub(super) client: Client,
    base: String,
}

impl Service {
    /// The service that would run under this configuration.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub(super) fn of(config: &Config) -> Result<Self, reqwest::Error> {
        let is_encrypted = config.http.tls.is_some();
        let scheme = if is_encrypted { "https" } else { "http" };
        let listen = reachable(config.http.listen);
        let base = format!("{scheme}://{NAME}:{}", listen.port());
        // In a URL the address would lose its zone.
        Self::with(base, Client::builder().resolve(NAME, listen))
    }

    /// The service at an address of this host, `http://…` or `https://…` without a path.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub(super) fn at(base: String) -> Result<Self, reqwest::Error> {
        Self::with(base, Client::builder())
    }

    fn with(base: String, client: ClientBuilder) -> Result<Self, reqwest::Error> {
        crate::install_crypto_provider();
        let client = client.timeout(ANSWER_TIMEOUT).no_proxy();
        // Either way nothing is verified, so this machine's certificates are not read: it need not have any.
        let client = if base.starts_with("https:") {
            // This host's own address: its certificate names another host, and may be self-signed.
            client.tls_danger_accept_invalid_certs(true)
        } else {
            client.tls_certs_only([])
        };
        let client = client.build()?;
        Ok(Self { client, base })
    }

    /// The address of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What the service says to everybody is in the way of events; nothing where it is ready.
    ///
    /// # Errors
    /// When nobody answers, or somebody else.
    pub(super) async fn obstacles(&self) -> Result<Vec<String>, anyhow::Error> {
        let answer = self.client.get(self.url("/readyz")).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["status"].is_string(), "no readiness");
        let reasons = answer["reasons"].as_array().into_iter().flatten();
        let reasons = reasons.filter_map(Value::as_str);
        Ok(reasons.map(str::to_owned).collect())
    }
}

/// A service that listens everywhere is reached here.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    let here = match listen {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    if listen.ip().is_unspecified() {
        listen.set_ip(here);
    }
    listen
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_reached_where_it_listens() {
        for (listen, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            // An address of one link is nothing without its zone.
            ("[fe80::1%4]:8080", "[fe80::1%4]:8080"),
        ] {
            let [listen, reached]: [SocketAddr; 2] =
                [listen, reached].map(|address| address.parse().unwrap());
            assert_eq!(reachable(listen), reached, "{listen}");
        }
    }
}
