//! Whatever a file contains, a merge ends and breaks nothing.

use crate::harness::assemble;
use faas_merge::{Unmerged, merge};
use std::fmt::Write as _;

/// A component with a bit of everything.
const SAMPLE: &str = r#"(component
    (import "log" (func $log (param "number" u32) (result u32)))
    (import "say" (func $say (param "text" string) (result string)))
    (core func $log (canon lower (func $log)))
    (core module $a (;first;)
        (import "h" "log" (func $log (param i32) (result i32)))
        (memory (export "memory") 1)
        (table (export "table") 4 funcref)
        (global (export "base") i32 (i32.const 16))
        (data (i32.const 0) "data")
        (func $f (export "f") (param i32) (result i32)
            (block (br_table 0 0 (local.get 0)))
            (call $log (i32.load offset=2 (local.get 0))))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
    (core module $b
        (import "a" "memory" (memory 1))
        (import "a" "table" (table 1 funcref))
        (import "a" "base" (global $base i32))
        (import "a" "f" (func $f (param i32) (result i32)))
        (global i32 (i32.add (global.get $base) (i32.const 1)))
        (data (global.get $base) "more")
        (elem (global.get $base) func $f)
        (elem funcref (ref.func $f) (ref.null func))
        (func $start)
        (start $start)
        (func (export "run") (result i32)
            (call_indirect (param i32) (result i32) (i32.const 5) (i32.const 0))))
    (core instance $h (export "log" (func $log)))
    (core instance $a (instantiate $a (with "h" (instance $h))))
    (core instance $b (instantiate $b (with "a" (instance $a))))
    (type $r (resource (rep i32)))
    (core func $drop (canon resource.drop $r))
    (core func $say (canon lower (func $say) (memory (core memory $a "memory")) (realloc (core func $a "realloc"))))
    (core module $fixup
        (import "" "drop" (func (param i32)))
        (import "" "say" (func (param i32 i32 i32)))
        (import "" "table" (table 4 funcref))
        (elem (i32.const 1) func 0 1))
    (core instance (instantiate $fixup (with "" (instance
        (export "drop" (func $drop)) (export "say" (func $say))
        (export "table" (table $a "table"))))))
    (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;

#[test]
fn a_damaged_component_is_refused_or_valid() {
    let sample = assemble(SAMPLE);
    merge(&sample).unwrap();
    for end in 0..sample.len() {
        // Between two sections, what is left may be valid; what is merged was validated.
        drop(merge(&sample[..end]));
    }
    let mut merged = 0;
    for position in 0..sample.len() {
        for change in [0x01, 0x02, 0x10, 0x40, 0x80, 0xff] {
            let mut damaged = sample.clone();
            damaged[position] ^= change;
            merged += usize::from(merge(&damaged).is_ok());
        }
    }
    assert!(merged > 0, "some changes are harmless");
}

/// Each function is made with the one before it: following that chain takes no stack.
#[test]
fn a_long_chain_of_functions() {
    let mut chain = String::new();
    let links = 20_000;
    for link in 1..links {
        let before = link - 1;
        write!(
            chain,
            r#"(core func $f{link} (canon lower (func $realloc)
                (memory (core memory $a "memory")) (realloc (core func $f{before}))))"#
        )
        .unwrap();
    }
    let last = links - 1;
    let wat = format!(
        r#"(component
            (import "realloc" (func $realloc
                (param "a" u32) (param "b" u32) (param "c" u32) (param "d" u32) (result u32)))
            (core module $a (memory (export "memory") 1))
            (core module $a' (import "a" "memory" (memory 1)))
            (core instance $a (instantiate $a))
            (core instance $a' (instantiate $a' (with "a" (instance $a))))
            (core func $f0 (canon lower (func $realloc)))
            {chain}
            (core module $b (import "" "f" (func (param i32 i32 i32 i32) (result i32))))
            (core instance (instantiate $b (with "" (instance (export "f" (func $f{last})))))))"#
    );
    merge(&assemble(&wat)).unwrap();
}

/// A module is there once and instantiated often: its imports cost more than its bytes.
#[test]
fn imports_that_are_resolved_too_often() {
    let (mut imports, mut exports) = (String::new(), String::new());
    for number in 0..20_000 {
        write!(imports, r#"(import "a" "{number}" (func))"#).unwrap();
        write!(exports, r#"(export "{number}" (func $f))"#).unwrap();
    }
    let wat = |instances: usize| {
        format!(
            r#"(component
                (core module $a (func $f (export "f")) {exports})
                (core module $b (import "a" "f" (func)))
                (core module $m {imports})
                (core instance $a (instantiate $a))
                (core instance $b (instantiate $b (with "a" (instance $a))))
                {})"#,
            r#"(core instance (instantiate $m (with "a" (instance $a))))"#.repeat(instances),
        )
    };
    merge(&assemble(&wat(2))).unwrap();
    let refused = merge(&assemble(&wat(500))).unwrap_err();
    assert!(matches!(refused, Unmerged::Unsupported(_)), "{refused}");
}
