//! What goes through the canonical ABI.

use crate::harness::{self, Seen, assemble, core_instances, same};
use faas_merge::merge;
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};
use wasmtime::{
    Store,
    component::{Component, Linker, Val},
};

/// As `wit-component` writes it: the program's imports need its memory, so it calls them through a
/// table that is filled when the memory is there.
#[test]
fn a_shim_and_its_fixup() {
    let wat = r#"(component
        (import "say" (func $say (param "text" string) (result string)))
        (import "log" (func $log (param "number" u32) (result u32)))
        (core module $main
            (import "host" "say" (func $say (param i32 i32 i32)))
            (import "host" "log" (func $log (param i32) (result i32)))
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 1024))
            (data (i32.const 8) "hello")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $heap)
                (global.set $heap (i32.add (global.get $heap) (local.get 3))))
            (func (export "run") (result i32)
                (call $say (i32.const 8) (i32.const 5) (i32.const 100))
                (drop (call $log (i32.const 77)))
                (i32.const 100))
            (global $done (mut i32) (i32.const 0))
            (func (export "done") (param i32) (global.set $done (local.get 0)))
            (func (export "is done") (result i32) (global.get $done)))
        (core module $shim
            (type $say (func (param i32 i32 i32)))
            (table (export "$imports") 1 1 funcref)
            (func (export "0") (type $say)
                (call_indirect (type $say)
                    (local.get 0) (local.get 1) (local.get 2) (i32.const 0))))
        (core module $fixup
            (import "" "0" (func (param i32 i32 i32)))
            (import "" "$imports" (table 1 1 funcref))
            (elem (i32.const 0) func 0))
        (core instance $shim (instantiate $shim))
        (alias core export $shim "0" (core func $indirect_say))
        (core func $log (canon lower (func $log)))
        (core instance $host
            (export "say" (func $indirect_say)) (export "log" (func $log)))
        (core instance $main (instantiate $main (with "host" (instance $host))))
        (alias core export $main "memory" (core memory $memory))
        (alias core export $main "realloc" (core func $realloc))
        (alias core export $shim "$imports" (core table $imports))
        (core func $say (canon lower (func $say)
            (memory $memory) (realloc $realloc) string-encoding=utf8))
        (core instance $args
            (export "$imports" (table $imports)) (export "0" (func $say)))
        (core instance (instantiate $fixup (with "" (instance $args))))
        (func (export "run") (result string) (canon lift (core func $main "run")
            (memory $memory) (realloc $realloc) (post-return (core func $main "done"))))
        (func (export "done") (result u32) (canon lift (core func $main "is done"))))"#;
    let seen = same(wat, 2);
    let text = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let log = [text("hello"), vec![77]].concat();
    assert_eq!(seen, Seen { log, end: Ok([text("HELLO"), vec![100]].concat()) });
}

/// An adapter stands between the program and the host, and uses the program's memory.
#[test]
fn an_adapter() {
    let wat = r#"(component
        (import "log" (func $log (param "number" u32) (result u32)))
        (core module $main
            (import "old" "write" (func $write (param i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "run") (result i32)
                (i32.store (i32.const 16) (i32.const 21))
                (call $write (i32.const 16))))
        (core module $adapter
            (import "env" "memory" (memory 0))
            (import "new" "log" (func $log (param i32) (result i32)))
            (func (export "write") (param i32) (result i32)
                (call $log (i32.load (local.get 0)))))
        (core module $shim
            (table (export "$imports") 1 1 funcref)
            (func (export "0") (param i32) (result i32)
                (call_indirect (param i32) (result i32) (local.get 0) (i32.const 0))))
        (core module $fixup
            (import "" "0" (func (param i32) (result i32)))
            (import "" "$imports" (table 1 1 funcref))
            (elem (i32.const 0) func 0))
        (core instance $shim (instantiate $shim))
        (core instance $old (export "write" (func $shim "0")))
        (core instance $main (instantiate $main (with "old" (instance $old))))
        (core instance $env (export "memory" (memory $main "memory")))
        (core func $log (canon lower (func $log)))
        (core instance $new (export "log" (func $log)))
        (core instance $adapter (instantiate $adapter
            (with "env" (instance $env)) (with "new" (instance $new))))
        (core instance (instantiate $fixup (with "" (instance
            (export "$imports" (table $shim "$imports"))
            (export "0" (func $adapter "write"))))))
        (func (export "run") (result u32) (canon lift (core func $main "run"))))"#;
    // Nothing here needs the memory of the merged instance, so the fixup is part of it.
    assert_eq!(same(wat, 1), Seen { log: vec![21], end: Ok(vec![42]) });
}

/// The destructor of a resource is a function of the merged instance.
#[test]
fn a_resource_with_a_destructor() {
    let wat = r#"(component
        (import "log" (func $log (param "number" u32) (result u32)))
        (core func $log (canon lower (func $log)))
        (core module $main
            (import "host" "log" (func $log (param i32) (result i32)))
            (import "shim" "new" (func $new (param i32) (result i32)))
            (import "shim" "rep" (func $rep (param i32) (result i32)))
            (import "shim" "drop" (func $drop (param i32)))
            (func (export "dtor") (param i32) (drop (call $log (local.get 0))))
            (func (export "run") (result i32) (local $handle i32)
                (local.set $handle (call $new (i32.const 1234)))
                (call $rep (local.get $handle))
                (call $drop (local.get $handle)))
            (func (export "twice") (result i32)
                (call $drop (i32.const 1))
                (i32.const 0)))
        (core module $shim
            (table (export "$imports") 3 3 funcref)
            (func (export "new") (param i32) (result i32)
                (call_indirect (param i32) (result i32) (local.get 0) (i32.const 0)))
            (func (export "rep") (param i32) (result i32)
                (call_indirect (param i32) (result i32) (local.get 0) (i32.const 1)))
            (func (export "drop") (param i32)
                (call_indirect (param i32) (local.get 0) (i32.const 2))))
        (core module $fixup
            (import "" "new" (func (param i32) (result i32)))
            (import "" "rep" (func (param i32) (result i32)))
            (import "" "drop" (func (param i32)))
            (import "" "$imports" (table 3 3 funcref))
            (elem (i32.const 0) func 0 1 2))
        (core instance $shim (instantiate $shim))
        (core instance $host (export "log" (func $log)))
        (core instance $main (instantiate $main
            (with "host" (instance $host)) (with "shim" (instance $shim))))
        (type $r (resource (rep i32) (dtor (core func $main "dtor"))))
        (core func $new (canon resource.new $r))
        (core func $rep (canon resource.rep $r))
        (core func $drop (canon resource.drop $r))
        (core instance (instantiate $fixup (with "" (instance
            (export "$imports" (table $shim "$imports"))
            (export "new" (func $new)) (export "rep" (func $rep)) (export "drop" (func $drop))))))
        (func (export "run") (result u32) (canon lift (core func $main "run")))
        (func (export "twice") (result u32) (canon lift (core func $main "twice"))))"#;
    let seen = same(wat, 2);
    assert_eq!(seen.log, [1234]);
    let failure = seen.end.expect_err("there is no such resource any more");
    assert!(failure.reason.contains("unknown handle index"), "{failure:?}");
}

/// The destructor is outside, for what uses the resource cannot have it.
#[test]
fn instances_behind_a_resource() {
    let wat = r#"(component
        (import "log" (func $log (param "number" u32) (result u32)))
        (core func $log (canon lower (func $log)))
        (core instance $host (export "log" (func $log)))
        (core module $dtor
            (import "host" "log" (func $log (param i32) (result i32)))
            (func (export "dtor") (param i32) (drop (call $log (local.get 0)))))
        (core instance $dtor (instantiate $dtor (with "host" (instance $host))))
        (type $r (resource (rep i32) (dtor (core func $dtor "dtor"))))
        (core func $new (canon resource.new $r))
        (core func $drop (canon resource.drop $r))
        (core instance $resource (export "new" (func $new)) (export "drop" (func $drop)))
        (core module $a
            (import "resource" "new" (func $new (param i32) (result i32)))
            (func (export "make") (result i32) (call $new (i32.const 5))))
        (core module $b
            (import "resource" "drop" (func $drop (param i32)))
            (import "a" "make" (func $make (result i32)))
            (func (export "run") (result i32) (call $drop (call $make)) (i32.const 9)))
        (core instance $a (instantiate $a (with "resource" (instance $resource))))
        (core instance $b (instantiate $b
            (with "resource" (instance $resource)) (with "a" (instance $a))))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    assert_eq!(same(wat, 2), Seen { log: vec![5], end: Ok(vec![9]) });
}

/// A nested component has modules of its own, and gets a function of the merged instance.
#[test]
fn a_nested_component() {
    let wat = r#"(component
        (import "log" (func $log (param "number" u32) (result u32)))
        (core module $a (func (export "f") (param i32) (result i32)
            (i32.add (local.get 0) (i32.const 1))))
        (core module $b
            (import "a" "f" (func $f (param i32) (result i32)))
            (func (export "g") (param i32) (result i32)
                (i32.mul (call $f (local.get 0)) (i32.const 10)))
            (func (export "run") (result i32) (call $f (i32.const 8))))
        (core instance $a (instantiate $a))
        (core instance $b (instantiate $b (with "a" (instance $a))))
        (func $g (param "number" u32) (result u32) (canon lift (core func $b "g")))
        (component $nested
            (import "g" (func $g (param "number" u32) (result u32)))
            (import "log" (func $log (param "number" u32) (result u32)))
            (component $inner
                (import "g" (func $g (param "number" u32) (result u32)))
                (core func $g (canon lower (func $g)))
                (core module $m
                    (import "" "g" (func $g (param i32) (result i32)))
                    (func (export "run") (result i32) (call $g (i32.const 4))))
                (core module $outer (func (export "f") (result i32) (i32.const 77)))
                (component $innermost
                    (alias outer 1 $outer (core module $m))
                    (core instance $m (instantiate $m))
                    (func (export "f") (result u32) (canon lift (core func $m "f"))))
                (instance $innermost (instantiate $innermost))
                (core instance $m (instantiate $m
                    (with "" (instance (export "g" (func $g))))))
                (func (export "run") (result u32) (canon lift (core func $m "run")))
                (export "f" (func $innermost "f")))
            (instance $inner (instantiate $inner (with "g" (func LOG))))
            (export "run" (func $inner "run"))
            (export "f" (func $inner "f")))
        (instance $nested (instantiate $nested (with "g" (func $g)) (with "log" (func $log))))
        (export "nested" (func $nested "run"))
        (export "f" (func $nested "f"))
        (func (export "run") (result u32) (canon lift (core func $b "run"))))"#;
    let seen = same(&wat.replace("LOG", "$log"), 1);
    assert_eq!(seen, Seen { log: vec![4], end: Ok(vec![8, 77, 9]) });
    // Nobody calls back into the component that is around it.
    let failure = same(&wat.replace("LOG", "$g"), 1).end.expect_err("a call back");
    assert!(failure.reason.contains("cannot enter component instance"), "{failure:?}");
}

/// Streams, waitables, contexts, an asynchronous import and an asynchronous export.
#[test]
fn asynchronous_functions() {
    let wat = r#"(component
        (import "log" (func $log async (param "number" u32) (result u32)))
        (type $stream (stream u8))
        (core module $main
            (import "host" "log" (func $log (param i32 i32) (result i32)))
            (import "host" "task.return" (func $task.return (param i32)))
            (import "host" "stream.new" (func $stream.new (result i64)))
            (import "host" "stream.drop-readable" (func $drop-readable (param i32)))
            (import "host" "stream.drop-writable" (func $drop-writable (param i32)))
            (import "host" "waitable-set.new" (func $set.new (result i32)))
            (import "host" "waitable-set.drop" (func $set.drop (param i32)))
            (import "host" "waitable-set.poll" (func $set.poll (param i32 i32) (result i32)))
            (import "host" "context.set" (func $context.set (param i32)))
            (import "host" "context.get" (func $context.get (result i32)))
            (memory (export "memory") 1)
            (func $start (export "run") (result i32)
                (local $stream i64) (local $set i32)
                (call $context.set (i32.const 5))
                (local.set $stream (call $stream.new))
                (call $drop-readable (i32.wrap_i64 (local.get $stream)))
                (call $drop-writable
                    (i32.wrap_i64 (i64.shr_u (local.get $stream) (i64.const 32))))
                (local.set $set (call $set.new))
                (drop (call $set.poll (local.get $set) (i32.const 64)))
                (call $set.drop (local.get $set))
                ;; Returned at once, into memory.
                (if (i32.ne (i32.const 2) (call $log (i32.const 30) (i32.const 32)))
                    (then unreachable))
                (i32.const 1))
            (func (export "callback") (param i32 i32 i32) (result i32)
                (call $task.return (i32.add (i32.load (i32.const 32)) (call $context.get)))
                (i32.const 0)))
        (core module $shim
            (type $log (func (param i32 i32) (result i32)))
            (table (export "$imports") 2 2 funcref)
            (func (export "log") (type $log)
                (call_indirect (type $log) (local.get 0) (local.get 1) (i32.const 0)))
            (func (export "poll") (type $log)
                (call_indirect (type $log) (local.get 0) (local.get 1) (i32.const 1))))
        (core module $fixup
            (import "" "log" (func (param i32 i32) (result i32)))
            (import "" "poll" (func (param i32 i32) (result i32)))
            (import "" "$imports" (table 2 2 funcref))
            (elem (i32.const 0) func 0 1))
        (core instance $shim (instantiate $shim))
        (core func $task.return (canon task.return (result u32)))
        (core func $stream.new (canon stream.new $stream))
        (core func $drop-readable (canon stream.drop-readable $stream))
        (core func $drop-writable (canon stream.drop-writable $stream))
        (core func $set.new (canon waitable-set.new))
        (core func $set.drop (canon waitable-set.drop))
        (core func $context.set (canon context.set i32 0))
        (core func $context.get (canon context.get i32 0))
        (core instance $host
            (export "log" (func $shim "log"))
            (export "task.return" (func $task.return))
            (export "stream.new" (func $stream.new))
            (export "stream.drop-readable" (func $drop-readable))
            (export "stream.drop-writable" (func $drop-writable))
            (export "waitable-set.new" (func $set.new))
            (export "waitable-set.drop" (func $set.drop))
            (export "waitable-set.poll" (func $shim "poll"))
            (export "context.set" (func $context.set))
            (export "context.get" (func $context.get)))
        (core instance $main (instantiate $main (with "host" (instance $host))))
        (alias core export $main "memory" (core memory $memory))
        (core func $log (canon lower (func $log) async (memory $memory)))
        (core func $poll (canon waitable-set.poll (memory $memory)))
        (core func $read (canon stream.read $stream async (memory $memory)))
        (core instance (instantiate $fixup (with "" (instance
            (export "$imports" (table $shim "$imports"))
            (export "log" (func $log)) (export "poll" (func $poll))))))
        (func (export "run") async (result u32) (canon lift (core func $main "run")
            async (memory $memory) (callback (core func $main "callback")))))"#;
    let original = assemble(wat);
    let merged = merge(&original).unwrap();
    assert_eq!((core_instances(&original), core_instances(&merged)), (3, 2));
    assert_eq!(block_on(run_concurrently(&original)), (vec![30], 65));
    assert_eq!(block_on(run_concurrently(&merged)), (vec![30], 65));
}

/// Calls `run`; returns what it told the host and its result.
async fn run_concurrently(component: &[u8]) -> (Vec<u32>, u32) {
    let engine = harness::engine(true);
    let component = Component::new(&engine, component).unwrap();
    let mut store = Store::new(&engine, Vec::new());
    let mut linker = Linker::<Vec<u32>>::new(&engine);
    linker
        .root()
        .func_wrap_concurrent("log", |accessor, (number,): (u32,)| {
            accessor.with(|mut access| access.get().push(number));
            Box::pin(async move { Ok((number * 2,)) })
        })
        .unwrap();
    let instance = linker.instantiate_async(&mut store, &component).await.unwrap();
    let run = instance.get_func(&mut store, "run").unwrap();
    let mut results = [Val::U32(0)];
    run.call_async(&mut store, &[], &mut results).await.unwrap();
    let [Val::U32(number)] = results else { panic!("{results:?}") };
    (store.into_data(), number)
}

/// Nothing here waits for anything outside.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(result) = polled {
            return result;
        }
    }
}
