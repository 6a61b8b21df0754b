//! Calls: one at a time, each signed, within bounds, and never repeated.

use aws_config::{BehaviorVersion, Region, SdkConfig, identity::IdentityCache};
use aws_sdk_dynamodb::{
    Client,
    config::{
        SharedCredentialsProvider, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    operation::batch_get_item::BatchGetItemOutput,
};
use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    DynamoDbSettings, StoreError,
    batch::Batch,
    credentials::{Keeper, Source},
    error::{Failure, of_call},
};
use crate::store::silence::Silence;

/// DynamoDB's API, and the connections to it.
pub(super) struct Api {
    settings: DynamoDbSettings,
    keeper: Keeper,
    /// What AWS's files and variables say. Read once; nothing of it is on the network.
    config: OnceCell<SdkConfig>,
    line: Mutex<Line>,
    permits: Semaphore,
}

/// The pool of connections, and whether anybody is at its other end.
#[derive(Default)]
struct Line {
    client: Option<Client>,
    silence: Silence,
}

impl Api {
    /// Nothing is asked or read yet.
    pub(super) fn new(
        settings: DynamoDbSettings,
        credentials: Option<SharedCredentialsProvider>,
    ) -> Self {
        let source = match credentials {
            Some(provider) => Source::Given(provider),
            None => Source::Usual { region: Region::new(settings.region.clone()) },
        };
        Self {
            permits: Semaphore::new(settings.max_calls),
            keeper: Keeper::new(source),
            config: OnceCell::new(),
            line: Mutex::default(),
            settings,
        }
    }

    pub(super) fn settings(&self) -> &DynamoDbSettings {
        &self.settings
    }

    /// Asks once for all that is wanted.
    pub(super) async fn get(
        &self,
        batch: &Batch,
        until: Instant,
    ) -> Result<BatchGetItemOutput, Failure> {
        let permit = timeout_at(until, self.permits.acquire()).await;
        // Those who hold permits may give them back at that very time.
        let permit = permit.ok().filter(|_| Instant::now() < until);
        let permit = permit.ok_or(Failure::Call(StoreError::Overloaded))?;
        let _permit = permit.expect("the semaphore is never closed");
        let client = self.client(until).await.map_err(Failure::Call)?;
        let request = batch.request(self.settings.consistent_reads);
        let call = client.batch_get_item().set_request_items(Some(request)).send();
        match self.answer_of(call, until).await {
            Ok(answer) => Ok(answer),
            Err(Some(error)) => Err(self.learn(of_call(error, batch.tables()))),
            Err(None) => Err(Failure::Call(StoreError::TimedOut)),
        }
    }

    /// Asks for the name of any table.
    pub(super) async fn list_tables(&self, until: Instant) -> Result<(), Failure> {
        let client = self.client(until).await.map_err(Failure::Call)?;
        match self.answer_of(client.list_tables().limit(1).send(), until).await {
            Ok(_) => Ok(()),
            Err(Some(error)) => Err(self.learn(of_call(error, Vec::new()))),
            Err(None) => Err(Failure::Call(StoreError::TimedOut)),
        }
    }

    /// The answer, or the error; neither if it took too long.
    async fn answer_of<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        until: Instant,
    ) -> Result<T, Option<E>> {
        // Also if the caller drops this.
        let waiting = Waiting { api: self, sent: Instant::now(), answered: false };
        let answer = timeout_at(until, call).await.map_err(|_elapsed| None)?;
        waiting.answered();
        answer.map_err(Some)
    }

    fn learn(&self, failure: Failure) -> Failure {
        if let Failure::Credentials(_) = failure {
            self.keeper.renew();
        }
        failure
    }

    async fn client(&self, until: Instant) -> Result<Client, StoreError> {
        self.keeper.ready(until).await?;
        let config = self.config.get_or_init(|| self.load());
        let config = timeout_at(until, config).await.map_err(|_elapsed| StoreError::TimedOut)?;
        let mut line = self.line.lock();
        Ok(line.client.get_or_insert_with(|| Client::new(config)).clone())
    }

    async fn load(&self) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.settings.connect_timeout)
            // Each call has the time that its read has left.
            .disable_read_timeout()
            .disable_operation_timeout()
            .disable_operation_attempt_timeout();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.settings.region.clone()))
            .credentials_provider(self.keeper.provider())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(timeouts.build());
        if let Some(url) = &self.settings.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        loader.load().await
    }
}

/// A call that waits for its answer. Dropped without one, it counts against the connections.
struct Waiting<'a> {
    api: &'a Api,
    sent: Instant,
    answered: bool,
}

impl Waiting<'_> {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.api.line.lock();
        if self.answered {
            line.silence.answered();
        } else if line.silence.unanswered(self.sent, Instant::now()) {
            // The connection of this call ends with it; idle ones would be tried one by one.
            *line = Line::default();
            drop(line);
            warn!("dynamodb stays silent: its connections are given up");
        }
    }
}
