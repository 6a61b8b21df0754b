//! `larder inject`: reads manifests, writes them with larder in them.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    manifest::{Manifest, Object, inject_manifest, read_settings},
    settings::Settings,
};

/// A larger manifest is a mistake.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What `larder inject` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inject {
    /// The manifests; `-` is the standard input.
    pub files: Vec<PathBuf>,
    /// A file with settings of the platform.
    pub settings: Option<PathBuf>,
    /// Settings over those.
    pub set: Vec<(String, String)>,
    /// Whether templates without the label are changed, too.
    pub all: bool,
    /// Whether to only say what would change.
    pub check: bool,
}

/// How `larder inject` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All manifests are as they should be, or were written so.
    Done,
    /// With `check`: some would be changed.
    WouldChange,
    /// A manifest cannot be read or changed. Nothing was written.
    Failed,
    /// The settings are wrong. Nothing was written.
    WrongSettings,
}

impl Inject {
    /// Writes the manifests to `out` once all of them are good, and what is to be said to `say`.
    /// Blocks on files and the standard input.
    pub fn run(&self, out: &mut dyn Write, say: &mut dyn Write) -> io::Result<Ended> {
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(errors) => {
                errors.iter().try_for_each(|error| writeln!(say, "{error}"))?;
                return Ok(Ended::WrongSettings);
            }
        };
        let mut manifests = Vec::new();
        let mut failed = false;
        for file in &self.files {
            match self.manifest(file, &settings) {
                Ok(manifest) => manifests.push((shown(file), manifest)),
                Err(error) => {
                    writeln!(say, "{error}")?;
                    failed = true;
                }
            }
        }
        for (file, manifest) in &manifests {
            for (Object { line, name }, warning) in &manifest.warnings {
                writeln!(say, "{file}:{line} ({name}): {warning}")?;
            }
        }
        if failed {
            return Ok(Ended::Failed);
        }
        if manifests.iter().all(|(_, manifest)| manifest.asked == 0) {
            writeln!(
                say,
                "no pod template has the label larder.dev/inject: enabled, so there is nothing to \
                 inject; --all takes them without it"
            )?;
        }
        if self.check {
            return check(&manifests, out);
        }
        out.write_all(joined(&manifests).as_bytes())?;
        out.flush()?;
        Ok(Ended::Done)
    }

    fn settings(&self) -> Result<Settings, Vec<String>> {
        let mut settings = Settings::default();
        let mut errors = Vec::new();
        if let Some(file) = &self.settings {
            let name = shown(file);
            let pairs = match read(file) {
                Ok(text) => read_settings(&text).map_err(|error| place(&name, error.line, &error)),
                Err(error) => Err(format!("{name}: {error}")),
            };
            match pairs {
                Ok(pairs) => errors.extend(pairs.into_iter().filter_map(|(line, key, value)| {
                    let error = settings.set_named(&key, &value).err()?;
                    Some(place(&name, line, &error))
                })),
                Err(error) => errors.push(error),
            }
        }
        for (key, value) in &self.set {
            if let Err(error) = settings.set_named(key, value) {
                errors.push(format!("--set {error}"));
            }
        }
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    fn manifest(&self, file: &Path, settings: &Settings) -> Result<Manifest, String> {
        let text = read(file).map_err(|error| format!("{}: {error}", shown(file)))?;
        inject_manifest(&text, settings, self.all)
            .map_err(|error| place(&shown(file), error.line, &error))
    }
}

fn check(manifests: &[(String, Manifest)], out: &mut dyn Write) -> io::Result<Ended> {
    let mut ended = Ended::Done;
    for (file, manifest) in manifests {
        for Object { line, name } in &manifest.changed {
            writeln!(out, "{file}:{line} ({name}) would change")?;
            ended = Ended::WouldChange;
        }
    }
    out.flush()?;
    Ok(ended)
}

/// One stream of all manifests. One alone stays as it is.
fn joined(manifests: &[(String, Manifest)]) -> String {
    let mut stream = String::new();
    for (place, (_, Manifest { text, .. })) in manifests.iter().enumerate() {
        if place > 0 {
            if !stream.is_empty() && !stream.ends_with('\n') {
                stream.push('\n');
            }
            // A directive is one of a stream's first document only, or of one behind an end.
            let text = text.trim_start_matches('\u{feff}');
            if text.trim_start().starts_with('%') {
                stream.push_str("...\n");
            } else if !text.starts_with("---") {
                stream.push_str("---\n");
            }
            stream.push_str(text);
        } else {
            stream.push_str(text);
        }
    }
    stream
}

fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("is larger than 16 MiB: split it"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("is not UTF-8"))
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() }
}

fn place(file: &str, line: usize, error: &dyn std::fmt::Display) -> String {
    if line == 0 { format!("{file}: {error}") } else { format!("{file}:{line}: {error}") }
}
