//! The command line of `larder injector`.

#[cfg(feature = "injector")]
use std::path::Path;
use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::duration;
#[cfg(feature = "injector")]
use crate::injector::webhook::{CertificateSource, Cluster, InjectorOptions, SelfSigned};
use crate::{
    config::{AddressOrOff, LogFilter, LogFormat},
    net::ListenAddress,
};

pub(super) const HELP: &str = "\
It serves POST /mutate over HTTPS, and /livez, /readyz and /metrics in the clear. The chart deploys it.
Settings and certificate are read again when their files change: mount them whole, without subPath.

Exit codes: 0 stopped by SIGTERM; 1 failed; 64 wrong command line, settings or certificate.";

/// What the injector is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(group(ArgGroup::new("source").args(["tls_cert", "self_signed"]).required(true)))]
pub struct InjectorArgs {
    /// The platform's settings: a folder with a file for each, as a ConfigMap is mounted.
    #[arg(long, value_name = "DIR", default_value = "/etc/larder-injector/settings")]
    pub settings: PathBuf,
    /// Where to answer the API server, over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = ":8443")]
    pub listen: ListenAddress,
    /// Where to serve health and metrics, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = as_configured::<AddressOrOff>)]
    pub admin: AddressOrOff,
    /// The certificate to show, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Make certificates: the authority is kept in a Secret that all replicas share, and is put
    /// into caBundle of the webhook.
    #[arg(long)]
    pub self_signed: bool,
    /// The authority's Secret.
    #[arg(long, value_name = "NAME", default_value = "larder-injector-ca", value_parser = object)]
    pub ca_secret: String,
    /// The MutatingWebhookConfiguration.
    #[arg(long, value_name = "NAME", default_value = "larder-injector", value_parser = object)]
    pub webhook_configuration: String,
    /// The Service that the API server calls.
    #[arg(long, value_name = "NAME", default_value = "larder-injector", value_parser = object)]
    pub service: String,
    /// The namespace of Secret and Service. [default: the service account's]
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", value_parser = object)]
    pub namespace: Option<String>,
    /// The service account: a folder with token, ca.crt and namespace.
    #[arg(long, value_name = "DIR", default_value = SERVICE_ACCOUNT)]
    pub service_account_dir: PathBuf,
    /// The API server's host.
    #[arg(long, value_name = "HOST", env = "KUBERNETES_SERVICE_HOST")]
    pub kubernetes_host: Option<String>,
    /// The API server's port.
    #[arg(long, value_name = "PORT", env = "KUBERNETES_SERVICE_PORT", default_value_t = 443)]
    pub kubernetes_port: u16,
    /// How often to look whether Secret and caBundle are as they should be.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub check_interval: Duration,
    /// How long requests are taken after SIGTERM, while the API server may not have heard of it.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,
    /// What to log: error, warn, info, debug, or levels by target.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = as_configured::<LogFilter>)]
    pub log_level: LogFilter,
    /// How to log: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = as_configured::<LogFormat>)]
    pub log_format: LogFormat,
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[cfg(feature = "injector")]
impl InjectorArgs {
    /// What it is to do. The service account's folder may have to tell the namespace; the error is a
    /// sentence.
    pub fn options(self) -> Result<InjectorOptions, String> {
        let certificate = match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => CertificateSource::Files { certificate, key },
            _ => CertificateSource::SelfSigned(SelfSigned {
                namespace: match self.namespace {
                    Some(namespace) => namespace,
                    None => own_namespace(&self.service_account_dir)?,
                },
                cluster: Cluster {
                    host: self.kubernetes_host.ok_or(
                        "--self-signed needs the API server: KUBERNETES_SERVICE_HOST is not set, \
                         as it is in a pod",
                    )?,
                    port: self.kubernetes_port,
                    service_account: self.service_account_dir,
                },
                service: self.service,
                ca_secret: self.ca_secret,
                webhook_configuration: self.webhook_configuration,
                interval: self.check_interval.max(MIN_INTERVAL),
            }),
        };
        Ok(InjectorOptions {
            settings: self.settings,
            listen: self.listen,
            admin: match self.admin {
                AddressOrOff::Off => None,
                AddressOrOff::At(address) => Some(address),
            },
            certificate,
            drain_delay: self.drain_delay,
        })
    }
}

/// The API server is not hammered.
#[cfg(feature = "injector")]
const MIN_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(feature = "injector")]
fn own_namespace(service_account: &Path) -> Result<String, String> {
    let file = service_account.join("namespace");
    let read = std::fs::read_to_string(&file).map_err(|error| {
        format!("`{}` cannot be read: {error}; set POD_NAMESPACE, or --namespace", file.display())
    })?;
    Ok(read.trim().to_owned())
}

/// A value as in `larder.yaml`.
fn as_configured<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = T::deserialize(text.into_deserializer());
    read.map_err(|error: serde::de::value::Error| error.to_string())
}

/// The name of an object of Kubernetes: it becomes part of a path, and of a certificate's name.
fn object(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(known);
    let dots = text.split('.').any(str::is_empty);
    if fits && !dots { Ok(text.to_owned()) } else { Err("expected an object's name".to_owned()) }
}
