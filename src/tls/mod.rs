//! TLS towards stores and registries: whom larder trusts, and as whom it appears. And what a server
//! of larder's own shows.
//!
//! Settings are plain data, there whatever is built in. The files are read when a connection is
//! made, so that renewed certificates are used from the next connection on.

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod server;
#[cfg(feature = "tls")]
mod validity;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub use self::{
    client::{TlsError, client_config},
    server::{BadCertificate, ServedCertificate, server_config},
    validity::Validity,
};

/// How a client speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file of certificate authorities; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What the client shows to a server that asks who it is.
    pub identity: Option<ClientIdentity>,
    /// What is asked of the server's certificate.
    pub verify: Verify,
}

/// A client's certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, with intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// That a trusted authority issued it, for the name that was connected to.
    #[default]
    Full,
    /// That a trusted authority issued it, for whatever name.
    Authority,
    /// Nothing: whoever is on the way can read and change what is sent.
    Nothing,
}
