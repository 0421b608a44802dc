//! What the machine has, and what its control groups leave of it for this process.

use super::config::EngineConfig;
use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wasmtime::PoolingAllocationConfig;

/// Where control groups are mounted (cgroups(7)).
const GROUPS: &str = "/sys/fs/cgroup";
/// What is assumed where the system does not tell, in bytes.
const SOME_MEMORY: u64 = 1 << 30;
/// The same for memory maps of a process: the kernel's default.
const SOME_MAPS: u64 = 65_530;

/// What the pool depends on.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// Memory that this process may use, in bytes.
    pub(super) memory: u64,
    /// Memory maps that it may have.
    pub(super) max_maps: u64,
    /// Files that it may have open.
    pub(super) max_files: u64,
    /// Whether the kernel tells which pages were written.
    pub(super) page_map_scan: bool,
    /// Whether a page may be swapped out.
    pub(super) swap: bool,
}

impl Machine {
    /// This one, with the memory that the settings allow of it.
    pub(super) fn read(config: &EngineConfig) -> Self {
        Self {
            memory: node_memory(config),
            max_maps: read("/proc/sys/vm/max_map_count").trim().parse().unwrap_or(SOME_MAPS),
            max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            page_map_scan: PoolingAllocationConfig::is_pagemap_scan_available(),
            swap: swap_in_use(),
        }
    }
}

/// What the node may use in all, in bytes: as set, or what the machine has, or less where a control
/// group says so, its own or one above it.
pub(crate) fn node_memory(config: &EngineConfig) -> u64 {
    if config.node_memory_bytes > 0 {
        return config.node_memory_bytes;
    }
    let total = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .map_or(SOME_MEMORY, |kib: u64| kib.saturating_mul(1024));
    let limits = ["memory.max", "memory.limit_in_bytes"].map(group_settings).into_iter().flatten();
    // `max` is no number, and no limit.
    limits.filter_map(|limit| limit.trim().parse().ok()).fold(total, u64::min)
}

/// Whether a page of this process may be swapped out.
pub(super) fn swap_in_use() -> bool {
    // A header line, then one line per swap area. A control group may forbid its use.
    read("/proc/swaps").lines().count() > 1
        && group_settings("memory.swap.max").iter().all(|limit| limit.trim() != "0")
}

/// The memory of this process that is in use now, in bytes.
pub(super) fn resident_memory() -> Option<u64> {
    let pages: u64 = read("/proc/self/statm").split(' ').nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page_size() as u64))
}

/// What else to say when the pool cannot be made: whether it is for want of address space, of which it
/// reserves much and uses little.
pub(super) fn address_space_hint() -> String {
    getrlimit(Resource::As).current.map_or_else(String::new, |bytes| {
        let mib = bytes >> 20;
        format!(
            "; this process may have {mib} MiB of address space (`ulimit -v`), where each instance \
             reserves that of the largest memory it may have: lift that limit, or lower \
             engine.pool_size"
        )
    })
}

/// A setting of the control groups that this process is in.
fn group_settings(name: &str) -> Vec<String> {
    let folders = group_folders(&read("/proc/self/cgroup"));
    folders.iter().filter_map(|folder| fs::read_to_string(folder.join(name)).ok()).collect()
}

/// The folders of the control groups that decide about memory, from `/proc/self/cgroup`: each with
/// those above it, whose limits hold as well.
fn group_folders(groups: &str) -> Vec<PathBuf> {
    let folder = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let root = match controllers {
            "" => Path::new(GROUPS).to_owned(),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Path::new(GROUPS).join("memory")
            }
            _ => return None,
        };
        // A group outside of what is mounted here is seen by its limit at the root.
        let below = Path::new(path.trim_start_matches('/')).to_owned();
        let parts = below.ancestors().map(Path::to_owned).collect::<Vec<_>>();
        Some(parts.into_iter().map(move |part| root.join(part)))
    };
    groups.lines().filter_map(folder).flatten().collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_those_above_them() {
        let folders = |groups: &str| -> Vec<String> {
            group_folders(groups).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            folders("0::/system.slice/faas.service\n"),
            [
                "/sys/fs/cgroup/system.slice/faas.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup/"
            ]
        );
        assert_eq!(folders("0::/"), ["/sys/fs/cgroup/"]);
        assert_eq!(
            folders("5:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/a\n"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory/"]
        );
        assert!(folders("").is_empty());
    }

    #[test]
    fn this_machine() {
        let config = EngineConfig::default();
        let memory = node_memory(&config);
        assert!(memory > 64 << 20, "{memory}");
        let used = resident_memory().unwrap();
        assert!((1 << 20..memory).contains(&used), "{used}");
        assert_eq!(node_memory(&EngineConfig { node_memory_bytes: 7, ..config }), 7);
    }
}
