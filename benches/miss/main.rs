//! What larder's miss path costs beside the bare client that does the same reads.
//!
//! ```text
//!  cargo bench --profile ci --features full --bench miss
//!  cargo bench --profile ci --features full --bench miss -- --store redis --rounds 200
//! ```
//!
//! 500 entities, three views of ten features each, nothing in the cache: one request reads all of
//! it through the proxy (plan, coalescing, breaker, layout, cache, answer), and then the store's own
//! client reads the same, holds it and looks at nothing; and larder's store alone, without what is
//! above it. What was read is let go of within the time of each.
//!
//! They take turns in one process, so that a noisy machine is noisy for all; the median of the
//! rounds' ratios is what counts. Servers are started on loopback and ended; those of Cassandra and
//! DynamoDB are found as the stores' tests find them.

#[cfg(feature = "cassandra")]
mod cassandra;
#[cfg(feature = "cassandra")]
#[path = "../../tests/store_contract/cassandra_server.rs"]
#[allow(dead_code, reason = "shared with the stores' tests, which need more of it")]
mod cassandra_server;
#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "dynamodb")]
#[path = "../../tests/store_contract/dynamodb_server.rs"]
#[allow(dead_code, reason = "shared with the stores' tests, which need more of it")]
mod dynamodb_server;
mod redis;
#[path = "../../tests/store_contract/redis_server.rs"]
#[allow(dead_code, reason = "shared with the stores' tests, which need more of it")]
mod redis_server;
mod request;
mod sqlite;

use std::{future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;
use clap::Parser;
use larder::store::{OnlineStore, ReadOptions, ViewKeys};
use tokio::time::Instant;

use self::{request::Request, sqlite::Keep};

/// As in the program.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// See the module.
#[derive(Parser)]
struct Options {
    /// The stores: may be repeated. All, if none is named.
    #[arg(long)]
    store: Vec<String>,
    /// How often each of the three reads everything.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A database with the rows of [`request`], read in two ways.
#[async_trait]
trait Database: Send + Sync {
    /// What it is called.
    fn name(&self) -> &'static str;
    /// A store of larder's on it.
    fn store(&self) -> Arc<dyn OnlineStore>;
    /// Reads all rows by the client alone. Returns how many values or nulls came back.
    async fn read_bare(&self) -> usize;
}

type Open = fn() -> Pin<Box<dyn Future<Output = Box<dyn Database>>>>;

/// The databases by name.
const ALL: &[(&str, Open)] = &[
    ("redis", || Box::pin(async { Box::new(redis::Redis::open().await) as _ })),
    ("sqlite", || Box::pin(async { Box::new(sqlite::Sqlite::open(Keep::Rows)) as _ })),
    ("sqlite", || Box::pin(async { Box::new(sqlite::Sqlite::open(Keep::Values)) as _ })),
    ("sqlite", || Box::pin(async { Box::new(sqlite::Sqlite::open(Keep::Nothing)) as _ })),
    #[cfg(feature = "cassandra")]
    ("cassandra", || Box::pin(async { Box::new(cassandra::Cassandra::open().await) as _ })),
    #[cfg(feature = "dynamodb")]
    ("dynamodb", || Box::pin(async { Box::new(dynamodb::DynamoDb::open()) as _ })),
];

#[tokio::main]
async fn main() {
    let options = Options::parse();
    say(
        "| store | bare client, ms (p50) | larder's store alone, ms (p50) | larder, ms (p50) | ratio |",
    );
    say("|---|---|---|---|---|");
    for (name, open) in ALL {
        if options.store.is_empty() || options.store.iter().any(|store| store == name) {
            let database = open().await;
            measure(&*database, options.rounds).await;
        }
    }
}

async fn measure(database: &dyn Database, rounds: usize) {
    let store = database.store();
    let mut request = Request::new(Arc::clone(&store));
    let (views, keys) = (request::views(), request::keys());
    let reads: Vec<_> = views.iter().map(|view| ViewKeys { view, keys: &keys }).collect();
    request.until_it_is_answered().await;
    let values = database.read_bare().await;
    let (mut bare, mut alone, mut larder) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    // The first rounds make connections, pages and statements; they do not count.
    for round in 0..rounds + 10 {
        let began = Instant::now();
        assert_eq!(database.read_bare().await, values, "{}", database.name());
        let bare_took = began.elapsed();
        let began = Instant::now();
        let give_up_at = began + request::PATIENCE;
        let rows = store.read(&reads, ReadOptions { give_up_at }).await;
        assert!(rows.iter().flatten().all(|row| matches!(row, Ok(Some(_)))), "{}", database.name());
        drop(rows);
        let alone_took = began.elapsed();
        request.forget().await;
        let began = Instant::now();
        let summary = request.read_all().await.summary();
        assert!(summary.unavailable_views.is_empty(), "{}", database.name());
        let larder_took = began.elapsed();
        if round >= 10 {
            let [bare_took, alone_took, larder_took] =
                [bare_took, alone_took, larder_took].map(|took| took.as_secs_f64() * 1e3);
            bare.push(bare_took);
            alone.push(alone_took);
            larder.push(larder_took);
            ratios.push(larder_took / bare_took);
        }
    }
    let name = database.name();
    let [bare, alone, larder, ratio] = [bare, alone, larder, ratios].map(median);
    say(&format!("| {name} | {bare:.2} | {alone:.2} | {larder:.2} | {ratio:.2} |"));
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("standard output takes a line");
}
