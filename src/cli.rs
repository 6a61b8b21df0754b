//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flag, Sources};

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

Without a larder.yaml every setting has its default. Each can be set by a variable, too:
LARDER_CACHE__MAX_BYTES=512MiB is cache.max_bytes. Flags win over variables, these over the file.

Exit codes: 0 done, or stopped by SIGTERM; 1 failed; 64 wrong command line or configuration.";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve features until SIGTERM. Neither store nor registry need to be up at start.
    Serve,
    /// Check the configuration and load the registry, as before a rollout. Opens no port.
    Check,
    /// Print the JSON schema of larder.yaml, for editors.
    ConfigSchema,
}

#[derive(Args, Clone, Debug)]
struct From {
    /// The Feast feature repo: the folder with feature_store.yaml, where its relative paths begin.
    #[arg(short, long, visible_alias = "feature-repo", value_name = "DIR", global = true)]
    chdir: Option<PathBuf>,
    /// Another feature_store.yaml than the repo's. FEATURE_STORE_YAML_BASE64 may hold one, too.
    #[arg(short, long, value_name = "FILE", global = true)]
    feature_store_yaml: Option<PathBuf>,
    /// larder's own settings; config/reference.yaml lists them all.
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
    fn flags_stand_before_and_after_the_command() {
        let cli =
            Cli::parse_from(["larder", "-c", "repo", "serve", "--listen", ":1", "--admin", "off"]);
        let sources = cli.sources();
        assert_eq!(sources.chdir, Some("repo".into()));
        let flags: Vec<_> = sources.flags.iter().map(|flag| (&*flag.key, &*flag.value)).collect();
        assert_eq!(flags, [("listen", "[\":1\"]"), ("admin", "\"off\"")]);
    }
}
