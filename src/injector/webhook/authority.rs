//! The injector's own certificate authority, and what it signs. Pure but for the keys, which are
//! random.
//!
//! ```text
//!            made            two thirds               end
//!  authority  |------------------|------- renewed -----|   365 days, in a Secret, one for all replicas
//!  leaf       |------------------|------- renewed -----|   30 days, in memory, one a replica
//! ```

use std::{sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::tls::Validity;

/// Seconds by which clocks in a cluster may differ: certificates are valid from that much earlier.
pub(super) const CLOCK_SKEW: i64 = 3600;

const DAY: i64 = 24 * 3600;
const AUTHORITY_LIFE: i64 = 365 * DAY;
const LEAF_LIFE: i64 = 30 * DAY;

/// Never changed: whoever signs with a key from the Secret names the issuer by it.
const AUTHORITY_NAME: &str = "larder-injector-ca";

/// A certificate authority.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
    validity: Validity,
}

/// A server's certificate and its key, as PEM.
pub(super) struct Leaf {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Why an authority is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadAuthority {
    /// A certificate is missing, or is none.
    #[error("`tls.crt` is no certificate in PEM form")]
    NoCertificate,
    /// A key is missing, or is none.
    #[error("`tls.key` is no private key in PEM form")]
    NoKey,
    /// Nothing can be signed with it.
    #[error("nothing can be signed")]
    Signing(#[from] rcgen::Error),
    /// What it signs is not trusted by those who trust it.
    #[error("what is signed with `tls.key` does not verify with `tls.crt`")]
    DoesNotVerify(#[source] rustls::Error),
    /// The certificate cannot be an authority's.
    #[error("`tls.crt` is no authority's certificate")]
    NoAuthority,
}

impl Authority {
    /// Makes a new one.
    pub(super) fn make(now_unix: i64) -> Result<Self, BadAuthority> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params();
        set_validity(&mut params, now_unix, now_unix + AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        Self::of(pem, certificate.der().clone(), key)
    }

    /// Reads one that was kept.
    pub(super) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, BadAuthority> {
        let pem = std::str::from_utf8(certificate).map_err(|_| BadAuthority::NoCertificate)?;
        let der = CertificateDer::from_pem_slice(certificate)
            .map_err(|_| BadAuthority::NoCertificate)?
            .into_owned();
        let key = std::str::from_utf8(key).map_err(|_| BadAuthority::NoKey)?;
        let key = KeyPair::from_pem(key).map_err(|_| BadAuthority::NoKey)?;
        Self::of(pem.to_owned(), der, key)
    }

    fn of(
        pem: String,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, BadAuthority> {
        let validity = Validity::of(&certificate).ok_or(BadAuthority::NoCertificate)?;
        Ok(Self { certificate, pem, key, validity })
    }

    /// Its certificate, as PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, as PEM.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Its certificate.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether it is time for another.
    pub(super) fn is_due(&self, now_unix: i64) -> bool {
        is_due(self.validity, now_unix)
    }

    /// Whether what it signs is still trusted.
    pub(super) fn is_valid(&self, now_unix: i64) -> bool {
        (self.validity.not_before..=self.validity.not_after).contains(&now_unix)
    }

    /// A certificate for a server of these names. It is looked at as a client would that trusts
    /// this authority.
    ///
    /// # Errors
    ///
    /// If such a client would not trust it.
    pub(super) fn sign(&self, names: &[String], now_unix: i64) -> Result<Leaf, BadAuthority> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("larder-injector");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let end = (now_unix + LEAF_LIFE).min(self.validity.not_after);
        set_validity(&mut params, now_unix, end);
        let issuer = Issuer::new(authority_params(), &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        for name in names {
            self.verify(certificate.der(), name, now_unix)?;
        }
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        name: &str,
        now_unix: i64,
    ) -> Result<(), BadAuthority> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|_| BadAuthority::NoAuthority)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| BadAuthority::NoAuthority)?;
        let name = ServerName::try_from(name).map_err(|error| {
            BadAuthority::DoesNotVerify(rustls::Error::General(error.to_string()))
        })?;
        let now = Duration::from_secs(now_unix.unsigned_abs());
        let now = UnixTime::since_unix_epoch(now);
        let verified = verifier.verify_server_cert(certificate, &[], &name, &[], now);
        verified.map(|_| ()).map_err(BadAuthority::DoesNotVerify)
    }
}

/// Whether it is to be replaced: two thirds of its life are over; or it has not begun, as whoever
/// made it had a clock that was ahead by more than [`CLOCK_SKEW`].
pub(super) fn is_due(validity: Validity, now_unix: i64) -> bool {
    let life = validity.not_after.saturating_sub(validity.not_before);
    now_unix < validity.not_before || now_unix >= validity.not_after.saturating_sub(life / 3)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, from_unix: i64, until_unix: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |unix: i64| epoch + Duration::from_secs(unix.unsigned_abs());
    params.not_before = at(from_unix - CLOCK_SKEW);
    params.not_after = at(until_unix);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["larder-injector.larder-system.svc".to_owned()]
    }

    fn reread(authority: &Authority) -> Authority {
        Authority::read(authority.pem().as_bytes(), authority.key_pem().as_bytes()).unwrap()
    }

    #[test]
    fn what_any_replica_signs_verifies_with_the_kept_authority() {
        let made = Authority::make(NOW).unwrap();
        let kept = reread(&made);
        assert_eq!(kept.certificate(), made.certificate());
        for authority in [&made, &kept] {
            let leaf = authority.sign(&names(), NOW + 100 * DAY).unwrap();
            assert!(leaf.certificate.starts_with("-----BEGIN CERTIFICATE"));
            assert!(leaf.key.starts_with("-----BEGIN PRIVATE KEY"));
        }
    }

    #[test]
    fn a_key_of_another_authority_signs_nothing() {
        let (one, other) = (Authority::make(NOW).unwrap(), Authority::make(NOW).unwrap());
        let mixed = Authority::read(one.pem().as_bytes(), other.key_pem().as_bytes()).unwrap();
        let error = mixed.sign(&names(), NOW).err().unwrap();
        assert!(matches!(error, BadAuthority::DoesNotVerify(_)), "{error}");
    }

    #[test]
    fn what_is_no_authority_is_said() {
        let made = Authority::make(NOW).unwrap();
        let error = |certificate: &[u8], key: &[u8]| {
            Authority::read(certificate, key).err().unwrap().to_string()
        };
        let (pem, key) = (made.pem().as_bytes(), made.key_pem());
        assert!(error(b"", key.as_bytes()).contains("tls.crt"));
        assert!(error(b"\xff", key.as_bytes()).contains("tls.crt"));
        assert!(error(pem, b"x").contains("tls.key"));
        assert!(error(pem, pem).contains("tls.key"));
        let leaf = made.sign(&names(), NOW).unwrap();
        let not_one = Authority::read(leaf.certificate.as_bytes(), leaf.key.as_bytes()).unwrap();
        not_one.sign(&names(), NOW).err().expect("a leaf signs nothing");
    }

    #[test]
    fn what_a_clock_that_was_ahead_made_is_replaced() {
        let ahead = Authority::make(NOW + 3 * 3600).unwrap();
        assert!(ahead.is_due(NOW) && !ahead.is_valid(NOW));
        assert!(!ahead.is_due(NOW + 2 * 3600) && ahead.is_valid(NOW + 2 * 3600));
        let a_little = Authority::make(NOW + 3000).unwrap();
        assert!(!a_little.is_due(NOW) && a_little.is_valid(NOW));
        a_little.sign(&names(), NOW).unwrap();
    }

    #[test]
    fn both_are_renewed_at_two_thirds_and_a_leaf_never_outlives_its_authority() {
        let made = Authority::make(NOW).unwrap();
        assert!(!made.is_due(NOW + 243 * DAY));
        assert!(made.is_due(NOW + 244 * DAY));
        let validity = |at: i64| {
            let leaf = made.sign(&names(), at).unwrap();
            let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
            Validity::of(&der).unwrap()
        };
        assert_eq!(validity(NOW).not_after, NOW + LEAF_LIFE);
        assert!(!is_due(validity(NOW), NOW + 19 * DAY));
        assert!(is_due(validity(NOW), NOW + 20 * DAY));
        assert_eq!(validity(NOW + 360 * DAY).not_after, NOW + AUTHORITY_LIFE);
        made.sign(&names(), NOW + 366 * DAY).err().expect("its time is over");
    }
}
