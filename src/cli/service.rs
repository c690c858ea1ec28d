//! The running service as the commands beside it reach it: over HTTP, on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A way to the service.
pub(super) struct Service {
    /// The client.
    pub(super) client: reqwest::Client,
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
        Self::at(format!("{scheme}://{}", reachable(config.http.listen)))
    }

    /// The service at an address of this host, `http://…` or `https://…` without a path.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub(super) fn at(base: String) -> Result<Self, reqwest::Error> {
        crate::install_crypto_provider();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .no_proxy();
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
}

/// A service that listens everywhere is reached here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
