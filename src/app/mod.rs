//! Puts the parts together, runs them, stops them.
//!
//! ```text
//!  configuration -> parts -> listeners open -> serving ... told to stop -> drain within the grace -> end
//!        |                        |
//!        | wrong, and waited for  | cannot be opened, and waited for
//!        v                        v
//!  listeners open, every     the others are served
//!  request told why; look
//!  again every second
//! ```

mod host;
mod served;

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    task,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    host::{Host, OnBindError},
    served::{Ready, registry_of, unconfigured},
};
use crate::{
    api::Lifecycle,
    config::{Config, ConfigErrors, ProcessSettings},
    metrics::Metrics,
    net::BindError,
    registry::{Registry, load_once},
};

/// Histograms are folded this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A configuration that is waited for is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is wrong with the configuration is told a caller up to about this length.
const MAX_TOLD_BYTES: usize = 1000;

/// What a look at the configuration found.
pub type Look = (ProcessSettings, Result<Config, ConfigErrors>);

/// Looks at the configuration again. May block.
pub type LookAgain = Arc<dyn Fn() -> Look + Send + Sync>;

/// Why larder did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Everything that is wrong with the configuration.
    #[error("{0}")]
    Config(String),
    /// An address that cannot be listened at.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Serves until `told_to_stop`, then finishes what is under way, within the grace period. Neither
/// store nor registry is waited for. The start counts as begun at `began`.
///
/// With `look_again` a wrong configuration, or an address that is in use, is no end: larder tells
/// whoever asks, and goes on once it is mended.
///
/// # Errors
///
/// Without, either; nothing was served then.
pub async fn run(
    found: Look,
    look_again: Option<LookAgain>,
    began: Instant,
    told_to_stop: impl Future<Output = &'static str>,
) -> Result<(), StartError> {
    let lifecycle = Lifecycle::new(began, found.0.startup_max_wait);
    let mut host = Host::new(Metrics::new(), lifecycle);
    let background = CancellationToken::new();
    tokio::spawn(upkeep(Arc::clone(&host.metrics), background.clone()));
    let signal = tokio::select! {
        signal = told_to_stop => signal,
        ended = serve(&mut host, found, look_again, &background) => match ended? {},
    };
    info!(signal, "stopping: requests under way are finished");
    host.stop().await;
    background.cancel();
    info!("stopped");
    Ok(())
}

/// Ends only if it fails.
async fn serve(
    host: &mut Host,
    mut found: Look,
    look_again: Option<LookAgain>,
    background: &CancellationToken,
) -> Result<Infallible, StartError> {
    let threads = found.0.worker_threads;
    let mut said = None;
    let (process, ready) = loop {
        let (process, config) = found;
        let problem = match put_together(config, &host.metrics) {
            Ok(ready) => break (process, ready),
            Err(problem) => problem,
        };
        let Some(look_again) = &look_again else {
            return Err(StartError::Config(problem));
        };
        if said.as_ref() != Some(&problem) {
            tell(host, &problem);
            said = Some(problem);
        }
        // Whoever is the first to ask is told.
        host.listen_at(&process, OnBindError::Retry).await?;
        time::sleep(LOOK_INTERVAL).await;
        let look_again = Arc::clone(look_again);
        let looked = task::spawn_blocking(move || look_again()).await;
        found = looked.expect("whatever a configuration says, reading it ends");
    };
    if said.is_some() {
        host.metrics.gauge(ERRORS, &[]).set(0.0);
        info!("the configuration is in force");
        if process.worker_threads != threads {
            warn!("runtime.worker_threads counts from the next start on");
        }
    }
    host.serve(ready.start(background.clone()));
    let wait = look_again.is_some();
    let on_error = if wait { OnBindError::Retry } else { OnBindError::Stop };
    host.listen_at(&process, on_error).await?;
    pending().await
}

const ERRORS: &str = "larder_config_errors";

/// Tells the log, metrics and whoever asks what is wrong: a line for each problem.
fn tell(host: &Host, problem: &str) {
    let problems: Vec<_> = problem.lines().collect();
    let all = problems.join("; ");
    error!(problems = all, "waiting for a configuration that can be used");
    let told = |problems| format!("larder has no configuration that can be used: {problems}");
    host.serve(unconfigured(&host.metrics, &told(all), &told(brief(&problems))));
    host.metrics.gauge(ERRORS, &[]).set(problems.len() as f64);
}

/// As many of the problems as a caller is told. gRPC's clients take 8 KiB of headers, in which each
/// byte may have become three, and make another error of what is longer.
fn brief(problems: &[&str]) -> String {
    let mut text = String::new();
    for (place, problem) in problems.iter().enumerate() {
        if place > 0 {
            text.push_str("; ");
        }
        let room = MAX_TOLD_BYTES.saturating_sub(text.len());
        if problem.len() <= room {
            text.push_str(problem);
        } else if place > 0 {
            let more = problems.len() - place;
            text.push_str(&format!("... and {more} more; the log has all"));
            break;
        } else {
            text.push_str(&problem[..problem.floor_char_boundary(room)]);
            text.push_str("...");
        }
    }
    text
}

/// What a configuration describes, or everything that is wrong with it, a line each.
fn put_together(
    config: Result<Config, ConfigErrors>,
    metrics: &Arc<Metrics>,
) -> Result<Ready, String> {
    let config = config.map_err(|errors| errors.to_string())?;
    Ready::new(config, metrics).map_err(|error| format!("{error:#}"))
}

/// Loads the registry once, as `check` does.
pub async fn load_registry(config: &Config) -> anyhow::Result<Registry> {
    let (mut source, options) = registry_of(config)?;
    let loaded = load_once(&mut source, &options).await;
    loaded.with_context(|| format!("feature registry {source}"))
}

async fn upkeep(metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut ticks = time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_problems_callers_are_told_the_first_ones_and_how_many_there_are() {
        assert_eq!(brief(&["a: b", "c"]), "a: b; c");
        let long = "x".repeat(400);
        let problems = [&*long; 7];
        let text = brief(&problems);
        assert_eq!(text, format!("{long}; {long}; ... and 5 more; the log has all"));
        let long = "\u{e9}".repeat(2000);
        let text = brief(&[&long]);
        assert_eq!(text.len(), MAX_TOLD_BYTES + "...".len());
        assert!(brief(&[&long, "a", "b"]).ends_with("...; ... and 2 more; the log has all"));
    }
}
