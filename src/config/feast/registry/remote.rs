//! `registry_type: remote`: Feast's registry server.

use super::Place;
use crate::{
    config::units::PathOrOff,
    model::Secret,
    registry::{RegistrySettings, RemoteSettings, Token},
    tls::{ClientIdentity, TlsSettings, Verify},
};

/// Holds the token itself, where it is not in a file.
const TOKEN: &str = "LARDER_REGISTRY_TOKEN";

pub(super) fn read(mut place: Place<'_, '_>) -> Option<RegistrySettings> {
    let address = place.text.strip_prefix("dns:///").unwrap_or(place.text);
    let is_address = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        && !address.contains(['/', '@', ' ', '?', '#']);
    if !is_address {
        place.error("expected HOST:PORT of Feast's registry server, as feast-registry:6570");
        return None;
    }
    let text = |place: &mut Place<'_, '_>, name| {
        let found = place.section.text(name);
        found.map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    let ca = text(&mut place, "cert")?;
    let certificate = text(&mut place, "client_cert")?;
    let key = text(&mut place, "client_key")?;
    let authority = text(&mut place, "authority")?;
    let is_tls = place.section.flag("is_tls")?;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientIdentity {
            certificate: place.beside_us(&certificate),
            key: place.beside_us(&key),
        }),
        (None, None) => None,
        (Some(_), None) => return place.section.expected("client_key", "the certificate's key"),
        (None, Some(_)) => return place.section.expected("client_cert", "the key's certificate"),
    };
    let tls = (is_tls || ca.is_some()).then(|| {
        // Feast's variables, where the section names no file.
        let named = ca.as_deref().or_else(|| place.variable("SSL_CERT_FILE"));
        let named = named.or_else(|| place.variable("REQUESTS_CA_BUNDLE"));
        let ca = named.map(|path| place.beside_us(path));
        TlsSettings { ca, identity: identity.clone(), verify: Verify::Full }
    });
    if tls.is_none() && (identity.is_some() || authority.is_some()) {
        let message = "has no `cert` and no `is_tls`: its other settings of TLS have no effect";
        place.section.warn("path", message);
    }
    let token = match &place.context.larder.token_file {
        PathOrOff::Path(path) => Some(Token::File(place.beside_us(path))),
        PathOrOff::Off => place.variable(TOKEN).map(|token| Token::Text(Secret(token.to_owned()))),
    };
    if token.is_some() && tls.is_none() {
        place.section.warn("path", "is asked without TLS: whoever is on the way sees the token");
    }
    // As Feast does: without TLS it does not count.
    let authority = authority.filter(|_| tls.is_some());
    let address = address.to_owned();
    Some(RegistrySettings::Remote(RemoteSettings { address, tls, authority, token }))
}
