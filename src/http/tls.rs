//! TLS: a certificate and its key, read once at the start.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// What speaks TLS on accepted connections: TLS 1.2 and 1.3, no client certificates, HTTP/1.1.
///
/// # Errors
/// If a file cannot be read, is not PEM, or the key is not the certificate's.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("{} is no certificate in PEM", certificate.display()))?;
    let secret =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("{} is no private key in PEM", key.display()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("{} and {} do not belong together", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
