#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = faas_runtime::fuzzing::functions(data);
});
