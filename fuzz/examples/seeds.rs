//! Writes programs to a folder, each to a file of its own, for the targets that take a program's bytes:
//!
//! ```console
//! cargo run --manifest-path fuzz/Cargo.toml --no-default-features --example seeds -- fuzz/corpus/artifact
//! ```

use arbitrary::Unstructured;
use std::{fs, path::PathBuf};

/// How many.
const PROGRAMS: u32 = 200;
/// The longest, in bytes: small ones are tried more often.
const LONGEST: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("a folder")?);
    fs::create_dir_all(&folder)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut written = 0;
    while written < PROGRAMS {
        let bytes: Vec<u8> = (0..600)
            .map(|_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[0]
            })
            .collect();
        let program = faas_fuzz::program(&mut Unstructured::new(&bytes))?;
        if program.len() <= LONGEST {
            fs::write(folder.join(format!("seed-{written}")), program)?;
            written += 1;
        }
    }
    Ok(())
}
