//! TLS on the listening socket, by rustls, when `http.tls` names a certificate and a key.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// Reads certificate and key; what it makes does the handshakes.
///
/// # Errors
/// In words, with the file's name, never its content.
pub fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, String> {
    crate::install_crypto_provider();
    let chain = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| trouble(&config.cert, "certificate", &error))?;
    if chain.is_empty() {
        return Err(trouble(
            &config.cert,
            "certificate",
            &"no certificate in it",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| trouble(&config.key, "key", &error))?;
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("http.tls: certificate and key do not serve: {error}"))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn trouble(path: &Path, what: &str, error: &dyn std::fmt::Display) -> String {
    format!(
        "http.tls: {what} {} cannot be read: {error}",
        path.display()
    )
}
