//! Holds the source to the rules of `docs/ARCHITECTURE.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom, lowest layer first.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("pb", &[]),
    ("clock", &["model"]),
    ("metrics", &[]),
    ("spelling", &[]),
    ("tls", &[]),
    ("layout", &["model"]),
    ("cache", &["model"]),
    ("registry", &["model", "pb", "tls"]),
    ("store", &["model", "layout", "tls"]),
    ("resilience", &["clock", "model", "store", "metrics"]),
    ("proxy", &["clock", "model", "registry", "store", "resilience", "cache", "metrics"]),
    ("net", &[]),
    ("injector", &["clock", "net", "spelling", "tls"]),
    ("api", &["clock", "model", "proxy", "pb", "metrics", "registry"]),
    (
        "config",
        &["api", "model", "net", "proxy", "registry", "resilience", "spelling", "store", "tls"],
    ),
    ("probe", &["net"]),
    ("cli", &["config", "injector", "net"]),
    (
        "app",
        &[
            "api",
            "cache",
            "clock",
            "config",
            "metrics",
            "model",
            "net",
            "proxy",
            "registry",
            "resilience",
            "store",
        ],
    ),
];

/// Code without clocks, tasks and I/O: it is told everything it needs to know.
const PURE: &[&str] = &[
    "model/",
    "layout/",
    "cache/policy.rs",
    "proxy/assemble.rs",
    "proxy/coerce.rs",
    "proxy/plan.rs",
    "proxy/shape.rs",
    "registry/decode.rs",
    "registry/definition.rs",
    "resilience/breaker.rs",
    "spelling.rs",
    "net/address.rs",
    "tls/validity.rs",
    "injector/block.rs",
    "injector/manifest.rs",
    "injector/names.rs",
    "injector/patch.rs",
    "injector/pod.rs",
    "injector/quantity.rs",
    "injector/settings.rs",
    "injector/sidecar.rs",
    "injector/splice.rs",
    "injector/stale.rs",
    "injector/text.rs",
    "injector/webhook/authority.rs",
    "injector/webhook/bundle.rs",
    "injector/webhook/review.rs",
    "api/json.rs",
    "api/json_value.rs",
    "api/message.rs",
    "api/wire.rs",
];

const IMPURE: &[&str] =
    &["tokio", "Instant::now", "SystemTime::now", "async fn", "std::fs", "std::net"];

const MAX_LINES: usize = 500;

#[test]
fn modules_import_only_lower_layers() {
    for source in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == source.layer) else {
            let known = ["lib.rs", "main.rs"].contains(&source.path.as_str());
            assert!(known, "src/{} is in no layer", source.path);
            continue;
        };
        for imported in source.imports() {
            assert!(
                imported == source.layer || allowed.contains(&imported.as_str()),
                "src/{} imports `{imported}`, which layer `{}` may not",
                source.path,
                source.layer,
            );
        }
    }
}

#[test]
fn pure_modules_are_pure() {
    for pure in PURE {
        let mut matched = sources().into_iter().filter(|source| source.path.starts_with(pure));
        let first = matched.next().unwrap_or_else(|| panic!("src/{pure} is gone"));
        for source in std::iter::once(first).chain(matched) {
            for word in IMPURE {
                assert!(!source.code().contains(word), "src/{} names `{word}`", source.path);
            }
        }
    }
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    for source in sources().iter().filter(|source| source.layer != "pb") {
        assert!(source.text.starts_with("//! "), "src/{} has no module doc", source.path);
        let lines = source.code().lines().count();
        assert!(lines <= MAX_LINES, "src/{} has {lines} lines", source.path);
    }
}

struct Source {
    /// Relative to `src`.
    path: String,
    layer: String,
    text: String,
}

impl Source {
    /// The text without its unit tests.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap()
    }

    /// The modules named after `crate::`, alone or in braces.
    fn imports(&self) -> Vec<String> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let mut imports = Vec::new();
        for rest in self.code().split("crate::").skip(1) {
            match rest.strip_prefix('{') {
                None => imports.push(rest.split(|c| !is_name(c)).next().unwrap().to_owned()),
                Some(list) => {
                    let mut depth = 0;
                    for item in list.split_inclusive([',', '{', '}']) {
                        if depth == 0 {
                            let name = item.trim().split(|c| !is_name(c)).next().unwrap();
                            imports.extend((!name.is_empty()).then(|| name.to_owned()));
                        }
                        match item.chars().last() {
                            Some('{') => depth += 1,
                            Some('}') if depth == 0 => break,
                            Some('}') => depth -= 1,
                            _ => {}
                        }
                    }
                }
            }
        }
        imports
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(!files.is_empty());
    let source = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let layer = path.split(['/', '.']).next().unwrap().to_owned();
        Source { layer, text: fs::read_to_string(&file).unwrap(), path }
    };
    files.into_iter().map(source).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
