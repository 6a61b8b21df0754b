//! Who larder is to AWS: found and renewed in the background, so that no read waits for it.
//!
//! The SDK would renew credentials within the call that finds them expired.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use aws_config::{Region, default_provider::credentials::DefaultCredentialsChain};
use aws_credential_types::provider::{error::CredentialsError, future};
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    StoreError,
    error::{Fault, of_credentials, unavailable},
};

/// How long one search for credentials may take: metadata services are slow where there are none.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// So long ahead of their end credentials are renewed; at half of their time, if that is later.
const LEAD: Duration = Duration::from_secs(300);
/// Credentials without an end are looked up again so often: somebody may have replaced them.
const UNDATED: Duration = Duration::from_secs(900);
/// The pauses between searches that fail, and the least pause between any two.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The credentials, and the task that keeps them. The task ends with it.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    source: Source,
    state: watch::Sender<State>,
    renew: Notify,
}

/// Where credentials come from.
#[derive(Clone)]
pub(super) enum Source {
    /// The usual places: variables, profiles, web identity, container, machine.
    Usual { region: Region },
    /// Somebody who was named.
    Given(SharedCredentialsProvider),
}

#[derive(Clone)]
enum State {
    Searching,
    Found(Credentials),
    Failed(StoreError),
}

impl Keeper {
    /// Searches from the first use on.
    pub(super) fn new(source: Source) -> Self {
        let state = watch::Sender::new(State::Searching);
        let shared = Arc::new(Shared { source, state, renew: Notify::new() });
        Self { shared, task: OnceLock::new() }
    }

    /// Waits until credentials are found, or cannot be; only the first search is waited for.
    pub(super) async fn ready(&self, until: Instant) -> Result<(), StoreError> {
        self.start();
        let mut state = self.shared.state.subscribe();
        let searched = state.wait_for(|state| !matches!(state, State::Searching));
        match timeout_at(until, searched).await {
            Ok(Ok(state)) => match &*state {
                State::Failed(error) => Err(error.clone()),
                State::Found(_) | State::Searching => Ok(()),
            },
            Ok(Err(_)) => Err(StoreError::abandoned()),
            Err(_elapsed) => Err(unavailable(Fault::CredentialsSlow)),
        }
    }

    /// Has them looked up again, as the service refuses them.
    pub(super) fn renew(&self) {
        self.shared.renew.notify_one();
    }

    /// What the SDK takes them from, with each call.
    pub(super) fn provider(&self) -> Held {
        Held(self.shared.state.subscribe())
    }

    fn start(&self) {
        self.task.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.keep().await }).abort_handle()
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Shared {
    /// Searches, again and again. Ends with the keeper.
    async fn keep(&self) {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(MIN_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        loop {
            let next = match self.search().await {
                Ok(found) => {
                    pause = pauses.build();
                    let next = renew_after(found.expiry(), SystemTime::now());
                    debug!(renewed_in_seconds = next.as_secs(), "AWS credentials found");
                    self.state.send_replace(State::Found(found));
                    next
                }
                Err(error) => {
                    warn!(error = %error.chain(), "no AWS credentials");
                    self.state.send_if_modified(|state| {
                        let lasts = matches!(state, State::Found(held) if lasts(held));
                        if !lasts {
                            *state = State::Failed(error);
                        }
                        !lasts
                    });
                    pause.next().unwrap_or(MAX_PAUSE)
                }
            };
            sleep(MIN_PAUSE).await;
            tokio::select! {
                () = sleep(next.saturating_sub(MIN_PAUSE)) => {}
                () = self.renew.notified() => {}
            }
        }
    }

    async fn search(&self) -> Result<Credentials, StoreError> {
        let search = async {
            match &self.source {
                // Made anew each time, since it keeps the files that it has read.
                Source::Usual { region } => {
                    let chain = DefaultCredentialsChain::builder().region(region.clone());
                    chain.build().await.provide_credentials().await
                }
                Source::Given(provider) => provider.provide_credentials().await,
            }
        };
        match timeout(SEARCH_TIMEOUT, search).await {
            Ok(found) => found.map_err(of_credentials),
            Err(_elapsed) => Err(unavailable(Fault::CredentialsSlow)),
        }
    }
}

fn lasts(held: &Credentials) -> bool {
    held.expiry().is_none_or(|expiry| expiry > SystemTime::now())
}

/// When credentials are renewed that end at `expiry`, from `now`.
fn renew_after(expiry: Option<SystemTime>, now: SystemTime) -> Duration {
    let Some(expiry) = expiry else { return UNDATED };
    let lasts = expiry.duration_since(now).unwrap_or_default();
    lasts.saturating_sub(LEAD).max(lasts / 2).max(MIN_PAUSE)
}

/// Gives the SDK what was found, and never waits.
pub(super) struct Held(watch::Receiver<State>);

impl ProvideCredentials for Held {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(match &*self.0.borrow() {
            State::Found(credentials) => Ok(credentials.clone()),
            State::Failed(error) => Err(CredentialsError::provider_error(error.clone())),
            State::Searching => Err(CredentialsError::not_loaded("they are searched for")),
        })
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_ahead_of_their_end() {
        let now = SystemTime::now();
        let after = |seconds| renew_after(Some(now + Duration::from_secs(seconds)), now).as_secs();
        assert_eq!(after(3600), 3300);
        assert_eq!(after(400), 200, "not at once, though they soon end");
        assert_eq!(after(0), 1);
        assert_eq!(renew_after(Some(now - Duration::from_secs(9)), now), MIN_PAUSE);
        assert_eq!(renew_after(None, now), UNDATED);
    }
}
