//! Writes what `wasm-smith` makes of bytes that look random, for the suite:
//!
//! ```console
//! cargo run --manifest-path fuzz/Cargo.toml --example modules > runtime/testdata/generated.bin
//! ```
//!
//! Modules with a `_start`, modules with whatever comes, components; each behind its length, four
//! bytes, little-endian.

use arbitrary::Unstructured;
use std::io::Write as _;
use wasm_smith::{Component, Config, Module};

/// Bytes of all of them.
const MOST: usize = 96 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `(module (func (export "_start")))`
    let start = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    let config = |exports: Option<&[u8]>| Config {
        exports: exports.map(<[u8]>::to_vec),
        allow_start_export: true,
        max_instructions: 60,
        max_memories: 3,
        max_tables: 3,
        ..Config::default()
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::new();
    for round in 0.. {
        let seed: Vec<u8> = (0..1500)
            .map(|_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[0]
            })
            .collect();
        let mut seed = Unstructured::new(&seed);
        let wasm = match round % 4 {
            0 | 1 => Module::new(config(Some(start)), &mut seed)?.to_bytes(),
            2 => Module::new(config(None), &mut seed)?.to_bytes(),
            _ => Component::new(config(None), &mut seed)?.to_bytes(),
        };
        if wasm.len() > 4096 {
            continue;
        }
        if out.len() + wasm.len() > MOST {
            break;
        }
        out.extend(u32::try_from(wasm.len())?.to_le_bytes());
        out.extend(wasm);
    }
    std::io::stdout().write_all(&out)?;
    Ok(())
}
