//! What a hostile program of WASI 0.1 does.

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, bytes: *mut usize) -> i32;
    fn random_get(buffer: *mut u8, length: usize) -> i32;
    fn poll_oneoff(subscriptions: *const u8, events: *mut u8, count: usize, got: *mut u8) -> i32;
    fn fd_close(fd: i32) -> i32;
    fn fd_renumber(from: i32, to: i32) -> i32;
    fn fd_read(fd: i32, buffers: *const usize, count: usize, read: *mut usize) -> i32;
    fn fd_write(fd: i32, buffers: *const usize, count: usize, written: *mut usize) -> i32;
    fn fd_filestat_set_times(fd: i32, accessed: u64, modified: u64, flags: i32) -> i32;
    fn path_filestat_set_times(
        fd: i32,
        flags: i32,
        path: *const u8,
        length: usize,
        accessed: u64,
        modified: u64,
        set: i32,
    ) -> i32;
    fn path_open(
        fd: i32,
        lookup: i32,
        path: *const u8,
        length: usize,
        open: i32,
        rights: u64,
        inheriting: u64,
        flags: i32,
        opened: *mut i32,
    ) -> i32;
    fn sock_accept(fd: i32, flags: i32, accepted: *mut i32) -> i32;
    fn sock_send(fd: i32, buffers: *const usize, count: usize, flags: i32, sent: *mut usize)
    -> i32;
    fn sock_shutdown(fd: i32, how: i32) -> i32;
}

/// Does it, and says what came of it if that is not the end: the numbers of the errors.
pub fn attack(what: &str) -> String {
    let mut number = 0_usize;
    let byte = [0_u8; 1];
    let buffer = [byte.as_ptr() as usize, 1];
    // SAFETY: every pointer is to memory that is there, and as large as is said.
    let errors: Vec<i32> = unsafe {
        match what {
            "random" => loop {
                let mut bytes = [0; 8];
                random_get(bytes.as_mut_ptr(), bytes.len());
            },
            "env" => loop {
                let mut bytes = 0;
                environ_sizes_get(&mut number, &mut bytes);
            },
            "poll" => loop {
                // A clock that is read at once: zeroes all over.
                let (clock, mut event) = ([0_u8; 48], [0_u8; 32]);
                poll_oneoff(clock.as_ptr(), event.as_mut_ptr(), 1, (&raw mut number).cast());
            },
            "random-much" => {
                let mut bytes = vec![0; (64 << 10) + 1];
                vec![random_get(bytes.as_mut_ptr(), bytes.len())]
            }
            "renumber" => {
                // What it finds below may be moved, and what is moved is gone.
                let mut errors: Vec<i32> = (0..100_000).map(|_| fd_renumber(2, 2)).collect();
                errors.extend([fd_renumber(2, 7), fd_renumber(99, 2), fd_renumber(2, 99)]);
                errors.sort();
                errors.dedup();
                errors
            }
            "closed" => vec![
                fd_close(0),
                fd_read(0, buffer.as_ptr(), 1, &mut number),
                fd_close(0),
                fd_close(2),
                fd_write(2, buffer.as_ptr(), 1, &mut number),
                fd_read(1, buffer.as_ptr(), 1, &mut number),
                fd_write(99, buffer.as_ptr(), 1, &mut number),
            ],
            "times" => {
                let set = |fd| fd_filestat_set_times(fd, u64::MAX, u64::MAX, 5);
                let path = b"/etc";
                let set_path =
                    |fd| path_filestat_set_times(fd, 1, path.as_ptr(), 4, u64::MAX, u64::MAX, 5);
                vec![set(0), set(1), set(3), set_path(0), set_path(3)]
            }
            "files" => {
                let mut opened = 0;
                let path = b"/etc/passwd";
                let mut open =
                    |fd| path_open(fd, 1, path.as_ptr(), path.len(), 0, 2, 0, 0, &mut opened);
                (0..8).map(&mut open).collect()
            }
            "sockets" => {
                let mut accepted = 0;
                vec![
                    sock_accept(0, 0, &mut accepted),
                    sock_accept(3, 0, &mut accepted),
                    sock_send(1, buffer.as_ptr(), 1, 0, &mut number),
                    sock_shutdown(1, 3),
                ]
            }
            _ => Vec::new(),
        }
    };
    format!("{errors:?}\n")
}
