#![no_main]

#[path = "../../runtime/api/tests/properties/checks.rs"]
#[allow(dead_code, reason = "each target takes one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::grants(data));
