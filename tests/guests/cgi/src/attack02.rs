//! What a hostile program of WASI 0.2 does, called as CGI.

use wasip2::cli::{environment, stderr, stdout};
use wasip2::clocks::monotonic_clock;
use wasip2::io::poll;
use wasip2::random::random;

/// Does it, and says what came of it if that is not the end.
pub fn attack(what: &str) -> String {
    let out = stdout::get_stdout();
    match what {
        "random" => loop {
            std::hint::black_box(random::get_random_u64());
        },
        "env" => loop {
            std::hint::black_box(environment::get_environment());
        },
        "poll" => {
            let now = monotonic_clock::subscribe_duration(0);
            loop {
                poll::poll(&[&now]);
            }
        }
        "block" => loop {
            monotonic_clock::subscribe_duration(0).block();
        },
        "realloc" => drop(environment::get_environment()),
        "random-much" => drop(random::get_random_bytes((64 << 10) + 1)),
        // More than was ever offered, and without having asked.
        "beyond" => drop(out.write(&[0; 1 << 20])),
        "zeroes" => drop(out.write_zeroes(u64::MAX)),
        "stderr-zeroes" => drop(stderr::get_stderr().write_zeroes(u64::MAX)),
        _ => {}
    }
    "survived\n".to_owned()
}
