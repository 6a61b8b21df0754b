//! Certificates of the injector's own: an authority in a Secret that all replicas share, a
//! certificate of this replica's in memory, and the authority in `caBundle` of the webhook.
//!
//! ```text
//!  look --> Secret there? --no--> make it (409: another replica did; read that)
//!   ^          | yes
//!   |       two thirds over? --yes--> replace it (409: another replica did)
//!   |          |
//!   |       in caBundle? --no--> put it in, beside the one before
//!   |          |
//!   |       sign, show: the first at once; one of a new authority when the bundle has been seen
//!   |          |                                                   with it by an earlier look
//!   +--- a minute, or backoff after a failure
//! ```
//!
//! Whatever fails, what is shown stays: an API server that is away ends nothing.

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Readiness,
    authority::{self, Authority, BadAuthority},
    bundle,
    cluster::{Cluster, ClusterError},
    metrics::InjectorMetrics,
};
use crate::{
    clock,
    tls::{BadCertificate, ServedCertificate, Validity},
};

/// Which objects are looked after.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// Where they are.
    pub cluster: Cluster,
    /// The injector's namespace.
    pub namespace: String,
    /// The Service that the API server calls.
    pub service: String,
    /// The Secret of the authority.
    pub ca_secret: String,
    /// The MutatingWebhookConfiguration.
    pub webhook_configuration: String,
    /// Between two looks. `caBundle` may be set back by whoever applies the manifests again.
    pub interval: Duration,
}

/// Looks after them.
pub(super) struct Keeper {
    settings: SelfSigned,
    served: Arc<ServedCertificate>,
    readiness: Arc<Readiness>,
    metrics: Arc<InjectorMetrics>,
    shown: Option<Shown>,
}

/// The certificate that is shown.
struct Shown {
    authority: CertificateDer<'static>,
    validity: Validity,
}

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// All is as it should be.
    Settled,
    /// The new authority was put into the bundle; what it signed is shown after the next look.
    Announced,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("secret `{0}` holds no authority that can be used; delete it, and a new one is made")]
    BadSecret(String, #[source] BadAuthority),
    #[error("a certificate cannot be made")]
    Make(#[source] BadAuthority),
    #[error("the certificate that was made cannot be shown")]
    Show(#[from] BadCertificate),
    #[error("mutatingwebhookconfiguration `{0}` has no webhooks")]
    NoWebhooks(String),
}

/// Until what was announced is shown: the API server takes up a changed bundle within a second.
const ANNOUNCED: Duration = Duration::from_secs(10);

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How often in a row others may be faster to change the webhook.
const MAX_CONFLICTS: usize = 5;

impl Keeper {
    pub(super) fn new(
        settings: SelfSigned,
        served: Arc<ServedCertificate>,
        readiness: Arc<Readiness>,
        metrics: Arc<InjectorMetrics>,
    ) -> Self {
        Self { settings, served, readiness, metrics, shown: None }
    }

    /// Looks after them until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let interval = self.settings.interval;
        let backoff = backon::ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(interval.max(FIRST_RETRY))
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        let mut failing: Option<String> = None;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look(clock::now().unix_seconds) => looked,
            };
            let wait = match looked {
                Ok(looked) => {
                    self.readiness.certified(Ok(()));
                    if failing.take().is_some() {
                        info!("the certificates are looked after again");
                    }
                    delays = backoff.build();
                    match looked {
                        Looked::Settled => interval.mul_f64(fastrand::f64().mul_add(0.2, 0.9)),
                        Looked::Announced => ANNOUNCED,
                    }
                }
                Err(error) => {
                    self.metrics.certificate_errors.increment(1);
                    let error = format!("{:#}", anyhow::Error::from(error));
                    self.readiness.certified(Err(error.clone()));
                    // Said once, until it is another.
                    if failing.as_ref() != Some(&error) {
                        warn!(%error, "the certificates cannot be looked after");
                        failing = Some(error);
                    }
                    delays.next().unwrap_or(interval)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(wait) => {}
            }
        }
    }

    async fn look(&mut self, now: i64) -> Result<Looked, LookError> {
        let configuration = self.configuration().await?;
        let authority = self.authority(&configuration, now).await?;
        if self.shown.is_none() {
            // Nobody can be served worse than without a certificate.
            self.show(&authority, now)?;
        }
        let was_announced = self.announce(configuration, &authority, now).await?;
        let is_current = self.shown.as_ref().is_some_and(|shown| {
            shown.authority == *authority.certificate() && !authority::is_due(shown.validity, now)
        });
        if is_current {
            return Ok(Looked::Settled);
        }
        if !was_announced {
            return Ok(Looked::Announced);
        }
        self.show(&authority, now)?;
        Ok(Looked::Settled)
    }

    /// The webhook, as the API server knows it.
    async fn configuration(&self) -> Result<Value, LookError> {
        let name = &self.settings.webhook_configuration;
        let configuration = self.settings.cluster.get(&configuration_path(name)).await?;
        match configuration["webhooks"].as_array() {
            Some(webhooks) if !webhooks.is_empty() => Ok(configuration),
            _ => Err(LookError::NoWebhooks(name.clone())),
        }
    }

    /// The authority of all replicas.
    async fn authority(&self, configuration: &Value, now: i64) -> Result<Authority, LookError> {
        let SelfSigned { namespace, ca_secret, .. } = &self.settings;
        let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
        let path = format!("{secrets}/{ca_secret}");
        let cluster = &self.settings.cluster;
        // It goes when the webhook goes.
        let owners = json!([{
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "name": configuration["metadata"]["name"],
            "uid": configuration["metadata"]["uid"],
        }]);
        let kept = match cluster.get(&path).await {
            Ok(mut secret) => {
                let authority = self.read(&secret)?;
                let owned = secret["metadata"]["ownerReferences"] == owners;
                secret["metadata"]["ownerReferences"] = owners.clone();
                if !authority.is_due(now) {
                    if !owned && let Err(error) = cluster.replace(&path, &secret).await {
                        // It would only stay behind.
                        debug!(%error, "the secret's owner cannot be set");
                    }
                    return Ok(authority);
                }
                Some(secret)
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let made = Authority::make(now).map_err(LookError::Make)?;
        let data = json!({
            "tls.crt": STANDARD.encode(made.pem()),
            "tls.key": STANDARD.encode(made.key_pem()),
        });
        let stored = match kept {
            Some(mut secret) => {
                secret["data"] = data;
                cluster.replace(&path, &secret).await
            }
            None => {
                let secret = json!({
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": { "name": ca_secret, "ownerReferences": owners },
                    "type": "kubernetes.io/tls",
                    "data": data,
                });
                cluster.create(&secrets, &secret).await
            }
        };
        match stored {
            Ok(_) => {
                info!(secret = ca_secret, "a certificate authority was made");
                Ok(made)
            }
            // Another replica was faster.
            Err(error) if error.is_conflict() => self.read(&cluster.get(&path).await?),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, secret: &Value) -> Result<Authority, LookError> {
        let data = |key: &str| {
            let text = secret["data"][key].as_str().unwrap_or_default();
            STANDARD.decode(text).unwrap_or_default()
        };
        let name = &self.settings.ca_secret;
        Authority::read(&data("tls.crt"), &data("tls.key"))
            .map_err(|error| LookError::BadSecret(name.clone(), error))
    }

    /// Puts the authority into the bundle of each webhook. Whether it was in all of them before.
    async fn announce(
        &self,
        mut configuration: Value,
        authority: &Authority,
        now: i64,
    ) -> Result<bool, LookError> {
        let name = &self.settings.webhook_configuration;
        let mut attempts = 0..MAX_CONFLICTS;
        loop {
            let changed = with_bundle(&configuration, authority, now);
            if changed.is_empty() {
                return Ok(true);
            }
            // With the version that was read: two replicas do not undo each other's change.
            let version = &configuration["metadata"]["resourceVersion"];
            let metadata = json!({ "name": name, "resourceVersion": version });
            let fields = json!({ "metadata": metadata, "webhooks": changed });
            match self.settings.cluster.merge(&configuration_path(name), &fields).await {
                Ok(_) => {
                    info!(webhook_configuration = name, "caBundle was brought up to date");
                    return Ok(false);
                }
                Err(error) if error.is_conflict() && attempts.next().is_some() => {
                    configuration = self.configuration().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn show(&mut self, authority: &Authority, now: i64) -> Result<(), LookError> {
        let SelfSigned { namespace, service, ca_secret, .. } = &self.settings;
        let names = [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
        ];
        let leaf = authority
            .sign(&names, now)
            .map_err(|error| LookError::BadSecret(ca_secret.clone(), error))?;
        let validity = self.served.replace(leaf.certificate.as_bytes(), leaf.key.as_bytes())?;
        self.metrics.certificate_expiry.set(validity.not_after as f64);
        self.shown = Some(Shown { authority: authority.certificate().clone(), validity });
        info!(name = %names[0], "a certificate was made");
        Ok(())
    }
}

fn configuration_path(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
}

/// The webhooks whose bundle is to change, with what they are to have.
fn with_bundle(configuration: &Value, authority: &Authority, now: i64) -> Vec<Value> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    webhooks
        .filter_map(|webhook| {
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            let bundle = STANDARD.decode(bundle).unwrap_or_default();
            let wanted = bundle::wanted(&bundle, authority.certificate(), now)?;
            let client = json!({ "caBundle": STANDARD.encode(wanted) });
            Some(json!({ "name": webhook["name"], "clientConfig": client }))
        })
        .collect()
}
