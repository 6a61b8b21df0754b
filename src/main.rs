//! The binary: reads the command line and the configuration, sets up logging, runs a command.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use larder::{
    app::{self, App},
    cli::{Cli, Command},
    config::{self, Config, LogFormat, Surroundings},
};
use tracing::warn;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `EX_USAGE` of sysexits.h: the command line or the configuration is wrong.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG_USAGE } else { 0 });
        }
    };
    if let Command::ConfigSchema = cli.command {
        return say(&config::json_schema());
    }
    let config = match Config::load(&cli.sources(), &Surroundings::of_this_process()) {
        Ok(config) => config,
        Err(errors) => {
            let _ = writeln!(io::stderr(), "{errors}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    set_up_logging(&config);
    let ended = match cli.command {
        Command::Check => check(&config),
        Command::Serve => serve(config).map(|()| ExitCode::SUCCESS),
        Command::ConfigSchema => Ok(ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "larder: {error:#}");
        ExitCode::FAILURE
    })
}

fn serve(config: Config) -> anyhow::Result<()> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let told_to_stop = told_to_stop()?;
        App::new(config)?.run(told_to_stop).await;
        Ok(())
    })
}

/// Waits for SIGTERM or SIGINT.
fn told_to_stop() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Loads the registry, and says what would be served.
fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let registry = runtime.block_on(app::load_registry(config))?;
    let mut doubts: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    doubts.extend(registry.warnings.iter().cloned());
    let unknown =
        config.freshness.views.keys().filter(|view| !registry.views.contains_key(&***view));
    doubts.extend(unknown.map(|view| {
        format!("freshness.views.{view}: the registry has no feature view of this name")
    }));
    let unknown = config.routes.views.keys().filter(|view| !registry.views.contains_key(&***view));
    doubts.extend(unknown.map(|view| {
        format!("routing.views.{view}: the registry has no feature view of this name")
    }));
    let stores: Vec<_> = config
        .stores
        .iter()
        .map(|store| format!("{} ({})", store.name, store.settings.kind()))
        .collect();
    let mut text = format!(
        "project {}: {} feature views, {} feature services, {} entities; online stores: {}\n",
        registry.project,
        registry.views.len(),
        registry.services.len(),
        registry.entities.len(),
        stores.join(", "),
    );
    doubts.iter().for_each(|doubt| text.push_str(&format!("warning: {doubt}\n")));
    Ok(say(&text))
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn set_up_logging(config: &Config) {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match config.log_format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(config.log_filter.clone())).init();
}
