//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{Flag, Sources},
    net::ListenAddress,
};

/// A caching sidecar for the online features of a Feast project.
///
/// It reads Feast's own feature_store.yaml, registry and online store, and answers as Feast's
/// feature servers do, over gRPC and HTTP on one port: from memory where it can, from the store
/// where it must, and with what it last saw, marked as stale, when the store fails.
#[derive(Clone, Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    from: From,
}

const EXAMPLES: &str = "\
Examples:
  larder serve -c my_feature_repo           serve the Feast project in this folder
  larder check -c my_feature_repo           check its configuration and registry, serve nothing
  larder serve -c . --config larder.yaml    with settings of larder's own
  larder serve -c . --listen 127.0.0.1:6566 --listen unix:/run/larder/larder.sock

Without --config, a larder.yaml beside the repo's feature_store.yaml is read, if there is one;
without either every setting has its default. Each can be set by a variable, too:
LARDER_CACHE__MAX_BYTES=512MiB is cache.max_bytes. Flags win over variables, these over the file.

Exit codes: 0 done, or stopped by SIGTERM; 1 failed; 64 wrong command line or configuration.";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve features until SIGTERM. Neither store nor registry need to be up at start.
    Serve {
        /// What a wrong or missing configuration is: the end of the start, or something to wait
        /// for, answering every request with what is wrong. Waiting, an address that is in use is
        /// tried again, too.
        #[arg(long, value_name = "WHAT", env = "LARDER_ON_BAD_CONFIG", default_value = "stop")]
        on_bad_config: OnBadConfig,
    },
    /// Check the configuration and load the registry, as before a rollout. Opens no port.
    Check,
    /// Ask a larder on this machine whether its start is done: 0 if so, else 1. Reads no files.
    #[command(after_help = READY)]
    Ready(ReadyArgs),
    /// Wait until nobody asks the larder on this machine any more, then exit with 0.
    #[command(after_help = DRAIN)]
    Drain {
        /// How long there must have been no request.
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
        quiet: Duration,
        /// How long to wait at most, whatever there is.
        #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration)]
        max_wait: Duration,
    },
    /// Print the JSON schema of larder.yaml, for editors.
    ConfigSchema,
}

/// What a wrong or missing configuration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnBadConfig {
    /// The end of the start.
    #[default]
    Stop,
    /// Something to wait for.
    Wait,
}

const READY: &str = "\
Done means: the feature registry is loaded and all listeners are open; or startup.max_wait (20 s)
has passed, so that nothing waits for ever. As a startup probe of Kubernetes:
  startupProbe:
    exec: {command: [/larder, ready, --socket, /run/larder/larder.sock]}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 120";

const DRAIN: &str = "\
Containers of a pod are told to stop all at once; one that others still ask has to outlive them.
It asks the admin endpoints, where the configuration or --admin says they are. As a hook of a
container that is no native sidecar (those are stopped last, and need none):
  lifecycle:
    preStop:
      exec: {command: [/larder, drain, --max-wait, 20s]}
What the hook takes counts against terminationGracePeriodSeconds.";

/// Whom `ready` asks.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ReadyArgs {
    /// The Unix socket that it serves at.
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    socket: Option<PathBuf>,
    /// Where it serves, as --listen has it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6566")]
    address: ListenAddress,
}

impl ReadyArgs {
    /// Where to ask.
    pub fn address(self) -> ListenAddress {
        self.socket.map_or(self.address, ListenAddress::Unix)
    }
}

#[derive(Args, Clone, Debug)]
struct From {
    /// The Feast feature repo: the folder with feature_store.yaml, where its relative paths begin.
    #[arg(short, long, visible_alias = "feature-repo", value_name = "DIR", global = true)]
    chdir: Option<PathBuf>,
    /// Another feature_store.yaml than the repo's. FEATURE_STORE_YAML_BASE64 may hold one, too.
    #[arg(short, long, value_name = "FILE", global = true)]
    feature_store_yaml: Option<PathBuf>,
    /// larder's own settings; config/reference.yaml lists them all. [default: the repo's
    /// larder.yaml, if there is one]
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Where to serve gRPC and HTTP: HOST:PORT, :PORT, unix:PATH or unix-abstract:NAME. May be
    /// repeated. [default: 127.0.0.1:6566]
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Vec<String>,
    /// Where to serve health and metrics, or `off`. [default: 127.0.0.1:6567]
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<String>,
    /// What to log: error, warn, info, debug, or levels by target. [default: info]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// How to log: text or json. [default: text]
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
    /// Serve everybody although feature_store.yaml asks for authorisation.
    #[arg(long, global = true)]
    ignore_feast_auth: bool,
    /// Any setting of larder.yaml: --set cache.max_bytes=512MiB. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, global = true)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, as in cache.max_bytes=512MiB".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "expected a duration such as 2s or 500ms".to_owned())
}

impl Cli {
    /// Where to look for what, and the flags that stand for keys of `larder.yaml`.
    pub fn sources(&self) -> Sources {
        let from = &self.from;
        let mut flags = Vec::new();
        let mut flag = |name: &str, key: &str, value: String| {
            flags.push(Flag { name: name.to_owned(), key: key.to_owned(), value });
        };
        for (key, value) in &from.set {
            flag("--set", key, value.clone());
        }
        if !from.listen.is_empty() {
            flag("--listen", "listen", quoted(&from.listen));
        }
        for (name, key, value) in [
            ("--admin", "admin", &from.admin),
            ("--log-level", "log.level", &from.log_level),
            ("--log-format", "log.format", &from.log_format),
        ] {
            if let Some(value) = value {
                flag(name, key, quoted(value));
            }
        }
        if from.ignore_feast_auth {
            flag("--ignore-feast-auth", "feast.ignore_auth", "true".to_owned());
        }
        Sources {
            chdir: from.chdir.clone(),
            feature_store_yaml: from.feature_store_yaml.clone(),
            config: from.config.clone(),
            flags,
        }
    }
}

/// Text as YAML that means this text, whatever it looks like: JSON is YAML.
fn quoted<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("text can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_socket_is_an_address() {
        let address = |flags: &[&str]| {
            let cli = Cli::parse_from([&["larder", "ready"], flags].concat());
            let Command::Ready(args) = cli.command else { panic!("{:?}", cli.command) };
            args.address().to_string()
        };
        assert_eq!(address(&["--socket", "/run/l.sock"]), "unix:/run/l.sock");
        assert_eq!(address(&["--address", "unix-abstract:larder"]), "unix-abstract:larder");
        assert_eq!(address(&[]), "127.0.0.1:6566");
    }

    #[test]
    fn flags_stand_before_and_after_the_command() {
        let cli =
            Cli::parse_from(["larder", "-c", "repo", "serve", "--listen", ":1", "--admin", "off"]);
        let sources = cli.sources();
        assert_eq!(sources.chdir, Some("repo".into()));
        let flags: Vec<_> = sources.flags.iter().map(|flag| (&*flag.key, &*flag.value)).collect();
        assert_eq!(flags, [("listen", "[\":1\"]"), ("admin", "\"off\"")]);
    }
}
