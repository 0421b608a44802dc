//! Disks that are full, and disks that fail.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system of its own, which is there until this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes a folder, and mounts so many MiB of memory there.
    ///
    /// # Panics
    /// When that is not allowed: it takes root.
    pub fn mount(at: &Path, mib: u32) -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test mounts a small tmpfs for a moment: run it as root");
        fs::DirBuilder::new().mode(0o700).create(at).unwrap();
        let options = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            mounted.status.success(),
            "a tmpfs cannot be mounted here, which needs CAP_SYS_ADMIN: {said}"
        );
        Self(at.to_owned())
    }

    /// Fills it but for so many bytes.
    ///
    /// # Panics
    /// When it cannot be written to at all.
    pub fn fill(&self, but: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(but)).unwrap();
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once for everybody who looks, and for good when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Makes `fsync` and `fdatasync` of a process fail, for files with a certain word in their path.
pub struct BadSync {
    library: PathBuf,
    control: PathBuf,
}

impl BadSync {
    /// Builds the library that does it, in this folder.
    ///
    /// # Panics
    /// When there is no C compiler.
    pub fn build(folder: &Path) -> Self {
        let (source, library) = (folder.join("bad_sync.c"), folder.join("bad_sync.so"));
        fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .output()
            .expect("this test needs a C compiler: install one that is called `cc`");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "cc: {said}");
        Self { library, control: folder.join("bad_sync") }
    }

    /// What the process has to have in its environment.
    pub fn env(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), ("BAD_SYNC", self.control.clone())]
    }

    /// From now on files fail that have this in their path.
    ///
    /// # Panics
    /// When that cannot be written down.
    pub fn fail(&self, word: &str) {
        fs::write(&self.control, word).unwrap();
    }

    /// From now on none fails.
    ///
    /// # Panics
    /// When none failed before.
    pub fn mend(&self) {
        fs::remove_file(&self.control).unwrap();
    }
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    char word[256], name[64], path[4096];
    const char *control = getenv("BAD_SYNC");
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, word, sizeof word - 1);
    close(file);
    if (length <= 0) return 0;
    word[length] = 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, word) != NULL;
}

static int sync_by(long call, int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
"#;
