//! From settings to what rustls needs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};

use super::{TlsSettings, Verify};

/// Why TLS cannot be spoken with these settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` holds no {what} in PEM form", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// Neither the settings nor the system name an authority to trust.
    #[error("no certificate authority is trusted: the system has none; name a file of them")]
    NobodyTrusted,
    /// The parts do not fit together.
    #[error("TLS cannot be set up")]
    Unusable(#[from] Error),
    /// The server's certificate cannot be checked with these authorities.
    #[error("the certificate authorities cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// What a TLS client needs. Reads files: blocks for as long as that takes.
///
/// # Errors
///
/// If a file is missing, or is no certificate or key.
pub fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match settings.verify {
        Verify::Nothing => Arc::new(Lenient { provider: Arc::clone(&provider), authority: None }),
        verify => {
            let roots = Arc::new(roots(settings.ca.as_deref())?);
            let full = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()?;
            match verify {
                Verify::Full => full,
                _ => Arc::new(Lenient { provider: Arc::clone(&provider), authority: Some(full) }),
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read(&identity.key)?);
            let key = key.map_err(|source| not_pem(&identity.key, "private key", source))?;
            builder.with_client_auth_cert(chain, key)?
        }
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots.add(certificate)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(TlsError::NobodyTrusted) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(not_pem(path, "certificate", pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(not_pem(path, "certificate", source)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    std::fs::read(path).map_err(unreadable)
}

fn not_pem(path: &Path, what: &'static str, source: pem::Error) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), what, source }
}

/// Asks for less than a certificate for the name that was connected to.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// Who must have issued the certificate, for whatever name; none where that does not matter.
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is looked at last, so that nothing else is wrong with such a certificate.
        match authority.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(settings: &TlsSettings) -> String {
        client_config(settings).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_missing_or_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let settings = TlsSettings { ca: Some(ca.clone()), ..TlsSettings::default() };
        assert!(problem(&settings).ends_with("ca.pem` cannot be read"), "{}", problem(&settings));
        std::fs::write(&ca, "nothing of the kind").unwrap();
        assert!(problem(&settings).ends_with("holds no certificate in PEM form"));
    }
}
