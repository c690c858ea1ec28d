//! The running service as the commands beside it reach it: over HTTP, on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A way to the service of a configuration.
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
        crate::install_crypto_provider();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .no_proxy();
        // Either way nothing is verified, so this machine's certificates are not read: it need not have any.
        let (client, scheme) = if config.http.tls.is_some() {
            // This host's own address: its certificate names another host, and may be self-signed.
            (client.tls_danger_accept_invalid_certs(true), "https")
        } else {
            (client.tls_certs_only([]), "http")
        };
        Ok(Self {
            client: client.build()?,
            base: format!("{scheme}://{}", reachable(config.http.listen)),
        })
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
