//! What is not merged.

use crate::harness::{assemble, refusal, same_if_merged};
use faas_merge::{Unmerged, merge};

#[test]
fn nothing_to_merge() {
    assert_eq!(refusal("(component)"), Unmerged::Nothing);
    let one = "(component (core module $m) (core instance (instantiate $m)))";
    assert_eq!(refusal(one), Unmerged::Nothing);
    let twice = "(component (core module $m)
        (core instance (instantiate $m)) (core instance (instantiate $m)))";
    assert_eq!(refusal(twice), Unmerged::Nothing);
    let module = assemble("(module)");
    assert_eq!(merge(&module), Err(Unmerged::Unsupported("a core module")));
}

/// The second one needs a function that needs the memory of the first one.
#[test]
fn instances_that_need_what_is_made_from_each_other() {
    let wat = r#"(component
        (import "say" (func $say (param "text" string) (result string)))
        (core module $a (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
        (core instance $a (instantiate $a))
        (core func $say (canon lower (func $say)
            (memory (core memory $a "memory")) (realloc (core func $a "realloc"))))
        (core module $b
            (import "host" "say" (func $say (param i32 i32 i32)))
            (import "a" "memory" (memory 1))
            (func (export "run") (result i32) (i32.const 1)))
        (core instance $host (export "say" (func $say)))
        (core instance $b (instantiate $b
            (with "host" (instance $host)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(refusal(wat), Unmerged::Nothing);
}

/// A resource has its destructor from the first one; the second one makes such resources.
#[test]
fn a_resource_between_two_instances() {
    let wat = r#"(component
        (core module $a (func (export "dtor") (param i32)))
        (core instance $a (instantiate $a))
        (type $r (resource (rep i32) (dtor (core func $a "dtor"))))
        (core func $new (canon resource.new $r))
        (core module $b
            (import "r" "new" (func $new (param i32) (result i32)))
            (import "a" "dtor" (func (param i32)))
            (func (export "run") (result i32) (call $new (i32.const 1))))
        (core instance $r (export "new" (func $new)))
        (core instance $b (instantiate $b
            (with "r" (instance $r)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(refusal(wat), Unmerged::Nothing);
}

/// An instance that stays outside is between two others.
#[test]
fn an_instance_between_two_instances() {
    let wat = r#"(component
        (core module $a (func (export "f") (result i32) (i32.const 1)))
        (core module $twice (import "a" "f" (func (result i32))) (export "f" (func $g))
            (func $g (result i32) (i32.add (call 0) (i32.const 1))))
        (core module $c (import "b" "f" (func (result i32)))
            (import "a" "f" (func (result i32))) (export "run" (func 0)))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $twice (with "a" (instance $a))))
        (core instance (instantiate $twice (with "a" (instance $a))))
        (core instance $c (instantiate $c (with "b" (instance $b)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $c "run"))))"#;
    assert!(!same_if_merged(wat));
}

#[test]
fn core_modules_that_are_values() {
    let outer = r#"(component
        (core module $a (func (export "f")))
        (core module $b (import "a" "f" (func)))
        (component $c (alias outer 1 $a (core module $m)) (core instance (instantiate $m)))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a)))))"#;
    assert!(matches!(refusal(outer), Unmerged::Unsupported(_)));
    let exported = r#"(component
        (core module $a (func (export "f")))
        (core module $b (import "a" "f" (func)))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (export "module" (core module $a)))"#;
    assert!(matches!(refusal(exported), Unmerged::Unsupported(_)));
    let imported = r#"(component
        (import "m" (core module $m (export "f" (func))))
        (core module $b (import "a" "f" (func)))
        (core instance $a (instantiate $m))
        (core instance $b (instantiate $b (with "a" (instance $a)))))"#;
    assert!(matches!(refusal(imported), Unmerged::Unsupported(_)));
}

#[test]
fn too_many_tables_or_functions() {
    let wat = |tables: usize, functions: usize| {
        format!(
            r#"(component
                (core module $a (func (export "f")) {} {})
                (core module $b (import "a" "f" (func)))
                (core instance $a (instantiate $a))
                (core instance $b (instantiate $b (with "a" (instance $a)))))"#,
            "(table 1 funcref)".repeat(tables),
            "(func)".repeat(functions),
        )
    };
    assert!(merge(&assemble(&wat(8, 0))).is_ok());
    assert!(matches!(refusal(&wat(9, 0)), Unmerged::Unsupported(_)));
    assert!(merge(&assemble(&wat(0, 10_000))).is_ok());
    assert!(matches!(refusal(&wat(0, 100_000)), Unmerged::Unsupported(_)));
}

/// The engine is not built for these, and so they are not valid.
#[test]
fn features_that_the_engine_has_not() {
    for module in
        ["(type (struct (field i32)))", "(tag)", "(memory 1 2 shared)", "(table 1 externref)"]
    {
        let wat = format!(
            r#"(component
                (core module $a (func (export "f")) {module})
                (core module $b (import "a" "f" (func)))
                (core instance $a (instantiate $a))
                (core instance $b (instantiate $b (with "a" (instance $a)))))"#
        );
        assert!(matches!(refusal(&wat), Unmerged::Invalid(_)), "{module}");
    }
}

#[test]
fn types_that_are_not_equal_when_they_look_so() {
    for types in ["(rec (type (func)) (type (func)))", "(type (sub (func)))", "(rec (type (func)))"]
    {
        let wat = format!(
            r#"(component
                (core module $a {types} (func (export "f") (type 0)))
                (core module $b {types} (import "a" "f" (func (type 0))))
                (core instance $a (instantiate $a))
                (core instance $b (instantiate $b (with "a" (instance $a)))))"#
        );
        assert!(!same_if_merged(&wat), "{types}");
    }
}
