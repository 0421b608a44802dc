//! Swap for a moment, and memory that is forced out to it.

use crate::artifacts::repository;
use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::Command,
};

/// `MADV_PAGEOUT`, since Linux 5.4.
const PAGE_OUT: libc::c_int = 21;
/// The most ranges of one call.
const MAX_RANGES: usize = 1024;

/// A swap file of 256 MiB that is in use until this is dropped.
pub struct Swap(PathBuf);

impl Swap {
    /// Turns swap on.
    ///
    /// # Panics
    /// When that is not allowed: it takes root.
    pub fn on() -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test turns swap on for a moment: run it as root");
        let folder = repository().join("target/tests");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("swap-{}", std::process::id()));
        // Swap cannot have holes.
        fs::write(&file, vec![0; 256 << 20]).unwrap();
        let swap = Self(file);
        let path = swap.0.display().to_string();
        for command in [["chmod", "600"].as_slice(), &["mkswap"], &["swapon"]] {
            let ended = Command::new(command[0]).args(&command[1..]).arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success(), "{command:?}: {said}");
        }
        swap
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // It may not have been turned on.
        let _ = Command::new("swapoff").arg(&self.0).output();
        let _ = fs::remove_file(&self.0);
    }
}

/// Forces all of a process's own memory out of RAM.
///
/// # Panics
/// When there is no such process, or the kernel cannot do it.
pub fn page_out(pid: u32) {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    let process = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let ranges: Vec<(usize, usize)> = maps
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw-p")))
        .filter_map(|line| line.split_whitespace().next()?.split_once('-'))
        .map(|(start, end)| {
            let address = |text| usize::from_str_radix(text, 16).unwrap();
            (address(start), address(end) - address(start))
        })
        .collect();
    for ranges in ranges.chunks(MAX_RANGES) {
        advise(&process, ranges);
    }
}

fn advise(process: &OwnedFd, ranges: &[(usize, usize)]) {
    let ranges: Vec<libc::iovec> = ranges
        .iter()
        .map(|(start, length)| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(*start),
            iov_len: *length,
        })
        .collect();
    #[expect(unsafe_code, reason = "no safe wrapper; the kernel reads the list and nothing else")]
    let advised = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            ranges.as_ptr(),
            ranges.len(),
            PAGE_OUT,
            0,
        )
    };
    assert!(advised >= 0, "process_madvise: {}", std::io::Error::last_os_error());
}
