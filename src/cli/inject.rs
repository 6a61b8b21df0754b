//! The command line of `larder inject`.

use std::path::PathBuf;

use clap::Args;

use super::key_value;
use crate::injector::Inject;

pub(super) const HELP: &str = "\
Reads Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, Jobs,
CronJobs and Lists of them, as YAML or JSON, and writes all of what it read, with larder in those
pod templates that have the label larder.dev/inject: enabled. What is not changed stays as it is,
comments and order, too. Once more over its own output, it changes nothing; with another image or
other settings, it changes the container larder and adds what is missing beside it. Volumes and
annotations of a mesh that are there are kept: it says so where the settings ask for others.

Examples:
  larder inject -f deployment.yaml | kubectl apply -f -
  helm template my-chart | larder inject -f - --set image=registry.example/larder:1.2.3
  kubectl get deployment ranker -o yaml | larder inject --all -f - | kubectl apply -f -
  larder inject --check -f deployment.yaml                     in CI: is it up to date?

Settings, and what they are by default:
  image           larder:VERSION
  config          larder   the ConfigMap with feature_store.yaml and, if wanted, larder.yaml
  env-from                 a Secret whose keys become variables of larder
  cpu-request     100m     memory-request  64Mi
  cpu-limit                memory-limit    256Mi
  disk                     a volume of this size keeps the registry over restarts: 1Gi
  store-ports              ports that bypass a mesh's proxy: 6379,6380
  log-level                off, error, warn, info, debug or trace
A pod may ask for something else, by annotation: larder.dev/memory-limit: 512Mi. By
larder.dev/containers: server,worker only these containers are told where larder is.

Exit codes: 0 done; 1 a manifest that cannot be read, or with --check: something would change;
64 wrong command line or settings. When it fails, nothing is written.";

/// What `inject` is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct InjectArgs {
    /// A manifest, or `-` for the standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Settings of the platform: the ConfigMap larder-sidecar, or a mapping of keys to values.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// One setting, over those: --set memory-limit=512Mi. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Inject into pod templates without the label, too.
    #[arg(long)]
    all: bool,
    /// Write no manifests, only what would change; exit with 1 if something would.
    #[arg(long)]
    check: bool,
}

impl From<InjectArgs> for Inject {
    fn from(args: InjectArgs) -> Self {
        let InjectArgs { files, settings, set, all, check } = args;
        Self { files, settings, set, all, check }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    key_value(text, "memory-limit=512Mi")
}
