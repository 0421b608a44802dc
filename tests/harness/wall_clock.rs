//! A wall clock that jumps, for one process: libfaketime, which is Debian's package `faketime`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A wall clock. The monotonic one goes on as it did.
pub struct WallClock {
    library: String,
    file: PathBuf,
}

impl WallClock {
    /// One that is right, controlled by a file in this folder.
    ///
    /// # Panics
    /// When `faketime` is not installed.
    pub fn new(folder: &Path) -> Self {
        // `-m`: without, threads that ask at once are told times that are none.
        let told =
            Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let told = told.expect("this test needs `faketime`: tests/run.sh installs it");
        let library = String::from_utf8(told.stdout).expect("a path").trim().to_owned();
        assert!(!library.is_empty(), "{}", String::from_utf8_lossy(&told.stderr));
        let clock = Self { library, file: folder.join("wall_clock") };
        clock.jump(0);
        clock
    }

    /// What the process has to have in its environment.
    pub fn env(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // It would wait for files' times otherwise, which are the system's.
            ("NO_FAKE_STAT", "1".into()),
        ]
    }

    /// The year that it truly is.
    ///
    /// # Panics
    /// When the system does not know.
    pub fn true_year() -> i32 {
        let told = Command::new("date").args(["-u", "+%Y"]).output().expect("`date`");
        String::from_utf8_lossy(&told.stdout).trim().parse().expect("a year")
    }

    /// From now on it is so many seconds ahead of the true time; behind it when that is negative.
    ///
    /// # Panics
    /// When that cannot be written down.
    pub fn jump(&self, seconds: i64) {
        let temp = self.file.with_extension("new");
        fs::write(&temp, format!("{seconds:+}\n")).unwrap();
        fs::rename(temp, &self.file).unwrap();
    }
}
