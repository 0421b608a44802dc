//! A component as the list of its items, in their order.

use crate::{
    FEATURES,
    error::{Unmerged, invalid},
    space::Kind,
};
use std::ops::Range;
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentAliasSectionReader, ComponentExternalKind,
    ComponentInstance, ComponentOuterAliasKind, ComponentType, ComponentTypeRef, Encoding,
    FromReader, Instance, Parser, Payload, SectionLimited, ValType,
};

/// An item of the component itself, not of one nested in it.
pub(crate) enum Item<'a> {
    /// An item that refers to nothing on the core level that a merge renumbers.
    Raw {
        /// The section it belongs to.
        section: u8,
        bytes: &'a [u8],
        /// Whether it instantiates a component, in which anything may run.
        runs: bool,
    },
    /// A section that is copied as a whole.
    Section { id: u8, bytes: &'a [u8] },
    /// A core module.
    Module(&'a [u8]),
    /// A resource with a destructor, which is a core function.
    Resource { rep: ValType, dtor: u32 },
    /// A function made by the canonical ABI.
    Canon(CanonicalFunction),
    /// An export of a core instance.
    Alias { kind: Kind, instance: u32, name: &'a str },
    /// A core instance.
    Instance(Instance<'a>),
}

/// Reads a valid component.
pub(crate) fn read(component: &[u8]) -> Result<Vec<Item<'_>>, Unmerged> {
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    let mut reader = Reader { component, items: Vec::new() };
    let mut depth = 0_u32;
    for payload in parser.parse_all(component) {
        let payload = payload?;
        let nested = depth > 0;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !nested {
            reader.section(payload)?;
        } else if let Payload::ComponentAliasSection(aliases) = payload {
            check_nested(aliases, depth)?;
        }
    }
    Ok(reader.items)
}

/// Core modules are renumbered; nested components are copied as they are.
fn check_nested(aliases: ComponentAliasSectionReader<'_>, depth: u32) -> Result<(), Unmerged> {
    for alias in aliases {
        if let ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, .. } =
            alias?
            && count >= depth
        {
            return Err(Unmerged::Unsupported("a core module that a nested component uses"));
        }
    }
    Ok(())
}

struct Reader<'a> {
    component: &'a [u8],
    items: Vec<Item<'a>>,
}

impl<'a> Reader<'a> {
    fn bytes(&self, range: Range<usize>) -> Result<&'a [u8], Unmerged> {
        self.component.get(range).ok_or_else(|| invalid("a section reaches over its end"))
    }

    fn section(&mut self, payload: Payload<'a>) -> Result<(), Unmerged> {
        let id = payload.as_section().map_or(0, |(id, _)| id);
        match payload {
            Payload::ComponentTypeSection(types) => self.each(types, |ty, bytes| match ty {
                ComponentType::Resource { rep, dtor: Some(dtor) } => {
                    Ok(Item::Resource { rep, dtor })
                }
                _ => Ok(raw(id, bytes)),
            })?,
            Payload::CoreTypeSection(types) => {
                self.each(types, |_, bytes| Ok(raw(id, bytes)))?;
            }
            Payload::ComponentImportSection(imports) => self.each(imports, |import, bytes| {
                if let ComponentTypeRef::Module(_) = import.ty {
                    return Err(MODULE_VALUE);
                }
                Ok(raw(id, bytes))
            })?,
            Payload::ComponentExportSection(exports) => self.each(exports, |export, bytes| {
                no_module(export.kind)?;
                Ok(raw(id, bytes))
            })?,
            Payload::ComponentInstanceSection(instances) => {
                self.each(instances, |instance, bytes| component_instance(id, &instance, bytes))?;
            }
            Payload::ComponentAliasSection(aliases) => {
                self.each(aliases, |alias, bytes| component_alias(id, &alias, bytes))?;
            }
            Payload::ComponentCanonicalSection(functions) => {
                self.each(functions, |function, _| Ok(Item::Canon(function)))?;
            }
            Payload::InstanceSection(instances) => {
                self.each(instances, |instance, _| Ok(Item::Instance(instance)))?;
            }
            Payload::ModuleSection { unchecked_range, .. } => {
                let bytes = self.bytes(unchecked_range)?;
                self.items.push(Item::Module(bytes));
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                let bytes = self.bytes(unchecked_range)?;
                self.items.push(Item::Section { id, bytes });
            }
            Payload::CustomSection(custom) => {
                // Names of items go by number, and numbers change.
                if custom.name() != "component-name" {
                    let bytes = self.bytes(custom.range())?;
                    self.items.push(Item::Section { id, bytes });
                }
            }
            Payload::Version { encoding: Encoding::Module, .. } => {
                return Err(Unmerged::Unsupported("a core module"));
            }
            Payload::Version { .. } | Payload::End(_) => {}
            _ => return Err(Unmerged::Unsupported("a component with an unknown section")),
        }
        Ok(())
    }

    /// Adds what `item` makes of each item of a section and its bytes.
    fn each<T: FromReader<'a>>(
        &mut self,
        section: SectionLimited<'a, T>,
        item: impl Fn(T, &'a [u8]) -> Result<Item<'a>, Unmerged>,
    ) -> Result<(), Unmerged> {
        let end = section.range().end;
        let mut items = section.into_iter_with_offsets().peekable();
        while let Some(next) = items.next() {
            let (start, value) = next?;
            let end = match items.peek() {
                Some(Ok((next, _))) => *next,
                Some(Err(error)) => return Err(error.clone().into()),
                None => end,
            };
            let bytes = self.bytes(start..end)?;
            self.items.push(item(value, bytes)?);
        }
        Ok(())
    }
}

fn raw(section: u8, bytes: &[u8]) -> Item<'_> {
    Item::Raw { section, bytes, runs: false }
}

/// Core modules that are values could be instantiated anywhere, and they are renumbered.
const MODULE_VALUE: Unmerged = Unmerged::Unsupported("a core module that is passed around");

fn no_module(kind: ComponentExternalKind) -> Result<(), Unmerged> {
    match kind {
        ComponentExternalKind::Module => Err(MODULE_VALUE),
        ComponentExternalKind::Func
        | ComponentExternalKind::Value
        | ComponentExternalKind::Type
        | ComponentExternalKind::Instance
        | ComponentExternalKind::Component => Ok(()),
    }
}

fn component_instance<'a>(
    section: u8,
    instance: &ComponentInstance<'a>,
    bytes: &'a [u8],
) -> Result<Item<'a>, Unmerged> {
    match instance {
        ComponentInstance::Instantiate { args, .. } => {
            args.iter().try_for_each(|arg| no_module(arg.kind))?;
            Ok(Item::Raw { section, bytes, runs: true })
        }
        ComponentInstance::FromExports(exports) => {
            exports.iter().try_for_each(|export| no_module(export.kind))?;
            Ok(raw(section, bytes))
        }
    }
}

fn component_alias<'a>(
    section: u8,
    alias: &ComponentAlias<'a>,
    bytes: &'a [u8],
) -> Result<Item<'a>, Unmerged> {
    match *alias {
        ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
            Ok(Item::Alias { kind: Kind::of_export(kind)?, instance: instance_index, name })
        }
        ComponentAlias::InstanceExport { kind, .. } => {
            no_module(kind)?;
            Ok(raw(section, bytes))
        }
        ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
            Err(MODULE_VALUE)
        }
        ComponentAlias::Outer { .. } => Ok(raw(section, bytes)),
    }
}
