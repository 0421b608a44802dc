//! What happens in which order when a component is instantiated.

use crate::harness::{Seen, same};

/// A component whose core modules can all call `log`.
fn component(modules: &str) -> String {
    format!(
        r#"(component
            (import "log" (func $log (param "number" u32) (result u32)))
            (core func $log (canon lower (func $log)))
            (core instance $host (export "log" (func $log)))
            {modules})"#
    )
}

/// The export of a member that makes the component one with a result.
const RUN: &str = r#"(func (export "run") (result u32) (canon lift (core func $last "run")))"#;

#[test]
fn start_functions_run_in_order() {
    let wat = component(&format!(
        r#"(core module $a
                (import "host" "log" (func $log (param i32) (result i32)))
                (memory (export "memory") 1)
                (data (i32.const 0) "\05")
                (func $start (drop (call $log (i32.load (i32.const 0)))))
                (start $start))
            (core module $b
                (import "host" "log" (func $log (param i32) (result i32)))
                (import "a" "memory" (memory 1))
                (func $start
                    (i32.store (i32.const 0) (i32.const 6))
                    (drop (call $log (i32.const 10))))
                (start $start)
                (func (export "run") (result i32) (i32.load (i32.const 0))))
            (core instance $a (instantiate $a (with "host" (instance $host))))
            (core instance $last (instantiate $b
                (with "a" (instance $a)) (with "host" (instance $host))))
            {RUN}"#
    ));
    assert_eq!(same(&wat, 1), Seen { log: vec![5, 10], end: Ok(vec![6]) });
}

/// In a merged module, all segments are written before any start function runs.
#[test]
fn segments_behind_a_start_function_stay_behind() {
    let wat = component(&format!(
        r#"(core module $a
                (memory (export "memory") 1)
                (func (export "f") (result i32) (i32.load (i32.const 0))))
            (core module $b
                (import "host" "log" (func $log (param i32) (result i32)))
                (import "a" "f" (func $f (result i32)))
                (func $start (drop (call $log (call $f))))
                (start $start))
            (core module $c
                (import "a" "memory" (memory 1))
                (import "a" "f" (func $f (result i32)))
                (data (i32.const 0) "\09")
                (func (export "run") (result i32) (call $f)))
            (core instance $a (instantiate $a))
            (core instance $b (instantiate $b
                (with "a" (instance $a)) (with "host" (instance $host))))
            (core instance $last (instantiate $c (with "a" (instance $a))))
            {RUN}"#
    ));
    // The third one, or the second one, stays outside.
    assert_eq!(same(&wat, 2), Seen { log: vec![0], end: Ok(vec![9]) });
}

#[test]
fn a_trap_behind_a_start_function_comes_after_it() {
    let wat = component(&format!(
        r#"(core module $a
                (import "host" "log" (func $log (param i32) (result i32)))
                (memory (export "memory") 1)
                (func $start (drop (call $log (i32.const 1))))
                (start $start)
                (func (export "f") (result i32) (i32.const 1)))
            (core module $b
                (import "a" "memory" (memory 1))
                (import "a" "f" (func $f (result i32)))
                (data (i32.const 65536) "too far")
                (func (export "run") (result i32) (call $f)))
            (core instance $a (instantiate $a (with "host" (instance $host))))
            (core instance $last (instantiate $b (with "a" (instance $a))))
            {RUN}"#
    ));
    assert!(!crate::harness::same_if_merged(&wat));
}

#[test]
fn a_trap_at_instantiation_stays_one() {
    for (segment, reason) in [
        (r#"(data (i32.const 65536) "too far")"#, "out of bounds memory access"),
        ("(elem (i32.const 2) func $f)", "out of bounds table access"),
        ("(func $start unreachable) (start $start)", "unreachable"),
    ] {
        let wat = component(&format!(
            r#"(core module $a
                    (memory (export "memory") 1)
                    (table (export "table") 2 funcref)
                    (func (export "f") (result i32) (i32.const 1)))
                (core module $b
                    (import "a" "memory" (memory 1))
                    (import "a" "table" (table 2 funcref))
                    (import "a" "f" (func $f (result i32)))
                    {segment}
                    (func (export "run") (result i32) (call $f)))
                (core instance $a (instantiate $a))
                (core instance $last (instantiate $b (with "a" (instance $a))))
                {RUN}"#
        ));
        let failure = same(&wat, 1).end.expect_err("it traps");
        assert!(failure.reason.contains(reason), "{failure:?}");
    }
}

/// Segments that are written to the same place are so in their order.
#[test]
fn later_segments_win() {
    let wat = component(&format!(
        r#"(core module $a
                (memory (export "memory") 1)
                (table (export "table") 2 funcref)
                (data (i32.const 0) "\01\01\01")
                (elem (i32.const 0) $one $one)
                (func $one (result i32) (i32.const 1)))
            (core module $b
                (import "a" "memory" (memory 1))
                (import "a" "table" (table 2 funcref))
                (data (i32.const 1) "\02\02")
                (elem (i32.const 1) $two)
                (func $two (result i32) (i32.const 2)))
            (core module $c
                (import "a" "memory" (memory 1))
                (import "a" "table" (table 2 funcref))
                (data (i32.const 2) "\03")
                (func (export "run") (result i32)
                    (i32.add (i32.load (i32.const 0)) (i32.add
                        (call_indirect (result i32) (i32.const 0))
                        (call_indirect (result i32) (i32.const 1))))))
            (core instance $a (instantiate $a))
            (core instance $b (instantiate $b (with "a" (instance $a))))
            (core instance $last (instantiate $c (with "a" (instance $a))))
            {RUN}"#
    ));
    assert_eq!(same(&wat, 1).end, Ok(vec![0x0003_0201 + 3]));
}

/// A module that is instantiated twice stays outside; it writes between two that could be merged.
#[test]
fn what_is_outside_keeps_its_turn() {
    let modules = |start: &str| {
        component(&format!(
            r#"(core module $a
                    (memory (export "memory") 1)
                    (data (i32.const 0) "\01\01\01")
                    (func (export "load") (result i32) (i32.load (i32.const 0))))
                (core module $outside
                    (import "host" "log" (func $log (param i32) (result i32)))
                    (import "a" "memory" (memory 1))
                    (data (i32.const 1) "\02\02")
                    (func $start (drop (call $log (i32.load (i32.const 0)))))
                    {start})
                (core module $c
                    (import "a" "memory" (memory 1))
                    (import "a" "load" (func $load (result i32)))
                    (data (i32.const 2) "\03")
                    (func (export "run") (result i32) (call $load)))
                (core instance $a (instantiate $a))
                (core instance (instantiate $outside
                    (with "a" (instance $a)) (with "host" (instance $host))))
                (core instance (instantiate $outside
                    (with "a" (instance $a)) (with "host" (instance $host))))
                (core instance $last (instantiate $c (with "a" (instance $a))))
                {RUN}"#
        ))
    };
    for start in ["", "(start $start)"] {
        assert!(!crate::harness::same_if_merged(&modules(start)));
    }
    // What it writes lies apart from what the last one writes.
    let apart = modules("").replace(r#"(data (i32.const 2) "\03")"#, "");
    assert_eq!(same(&apart, 3).end, Ok(vec![0x0002_0201]));
}

#[test]
fn a_nested_component_keeps_its_turn() {
    let wat = |start: &str| {
        component(&format!(
            r#"(core module $a
                    (memory (export "memory") 1)
                    (func (export "load") (result i32) (i32.load (i32.const 0))))
                (core module $c
                    (import "a" "memory" (memory 1))
                    (import "a" "load" (func $load (result i32)))
                    (import "host" "log" (func $log (param i32) (result i32)))
                    (func $start (drop (call $log (i32.const 3))))
                    {start}
                    (func (export "run") (result i32) (call $load)))
                (component $nested
                    (import "log" (func $log (param "number" u32) (result u32)))
                    (core func $log (canon lower (func $log)))
                    (core module $m
                        (import "host" "log" (func $log (param i32) (result i32)))
                        (func $start (drop (call $log (i32.const 1))))
                        (start $start))
                    (core instance $host (export "log" (func $log)))
                    (core instance (instantiate $m (with "host" (instance $host)))))
                (core instance $a (instantiate $a))
                (instance (instantiate $nested (with "log" (func $log))))
                (core instance $last (instantiate $c
                    (with "a" (instance $a)) (with "host" (instance $host))))
                {RUN}"#
        ))
    };
    // The memory would be made after the nested component ran, and not before.
    assert!(!crate::harness::same_if_merged(&wat("(start $start)")));
}
