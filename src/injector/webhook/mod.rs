//! `larder injector`: an admission webhook that adds larder to pods when they are made.
//!
//! ```text
//!  kube-apiserver --POST /mutate--> server --> review --> inject --> JSON patch
//!                                     |           |
//!                             certificate     settings        both replaced while it serves,
//!                              /       \          |           from files that are read again
//!                         files    self_signed   files
//!                                  (cluster, authority, bundle)
//! ```

mod authority;
mod bundle;
mod cluster;
mod files;
mod metrics;
mod review;
mod self_signed;
mod server;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{cluster::Cluster, self_signed::SelfSigned};
use self::{
    files::{CertificateFiles, SettingsFolder},
    metrics::InjectorMetrics,
    self_signed::Keeper,
    server::Injector,
};
use crate::{
    injector::Settings,
    net::{BindError, ListenAddress, Listener, Routes, Server},
    tls::{ServedCertificate, TlsError, server_config},
};

/// What an injector is told.
#[derive(Clone, Debug)]
pub struct InjectorOptions {
    /// The folder with the platform's settings, a file each.
    pub settings: PathBuf,
    /// Where the API server is answered, over TLS.
    pub listen: ListenAddress,
    /// Where health and metrics are served, in the clear.
    pub admin: Option<ListenAddress>,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// How long requests are taken after the signal to stop: until then the API server may not
    /// have heard that this replica is going.
    pub drain_delay: Duration,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// From files, which others renew, and whose authority others tell the API server.
    Files {
        /// The certificate, with intermediate ones after it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// From an authority of the injector's own.
    SelfSigned(SelfSigned),
}

/// Why an injector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Files that it needs are missing or wrong, each of them.
    #[error("{}", .0.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n"))]
    Files(Vec<anyhow::Error>),
    /// There is no TLS to be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The signals to stop cannot be heard.
    #[error("signals cannot be handled")]
    Signals(#[from] std::io::Error),
}

/// For requests under way, in the end.
const GRACE: Duration = Duration::from_secs(5);

/// How long a connection of the API server's may be idle: it closes its own after 90 s, and is not
/// to find one closed just as it uses it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The histogram is folded this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What keeps an injector from being ready.
#[derive(Debug)]
struct Readiness {
    served: Arc<ServedCertificate>,
    certified: AtomicBool,
    stopping: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl Readiness {
    fn of(served: Arc<ServedCertificate>) -> Self {
        let (certified, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { served, certified, stopping, problem: Mutex::new(None) }
    }

    /// There is a certificate that the API server trusts, or why not. Once there was, a failure
    /// changes nothing: it is still shown, and good until its time is over.
    fn certified(&self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                *self.problem.lock() = None;
                self.certified.store(true, Ordering::Relaxed);
            }
            Err(error) => *self.problem.lock() = Some(error),
        }
    }

    fn problem(&self, now_unix: i64) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping".to_owned());
        }
        let is_over = self.served.validity().is_some_and(|shown| shown.not_after < now_unix);
        if self.certified.load(Ordering::Relaxed) && !is_over {
            return None;
        }
        let why = self.problem.lock();
        let why = match why.as_deref() {
            Some(why) => why,
            None if is_over => "the time of the one that is shown is over",
            None => "the API server was not asked yet",
        };
        Some(format!("there is no certificate that the API server trusts: {why}"))
    }
}

/// Answers the API server until `told_to_stop`, then finishes what is under way.
///
/// # Errors
///
/// If it cannot start. Once it serves it goes on, whatever becomes of its files and the API server.
pub async fn run(
    options: InjectorOptions,
    told_to_stop: impl Future<Output = &'static str>,
) -> Result<(), StartError> {
    let metrics = InjectorMetrics::new();
    let served = Arc::<ServedCertificate>::default();
    let readiness = Arc::new(Readiness::of(Arc::clone(&served)));
    let settings = Arc::new(ArcSwap::from_pointee(Settings::default()));

    let folder = SettingsFolder {
        folder: options.settings,
        current: Arc::clone(&settings),
        metrics: Arc::clone(&metrics),
    };
    let mut problems = Vec::new();
    let read_settings = files::load(&folder).map_err(|error| problems.push(error.into()));
    let certificate = match options.certificate {
        CertificateSource::SelfSigned(own) => Certificate::Own(own),
        CertificateSource::Files { certificate, key } => {
            let (served, metrics) = (Arc::clone(&served), Arc::clone(&metrics));
            let files = CertificateFiles { certificate, key, served, metrics };
            let read = files::load(&files).map_err(|error| problems.push(error.into()));
            Certificate::Given(files, read.unwrap_or_default())
        }
    };
    let read_settings = match (read_settings, problems.is_empty()) {
        (Ok(read), true) => read,
        _ => return Err(StartError::Files(problems)),
    };
    let tls = Arc::new(server_config(Arc::clone(&served))?);
    let listener = Listener::bind(&options.listen, 0o600)?;
    let admin = options.admin.as_ref().map(|at| Listener::bind(at, 0o600)).transpose()?;

    let background = CancellationToken::new();
    tokio::spawn(files::follow(folder, read_settings, background.clone()));
    match certificate {
        Certificate::Given(files, read) => {
            readiness.certified(Ok(()));
            tokio::spawn(files::follow(files, read, background.clone()));
        }
        Certificate::Own(own) => {
            let (readiness, metrics) = (Arc::clone(&readiness), Arc::clone(&metrics));
            let keeper = Keeper::new(own, served, readiness, metrics);
            tokio::spawn(keeper.run(background.clone()));
        }
    }
    tokio::spawn(upkeep(Arc::clone(&metrics), background.clone()));

    let stop = CancellationToken::new();
    let server = Server::new(stop.clone()).idle_timeout(IDLE_TIMEOUT);
    info!(address = %listener.address(), "answering the API server");
    let injector = Injector::new(settings, Arc::clone(&metrics));
    let routes = Routes::new(server::webhook(injector));
    server.serve_tls(async { listener }, routes, tls);
    let admin_server = Server::new(background.clone());
    if let Some(listener) = admin {
        info!(address = %listener.address(), "serving health and metrics");
        let routes = Routes::new(server::admin(Arc::clone(&readiness), metrics));
        admin_server.serve(async { listener }, routes);
    }

    let signal = told_to_stop.await;
    info!(signal, "stopping: requests are taken until the API server has heard of it");
    readiness.stopping.store(true, Ordering::Relaxed);
    time::sleep(options.drain_delay).await;
    stop.cancel();
    if !server.drain(GRACE).await {
        warn!(grace_seconds = GRACE.as_secs(), "some requests took longer, and are cut off");
    }
    background.cancel();
    admin_server.drain(Duration::from_millis(100)).await;
    info!("stopped");
    Ok(())
}

/// Where the certificate comes from, once it was looked at.
enum Certificate {
    Given(CertificateFiles, (Vec<u8>, Vec<u8>)),
    Own(SelfSigned),
}

async fn upkeep(metrics: Arc<InjectorMetrics>, stop: CancellationToken) {
    let mut ticks = time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}
