//! TLS for the listener, with the cryptography that encrypted upstreams of the DNS use as well.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::settings::Tls;
use crate::store::words;

/// Reads certificate and key.
///
/// # Errors
/// A file cannot be read, holds something else, or the two do not belong together; in one sentence.
pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&tls.certificate)?).collect();
    let certificates = certificates.ok().filter(|list| !list.is_empty());
    let certificates =
        certificates.ok_or_else(|| format!("{} holds no certificate in PEM form", tls.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)?)
        .map_err(|_| format!("{} holds no private key in PEM form", tls.key.display()))?;
    let unusable = |error: rustls::Error| {
        format!("{} and {} cannot be used: {error}", tls.certificate.display(), tls.key.display())
    };
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {}", path.display(), words(&error)))
}
