//! A terminal with a command in it: what a person sees, and nothing of how it got there.

use crate::eventually;
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How wide it is, in characters.
const WIDTH: u16 = 100;

/// A command whose output goes to a terminal. It is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a command; `typed` says whether its standard input is the terminal too, or nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command, typed: bool) -> Self {
        let (ours, theirs) = open();
        let stdin = match typed {
            true => Stdio::from(theirs.try_clone().unwrap()),
            false => Stdio::null(),
        };
        command.stdin(stdin).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let child = command.spawn().unwrap();
        // The terminal ends when nobody has its other side any more.
        drop(command);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (File::from(ours.try_clone().unwrap()), seen.clone());
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                kept.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self { child, keyboard: File::from(ours), seen, reader: Some(reader) }
    }

    /// The process in it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What stands on it now. A line that was written over is gone.
    ///
    /// # Panics
    /// When the thread that reads has panicked.
    pub fn text(&self) -> String {
        let seen = String::from_utf8_lossy(&self.seen.lock().unwrap()).replace("\r\n", "\n");
        let last = |line: &str| line.rsplit('\r').find(|text| !text.is_empty()).map(str::to_owned);
        let lines: Vec<String> =
            seen.split('\n').map(|line| last(line).unwrap_or_default()).collect();
        lines.join("\n")
    }

    /// Waits for these words.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn until(&self, words: &str, patience: Duration) {
        eventually(words, patience, || self.text().contains(words).then_some(()));
    }

    /// Types a line.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end: what stands on it, and the exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(mut self, patience: Duration) -> (String, i32) {
        let status = eventually("its end", patience, || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        (self.text(), status.code().unwrap_or(-1))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both sides of a new terminal.
fn open() -> (OwnedFd, OwnedFd) {
    let size = libc::winsize { ws_row: 50, ws_col: WIDTH, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (-1, -1);
    #[expect(unsafe_code, reason = "no safe wrapper; the kernel writes two numbers")]
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null(), &size)
    };
    assert_eq!(opened, 0, "no terminal: {}", std::io::Error::last_os_error());
    #[expect(unsafe_code, reason = "both were opened just now, and are nobody else's")]
    let both = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    for side in [&both.0, &both.1] {
        rustix::io::fcntl_setfd(side, rustix::io::FdFlags::CLOEXEC).unwrap();
    }
    both
}
