//! Random components: modules that import from each other whatever they can, with segments, start
//! functions and calls to the host, do the same when they are merged.

use crate::harness::same_if_merged;
use std::fmt::Write as _;

/// How many are tried.
const COMPONENTS: u64 = 300;

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[test]
fn random_components_do_the_same() {
    let mut merged = 0;
    for seed in 1..=COMPONENTS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        merged += u64::from(same_if_merged(&component(&mut random)));
    }
    assert!(merged * 2 > COMPONENTS, "only {merged} of {COMPONENTS} can be merged");
}

/// The first module has a memory, a table and globals; each imports from those before it.
fn component(random: &mut Random) -> String {
    let modules = 2 + random.below(5);
    let starts = random.one_in(2);
    let mut text = String::from(
        r#"(component
        (import "log" (func $log (param "number" u32) (result u32)))
        (core func $log (canon lower (func $log)))
        (core instance $host (export "log" (func $log)))
        (core module $m0
            (import "host" "log" (func $log (param i32) (result i32)))
            (memory (export "memory") 1 3)
            (table (export "table") 16 funcref)
            (global (export "base") i32 (i32.const 5))
            (global (export "g0") (mut i32) (i32.const 7))
            (global (export "fuel") (mut i32) (i32.const 300))
            (elem (i32.const 0) func $f $f $f $f $f $f $f $f $f $f $f $f $f $f $f)
            (func $f (export "f0") (param i32) (result i32)
                (i32.xor (call $log (local.get 0)) (i32.const 0x55))))
        (core instance $i0 (instantiate $m0 (with "host" (instance $host))))"#,
    );
    for module in 1..modules {
        member(&mut text, random, module, starts);
    }
    for module in 0..modules {
        write!(
            text,
            r#"(core module $run{module}
                (import "i" "f{module}" (func $f (param i32) (result i32)))
                (func (export "run") (result i32) (call $f (i32.const {}))))
            (core instance $run{module} (instantiate $run{module} (with "i" (instance $i{module}))))
            (func (export "run{module}") (result u32)
                (canon lift (core func $run{module} "run")))"#,
            random.below(50),
        )
        .unwrap();
    }
    text.push(')');
    text
}

fn member(text: &mut String, random: &mut Random, module: usize, starts: bool) {
    let mut imports = String::new();
    let mut args = String::from(r#"(with "host" (instance $host)) (with "i0" (instance $i0))"#);
    for before in 1..module {
        write!(args, r#"(with "i{before}" (instance $i{before}))"#).unwrap();
    }
    for before in 0..module {
        write!(
            imports,
            r#"(import "i{before}" "f{before}" (func $f{before} (param i32) (result i32)))
            (import "i{before}" "g{before}" (global $g{before} (mut i32)))"#
        )
        .unwrap();
    }
    let body = body(random, module);
    let mut rest = String::new();
    if random.one_in(2) {
        let offset = random.below(40);
        write!(
            rest,
            r#"(data (i32.add (global.get $base) (i32.const {offset})) "\{:02x}\{:02x}\{:02x}")"#,
            random.below(256),
            random.below(256),
            random.below(256),
        )
        .unwrap();
    }
    if random.one_in(2) {
        let function = random.below(module);
        let offset = random.below(8);
        write!(
            rest,
            "(elem (i32.add (global.get $base) (i32.const {offset})) func $f $f{function})"
        )
        .unwrap();
    }
    if random.one_in(20) {
        rest.push_str(r#"(data (i32.const 65535) "too far")"#);
    }
    if starts && random.one_in(3) {
        write!(
            rest,
            "(func $start (drop (call $log (i32.load (i32.const {})))) (drop (call $f (i32.const 2))))
            (start $start)",
            random.below(50),
        )
        .unwrap();
    }
    write!(
        text,
        r#"(core module $m{module}
            (import "host" "log" (func $log (param i32) (result i32)))
            (import "i0" "memory" (memory 1))
            (import "i0" "table" (table 1 funcref))
            (import "i0" "base" (global $base i32))
            (import "i0" "fuel" (global $fuel (mut i32)))
            {imports}
            (global $g (export "g{module}") (mut i32) (i32.add (global.get $base) (i32.const {})))
            (data $passive "{module}{module}{module}{module}")
            (elem $elem func $f)
            {rest}
            (func $f (export "f{module}") (param i32) (result i32)
                {body}))
        (core instance $i{module} (instantiate $m{module} {args}))"#,
        random.below(9),
    )
    .unwrap();
    // A second instance of it keeps it outside.
    if random.one_in(8) {
        write!(text, "(core instance (instantiate $m{module} {args}))").unwrap();
    }
}

/// What a function does. How deep calls can be differs, so all of them together end before that.
fn body(random: &mut Random, module: usize) -> String {
    let mut body = String::from(
        "(if (i32.eqz (global.get $fuel)) (then unreachable))
        (global.set $fuel (i32.sub (global.get $fuel) (i32.const 1)))
        (if (i32.lt_s (local.get 0) (i32.const 1)) (then (return (i32.const 3))))",
    );
    for _ in 0..1 + random.below(5) {
        let before = random.below(module);
        let address = random.below(60);
        let number = random.below(15);
        body.push_str(&match random.below(8) {
            0 => format!("(drop (call $log (i32.load (i32.const {address}))))"),
            1 => format!("(local.set 0 (i32.and (i32.const 31) (call $f{before} (local.get 0))))"),
            2 => format!("(i32.store (i32.const {address}) (local.get 0))"),
            3 => format!("(global.set $g{before} (i32.add (global.get $g) (local.get 0)))"),
            4 => format!("(global.set $g (global.get $g{before}))"),
            5 => format!(
                "(local.set 0 (i32.shr_s (local.get 0) (i32.const 1)))
                (drop (call_indirect (param i32) (result i32) (local.get 0) (i32.const {number})))"
            ),
            6 => format!(
                "(memory.init $passive (i32.const {address}) (i32.const 1) (i32.const 3))
                (table.init $elem (i32.const {number}) (i32.const 0) (i32.const 1))"
            ),
            _ => "(drop (memory.grow (i32.const 1))) (drop (call $log (memory.size)))".to_owned(),
        });
    }
    body.push_str("(i32.add (global.get $g) (i32.and (i32.const 7) (local.get 0)))");
    body
}
