//! The table of one view, and the statement that reads it.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use scylla::{statement::prepared::PreparedStatement, value::CqlTimestamp};
use tokio::{sync::Mutex, time::Instant};

use super::{
    error::{self, Failure, Fault},
    session::Live,
};
use crate::{
    layout::cassandra::{CassandraView, CqlRow, partition_key},
    model::{EntityKey, FeatureView, MaybeRow},
    store::StoreError,
};

/// A view's table. The statement is prepared when it is first needed, once for all readers of a
/// session.
pub(super) struct Table {
    layout: CassandraView,
    prepared: RwLock<Option<Prepared>>,
    preparing: Mutex<Option<Refusal>>,
}

/// A statement, and the number of the session that prepared it.
struct Prepared {
    statement: Arc<PreparedStatement>,
    session: u64,
}

/// That the table could not be read: it is not asked again at once.
struct Refusal {
    why: Failure,
    until: Instant,
    pause: Duration,
}

/// What a partition holds, or why that is not known.
pub(super) type Answer = Result<Result<MaybeRow, StoreError>, Failure>;

const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// What Cassandra takes as a key at most, in bytes: there are no rows of longer ones.
const MAX_KEY_BYTES: usize = 65_535;

impl Table {
    pub(super) fn new(keyspace: &str, view: &FeatureView) -> Self {
        Self {
            layout: CassandraView::new(keyspace, view),
            prepared: RwLock::new(None),
            preparing: Mutex::new(None),
        }
    }

    /// Reads one partition. Takes as long as the nodes take: the caller has to bound it.
    pub(super) async fn read(&self, live: &Live, key: &EntityKey) -> Answer {
        let key = partition_key(key);
        if key.len() > MAX_KEY_BYTES {
            return Ok(Ok(None));
        }
        let statement = self.statement(live).await?;
        let table = self.layout.table();
        let result = match live.session.execute_unpaged(&statement, (key,)).await {
            Ok(result) => result,
            Err(error) => {
                let failure = error::of_execution(table, &error);
                // The table may have been dropped, or made anew.
                if matches!(failure, Failure::Refused(_)) || error::is_of_other_id(&error) {
                    self.forget(&statement);
                }
                return Err(failure);
            }
        };
        let wrong = |why: String| {
            let table = table.to_owned();
            Failure::Corrupt(Arc::new(Fault::Types { table, why }))
        };
        let result = result.into_rows_result().map_err(|error| wrong(error.to_string()))?;
        type Columns<'a> = (&'a str, Option<&'a [u8]>, Option<CqlTimestamp>);
        let rows = result.rows::<Columns<'_>>().map_err(|error| wrong(error.to_string()))?;
        let mut columns = Vec::new();
        for row in rows {
            let (feature_name, value, event_ts) = row.map_err(|error| wrong(error.to_string()))?;
            let event_ts = event_ts.map(|CqlTimestamp(millis)| millis);
            columns.push(CqlRow { feature_name, value, event_ts });
        }
        Ok(self.layout.decode(columns).map_err(|error| StoreError::Corrupt(Arc::new(error))))
    }

    async fn statement(&self, live: &Live) -> Result<Arc<PreparedStatement>, Failure> {
        if let Some(statement) = self.prepared_by(live) {
            return Ok(statement);
        }
        let mut refusal = self.preparing.lock().await;
        if let Some(statement) = self.prepared_by(live) {
            return Ok(statement);
        }
        if let Some(refusal) = refusal.as_ref().filter(|refusal| Instant::now() < refusal.until) {
            return Err(refusal.why.clone());
        }
        match live.session.prepare(self.layout.select()).await {
            Ok(mut statement) => {
                statement.set_is_idempotent(true);
                let statement = Arc::new(statement);
                let prepared = Prepared { statement: statement.clone(), session: live.number };
                *self.prepared.write() = Some(prepared);
                *refusal = None;
                Ok(statement)
            }
            Err(error) => {
                let why = error::of_prepare(self.layout.table(), &error);
                if matches!(why, Failure::Refused(_)) {
                    let pause = refusal.take().map_or(MIN_PAUSE, |refusal| refusal.pause * 2);
                    let pause = pause.min(MAX_PAUSE);
                    let until = Instant::now() + pause;
                    *refusal = Some(Refusal { why: why.clone(), until, pause });
                }
                Err(why)
            }
        }
    }

    /// The statement that this session prepared, or a later one.
    fn prepared_by(&self, live: &Live) -> Option<Arc<PreparedStatement>> {
        let prepared = self.prepared.read();
        let prepared = prepared.as_ref().filter(|prepared| prepared.session >= live.number);
        prepared.map(|prepared| prepared.statement.clone())
    }

    /// Drops a statement, unless it was replaced meanwhile.
    fn forget(&self, statement: &Arc<PreparedStatement>) {
        let mut prepared = self.prepared.write();
        if prepared.as_ref().is_some_and(|known| Arc::ptr_eq(&known.statement, statement)) {
            *prepared = None;
        }
    }
}
