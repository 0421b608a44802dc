//! Writes the component with the merged instance in place of the members.
//!
//! Items of the component level keep their order and so their numbers, which is why most of them
//! are copied. Core aliases, bags of exports and functions of the canonical ABI are written anew,
//! where and when something that stays needs them.

use crate::{
    canon,
    encode::{self, Export, IMPORTS},
    error::{Unmerged, invalid},
    graph::{Graph, Source},
    group::Group,
    items::Item,
    link::Link,
    output::Output,
    space::{Kind, PerKind, at, index},
};
use std::collections::{HashMap, HashSet};
use wasm_encoder::{Alias, ModuleArg};

/// Something is needed before it can be there. The group was chosen so that this does not happen.
const ORDER: Unmerged = Unmerged::Unsupported("a component whose instances depend on each other");

/// Writes the component.
pub(crate) fn component(graph: &Graph<'_>, group: &Group) -> Result<Vec<u8>, Unmerged> {
    let link = Link::new(graph, group)?;
    let mut emitter = Emitter {
        graph,
        group,
        link: &link,
        output: Output::default(),
        next: PerKind::default(),
        next_instance: 0,
        next_module: 0,
        sources: HashMap::new(),
        instances: HashMap::new(),
        modules: HashMap::new(),
        merged: None,
        exports: Vec::new(),
        export_numbers: HashMap::new(),
    };
    emitter.items()?;
    let Emitter { output, exports, .. } = emitter;
    let module = encode::module(&link, &exports)?;
    Ok(output.finish(&module))
}

struct Emitter<'g, 'a> {
    graph: &'g Graph<'a>,
    group: &'g Group,
    link: &'g Link<'g, 'a>,
    output: Output<'a>,
    /// The next number of each core index space.
    next: PerKind<u32>,
    next_instance: u32,
    next_module: u32,
    /// New numbers of what is there already.
    sources: HashMap<Source, u32>,
    instances: HashMap<u32, u32>,
    modules: HashMap<u32, u32>,
    /// The number of the merged instance.
    merged: Option<u32>,
    /// What the merged module exports.
    exports: Vec<Export>,
    export_numbers: HashMap<Source, usize>,
}

impl<'a> Emitter<'_, 'a> {
    fn items(&mut self) -> Result<(), Unmerged> {
        let graph = self.graph;
        let mut merged_modules = HashSet::new();
        for member in &self.group.members {
            merged_modules.insert(graph.member(*member)?.0.module);
        }
        let (mut instance, mut module) = (0, 0);
        for (position, item) in graph.items.iter().enumerate() {
            if index(position)? == self.group.position {
                self.merged_instance()?;
                for postponed in &self.group.postponed {
                    self.instance(*postponed)?;
                }
            }
            match item {
                Item::Raw { section, bytes, .. } => self.output.raw(*section, bytes),
                Item::Section { id, bytes } => self.output.section(*id, bytes),
                Item::Module(bytes) => {
                    if !merged_modules.contains(&module) {
                        self.output.module(bytes);
                        self.modules.insert(module, self.next_module);
                        self.next_module += 1;
                    }
                    module += 1;
                }
                Item::Resource { rep, dtor } => {
                    let dtor = self.index_of(graph.core(Kind::Func, *dtor)?)?;
                    let rep = (*rep).try_into().map_err(|_| invalid("a resource"))?;
                    self.output.types(|types| _ = types.resource(rep, Some(dtor)));
                }
                Item::Canon(function) if canon::is_lift(function) => {
                    let operands = self.operands(function)?;
                    self.output
                        .functions(|section| canon::encode(section, function.clone(), operands))?;
                }
                Item::Instance(_) => {
                    let is_module = graph.module_instance(instance).is_some();
                    let elsewhere =
                        self.group.contains(instance) || self.group.is_postponed(instance);
                    if is_module && !elsewhere {
                        self.instance(instance)?;
                    }
                    instance += 1;
                }
                Item::Canon(_) | Item::Alias { .. } => {}
            }
        }
        if self.merged.is_some() { Ok(()) } else { Err(ORDER) }
    }

    fn merged_instance(&mut self) -> Result<(), Unmerged> {
        let mut bag = Vec::new();
        for (number, (source, _)) in self.link.imports.iter().enumerate() {
            let kind = kind_of(*source);
            bag.push((number.to_string(), kind.encoded(), self.index_of(*source)?));
        }
        self.output.merged_module();
        let module = self.next_module;
        self.next_module += 1;
        let mut args = Vec::new();
        if !bag.is_empty() {
            args.push((IMPORTS, ModuleArg::Instance(self.bag(bag))));
        }
        self.output.instances(|instances| _ = instances.instantiate(module, args));
        self.merged = Some(self.next_instance);
        self.next_instance += 1;
        Ok(())
    }

    /// An instance outside the group.
    fn instance(&mut self, instance: u32) -> Result<(), Unmerged> {
        let graph = self.graph;
        let (inner, shape) = graph.member(instance)?;
        let mut by_arg = HashMap::<&str, Vec<(&str, Source)>>::new();
        let mut seen = HashSet::new();
        let mut next = PerKind::<u32>::default();
        for import in &shape.imports {
            let kind = Kind::of_import(&import.ty)?;
            let source = at(inner.imports.get(kind), *next.get(kind)).copied();
            *next.get_mut(kind) += 1;
            if seen.insert((import.module, import.name)) {
                let source = source.ok_or_else(|| invalid("an import"))?;
                by_arg.entry(import.module).or_default().push((import.name, source));
            }
        }
        let mut args = Vec::new();
        for arg in &inner.args {
            let Some(items) = by_arg.remove(arg.name) else { continue };
            let outside = graph.module_instance(arg.index).is_some();
            let new = if outside && !self.group.contains(arg.index) {
                *self.instances.get(&arg.index).ok_or(ORDER)?
            } else {
                let mut bag = Vec::new();
                for (name, source) in items {
                    bag.push((name, kind_of(source).encoded(), self.index_of(source)?));
                }
                self.bag(bag)
            };
            args.push((arg.name, ModuleArg::Instance(new)));
        }
        let module = *self.modules.get(&inner.module).ok_or_else(|| invalid("module"))?;
        self.output.instances(|instances| _ = instances.instantiate(module, args));
        self.instances.insert(instance, self.next_instance);
        self.next_instance += 1;
        Ok(())
    }

    fn bag<S: AsRef<str>>(&mut self, items: Vec<(S, wasm_encoder::ExportKind, u32)>) -> u32 {
        let items = items.iter().map(|(name, kind, index)| (name.as_ref(), *kind, *index));
        self.output.instances(|instances| _ = instances.export_items(items));
        let new = self.next_instance;
        self.next_instance += 1;
        new
    }

    /// The new number of a core item, which is written if it is not there yet.
    fn index_of(&mut self, wanted: Source) -> Result<u32, Unmerged> {
        // Functions are made from others, however long that chain is.
        let mut stack = vec![wanted];
        while let Some(source) = stack.last().copied() {
            if self.sources.contains_key(&source) {
                stack.pop();
                continue;
            }
            let missing = self.missing_operands(source)?;
            if missing.is_empty() {
                self.write(source)?;
                stack.pop();
            } else {
                stack.extend(missing);
            }
        }
        self.sources.get(&wanted).copied().ok_or(ORDER)
    }

    fn missing_operands(&self, source: Source) -> Result<Vec<Source>, Unmerged> {
        let mut missing = Vec::new();
        if let Source::Canon(position) = source {
            for (kind, operand) in canon::operands(self.function(position)?)? {
                let operand = self.graph.core(kind, operand)?;
                if !self.sources.contains_key(&operand) {
                    missing.push(operand);
                }
            }
        }
        Ok(missing)
    }

    fn function(&self, position: u32) -> Result<&wasmparser::CanonicalFunction, Unmerged> {
        match at(&self.graph.items, position) {
            Some(Item::Canon(function)) => Ok(function),
            _ => Err(invalid("a function")),
        }
    }

    /// The new numbers of what a function is made from.
    fn operands(
        &mut self,
        function: &wasmparser::CanonicalFunction,
    ) -> Result<HashMap<(Kind, u32), u32>, Unmerged> {
        let mut operands = HashMap::new();
        for (kind, operand) in canon::operands(function)? {
            let new = self.index_of(self.graph.core(kind, operand)?)?;
            operands.insert((kind, operand), new);
        }
        Ok(operands)
    }

    /// Writes a core item that is made from what is there already.
    fn write(&mut self, source: Source) -> Result<(), Unmerged> {
        match source {
            Source::Canon(position) => {
                let function = self.function(position)?.clone();
                let mut operands = HashMap::new();
                for (kind, operand) in canon::operands(&function)? {
                    let known = self.sources.get(&self.graph.core(kind, operand)?);
                    operands.insert((kind, operand), *known.ok_or(ORDER)?);
                }
                self.output.functions(|section| canon::encode(section, function, operands))?;
            }
            Source::Defined { instance, kind, index } => {
                if self.group.contains(instance) {
                    let merged = self.merged.ok_or(ORDER)?;
                    let name = self.export(source, kind)?.to_string();
                    self.alias(merged, kind, &name);
                } else {
                    let (_, shape) = self.graph.member(instance)?;
                    let name = shape.export_names.get(&(kind, index));
                    let name = *name.ok_or_else(|| invalid("an export"))?;
                    let new = *self.instances.get(&instance).ok_or(ORDER)?;
                    self.alias(new, kind, name);
                }
            }
        }
        let next = self.next.get_mut(kind_of(source));
        self.sources.insert(source, *next);
        *next += 1;
        Ok(())
    }

    fn alias(&mut self, instance: u32, kind: Kind, name: &str) {
        let kind = kind.encoded();
        let alias = Alias::CoreInstanceExport { instance, kind, name };
        self.output.aliases(|aliases| _ = aliases.alias(alias));
    }

    /// The number of an export of the merged module.
    fn export(&mut self, source: Source, kind: Kind) -> Result<usize, Unmerged> {
        if let Some(number) = self.export_numbers.get(&source) {
            return Ok(*number);
        }
        let number = self.exports.len();
        self.exports.push((kind, self.link.defined(source)?));
        self.export_numbers.insert(source, number);
        Ok(number)
    }
}

fn kind_of(source: Source) -> Kind {
    match source {
        Source::Canon(_) => Kind::Func,
        Source::Defined { kind, .. } => kind,
    }
}
