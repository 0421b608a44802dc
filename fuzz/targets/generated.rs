//! Modules and components that are valid, made of the input.

#![no_main]

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let config = Config {
        max_instructions: 60,
        max_memories: 3,
        max_tables: 3,
        allow_start_export: true,
        ..Config::default()
    };
    let mut unstructured = Unstructured::new(data);
    let wasm = match data.first() {
        Some(first) if first % 4 == 0 => {
            Component::new(config, &mut unstructured).map(|component| component.to_bytes())
        }
        _ => {
            // `(module (func (export "_start")))`
            let start = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
            let config = Config { exports: Some(start.to_vec()), ..config };
            Module::new(config, &mut unstructured).map(|module| module.to_bytes())
        }
    };
    if let Ok(wasm) = wasm {
        let _ = faas_runtime::fuzzing::artifact(&wasm);
    }
});
