//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::{
    config::{AddressOrOff, Flag, LogFilter, LogFormat, Sources},
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
        /// Where the project is, and flags of settings.
        #[command(flatten)]
        from: From,
    },
    /// Check the configuration and load the registry, as before a rollout. Opens no port.
    Check {
        /// Where the project is, and flags of settings.
        #[command(flatten)]
        from: From,
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
        /// Where the project is, and flags of settings.
        #[command(flatten)]
        from: From,
    },
    /// Answer Kubernetes' API server when it asks what to add to a pod: an admission webhook that
    /// adds larder to pods with the label larder.dev/inject=enabled.
    #[command(after_help = INJECTOR)]
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

const INJECTOR: &str = "\
It serves POST /mutate over HTTPS, and /livez, /readyz and /metrics in the clear. The chart deploys it.
Settings and certificate are read again when their files change: mount them whole, without subPath.

Exit codes: 0 stopped by SIGTERM; 1 failed; 64 wrong command line, settings or certificate.";

/// What the injector is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(group(ArgGroup::new("source").args(["tls_cert", "self_signed"]).required(true)))]
pub struct InjectorArgs {
    /// The platform's settings: a folder with a file for each, as a ConfigMap is mounted.
    #[arg(long, value_name = "DIR", default_value = "/etc/larder-injector/settings")]
    pub settings: PathBuf,
    /// Where to answer the API server, over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = ":8443")]
    pub listen: ListenAddress,
    /// Where to serve health and metrics, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = as_configured::<AddressOrOff>)]
    pub admin: AddressOrOff,
    /// The certificate to show, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Make certificates: the authority is kept in a Secret that all replicas share, and is put
    /// into caBundle of the webhook.
    #[arg(long)]
    pub self_signed: bool,
    /// The authority's Secret.
    #[arg(long, value_name = "NAME", default_value = "larder-injector-ca", value_parser = object)]
    pub ca_secret: String,
    /// The MutatingWebhookConfiguration.
    #[arg(long, value_name = "NAME", default_value = "larder-injector", value_parser = object)]
    pub webhook_configuration: String,
    /// The Service that the API server calls.
    #[arg(long, value_name = "NAME", default_value = "larder-injector", value_parser = object)]
    pub service: String,
    /// The namespace of Secret and Service. [default: the service account's]
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", value_parser = object)]
    pub namespace: Option<String>,
    /// The service account: a folder with token, ca.crt and namespace.
    #[arg(long, value_name = "DIR", default_value = SERVICE_ACCOUNT)]
    pub service_account_dir: PathBuf,
    /// The API server's host, and its port.
    #[arg(long, value_name = "HOST", env = "KUBERNETES_SERVICE_HOST")]
    pub kubernetes_host: Option<String>,
    /// The API server's port.
    #[arg(long, value_name = "PORT", env = "KUBERNETES_SERVICE_PORT", default_value_t = 443)]
    pub kubernetes_port: u16,
    /// How long requests are taken after SIGTERM, while the API server may not have heard of it.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,
    /// What to log: error, warn, info, debug, or levels by target.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = as_configured::<LogFilter>)]
    pub log_level: LogFilter,
    /// How to log: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = as_configured::<LogFormat>)]
    pub log_format: LogFormat,
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where Feast's project is, and flags for keys of `larder.yaml`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct From {
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
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
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

/// A value as in `larder.yaml`.
fn as_configured<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = T::deserialize(text.into_deserializer());
    read.map_err(|error: serde::de::value::Error| error.to_string())
}

/// The name of an object of Kubernetes: it becomes part of a path, and of a certificate's name.
fn object(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(known);
    let dots = text.split('.').any(str::is_empty);
    if fits && !dots { Ok(text.to_owned()) } else { Err("expected an object's name".to_owned()) }
}

impl From {
    /// Both, `other` where they differ.
    fn with(&self, other: &Self) -> Self {
        let concat = |a: &[String], b: &[String]| [a, b].concat();
        Self {
            chdir: other.chdir.clone().or_else(|| self.chdir.clone()),
            feature_store_yaml: other
                .feature_store_yaml
                .clone()
                .or_else(|| self.feature_store_yaml.clone()),
            config: other.config.clone().or_else(|| self.config.clone()),
            listen: concat(&self.listen, &other.listen),
            admin: other.admin.clone().or_else(|| self.admin.clone()),
            log_level: other.log_level.clone().or_else(|| self.log_level.clone()),
            log_format: other.log_format.clone().or_else(|| self.log_format.clone()),
            ignore_feast_auth: self.ignore_feast_auth || other.ignore_feast_auth,
            set: [&*self.set, &*other.set].concat(),
        }
    }
}

impl Cli {
    /// Where to look for what, and the flags that stand for keys of `larder.yaml`. They may come
    /// before and after the command.
    pub fn sources(&self) -> Sources {
        let none = From::default();
        let after = match &self.command {
            Command::Serve { from, .. } | Command::Check { from } | Command::Drain { from, .. } => {
                from
            }
            Command::Ready(_) | Command::Injector(_) | Command::ConfigSchema => &none,
        };
        let from = &self.from.with(after);
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
