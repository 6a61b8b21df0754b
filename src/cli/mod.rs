//! The command line.

mod inject;
mod injector;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, error::ErrorKind,
    parser::ValueSource,
};

pub use self::{inject::InjectArgs, injector::InjectorArgs};
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
    before: ConfigFlags,
}

const EXAMPLES: &str = "\
Examples:
  larder serve -c my_feature_repo           serve the Feast project in this folder
  larder check -c my_feature_repo           check its configuration and registry, serve nothing
  larder serve -c . --config larder.yaml    with settings of larder's own
  larder serve -c . --listen 127.0.0.1:6566 --listen unix:/run/larder/larder.sock
  larder inject -f deployment.yaml          put it beside a model in Kubernetes

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
        /// The configuration.
        #[command(flatten)]
        from: ConfigFlags,
    },
    /// Check the configuration and load the registry, as before a rollout. Opens no port.
    Check {
        /// The configuration.
        #[command(flatten)]
        from: ConfigFlags,
    },
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
        /// The configuration.
        #[command(flatten)]
        from: ConfigFlags,
    },
    /// Put larder into manifests of Kubernetes, beside the containers of their pods.
    #[command(after_help = inject::HELP)]
    Inject(InjectArgs),
    /// Answer Kubernetes' API server when it asks what to add to a pod: an admission webhook that
    /// adds larder to pods with the label larder.dev/inject=enabled.
    #[command(after_help = injector::HELP)]
    Injector(Box<InjectorArgs>),
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

/// Where the configuration is, and what stands for keys of it.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ConfigFlags {
    /// The Feast feature repo: the folder with feature_store.yaml, where its relative paths begin.
    #[arg(short, long, visible_alias = "feature-repo", value_name = "DIR")]
    chdir: Option<PathBuf>,
    /// Another feature_store.yaml than the repo's. FEATURE_STORE_YAML_BASE64 may hold one, too.
    #[arg(short, long, value_name = "FILE")]
    feature_store_yaml: Option<PathBuf>,
    /// larder's own settings; config/reference.yaml lists them all. [default: the repo's
    /// larder.yaml, if there is one]
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
    /// Where to serve gRPC and HTTP: HOST:PORT, :PORT, unix:PATH or unix-abstract:NAME. May be
    /// repeated. [default: 127.0.0.1:6566]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where to serve health and metrics, or `off`. [default: 127.0.0.1:6567]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// What to log: error, warn, info, debug, or levels by target. [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to log: text or json. [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Serve everybody although feature_store.yaml asks for authorisation.
    #[arg(long)]
    ignore_feast_auth: bool,
    /// Any setting of larder.yaml: --set cache.max_bytes=512MiB. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    key_value(text, "cache.max_bytes=512MiB")
}

fn key_value(text: &str, example: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected KEY=VALUE, as in {example}")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "expected a duration such as 2s or 500ms".to_owned())
}

impl Command {
    /// The flags of a command that reads the configuration.
    fn from(&self) -> Option<&ConfigFlags> {
        match self {
            Self::Serve { from, .. } | Self::Check { from } | Self::Drain { from, .. } => {
                Some(from)
            }
            Self::Ready(_) | Self::Inject(_) | Self::Injector(_) | Self::ConfigSchema => None,
        }
    }

    fn change_from(&mut self) -> Option<&mut ConfigFlags> {
        match self {
            Self::Serve { from, .. } | Self::Check { from } | Self::Drain { from, .. } => {
                Some(from)
            }
            Self::Ready(_) | Self::Inject(_) | Self::Injector(_) | Self::ConfigSchema => None,
        }
    }
}

impl ConfigFlags {
    /// These, and of those before the command what these do not say.
    fn over(self, before: Self) -> Self {
        Self {
            chdir: self.chdir.or(before.chdir),
            feature_store_yaml: self.feature_store_yaml.or(before.feature_store_yaml),
            config: self.config.or(before.config),
            listen: [before.listen, self.listen].concat(),
            admin: self.admin.or(before.admin),
            log_level: self.log_level.or(before.log_level),
            log_format: self.log_format.or(before.log_format),
            ignore_feast_auth: self.ignore_feast_auth || before.ignore_feast_auth,
            set: [before.set, self.set].concat(),
        }
    }
}

impl Cli {
    /// Reads a command line, the program's name first. Flags of the configuration may stand before
    /// a command that reads it, and before no other.
    pub fn read<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if let (Some(from), Some((_, matches))) = (cli.command.change_from(), matches.subcommand())
            && matches.value_source("config") == Some(ValueSource::EnvVariable)
        {
            // Those before the command have it, too, unless a flag says something else.
            from.config = None;
        }
        if cli.command.from().is_none() {
            let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
            let flag = command.get_arguments().find(|flag| given(flag.get_id().as_str()));
            if let Some(flag) = flag.and_then(|flag| flag.get_long()) {
                let name = matches.subcommand_name().unwrap_or_default();
                let message = format!("--{flag} means nothing to `{name}`: it is for serving");
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Ok(cli)
    }

    /// Where to look for what, and the flags that stand for keys of `larder.yaml`.
    pub fn sources(&self) -> Sources {
        let from = match self.command.from() {
            Some(from) => from.clone().over(self.before.clone()),
            None => self.before.clone(),
        };
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
    use crate::injector::Inject;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_socket_is_an_address() {
        let address = |flags: &[&str]| {
            let cli = Cli::read([&["larder", "ready"], flags].concat()).unwrap();
            let Command::Ready(args) = cli.command else { panic!("{:?}", cli.command) };
            args.address().to_string()
        };
        assert_eq!(address(&["--socket", "/run/l.sock"]), "unix:/run/l.sock");
        assert_eq!(address(&["--address", "unix-abstract:larder"]), "unix-abstract:larder");
        assert_eq!(address(&[]), "127.0.0.1:6566");
    }

    #[test]
    fn flags_stand_before_and_after_the_command() {
        let cli = Cli::read(["larder", "-c", "repo", "serve", "--listen", ":1", "--admin", "off"])
            .unwrap();
        let sources = cli.sources();
        assert_eq!(sources.chdir, Some("repo".into()));
        let flags: Vec<_> = sources.flags.iter().map(|flag| (&*flag.key, &*flag.value)).collect();
        assert_eq!(flags, [("listen", "[\":1\"]"), ("admin", "\"off\"")]);
    }

    #[test]
    fn what_serving_is_told_means_nothing_to_other_commands() {
        for line in [
            "larder inject -f - --listen :1",
            "larder inject -f - -c repo",
            "larder --config larder.yaml inject -f -",
            "larder -c repo ready",
            "larder config-schema --admin off",
            "larder inject",
        ] {
            let error = Cli::read(line.split(' ')).unwrap_err();
            assert!(error.use_stderr(), "{line}");
        }
        let error = Cli::read("larder -c repo inject -f -".split(' ')).unwrap_err().to_string();
        assert!(error.contains("--chdir means nothing to `inject`"), "{error}");

        let cli = Cli::read("larder inject -f a -f - --set image=x --all".split(' ')).unwrap();
        let Command::Inject(args) = cli.command else { panic!() };
        let expected = Inject {
            files: vec!["a".into(), "-".into()],
            set: vec![("image".to_owned(), "x".to_owned())],
            all: true,
            ..Inject::default()
        };
        assert_eq!(Inject::from(args), expected);
    }

    #[test]
    fn what_stands_behind_the_command_wins() {
        let line = "larder -c a --set x=1 --admin :1 check -c b --set y=2 --log-level warn";
        let sources = Cli::read(line.split(' ')).unwrap().sources();
        assert_eq!(sources.chdir, Some("b".into()));
        let flags: Vec<_> = sources.flags.iter().map(|flag| (&*flag.key, &*flag.value)).collect();
        let expected = [("x", "1"), ("y", "2"), ("admin", "\":1\""), ("log.level", "\"warn\"")];
        assert_eq!(flags, expected);
    }
}
