//! Where each core item of a component comes from.

use crate::{
    canon,
    error::{Unmerged, invalid},
    items::Item,
    shape::Shape,
    space::{Kind, PerKind, at, index},
};
use std::collections::HashMap;
use wasmparser::{Instance, InstantiationArg};

/// The origin of a core item. Aliases, re-exports and bags of exports are seen through, so that two
/// items are the same one exactly when they have the same source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The function that the item at this position makes.
    Canon(u32),
    /// What a core instance defines; the index is the one of its module.
    Defined { instance: u32, kind: Kind, index: u32 },
}

/// A core instance.
pub(crate) enum CoreInstance<'a> {
    /// Items under names.
    Bag(HashMap<&'a str, (Kind, Source)>),
    /// An instance of a module.
    Module(ModuleInstance<'a>),
}

/// An instance of a core module.
pub(crate) struct ModuleInstance<'a> {
    pub(crate) module: u32,
    /// The position of its item.
    pub(crate) position: u32,
    /// Where its imports come from, in their order.
    pub(crate) imports: PerKind<Vec<Source>>,
    pub(crate) args: Box<[InstantiationArg<'a>]>,
}

/// A component, resolved.
pub(crate) struct Graph<'a> {
    pub(crate) items: Vec<Item<'a>>,
    pub(crate) shapes: Vec<Shape<'a>>,
    /// How often each module is instantiated.
    pub(crate) uses: Vec<u32>,
    pub(crate) instances: Vec<CoreInstance<'a>>,
    /// The core index spaces of the component.
    pub(crate) core: PerKind<Vec<Source>>,
}

impl<'a> Graph<'a> {
    /// Resolves all items. `size` is the one of the component and limits the work.
    pub(crate) fn resolve(items: Vec<Item<'a>>, size: usize) -> Result<Self, Unmerged> {
        let mut graph = Self {
            items: Vec::new(),
            shapes: Vec::new(),
            uses: Vec::new(),
            instances: Vec::new(),
            core: PerKind::default(),
        };
        // A module costs its size only once but may be instantiated many times.
        let mut budget = size;
        for (position, item) in items.iter().enumerate() {
            let position = index(position)?;
            match item {
                Item::Module(bytes) => {
                    graph.shapes.push(Shape::read(bytes)?);
                    graph.uses.push(0);
                }
                Item::Canon(function) if !canon::is_lift(function) => {
                    graph.core.func.push(Source::Canon(position));
                }
                Item::Alias { kind, instance, name } => {
                    let source = graph.export(*instance, *kind, name)?;
                    graph.core.get_mut(*kind).push(source);
                }
                Item::Instance(instance) => {
                    let instance = graph.instance(instance, position, &mut budget)?;
                    graph.instances.push(instance);
                }
                Item::Canon(_)
                | Item::Raw { .. }
                | Item::Section { .. }
                | Item::Resource { .. } => {}
            }
        }
        graph.items = items;
        Ok(graph)
    }

    fn instance(
        &mut self,
        instance: &Instance<'a>,
        position: u32,
        budget: &mut usize,
    ) -> Result<CoreInstance<'a>, Unmerged> {
        match instance {
            Instance::FromExports(exports) => {
                let mut bag = HashMap::new();
                for export in exports {
                    let kind = Kind::of_export(export.kind)?;
                    bag.insert(export.name, (kind, self.core(kind, export.index)?));
                }
                Ok(CoreInstance::Bag(bag))
            }
            Instance::Instantiate { module_index, args } => {
                let shape = at(&self.shapes, *module_index).ok_or_else(|| invalid("module"))?;
                *budget = budget
                    .checked_sub(shape.imports.len())
                    .ok_or(Unmerged::Unsupported("a component with so many imports"))?;
                let by_name: HashMap<_, _> = args.iter().map(|arg| (arg.name, arg.index)).collect();
                let mut imports = PerKind::<Vec<Source>>::default();
                for import in &shape.imports {
                    let kind = Kind::of_import(&import.ty)?;
                    let from = by_name.get(import.module).ok_or_else(|| invalid("argument"))?;
                    imports.get_mut(kind).push(self.export(*from, kind, import.name)?);
                }
                if let Some(uses) = self.uses.get_mut(*module_index as usize) {
                    *uses += 1;
                }
                let (module, args) = (*module_index, args.clone());
                Ok(CoreInstance::Module(ModuleInstance { module, position, imports, args }))
            }
        }
    }

    /// The source of an item of a core index space of the component.
    pub(crate) fn core(&self, kind: Kind, index: u32) -> Result<Source, Unmerged> {
        at(self.core.get(kind), index).copied().ok_or_else(|| invalid("core index"))
    }

    /// The source of what an instance exports.
    fn export(&self, instance: u32, kind: Kind, name: &str) -> Result<Source, Unmerged> {
        let missing = || invalid("core export");
        let (found, source) = match at(&self.instances, instance).ok_or_else(missing)? {
            CoreInstance::Bag(bag) => *bag.get(name).ok_or_else(missing)?,
            CoreInstance::Module(inner) => {
                let shape = self.shape(inner)?;
                let (found, index) = *shape.exports.get(name).ok_or_else(missing)?;
                let imports = inner.imports.get(found);
                let source = at(imports, index).copied();
                (found, source.unwrap_or(Source::Defined { instance, kind: found, index }))
            }
        };
        if found == kind { Ok(source) } else { Err(missing()) }
    }

    /// The instance of a module at an index.
    pub(crate) fn module_instance(&self, instance: u32) -> Option<&ModuleInstance<'a>> {
        match at(&self.instances, instance)? {
            CoreInstance::Module(instance) => Some(instance),
            CoreInstance::Bag(_) => None,
        }
    }

    /// Like [`Self::module_instance`], for one that is known to be there.
    pub(crate) fn member(
        &self,
        instance: u32,
    ) -> Result<(&ModuleInstance<'a>, &Shape<'a>), Unmerged> {
        let inner = self.module_instance(instance).ok_or_else(|| invalid("core instance"))?;
        Ok((inner, self.shape(inner)?))
    }

    pub(crate) fn shape(&self, instance: &ModuleInstance<'_>) -> Result<&Shape<'a>, Unmerged> {
        at(&self.shapes, instance.module).ok_or_else(|| invalid("module"))
    }

    /// All indices of core instances that are instances of modules, in order.
    pub(crate) fn module_instances(&self) -> impl Iterator<Item = (u32, &ModuleInstance<'a>)> {
        (0..).zip(&self.instances).filter_map(|(index, instance)| match instance {
            CoreInstance::Module(inner) => Some((index, inner)),
            CoreInstance::Bag(_) => None,
        })
    }
}

impl ModuleInstance<'_> {
    /// Where all its imports come from, kind by kind.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Source> {
        let PerKind { func, table, memory, global, tag } = &self.imports;
        [func, table, memory, global, tag].into_iter().flatten().copied()
    }
}
