//! Modules and components that are valid, and some with a bit turned.

#![no_main]

use arbitrary::Unstructured;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let wasm = match bytes.ratio(1, 4) {
        Ok(true) => faas_fuzz::damaged(&mut bytes),
        _ => faas_fuzz::program(&mut bytes),
    };
    if let Ok(wasm) = wasm {
        let _ = faas_runtime::fuzzing::artifact(&wasm);
    }
});
