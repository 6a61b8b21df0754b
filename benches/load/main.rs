//! A load generator: how fast larder answers the quickstart's features, and what that costs it.
//!
//! ```text
//!  cargo bench --profile ci --bench load               the table of docs/performance.md
//!  cargo bench --profile ci --bench load -- --seconds 20 --connections 4 --in-flight 8
//! ```
//!
//! Closed loop: each of `connections` has `in-flight` callers that ask again when they are
//! answered, so what is measured is the time of an answer at that concurrency, not under a fixed
//! rate. Keys are drawn by Zipf's law. For comparison an echo server, made of the same listener
//! and gRPC stack, gives back an answer of the same bytes at once.
//!
//! "cold" requests carry `larder-max-age-ms: 0` and `larder-allow-stale: false`: each reads the
//! store. An answer with rows that are stale or missing ends the run. Everything stays on loopback,
//! and every process that is started is ended.

mod client;
mod echo;
mod server;

use std::time::Duration;

use clap::Parser;
use client::{Load, Outcome, Target};
use server::Process;

/// See the module.
#[derive(Parser)]
struct Options {
    /// How long each line of the table is measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections to the server.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Requests under way on each of them.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// Zipf's exponent; 0 for uniform keys.
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Entities a request: may be repeated.
    #[arg(long, default_values_t = [1, 100])]
    batch: Vec<usize>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serve echoes at this port, until killed.
    #[arg(long, hide = true)]
    echo: Option<u16>,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    match options.echo {
        Some(port) => runtime.block_on(echo::serve(port)),
        None => runtime.block_on(table(&options)),
    }
}

async fn table(options: &Options) {
    let larder = Process::larder().await;
    let echo = Process::echo().await;
    say(
        "| server | socket | rows | batch | requests/s | p50 us | p99 us | p99.9 us | CPU us/request | RSS MiB |",
    );
    say("|---|---|---|---|---|---|---|---|---|---|");
    for batch in &options.batch {
        let load = Load {
            connections: options.connections,
            in_flight: options.in_flight,
            batch: *batch,
            zipf: options.zipf,
            duration: Duration::from_secs(options.seconds),
            cold: false,
        };
        // Once unmeasured: the cache fills, connections and pages are made.
        client::run(&larder.tcp, &load.shortly(), &larder).await;
        for (name, process, target, cold) in [
            ("echo", &echo, &echo.tcp, false),
            ("larder", &larder, &larder.tcp, false),
            ("larder", &larder, larder.unix.as_ref().expect("it has a socket"), false),
            ("larder", &larder, &larder.tcp, true),
        ] {
            if name == "echo" {
                client::prime_echo(target, &load, &larder.tcp).await;
            }
            let load = Load { cold, ..load.clone() };
            let outcome = client::run(target, &load, process).await;
            say(&line(name, target, &load, &outcome));
        }
    }
}

fn line(name: &str, target: &Target, load: &Load, outcome: &Outcome) -> String {
    let micros = |quantile| outcome.latencies.value_at_quantile(quantile) / 1000;
    let count = outcome.latencies.len();
    format!(
        "| {name} | {} | {} | {} | {:.0} | {} | {} | {} | {:.0} | {:.0} |",
        target.kind(),
        if load.cold { "cold" } else { "hot" },
        load.batch,
        count as f64 / outcome.took.as_secs_f64(),
        micros(0.5),
        micros(0.99),
        micros(0.999),
        outcome.cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
        outcome.rss_bytes as f64 / f64::from(1 << 20),
    )
}

fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("standard output takes a line");
}
