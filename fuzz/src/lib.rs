//! Programs that are valid, made of any bytes: bytes alone hardly ever are one, so that nothing behind
//! the first check would be reached.

use arbitrary::{Result, Unstructured};
use wasm_encoder::{
    Component, ComponentBuilder, ComponentExportKind, ComponentTypeRef, EntityType, ExportKind,
    FuncType, ImportSection, ModuleArg, PrimitiveValType, TypeSection, ValType,
};
use wasm_smith::{Config, Module};
use wasmparser::{Validator, WasmFeatures, types::EntityType as Exported};

/// `(module (func (export "_start")))`
const START: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// What components are called by.
const CALLED_BY: [&str; 3] =
    ["wasi:http/handler@0.3.0", "wasi:http/incoming-handler@0.2.3", "wasi:cli/run@0.2.3"];

/// Small programs, and large enough for everything to be in them.
fn everything() -> Config {
    Config {
        allow_start_export: true,
        max_instructions: 60,
        max_memories: 3,
        max_tables: 3,
        ..Config::default()
    }
}

/// Without what the engine has not, for that is refused before anything is compiled. It has `funcref`
/// and no `externref`; they are asked for only together, or there are neither.
fn supported(references: bool) -> Config {
    Config {
        exceptions_enabled: false,
        gc_enabled: false,
        reference_types_enabled: references,
        threads_enabled: false,
        ..everything()
    }
}

/// A program: a module that is called as CGI, a component of any kind, or something that is not called.
pub fn program(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    match u.int_in_range(0..=7)? {
        0 => Ok(wasm_smith::Component::new(everything(), u)?.to_bytes()),
        1 => Ok(Module::new(everything(), u)?.to_bytes()),
        2..=4 => linked(u),
        _ => {
            let config = Config { exports: Some(START.to_vec()), ..supported(u.ratio(1, 4)?) };
            Ok(Module::new(config, u)?.to_bytes())
        }
    }
}

/// The same with one to four bits turned.
pub fn damaged(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let harms = u.arbitrary::<[(u16, u8); 4]>()?;
    let count = u.int_in_range(1..=harms.len())?;
    let mut program = program(u)?;
    for (at, bit) in harms.iter().take(count) {
        let at = usize::from(*at) % program.len();
        program[at] ^= 1 << (bit % 8);
    }
    Ok(program)
}

/// What a core module may import.
struct Item {
    instance: String,
    name: String,
    what: What,
}

enum What {
    Func(FuncType),
    Other(EntityType),
}

/// A component of core modules that import from the host and from those before them whatever these
/// export. Its own exports are the functions of theirs that take and return numbers.
pub fn linked(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let called_by = u.choose(&CALLED_BY)?;
    let references = u.ratio(1, 8)?;
    let count = u.int_in_range(2..=4_u8)?;
    let mut component = ComponentBuilder::default();
    let (log, mut encoder) = component.type_function(None);
    encoder.params([("number", PrimitiveValType::U32)]).result(Some(PrimitiveValType::U32.into()));
    let log = component.import("log", ComponentTypeRef::Func(log));
    let log = component.lower_func(None, log, []);
    let host = component.core_instantiate_exports(None, [("log", ExportKind::Func, log)]);
    let mut instances = vec![("host".to_owned(), ModuleArg::Instance(host))];
    let mut items = vec![Item {
        instance: "host".to_owned(),
        name: "log".to_owned(),
        what: What::Func(FuncType::new([ValType::I32], [ValType::I32])),
    }];
    for number in 0..count {
        // Each has its own part of the bytes, so that a change in one leaves the others as they are.
        let own = u.bytes(u.len() / usize::from(count - number))?;
        let mut bytes = Unstructured::new(own);
        let config = Config {
            available_imports: Some(imports(&items)),
            // So that those behind it have something to import, and the host something to call.
            export_everything: true,
            // Most bodies would end at once.
            disallow_traps: !bytes.ratio(1, 4)?,
            min_funcs: 1,
            // Few, since each costs the time to compile it.
            max_funcs: 5,
            max_globals: 5,
            max_types: 10,
            // Small enough to be instantiated, and to be filled again and again.
            max_memory32_bytes: 128 << 10,
            max_memory64_bytes: 128 << 10,
            max_table_elements: 1000,
            ..supported(references)
        };
        let module = Module::new(config, &mut bytes)?.to_bytes();
        let index = component.core_module_raw(None, &module);
        let arguments = || instances.iter().map(|(name, instance)| (name.as_str(), *instance));
        let instance = component.core_instantiate(None, index, arguments());
        // A module that is instantiated twice stays outside.
        if own.first().is_some_and(|byte| byte % 16 == 7) {
            component.core_instantiate(None, index, arguments());
        }
        let name = format!("i{number}");
        for item in exports(&name, &module) {
            if let What::Func(ty) = &item.what {
                lift(&mut component, instance, &item.name, ty);
            }
            items.push(item);
        }
        instances.push((name, ModuleArg::Instance(instance)));
    }
    // What it is called by has nothing in it: that is looked at when it is loaded, and not before.
    let empty = component.component_raw(None, &Component::new().finish());
    let nothing: [(&str, ComponentExportKind, u32); 0] = [];
    let instance = component.instantiate(None, empty, nothing);
    component.export(*called_by, ComponentExportKind::Instance, instance, None);
    Ok(component.finish())
}

/// A module that imports all of them.
fn imports(items: &[Item]) -> Vec<u8> {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    for item in items {
        let ty = match &item.what {
            What::Func(func) => {
                types.ty().func_type(func);
                EntityType::Function(types.len() - 1)
            }
            What::Other(ty) => *ty,
        };
        imports.import(&item.instance, &item.name, ty);
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports);
    module.finish()
}

/// What the module exports, but for what has a type of the module's own.
fn exports(instance: &str, module: &[u8]) -> Vec<Item> {
    let types = Validator::new_with_features(WasmFeatures::all()).validate_all(module);
    let types = types.expect("it is valid");
    let types = types.as_ref();
    let exports = types.core_exports().into_iter().flatten();
    let items = exports.filter_map(|(name, ty)| {
        let what = match ty {
            Exported::Func(id) => What::Func(types.get(id)?.unwrap_func().clone().try_into().ok()?),
            Exported::Table(table) => What::Other(EntityType::Table(table.try_into().ok()?)),
            Exported::Memory(memory) => What::Other(EntityType::Memory(memory.into())),
            Exported::Global(global) => What::Other(EntityType::Global(global.try_into().ok()?)),
            _ => return None,
        };
        Some(Item { instance: instance.to_owned(), name: name.to_owned(), what })
    });
    items.collect()
}

/// Exports a core instance's function, where that takes no memory.
fn lift(component: &mut ComponentBuilder, instance: u32, name: &str, ty: &FuncType) {
    let number = |ty: &ValType| match ty {
        ValType::I32 => Some(PrimitiveValType::U32),
        ValType::I64 => Some(PrimitiveValType::U64),
        ValType::F32 => Some(PrimitiveValType::F32),
        ValType::F64 => Some(PrimitiveValType::F64),
        _ => None,
    };
    let (Some(params), Some(results)) = (
        ty.params().iter().map(number).collect::<Option<Vec<_>>>(),
        ty.results().iter().map(number).collect::<Option<Vec<_>>>(),
    ) else {
        return;
    };
    if params.len() > 16 || results.len() > 1 {
        return;
    }
    let names: Vec<String> = (0..params.len()).map(|number| format!("p{number}")).collect();
    let (lifted, mut encoder) = component.type_function(None);
    encoder
        .params(names.iter().map(String::as_str).zip(params))
        .result(results.first().map(|ty| (*ty).into()));
    let func = component.core_alias_export(None, instance, name, ExportKind::Func);
    let func = component.lift_func(None, func, lifted, []);
    component.export(format!("f{func}").as_str(), ComponentExportKind::Func, func, None);
}
