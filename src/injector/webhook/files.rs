//! What is read from files and read again when they change: the platform's settings, and a
//! certificate that others renew.
//!
//! Kubernetes mounts a ConfigMap or a Secret as links through `..data`, a link that it replaces
//! when the object changes. Files are compared by what is in them, a few kilobytes every
//! [`INTERVAL`]: nothing else tells of every way to replace a file.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{task, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::InjectorMetrics;
use crate::{
    injector::{SettingErrors, Settings},
    tls::{BadCertificate, ServedCertificate},
};

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// The largest file that is read: a ConfigMap is at most 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

/// Why files are of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFile {
    /// One cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The settings are wrong.
    #[error("the settings in `{}` are wrong:\n{errors}", folder.display())]
    Settings {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong with them.
        errors: SettingErrors,
    },
    /// The certificate is wrong.
    #[error("the certificate in `{}` with the key in `{}`", certificate.display(), key.display())]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        #[source]
        source: BadCertificate,
    },
}

/// Something that is made of files.
pub(super) trait FromFiles: Send + 'static {
    /// What is in the files.
    type Content: PartialEq + Send + 'static;

    /// Reads them. Blocks.
    fn read(&self) -> Result<Self::Content, BadFile>;

    /// Takes what was read into use.
    fn take(&self, content: &Self::Content) -> Result<(), BadFile>;

    /// Counts and says a failure; what was in use before stays.
    fn failed(&self, error: &str);
}

/// The platform's settings: a folder with a file for each.
#[derive(Clone)]
pub(super) struct SettingsFolder {
    pub(super) folder: PathBuf,
    pub(super) current: Arc<ArcSwap<Settings>>,
    pub(super) metrics: Arc<InjectorMetrics>,
}

/// A certificate and its key.
#[derive(Clone)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) served: Arc<ServedCertificate>,
    pub(super) metrics: Arc<InjectorMetrics>,
}

/// Reads files for the first time.
pub(super) fn load<F: FromFiles>(files: &F) -> Result<F::Content, BadFile> {
    let content = files.read()?;
    files.take(&content)?;
    Ok(content)
}

/// Looks at files until `stop`, and takes them into use when they are not as they were.
pub(super) async fn follow<F: FromFiles + Clone>(
    files: F,
    loaded: F::Content,
    stop: CancellationToken,
) {
    // What was looked at last, good or not: a failure is said once.
    let mut seen = Some(loaded);
    let mut said: Option<String> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(INTERVAL) => {}
        }
        let reader = files.clone();
        let Ok(read) = task::spawn_blocking(move || reader.read()).await else {
            continue;
        };
        let failed = match read {
            Ok(content) if seen.as_ref() == Some(&content) => continue,
            Ok(content) => {
                let taken = files.take(&content);
                seen = Some(content);
                taken.err()
            }
            // To be read again once it can be.
            Err(error) => {
                seen = None;
                Some(error)
            }
        };
        let failed = failed.map(|error| format!("{:#}", anyhow::Error::from(error)));
        if let Some(error) = &failed
            && said != failed
        {
            files.failed(error);
        }
        said = failed;
    }
}

impl FromFiles for SettingsFolder {
    type Content = BTreeMap<String, String>;

    fn read(&self) -> Result<Self::Content, BadFile> {
        // All from one version: the link is followed once.
        let mounted = fs::canonicalize(self.folder.join("..data"));
        let folder = mounted.unwrap_or_else(|_| self.folder.clone());
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| BadFile::Unreadable { path, source }
        };
        let entries = fs::read_dir(&folder).map_err(unreadable(&folder))?;
        let mut settings = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(unreadable(&folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || !path.is_file() {
                continue;
            }
            let value = String::from_utf8_lossy(&read(&path)?).into_owned();
            // A file that was written by hand ends in one.
            let value = value.strip_suffix('\n').unwrap_or(&value).to_owned();
            settings.insert(name, value);
        }
        Ok(settings)
    }

    fn take(&self, content: &Self::Content) -> Result<(), BadFile> {
        let settings = Settings::from_pairs(content)
            .map_err(|errors| BadFile::Settings { folder: self.folder.clone(), errors })?;
        if **self.current.load() != settings {
            self.current.store(Arc::new(settings));
            info!(folder = %self.folder.display(), "the settings were read");
        }
        Ok(())
    }

    fn failed(&self, error: &str) {
        self.metrics.settings_errors.increment(1);
        warn!(%error, "the changed settings cannot be used; those before stay");
    }
}

impl FromFiles for CertificateFiles {
    /// The certificate, and the key.
    type Content = (Vec<u8>, Vec<u8>);

    fn read(&self) -> Result<Self::Content, BadFile> {
        let mut certificate = read(&self.certificate)?;
        loop {
            let key = read(&self.key)?;
            // They may have been replaced in between.
            let again = read(&self.certificate)?;
            if again == certificate {
                return Ok((certificate, key));
            }
            certificate = again;
        }
    }

    fn take(&self, (certificate, key): &Self::Content) -> Result<(), BadFile> {
        let taken = self.served.replace(certificate, key);
        let validity = taken.map_err(|source| BadFile::Certificate {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        self.metrics.certificate_expiry.set(validity.not_after as f64);
        info!(file = %self.certificate.display(), "the certificate was read");
        Ok(())
    }

    fn failed(&self, error: &str) {
        self.metrics.certificate_errors.increment(1);
        warn!(%error, "the changed certificate cannot be used; the one before stays");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BadFile> {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| BadFile::Unreadable { path: path.to_owned(), source })
}
