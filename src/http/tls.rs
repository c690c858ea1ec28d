//! TLS on the listening socket, by rustls, when `http.tls` names a certificate and a key.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use memchr::memmem;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::{TlsConfig, shown_path};

/// A certificate that ends within this time should have been renewed by now.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Why certificate and key cannot be used; a file is named, its content never.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("http.tls.cert: {0}")]
    Certificate(String),
    /// The key, or it belongs to another certificate.
    #[error("http.tls.key: {0}")]
    Key(String),
}

/// Reads a certificate chain and its key, which belong together.
///
/// # Errors
/// When clients could not be served with them. An expired certificate is none: clients decide.
pub fn read_pair(config: &TlsConfig) -> Result<CertifiedKey, TlsError> {
    let TlsConfig { cert, key } = config;
    let chain = read_chain(cert).map_err(TlsError::Certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| TlsError::Key(unreadable(key, &error)))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
        Error::InvalidCertificate(_) => {
            TlsError::Certificate(format!("{} cannot be used: {error}", cert.display()))
        }
        Error::InconsistentKeys(_) => TlsError::Key(format!(
            "{} is not the key of the certificate {}",
            key.display(),
            cert.display()
        )),
        _ => TlsError::Key(format!("{} cannot be used: {error}", key.display())),
    })
}

/// Every certificate of a file. The parser passes over one that does not begin on a line of its own,
/// and clients would miss it.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = std::fs::read(path).map_err(|error| unreadable(path, &pem::Error::Io(error)))?;
    // A byte order mark is no part of the first line.
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(path, &error))?;
    if chain.is_empty() {
        return Err(unreadable(path, &pem::Error::NoItemsFound));
    }
    // What is commented out is meant to be passed over.
    let begun: usize = text
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.trim_ascii_start().starts_with(b"#"))
        .map(|line| memmem::find_iter(line, b"-----BEGIN CERTIFICATE-----").count())
        .sum();
    if begun != chain.len() {
        let (path, read) = (shown_path(path), chain.len());
        return Err(format!(
            "{begun} certificates begin in {path}, and {read} can be read"
        ));
    }
    Ok(chain)
}

fn unreadable(path: &Path, error: &pem::Error) -> String {
    let path = shown_path(path);
    match error {
        pem::Error::Io(error) => format!("{path} cannot be read: {error}"),
        // What the parser says of it can hold a line of the file, and so the key.
        _ => format!("{path} holds nothing in PEM that can be read"),
    }
}

/// What is wrong, now or soon, with the time in which the certificate of a configuration is valid.
pub fn warning(config: &TlsConfig) -> Option<String> {
    let pair = read_pair(config).ok()?;
    let (from, until) = validity(&pair)?;
    let said = out_of_time(from, until, Timestamp::now())?;
    Some(format!("http.tls.cert: {} {said}", config.cert.display()))
}

/// From when until when the certificate itself, not its chain, is valid, as far as it says.
fn validity(pair: &CertifiedKey) -> Option<(Option<Timestamp>, Option<Timestamp>)> {
    crate::install_crypto_provider();
    let (own, issuer) = (pair.cert.first()?, pair.cert.last()?);
    let mut anchors = RootCertStore::empty();
    anchors.add(issuer.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder(Arc::new(anchors));
    let verifier = verifier.build().ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    // rustls has no getter for them, but its refusals at both ends of time name them.
    let refused_at = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let Err(Error::InvalidCertificate(
            CertificateError::NotValidYetContext {
                not_before: end, ..
            }
            | CertificateError::ExpiredContext { not_after: end, .. },
        )) = verifier.verify_server_cert(own, &[], &name, &[], time)
        else {
            return None;
        };
        Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()
    };
    Some((refused_at(0), refused_at(u64::MAX)))
}

fn out_of_time(
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    if let Some(from) = from.filter(|from| now < *from) {
        return Some(format!(
            "is not valid before {from}; clients refuse it until then"
        ));
    }
    let until = until?;
    let left = until.duration_since(now);
    if left.is_negative() {
        Some(format!("expired at {until}; clients refuse it"))
    } else if left < RENEWED_BEFORE {
        let days = left.as_hours() / 24;
        Some(format!("expires at {until}, in {days} days; renew it"))
    } else {
        None
    }
}

/// The certificate that new connections are shown; another one may take its place at any time.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// The pair that a configuration names.
    ///
    /// # Errors
    /// As [`read_pair`].
    pub fn new(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let pair = read_pair(config)?;
        Ok(Arc::new(Self(RwLock::new(Arc::new(pair)))))
    }

    /// What does the handshakes.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        crate::install_crypto_provider();
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(server))
    }

    /// Shows this pair from now on; whether its certificate is another one.
    pub fn replace(&self, pair: CertifiedKey) -> bool {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let differs = shown.cert != pair.cert;
        *shown = Arc::new(pair);
        differs
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_before_it_begins_and_when_it_ends() {
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        let (from, until) = (at("2026-09-01T00:00:00Z"), at("2026-11-30T00:00:00Z"));
        let said = |now| out_of_time(Some(from), Some(until), at(now));
        let early = said("2026-08-31T23:59:59Z").unwrap();
        assert!(early.starts_with("is not valid before 2026-09-01T00:00:00Z"));
        assert_eq!(said("2026-09-01T00:00:00Z"), None);
        assert_eq!(said("2026-11-01T00:00:00Z"), None);
        assert!(said("2026-11-20T00:00:00Z").unwrap().contains("in 10 days"));
        assert!(said("2026-12-01T00:00:00Z").unwrap().starts_with("expired"));
    }
}
