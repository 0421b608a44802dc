//! Components of modules that import from each other: what is merged of them is valid, tells the host
//! the same and ends the same way.

#![no_main]

use arbitrary::Unstructured;
use faas_merge::Unmerged;
use std::sync::LazyLock;
use wasmparser::{Validator, WasmFeatures};
use wasmtime::{
    Config, Engine, OptLevel, Store, StoreLimits, StoreLimitsBuilder, Trap,
    component::{
        Component, Linker, Val,
        types::{ComponentFunc, ComponentItem, Type},
    },
};

/// What `faas_merge` takes.
const FEATURES: WasmFeatures = WasmFeatures::WASM3
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES)
    .difference(WasmFeatures::EXCEPTIONS);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(component) = faas_fuzz::linked(&mut Unstructured::new(data)) else { return };
    if Validator::new_with_features(FEATURES).validate_all(&component).is_err() {
        return;
    }
    let merged = match faas_merge::merge(&component) {
        Ok(merged) => merged,
        Err(Unmerged::Nothing | Unmerged::Unsupported(_)) => return,
        Err(problem) => panic!("{problem}"),
    };
    for (before, after) in run(&component).into_iter().zip(run(&merged)) {
        if let (Some(before), Some(after)) = (before, after) {
            assert_eq!(after, before);
        }
    }
});

struct Host {
    log: Vec<u32>,
    limits: StoreLimits,
}

/// What is seen of a component from outside: what it told the host, what a function of it returned, and
/// how it failed.
#[derive(Debug, PartialEq)]
struct Seen {
    log: Vec<u32>,
    end: Result<Vec<Val>, Trap>,
}

/// What is seen of a new instance for each function that it exports; nothing, where one came to a limit
/// that is none of WebAssembly's: who comes to it first may differ.
fn run(component: &[u8]) -> Vec<Option<Seen>> {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let mut config = Config::new();
        config
            .wasm_component_model_async(false)
            .concurrency_support(false)
            .consume_fuel(true)
            .cranelift_opt_level(OptLevel::None)
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .memory_reservation(0)
            .memory_guard_size(0);
        Engine::new(&config).expect("an engine")
    });
    // What is valid may still be more than the engine takes.
    let Ok(component) = Component::new(&ENGINE, component) else { return Vec::new() };
    let mut linker = Linker::<Host>::new(&ENGINE);
    let log = linker.root().func_wrap("log", |mut store, (number,): (u32,)| {
        store.data_mut().log.push(number);
        Ok((number.wrapping_mul(2),))
    });
    log.expect("a name of its own");
    let ty = component.component_type();
    let functions = ty.exports(&ENGINE).filter_map(|(name, item)| match item.ty {
        ComponentItem::ComponentFunc(ty) => Some((name, ty)),
        _ => None,
    });
    let seen = functions.map(|(name, ty)| {
        let limits = StoreLimitsBuilder::new().memory_size(256 << 10).table_elements(2000).build();
        let mut store = Store::new(&ENGINE, Host { log: Vec::new(), limits });
        store.limiter(|host| &mut host.limits);
        store.set_fuel(2000).expect("fuel is on");
        let end = match call(&mut store, &linker, &component, name, &ty) {
            Ok(results) => Ok(results),
            Err(error) => match error.downcast_ref::<Trap>()? {
                Trap::OutOfFuel | Trap::StackOverflow => return None,
                trap => Err(*trap),
            },
        };
        Some(Seen { log: store.into_data().log, end })
    });
    seen.collect()
}

fn call(
    store: &mut Store<Host>,
    linker: &Linker<Host>,
    component: &Component,
    name: &str,
    ty: &ComponentFunc,
) -> wasmtime::Result<Vec<Val>> {
    let instance = linker.instantiate(&mut *store, component)?;
    let function = instance.get_func(&mut *store, name).expect("it exports it");
    let arguments: Vec<Val> = ty
        .params()
        .map(|(_, ty)| match ty {
            Type::U32 => Val::U32(3),
            Type::U64 => Val::U64(3),
            Type::Float32 => Val::Float32(3.0),
            _ => Val::Float64(3.0),
        })
        .collect();
    let mut results = vec![Val::U32(0); ty.results().len()];
    function.call(&mut *store, &arguments, &mut results)?;
    Ok(results)
}
