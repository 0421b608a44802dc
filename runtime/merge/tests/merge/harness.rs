//! Runs a component as it is and merged, and compares what can be seen from outside.

use faas_merge::{Unmerged, merge};
use wasmparser::{ComponentExternalKind, Instance, Parser, Payload};
use wasmtime::{
    Config, Engine, Store, WasmBacktrace,
    component::{Component, Linker, Val},
};

/// What is seen of a component from outside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// What it told the host, in order.
    pub(crate) log: Vec<u32>,
    /// What became of it: the results of all its exported functions, or how it failed.
    pub(crate) end: Result<Vec<u32>, Failure>,
}

/// How a component failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The reason, without the backtrace.
    pub(crate) reason: String,
    /// The functions that were running, the innermost first.
    pub(crate) names: Vec<Option<String>>,
}

/// Runs it both ways, and returns what both show. It must have so many core instances afterwards.
pub(crate) fn same(wat: &str, instances: usize) -> Seen {
    let original = assemble(wat);
    let merged = merge(&original).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    assert_eq!(core_instances(&merged), instances, "core instances of\n{wat}");
    assert_eq!(interface(&merged), interface(&original), "imports and exports of\n{wat}");
    let expected = run(&original);
    assert_eq!(run(&merged), expected, "{wat}");
    expected
}

/// Runs it both ways, if it can be merged; returns whether it can.
pub(crate) fn same_if_merged(wat: &str) -> bool {
    let original = assemble(wat);
    match merge(&original) {
        Ok(merged) => {
            assert_eq!(run(&merged), run(&original), "{wat}");
            true
        }
        Err(Unmerged::Nothing | Unmerged::Unsupported(_)) => false,
        Err(error) => panic!("{error}\n{wat}"),
    }
}

/// Why it is not merged.
pub(crate) fn refusal(wat: &str) -> Unmerged {
    merge(&assemble(wat)).expect_err("this one is not to be merged")
}

pub(crate) fn assemble(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
}

/// How many instances of core modules it makes by itself.
pub(crate) fn core_instances(component: &[u8]) -> usize {
    let mut depth = 0;
    let mut count = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::InstanceSection(instances) if depth == 0 => {
                let of_modules =
                    |instance: &Instance<'_>| matches!(instance, Instance::Instantiate { .. });
                count += instances.into_iter().map(Result::unwrap).filter(of_modules).count();
            }
            _ => {}
        }
    }
    count
}

/// The names of its imports and exports, in order, with their kinds.
fn interface(component: &[u8]) -> Vec<(String, String)> {
    let mut names = Vec::new();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let import = import.unwrap();
                    names.push((import.name.name.to_owned(), format!("{:?}", import.ty)));
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    let export = export.unwrap();
                    let kind: ComponentExternalKind = export.kind;
                    names.push((export.name.name.to_owned(), format!("{kind:?}")));
                }
            }
            _ => {}
        }
    }
    names
}

pub(crate) fn engine(concurrent: bool) -> Engine {
    let mut config = Config::new();
    config.wasm_component_model_async(concurrent).concurrency_support(concurrent);
    Engine::new(&config).unwrap()
}

/// Instantiates it and calls all functions that it exports and that take nothing, in order.
///
/// It may import `log`, which takes a number and gives it back doubled, and `say`, which takes a
/// text.
fn run(component: &[u8]) -> Seen {
    let engine = engine(false);
    let component = Component::new(&engine, component).unwrap();
    let mut store = Store::new(&engine, Vec::new());
    let mut linker = Linker::<Vec<u32>>::new(&engine);
    linker
        .root()
        .func_wrap("log", |mut store, (number,): (u32,)| {
            store.data_mut().push(number);
            Ok((number.wrapping_mul(2),))
        })
        .unwrap();
    linker
        .root()
        .func_wrap("say", |mut store, (text,): (String,)| {
            store.data_mut().extend(text.bytes().map(u32::from));
            Ok((text.to_uppercase(),))
        })
        .unwrap();
    let end = calls(&component, &linker, &mut store);
    Seen { log: store.into_data(), end: end.map_err(|error| failure(&error)) }
}

fn calls(
    component: &Component,
    linker: &Linker<Vec<u32>>,
    store: &mut Store<Vec<u32>>,
) -> wasmtime::Result<Vec<u32>> {
    let instance = linker.instantiate(&mut *store, component)?;
    let names: Vec<String> = component
        .component_type()
        .exports(component.engine())
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut numbers = Vec::new();
    for name in names {
        let Some(function) = instance.get_func(&mut *store, &name) else { continue };
        let mut results = vec![Val::U32(0); function.ty(&*store).results().len()];
        function.call(&mut *store, &[], &mut results)?;
        for result in results {
            match result {
                Val::U32(number) => numbers.push(number),
                Val::String(text) => numbers.extend(text.bytes().map(u32::from)),
                other => panic!("{other:?}"),
            }
        }
    }
    Ok(numbers)
}

fn failure(error: &wasmtime::Error) -> Failure {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames);
    let names = frames.unwrap_or_default().iter().map(|frame| frame.func_name().map(str::to_owned));
    Failure { reason: error.root_cause().to_string(), names: names.collect() }
}
