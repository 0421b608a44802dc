//! What members import from each other.

use crate::harness::{assemble, core_instances, same};
use faas_merge::merge;

/// The number that the only exported function returned.
fn result(wat: &str, instances: usize) -> u32 {
    let seen = same(wat, instances);
    seen.end.expect("it does not fail")[0]
}

#[test]
fn two_modules_share_a_memory() {
    let wat = r#"(component
        (core module $a
            (memory (export "memory") 1)
            (data (i32.const 8) "\2a")
            (func (export "add") (param i32 i32) (result i32)
                (i32.add (local.get 0) (local.get 1))))
        (core module $b
            (import "a" "memory" (memory 1))
            (import "a" "add" (func $add (param i32 i32) (result i32)))
            (data (i32.const 12) "\01\01")
            (func (export "run") (result i32)
                (call $add (i32.load (i32.const 8)) (i32.load (i32.const 12)))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(result(wat, 1), 0x2a + 0x101);
}

/// As a linker of dynamic libraries writes it.
#[test]
fn a_library_is_placed_by_globals() {
    let wat = r#"(component
        (core module $env
            (memory (export "memory") 1)
            (table (export "table") 8 funcref)
            (global (export "sp") (mut i32) (i32.const 4096))
            (global (export "lib:memory_base") i32 (i32.const 1024))
            (global (export "lib:table_base") i32 (i32.const 3))
            (global (export "got") (mut i32) (i32.const 0)))
        (core module $lib
            (import "env" "memory" (memory 0))
            (import "env" "table" (table 1 funcref))
            (import "env" "sp" (global $sp (mut i32)))
            (import "env" "memory_base" (global $memory_base i32))
            (import "env" "table_base" (global $table_base i32))
            (import "got" "value" (global $got (mut i32)))
            (global $second i32 (i32.add (global.get $memory_base) (i32.const 4)))
            (global (export "exported") i32 (global.get $second))
            (data (global.get $memory_base) "\05\00\00\00")
            (data (i32.add (global.get $memory_base) (i32.mul (i32.const 2) (i32.const 2))) "\07")
            (elem (global.get $table_base) func $five)
            (elem (i32.sub (global.get $table_base) (i32.const -1)) func $second_value)
            (func $five (result i32) (i32.load (global.get $memory_base)))
            (func $second_value (result i32) (i32.load (global.get $second)))
            (func (export "push") (param i32)
                (global.set $sp (i32.sub (global.get $sp) (i32.const 4)))
                (global.set $got (local.get 0))
                (i32.store (global.get $sp) (local.get 0))))
        (core module $main
            (type $number (func (result i32)))
            (import "env" "memory" (memory 0))
            (import "env" "table" (table 1 funcref))
            (import "env" "sp" (global $sp (mut i32)))
            (import "env" "table_base" (global $table_base i32))
            (import "got" "value" (global $got (mut i32)))
            (import "lib" "exported" (global $exported i32))
            (import "lib" "push" (func $push (param i32)))
            (func (export "run") (result i32)
                (call $push (i32.const 1000))
                (i32.add (i32.load (global.get $sp))
                (i32.add (global.get $got)
                (i32.add (call_indirect (type $number) (global.get $table_base))
                (i32.add (i32.load (global.get $exported))
                    (call_indirect (type $number)
                        (i32.add (i32.const 1) (global.get $table_base)))))))))
        (core instance $env (instantiate $env))
        (core instance $placed
            (export "memory" (memory $env "memory"))
            (export "table" (table $env "table"))
            (export "sp" (global $env "sp"))
            (export "memory_base" (global $env "lib:memory_base"))
            (export "table_base" (global $env "lib:table_base")))
        (core instance $got (export "value" (global $env "got")))
        (core instance $lib (instantiate $lib
            (with "env" (instance $placed)) (with "got" (instance $got))))
        (core instance $main (instantiate $main
            (with "env" (instance $placed)) (with "got" (instance $got))
            (with "lib" (instance $lib))))
        (func (export "run") (result u32) (canon lift (core func $main "run"))))"#;
    assert_eq!(result(wat, 1), 1000 + 1000 + 5 + 7 + 7);
}

#[test]
fn values_of_all_types_are_known() {
    let wat = r#"(component
        (core module $a
            (func $f (result i32) (i32.const 5))
            (table (export "table") 2 funcref)
            (global (export "i64") i64 (i64.sub (i64.mul (i64.const 3) (i64.const 5)) (i64.const 1)))
            (global (export "f32") f32 (f32.const 1.5))
            (global (export "f64") f64 (f64.const -2))
            (global (export "v128") v128 (v128.const i32x4 1 2 3 4))
            (global (export "null") funcref (ref.null func))
            (global (export "func") funcref (ref.func $f)))
        (core module $b
            (type $number (func (result i32)))
            (import "a" "table" (table $table 0 funcref))
            (import "a" "i64" (global $i64 i64))
            (import "a" "f32" (global $f32 f32))
            (import "a" "f64" (global $f64 f64))
            (import "a" "v128" (global $v128 v128))
            (import "a" "null" (global $null funcref))
            (import "a" "func" (global $func funcref))
            (global $i64' i64 (global.get $i64))
            (global $f32' f32 (global.get $f32))
            (global $f64' f64 (global.get $f64))
            (global $v128' v128 (global.get $v128))
            (table $nulls 3 funcref (global.get $null))
            (elem (table $table) (i32.const 0) funcref
                (item (global.get $func)) (item (global.get $null)))
            (func (export "run") (result i32)
                (i32.wrap_i64 (global.get $i64'))
                (i32.trunc_f32_s (f32.mul (global.get $f32') (f32.const 100)))
                (i32.trunc_f64_s (global.get $f64'))
                (i32x4.extract_lane 3 (global.get $v128'))
                (ref.is_null (table.get $table (i32.const 1)))
                (ref.is_null (table.get $nulls (i32.const 2)))
                (call_indirect $table (type $number) (i32.const 0))
                i32.add i32.add i32.add i32.add i32.add i32.add))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(result(wat, 1), 14 + 150 - 2 + 4 + 1 + 1 + 5);
}

#[test]
fn functions_are_called_through_a_shared_table() {
    let wat = r#"(component
        (core module $a
            (type $unary (func (param i32) (result i32)))
            (table (export "table") 4 4 funcref)
            (elem (i32.const 0) $double)
            (func $double (type $unary) (i32.mul (local.get 0) (i32.const 2)))
            (func (export "call") (param i32 i32) (result i32)
                (call_indirect (type $unary) (local.get 1) (local.get 0))))
        (core module $b
            (type $other (func (result i64)))
            (type $unary (func (param i32) (result i32)))
            (import "a" "table" (table 4 funcref))
            (import "a" "call" (func $call (param i32 i32) (result i32)))
            (table $own 2 funcref)
            (elem (table 0) (i32.const 1) func $square)
            (elem (table $own) (i32.const 1) func $unlike)
            (func $unlike (type $other) (i64.const 1))
            (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
            (func (export "run") (result i32)
                (table.copy 0 $own (i32.const 2) (i32.const 1) (i32.const 1))
                (i32.add (call $call (i32.const 0) (i32.const 21))
                    (call $call (i32.const 1) (i32.const 10))))
            (func (export "wrong type") (result i32) (call $call (i32.const 2) (i32.const 1))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run")))
        (func (export "trap") (result u32) (canon lift (core func $b "wrong type"))))"#;
    let failure = same(wat, 1).end.expect_err("a function of another type is called");
    assert!(failure.reason.contains("indirect call type mismatch"), "{failure:?}");
    let without = wat.replace(r#"(export "trap")"#, "");
    assert_eq!(result(&without, 1), 42 + 100);
}

#[test]
fn memory_grows_for_all() {
    let wat = r#"(component
        (core module $a
            (memory (export "memory") 1 5)
            (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))
        (core module $b
            (import "a" "memory" (memory 1))
            (import "a" "grow" (func $grow (param i32) (result i32)))
            (func (export "run") (result i32)
                (drop (call $grow (i32.const 2)))
                (i32.store (i32.const 150000) (i32.const 7))
                (drop (call $grow (i32.const 100)))
                (i32.add (i32.mul (memory.size) (i32.const 100)) (i32.load (i32.const 150000)))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(result(wat, 1), 307);
}

#[test]
fn passive_segments_stay_apart() {
    let wat = r#"(component
        (core module $a
            (memory (export "memory") 1)
            (table (export "table") 2 funcref)
            (data $data "a")
            (elem $elem func $one)
            (func $one (result i32) (i32.const 1))
            (func (export "fill")
                (memory.init $data (i32.const 0) (i32.const 0) (i32.const 1))
                (table.init $elem (i32.const 0) (i32.const 0) (i32.const 1))
                (data.drop $data)
                (elem.drop $elem)))
        (core module $b
            (type $number (func (result i32)))
            (import "a" "memory" (memory 1))
            (import "a" "table" (table 2 funcref))
            (import "a" "fill" (func $fill))
            (data $data "b")
            (elem $elem func $two)
            (func $two (result i32) (i32.const 2))
            (func (export "run") (result i32)
                (call $fill)
                (memory.init $data (i32.const 1) (i32.const 0) (i32.const 1))
                (table.init $elem (i32.const 1) (i32.const 0) (i32.const 1))
                (i32.add (i32.load (i32.const 0))
                    (i32.add (call_indirect (type $number) (i32.const 0))
                        (call_indirect (type $number) (i32.const 1))))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(result(wat, 1), 0x6261 + 3);
}

#[test]
fn reexports_lead_to_what_is_behind_them() {
    let wat = r#"(component
        (core module $a
            (func (export "f") (result i32) (i32.const 1))
            (memory (export "m") 1)
            (global (export "g") (mut i32) (i32.const 10)))
        (core module $b
            (import "a" "f" (func (result i32)))
            (import "a" "m" (memory 1))
            (import "a" "g" (global (mut i32)))
            (export "again f" (func 0))
            (export "again m" (memory 0))
            (export "again g" (global 0)))
        (core module $c
            (import "b" "again f" (func $f (result i32)))
            (import "b" "again m" (memory 1))
            (import "b" "again g" (global $g (mut i32)))
            (import "direct" "g" (global $same (mut i32)))
            (func (export "run") (result i32)
                (global.set $g (i32.const 20))
                (i32.add (call $f) (i32.add (memory.size) (global.get $same)))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (core instance $bag (export "g" (global $a "g")))
        (core instance $c (instantiate $c
            (with "b" (instance $b)) (with "direct" (instance $bag))))
        (func (export "run") (result u32) (canon lift (core func $c "run")))
        (func (export "f") (result u32) (canon lift (core func $b "again f"))))"#;
    let seen = same(wat, 1);
    assert_eq!(seen.end, Ok(vec![22, 1]));
}

/// What stays outside is imported once, with what all members expect of it.
#[test]
fn what_is_outside_is_imported() {
    let wat = r#"(component
        (core module $twice
            (memory (export "memory") 2 9)
            (table (export "table") 3 funcref)
            (global (export "base") i32 (i32.const 16))
            (global (export "count") (mut i32) (i32.const 0))
            (func (export "next") (result i32)
                (global.set 1 (i32.add (global.get 1) (i32.const 1))) (global.get 1)))
        (core module $a
            (import "t" "memory" (memory 1))
            (import "t" "table" (table 1 funcref))
            (import "t" "base" (global $base i32))
            (import "t" "next" (func $next (result i32)))
            (data (global.get $base) "\03")
            (func $f (export "f") (result i32) (call $next)))
        (core module $b
            (import "t" "memory" (memory 2 10))
            (import "t" "table" (table 2 funcref))
            (import "t" "base" (global $base i32))
            (import "t" "count" (global $count (mut i32)))
            (import "a" "f" (func $f (result i32)))
            (elem (offset (i32.sub (global.get $base) (i32.const 15))) func $f)
            (func (export "run") (result i32)
                (drop (call $f))
                (drop (call_indirect (result i32) (i32.const 1)))
                (i32.add (i32.mul (i32.const 10) (global.get $count))
                    (i32.load (global.get $base)))))
        (core instance $other (instantiate $twice))
        (core instance $t (instantiate $twice))
        (core instance $a (instantiate $a (with "t" (instance $t))))
        (core instance $b (instantiate $b (with "t" (instance $t)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run")))
        (func (export "next") (result u32) (canon lift (core func $other "next"))))"#;
    assert_eq!(same(wat, 3).end, Ok(vec![23, 1]));
}

#[test]
fn traps_name_their_functions() {
    let wat = r#"(component
        (core module $a
            (func $inner_most (export "f") (param i32) (result i32)
                (if (i32.eqz (local.get 0)) (then unreachable)) (i32.const 1)))
        (core module $b
            (import "a" "f" (func $imported_under_another_name (param i32) (result i32)))
            (func $in_between (param i32) (result i32)
                (call $imported_under_another_name (local.get 0)))
            (func $outer (export "run") (result i32) (call $in_between (i32.const 0))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    let failure = same(wat, 1).end.expect_err("it traps");
    let names: Vec<_> = failure.names.iter().map(|name| name.as_deref().unwrap()).collect();
    assert_eq!(names, ["inner_most", "in_between", "outer"]);
    assert!(failure.reason.contains("unreachable"), "{failure:?}");
}

#[test]
fn a_module_that_is_used_twice_stays() {
    let wat = r#"(component
        (core module $counter
            (global $count (mut i32) (i32.const 0))
            (func (export "next") (result i32)
                (global.set $count (i32.add (global.get $count) (i32.const 1)))
                (global.get $count)))
        (core module $a
            (import "c" "next" (func $next (result i32)))
            (func (export "f") (result i32) (drop (call $next)) (call $next)))
        (core module $b
            (import "a" "f" (func $f (result i32)))
            (import "c" "next" (func $next (result i32)))
            (func (export "run") (result i32)
                (i32.add (i32.mul (i32.const 10) (call $f)) (call $next))))
        (core instance $first (instantiate $counter))
        (core instance $second (instantiate $counter))
        (core instance $a (instantiate $a (with "c" (instance $first))))
        (core instance $b (instantiate $b
            (with "c" (instance $second)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(result(wat, 3), 21);
}

/// Only those that share a memory can be merged.
#[test]
fn another_memory_stays_outside() {
    let wat = r#"(component
        (core module $a (memory (export "memory") 1)
            (func (export "f") (result i32) (i32.load (i32.const 0))))
        (core module $b
            (import "a" "memory" (memory 1))
            (import "a" "f" (func $f (result i32)))
            (func (export "f") (result i32)
                (i32.store (i32.const 0) (i32.const 5)) (call $f)))
        (core module $c
            (import "b" "f" (func $f (result i32)))
            (memory 1)
            (func (export "run") (result i32)
                (i32.store (i32.const 0) (i32.const 100))
                (i32.add (call $f) (i32.load (i32.const 0)))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (core instance $c (instantiate $c (with "b" (instance $b))))
        (func (export "run") (result u32) (canon lift (core func $c "run"))))"#;
    assert_eq!(result(wat, 2), 105);
}

#[test]
fn merging_twice_changes_nothing_more() {
    let wat = r#"(component
        (core module $a (func (export "f") (result i32) (i32.const 1)))
        (core module $b (import "a" "f" (func (result i32))) (export "f" (func 0)))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "f"))))"#;
    let original = assemble(wat);
    let merged = merge(&original).unwrap();
    assert_eq!(merge(&original).unwrap(), merged, "it is the same every time");
    assert_eq!(core_instances(&merged), 1);
    assert_eq!(merge(&merged), Err(faas_merge::Unmerged::Nothing));
}
