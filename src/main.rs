//! The binary: reads the command line and the configuration, sets up logging, runs a command.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use larder::{
    app::{self, LookAgain, StartError},
    cli::{Cli, Command, InjectorArgs, OnBadConfig},
    config::{self, Config, LogFormat, ProcessSettings, Sources, Surroundings},
    injector::{Ended, Inject},
    net::ListenAddress,
    probe::{self, Drained},
};
use tokio::{runtime::Runtime, task, time::Instant};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `EX_USAGE` of sysexits.h: the command line or the configuration is wrong.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    let began = Instant::now();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG_USAGE } else { 0 });
        }
    };
    let sources = cli.sources();
    let ended = match cli.command {
        Command::Serve { on_bad_config, .. } => serve(sources, on_bad_config, began),
        Command::Check { .. } => check(&sources),
        Command::Ready(args) => ready(&args.address()),
        Command::Drain { quiet, max_wait, .. } => drain(&sources, quiet, max_wait),
        Command::Inject(args) => inject(&args.into()),
        Command::Injector(args) => injector(*args),
        Command::ConfigSchema => Ok(say(&config::json_schema())),
    };
    ended.unwrap_or_else(|error| {
        complain(&format!("larder: {error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(sources: Sources, on_bad_config: OnBadConfig, began: Instant) -> anyhow::Result<ExitCode> {
    let surroundings = Surroundings::of_this_process();
    let look = Arc::new(move || Config::read(&sources, &surroundings));
    let first_look = Arc::clone(&look);

    // First of all: who stops larder while it starts means it, and a container's first process
    // does not even hear of it otherwise.
    let starting = single_threaded()?;
    let (mut told_to_stop, found) = starting.block_on(async {
        let mut told_to_stop = Box::pin(told_to_stop()?);
        let found = tokio::select! {
            _ = &mut told_to_stop => None,
            found = task::spawn_blocking(move || first_look()) => Some(found?),
        };
        anyhow::Ok((told_to_stop, found))
    })?;
    starting.shutdown_background();
    let Some((process, config)) = found else { return Ok(ExitCode::SUCCESS) };
    if let (Err(errors), OnBadConfig::Stop) = (&config, on_bad_config) {
        complain(&errors.to_string());
        return Ok(ExitCode::from(WRONG_USAGE));
    }

    let log = Log::set_up(process.log_filter.clone(), process.log_format);
    let look_again = (on_bad_config == OnBadConfig::Wait).then(|| -> LookAgain {
        Arc::new(move || {
            let found = look();
            log.follow(&found.0);
            found
        })
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(process.worker_threads)
        .enable_all()
        .build()?;
    let served =
        runtime.block_on(app::run((process, config), look_again, began, &mut told_to_stop));
    // What still blocks a thread, reading a file of a share that hangs, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(StartError::Config(problems)) => {
            complain(&problems);
            Ok(ExitCode::from(WRONG_USAGE))
        }
        Err(error) => Err(error.into()),
    }
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

/// Whether the larder at `address` has started.
fn ready(address: &ListenAddress) -> anyhow::Result<ExitCode> {
    let ready = single_threaded()?.block_on(probe::ready(address));
    ready.with_context(|| format!("larder at {address}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until nobody asks. A hook that fails would only be reported: the end comes anyway.
fn drain(sources: &Sources, quiet: Duration, max_wait: Duration) -> anyhow::Result<ExitCode> {
    let (process, _) = Config::read(sources, &Surroundings::of_this_process());
    let Some(admin) = process.admin else {
        complain("larder: cannot tell whether there are requests: the admin endpoints are off");
        return Ok(ExitCode::SUCCESS);
    };
    match single_threaded()?.block_on(probe::drain(&admin, quiet, max_wait)) {
        Drained::Quiet => {}
        Drained::Busy => complain(&format!(
            "larder: there was no pause of {quiet:?} between requests; not waiting any longer"
        )),
        Drained::NoAnswer => complain(&format!("larder: nobody answers at {admin}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes manifests with larder in them.
fn inject(inject: &Inject) -> anyhow::Result<ExitCode> {
    let ended = inject.run(&mut io::stdout().lock(), &mut io::stderr().lock())?;
    Ok(match ended {
        Ended::Done => ExitCode::SUCCESS,
        Ended::WouldChange | Ended::Failed => ExitCode::FAILURE,
        Ended::WrongSettings => ExitCode::from(WRONG_USAGE),
    })
}

/// Answers the API server until it is told to stop.
#[cfg(feature = "injector")]
fn injector(args: InjectorArgs) -> anyhow::Result<ExitCode> {
    use larder::injector::webhook::{self, StartError};
    Log::set_up(args.log_level.targets(), args.log_format);
    let options = match args.options() {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("larder: {error}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    // What takes time is one pod after the other; two threads, so that none holds up health.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ran = runtime.block_on(async { webhook::run(options, told_to_stop()?).await });
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ran {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ StartError::Files(_)) => {
            complain(&error.to_string());
            Ok(ExitCode::from(WRONG_USAGE))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(feature = "injector"))]
fn injector(_: InjectorArgs) -> anyhow::Result<ExitCode> {
    complain("larder: this binary was built without the Cargo feature `injector`");
    Ok(ExitCode::from(WRONG_USAGE))
}

fn single_threaded() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Loads the registry, and says what would be served.
fn check(sources: &Sources) -> anyhow::Result<ExitCode> {
    let (process, config) = Config::read(sources, &Surroundings::of_this_process());
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    Log::set_up(process.log_filter.clone(), process.log_format);
    let registry = single_threaded()?.block_on(app::load_registry(&config))?;
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

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Of a configuration that is waited for, the log follows what is known at the time.
struct Log {
    text: reload::Handle<Targets, Registry>,
    json: reload::Handle<Targets, Registry>,
}

impl Log {
    fn set_up(filter: Targets, format: LogFormat) -> Self {
        let (text_filter, text) = reload::Layer::new(Targets::new());
        let (json_filter, json) = reload::Layer::new(Targets::new());
        let layer = || tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let text_layer = layer().with_ansi(io::stderr().is_terminal()).with_filter(text_filter);
        let json_layer = layer().json().flatten_event(true).with_filter(json_filter);
        tracing_subscriber::registry().with(vec![text_layer.boxed(), json_layer.boxed()]).init();
        let log = Self { text, json };
        log.set(&filter, format);
        log
    }

    fn follow(&self, process: &ProcessSettings) {
        self.set(&process.log_filter, process.log_format);
    }

    fn set(&self, targets: &Targets, wanted: LogFormat) {
        let filter = |format| if format == wanted { targets.clone() } else { Targets::new() };
        // Fails only once there is no log any more.
        let _ = self.text.reload(filter(LogFormat::Text));
        let _ = self.json.reload(filter(LogFormat::Json));
    }
}
