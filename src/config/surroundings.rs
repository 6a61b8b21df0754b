//! What larder is told by the process it runs in: environment, folder, memory, cores.

use std::{collections::BTreeMap, fs, path::PathBuf, thread};

/// What surrounds the process. Tests make their own; nothing else of the configuration asks the
/// operating system.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The environment. Variables that are not UTF-8 are left out.
    pub environment: BTreeMap<String, String>,
    /// The working directory, in which relative paths begin.
    pub working_directory: PathBuf,
    /// The memory limit of the container in bytes, if it has one.
    pub memory_limit: Option<u64>,
    /// The cores that this process may use.
    pub cores: usize,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            environment,
            // The folder may have been removed; then relative paths fail, and say so.
            working_directory: std::env::current_dir().unwrap_or_default(),
            memory_limit: cgroup_memory_limit(),
            cores: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The least limit of this process's memory, in bytes, of version 2 and 1 of cgroups.
fn cgroup_memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups)
        .into_iter()
        .filter_map(|file| parse_limit(&fs::read_to_string(file).ok()?))
        .min()
}

/// The files that may have a limit: of the groups that the process is in, and of those above.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = group.trim_end_matches('/');
        loop {
            files.push(format!("{root}{group}/{file}"));
            let Some((above, _)) = group.rsplit_once('/') else { break };
            group = above;
        }
    }
    files
}

/// A limit as cgroups write it: a number; `max`, or a number beyond all memory, for none.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_are_found_up_to_the_root() {
        let v2 = limit_files("0::/kubepods/pod1\n");
        assert_eq!(
            v2,
            [
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        let v1 = limit_files("5:cpu,cpuacct:/a\n4:memory:/\n");
        assert_eq!(v1, ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn no_limit_is_written_as_max_or_as_more_than_there_can_be() {
        assert_eq!(parse_limit("536870912\n"), Some(536_870_912));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712\n"), None);
        assert_eq!(parse_limit(""), None);
    }
}
