//! What the kernel says of a process.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Sends a signal.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).expect("the process should be there");
}

/// Memory that a process has in RAM, in bytes.
///
/// # Panics
/// When there is no such process.
pub fn resident_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// Memory of a process that is in swap, in bytes.
///
/// # Panics
/// When there is no such process.
pub fn swapped_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmSwap:") * 1024
}

/// The most memory that a process had in RAM since [`reset_peak`], in bytes.
///
/// # Panics
/// When there is no such process.
pub fn peak_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

/// Starts the measurement of [`peak_bytes`] again.
///
/// # Panics
/// When the process is somebody else's.
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// How many files and sockets a process has open.
///
/// # Panics
/// When there is no such process.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The processor time that threads of this name have used, in the system's ticks.
///
/// # Panics
/// When there is no such process.
pub fn thread_ticks(pid: u32, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end while it is looked at.
    let stats =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (head, tail) = stat.split_once('(')?.1.rsplit_once(')')?;
            // proc(5) counts from 1, and these begin with the third.
            let ticks = |field: usize| tail.split_whitespace().nth(field - 3)?.parse::<u64>().ok();
            if head == name { Some(ticks(14)? + ticks(15)?) } else { None }
        })
        .sum()
}

/// The processor time that a process has used, in the system's ticks.
///
/// # Panics
/// When there is no such process.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, tail) = stat.rsplit_once(')').unwrap();
    // proc(5) counts from 1, and these begin with the third.
    tail.split_whitespace().skip(14 - 3).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// The processes that this one started and that still run.
///
/// # Panics
/// When there is no `/proc`.
pub fn children(pid: u32) -> Vec<u32> {
    let others = fs::read_dir("/proc").unwrap().flatten();
    others
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|other: &u32| parent(*other) == Some(pid))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything, so from the last parenthesis on: state, parent.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    (words.next()? != "Z").then(|| words.next()?.parse().ok())?
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap()
}
