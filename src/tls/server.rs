//! What a server of larder's own shows: a certificate that may be replaced while it serves.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{TlsError, Validity};

/// The certificate that a server shows. Without one, handshakes fail.
#[derive(Debug, Default)]
pub struct ServedCertificate {
    current: ArcSwapOption<Shown>,
}

#[derive(Debug)]
struct Shown {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// The text holds no certificate.
    #[error("there is no certificate in PEM form")]
    NoCertificate,
    /// The text holds no key.
    #[error("there is no private key in PEM form")]
    NoKey,
    /// They do not belong together, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

impl ServedCertificate {
    /// Shows this certificate from the next handshake on; the one before stays if it is bad. Both
    /// are PEM; intermediate certificates follow the server's own.
    ///
    /// # Errors
    ///
    /// If either is no PEM, or the key is not the certificate's.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<Validity, BadCertificate> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| BadCertificate::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadCertificate::NoKey)?;
        let validity = chain.first().and_then(|own| Validity::of(own));
        let validity = validity.ok_or(BadCertificate::NoCertificate)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        self.current.store(Some(Arc::new(Shown { certified: Arc::new(certified), validity })));
        Ok(validity)
    }

    /// From when until when the one that is shown is valid; `None` if there is none.
    pub fn validity(&self) -> Option<Validity> {
        self.current.load().as_ref().map(|shown| shown.validity)
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|shown| Arc::clone(&shown.certified))
    }
}

/// A server's TLS, 1.2 and newer, with HTTP/1.1. Clients are not asked who they are.
///
/// # Errors
///
/// If rustls does not take it.
pub fn server_config(certificate: Arc<ServedCertificate>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
