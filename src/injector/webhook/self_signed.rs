//! Certificates of the injector's own: an authority in a Secret that all replicas share, a
//! certificate of this replica's in memory, and the authority in `caBundle` of the webhook.
//!
//! ```text
//!  look --> Secret there? --no--> make it (409: another replica did; read that)
//!   ^          | yes
//!   |       two thirds over? --yes--> replace it (409: another replica did); refused: go on with it
//!   |          |
//!   |       in caBundle? --no--> put it in, beside the one that is shown
//!   |          |
//!   |       sign, show: the first at once; one of a new authority when it was in the bundle in this
//!   |          |        look and in the one before
//!   +--- a minute; some seconds until a new one is shown; backoff after a failure
//! ```
//!
//! Whatever fails, what is shown stays, until its time is over.

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
    /// The authority that was in the bundle when the last look that did not fail was over. Who put
    /// it there may have done so a moment before.
    announced: Option<CertificateDer<'static>>,
}

/// The certificate that is shown.
struct Shown {
    authority: CertificateDer<'static>,
    validity: Validity,
}

/// What a look came to that left a certificate which is trusted.
enum Looked {
    /// All is as it should be.
    Settled,
    /// A new authority is in the bundle; what it signed is shown after the next look.
    Announced,
    /// The authority is due and cannot be replaced: the one before is still good.
    NotRenewed(LookError),
}

/// The authority of all replicas.
struct Found {
    authority: Authority,
    /// Why it is not another, if it should be.
    not_renewed: Option<LookError>,
}

impl Found {
    fn good(authority: Authority) -> Self {
        Self { authority, not_renewed: None }
    }
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
    #[error("the authority in secret `{0}` cannot be renewed, and is used until its time is over")]
    Renewal(String, #[source] ClusterError),
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
        Self { settings, served, readiness, metrics, shown: None, announced: None }
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
            if looked.is_ok() {
                self.readiness.certified(Ok(()));
            }
            let looked = match looked {
                Ok(Looked::Settled) => Ok(interval.mul_f64(fastrand::f64().mul_add(0.2, 0.9))),
                Ok(Looked::Announced) => Ok(ANNOUNCED),
                Ok(Looked::NotRenewed(error)) | Err(error) => Err(error),
            };
            let wait = match looked {
                Ok(wait) => {
                    if failing.take().is_some() {
                        info!("the certificates are looked after again");
                    }
                    delays = backoff.build();
                    wait
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
        let Found { authority, not_renewed } = self.authority(&configuration, now).await?;
        if self.shown.is_none() {
            // Nobody can be served worse than without a certificate.
            self.show(&authority, now)?;
        }
        let was_there = self.announce(configuration, &authority, now).await?;
        let own = authority.certificate();
        let was_announced = was_there && self.announced.as_ref() == Some(own);
        self.announced = Some(own.clone());
        let shown = self.shown.as_ref();
        let is_of_it = shown.is_some_and(|shown| shown.authority == *own);
        let is_due = shown.is_none_or(|shown| authority::is_due(shown.validity, now));
        // Of an authority that is trusted already, a new certificate is, too.
        if is_of_it || was_announced {
            if is_due || !is_of_it {
                self.show(&authority, now)?;
            }
            return Ok(not_renewed.map_or(Looked::Settled, Looked::NotRenewed));
        }
        Ok(Looked::Announced)
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

    async fn authority(&self, configuration: &Value, now: i64) -> Result<Found, LookError> {
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
                    return Ok(Found::good(authority));
                }
                Some((secret, authority))
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let made = Authority::make(now).map_err(LookError::Make)?;
        let data = json!({
            "tls.crt": STANDARD.encode(made.pem()),
            "tls.key": STANDARD.encode(made.key_pem()),
        });
        let (stored, before) = match kept {
            Some((mut secret, before)) => {
                secret["data"] = data;
                (cluster.replace(&path, &secret).await, Some(before))
            }
            None => {
                let secret = json!({
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": { "name": ca_secret, "ownerReferences": owners },
                    "type": "kubernetes.io/tls",
                    "data": data,
                });
                (cluster.create(&secrets, &secret).await, None)
            }
        };
        match stored {
            Ok(_) => {
                info!(secret = ca_secret, "a certificate authority was made");
                Ok(Found::good(made))
            }
            // Another replica was faster.
            Err(error) if error.is_conflict() => {
                Ok(Found::good(self.read(&cluster.get(&path).await?)?))
            }
            Err(error) => match before {
                Some(authority) if authority.is_valid(now) => {
                    let not_renewed = Some(LookError::Renewal(ca_secret.clone(), error));
                    Ok(Found { authority, not_renewed })
                }
                _ => Err(error.into()),
            },
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

    /// Puts the authority into the bundle of each webhook, beside that of what is shown. Whether all
    /// bundles were good when they were read first.
    async fn announce(
        &self,
        mut configuration: Value,
        authority: &Authority,
        now: i64,
    ) -> Result<bool, LookError> {
        let name = &self.settings.webhook_configuration;
        let own = authority.certificate();
        let shown = self.shown.as_ref().map(|shown| &shown.authority);
        let mut attempts = 0..MAX_CONFLICTS;
        let mut was_there = true;
        loop {
            let changed =
                with_bundle(&configuration, |bundle| bundle::wanted(bundle, own, shown, now));
            if changed.is_empty() {
                return Ok(was_there);
            }
            was_there = false;
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
fn with_bundle(configuration: &Value, wanted: impl Fn(&[u8]) -> Option<String>) -> Vec<Value> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    webhooks
        .filter_map(|webhook| {
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            let bundle = STANDARD.decode(bundle).unwrap_or_default();
            let wanted = wanted(&bundle)?;
            let client = json!({ "caBundle": STANDARD.encode(wanted) });
            Some(json!({ "name": webhook["name"], "clientConfig": client }))
        })
        .collect()
}
