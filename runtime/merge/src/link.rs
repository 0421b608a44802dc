//! The index spaces of the merged module: what becomes of the ones of its members.

use crate::{
    error::{Unmerged, invalid},
    graph::{Graph, Source},
    group::Group,
    shape::Shape,
    space::{Kind, PerKind, at, index},
};
use std::collections::HashMap;
use wasm_encoder::{EntityType, MemoryType, TableType};
use wasmparser::{FuncType, TypeRef};

/// The most memories of the merged module.
const MAX_MEMORIES: u32 = 1;
/// Bytes that the pool has for the records of an instance.
const MAX_INSTANCE: u64 = 4 << 20;
/// Bytes that no function, import or segment needs more than of them.
const RECORD: u64 = 48;

/// How members become one module.
pub(crate) struct Link<'g, 'a> {
    pub(crate) members: Vec<Member<'g, 'a>>,
    pub(crate) types: Types<'g>,
    /// What is imported from outside, in order.
    pub(crate) imports: Vec<(Source, EntityType)>,
    /// How many imports and definitions of each kind there are.
    pub(crate) total: PerKind<u32>,
    owners: HashMap<u32, usize>,
}

/// Where the index spaces of a member are in those of the merged module.
pub(crate) struct Member<'g, 'a> {
    pub(crate) shape: &'g Shape<'a>,
    pub(crate) types: Vec<u32>,
    /// What its imports have become.
    pub(crate) imports: PerKind<Vec<u32>>,
    /// Where its definitions start.
    pub(crate) defined: PerKind<u32>,
    /// Where its element segments start.
    pub(crate) elements: u32,
    /// Where its data segments start.
    pub(crate) data: u32,
}

impl Member<'_, '_> {
    /// The new index of an item.
    pub(crate) fn map(&self, kind: Kind, old: u32) -> Result<u32, Unmerged> {
        let imports = self.imports.get(kind);
        if let Some(new) = at(imports, old) {
            return Ok(*new);
        }
        let defined = old.saturating_sub(index(imports.len())?);
        if defined >= *self.shape.defined.get(kind) {
            return Err(invalid("an index of a module"));
        }
        add(*self.defined.get(kind), defined)
    }

    pub(crate) fn map_type(&self, old: u32) -> Result<u32, Unmerged> {
        at(&self.types, old).copied().ok_or_else(|| invalid("a type index of a module"))
    }
}

/// The function types of the merged module, each once.
#[derive(Default)]
pub(crate) struct Types<'g> {
    pub(crate) list: Vec<&'g FuncType>,
    indices: HashMap<&'g FuncType, u32>,
}

impl<'g> Types<'g> {
    pub(crate) fn add(&mut self, ty: &'g FuncType) -> Result<u32, Unmerged> {
        if let Some(index) = self.indices.get(ty) {
            return Ok(*index);
        }
        let new = index(self.list.len())?;
        self.list.push(ty);
        self.indices.insert(ty, new);
        Ok(new)
    }
}

impl<'g, 'a> Link<'g, 'a> {
    pub(crate) fn new(graph: &'g Graph<'a>, group: &Group) -> Result<Self, Unmerged> {
        let mut link = Self {
            members: Vec::new(),
            types: Types::default(),
            imports: Vec::new(),
            total: PerKind::default(),
            owners: HashMap::new(),
        };
        for instance in &group.members {
            let (_, shape) = graph.member(*instance)?;
            let types = shape.types.iter().map(|ty| link.types.add(ty));
            let types = types.collect::<Result<_, _>>()?;
            link.owners.insert(*instance, link.members.len());
            link.members.push(Member {
                shape,
                types,
                imports: PerKind::default(),
                defined: PerKind::default(),
                elements: 0,
                data: 0,
            });
        }
        let external = link.add_imports(graph, group)?;
        link.add_definitions()?;
        link.resolve_imports(graph, group, &external)?;
        if link.total.memory > MAX_MEMORIES {
            return Err(Unmerged::Unsupported("modules with different memories"));
        }
        if link.records().saturating_mul(RECORD) > MAX_INSTANCE {
            return Err(Unmerged::Unsupported("modules with so many functions"));
        }
        Ok(link)
    }

    /// How much an instance has that takes room in its records.
    fn records(&self) -> u64 {
        let PerKind { func, table, memory, global, .. } = self.total;
        let segments = self.members.iter().map(|member| member.shape.sections.segments());
        let totals = [func, table, memory, global].into_iter().chain(segments);
        totals.map(u64::from).sum()
    }

    /// Lists what comes from outside, each once.
    fn add_imports(
        &mut self,
        graph: &Graph<'a>,
        group: &Group,
    ) -> Result<HashMap<Source, u32>, Unmerged> {
        let mut external = HashMap::<Source, u32>::new();
        let mut positions = HashMap::<Source, usize>::new();
        for (instance, member) in group.members.iter().zip(&self.members) {
            let (inner, shape) = graph.member(*instance)?;
            let mut next = PerKind::<u32>::default();
            for import in &shape.imports {
                let kind = Kind::of_import(&import.ty)?;
                let source = at(inner.imports.get(kind), *next.get(kind)).copied();
                let source = source.ok_or_else(|| invalid("an import"))?;
                *next.get_mut(kind) += 1;
                if group.defines(source) {
                    continue;
                }
                let ty = entity_type(member, import.ty)?;
                if let Some(position) = positions.get(&source) {
                    let (_, known) = self.imports.get_mut(*position).ok_or(IMPORT_TYPES)?;
                    *known = stricter(*known, ty)?;
                    continue;
                }
                positions.insert(source, self.imports.len());
                external.insert(source, *self.total.get(kind));
                *self.total.get_mut(kind) += 1;
                self.imports.push((source, ty));
            }
        }
        Ok(external)
    }

    fn add_definitions(&mut self) -> Result<(), Unmerged> {
        let (mut elements, mut data) = (0, 0);
        for member in &mut self.members {
            let shape = member.shape;
            for kind in [Kind::Func, Kind::Table, Kind::Memory, Kind::Global] {
                let total = self.total.get_mut(kind);
                *member.defined.get_mut(kind) = *total;
                *total = add(*total, *shape.defined.get(kind))?;
            }
            (member.elements, member.data) = (elements, data);
            elements = add(elements, shape.sections.element_count())?;
            data = add(data, shape.sections.data_count())?;
        }
        Ok(())
    }

    fn resolve_imports(
        &mut self,
        graph: &Graph<'a>,
        group: &Group,
        external: &HashMap<Source, u32>,
    ) -> Result<(), Unmerged> {
        let mut resolved = Vec::new();
        for instance in &group.members {
            let (inner, _) = graph.member(*instance)?;
            let mut imports = PerKind::<Vec<u32>>::default();
            for kind in [Kind::Func, Kind::Table, Kind::Memory, Kind::Global] {
                for source in inner.imports.get(kind) {
                    let new = match external.get(source) {
                        Some(new) => *new,
                        None => self.defined(*source)?,
                    };
                    imports.get_mut(kind).push(new);
                }
            }
            resolved.push(imports);
        }
        for (member, imports) in self.members.iter_mut().zip(resolved) {
            member.imports = imports;
        }
        Ok(())
    }

    /// The index in the merged module of what a member defines.
    pub(crate) fn defined(&self, source: Source) -> Result<u32, Unmerged> {
        let Source::Defined { instance, kind, index } = source else {
            return Err(invalid("a definition"));
        };
        let owner = self.owners.get(&instance).and_then(|owner| self.members.get(*owner));
        let owner = owner.ok_or_else(|| invalid("a definition"))?;
        let imported = *owner.shape.imported.get(kind);
        let defined = index.checked_sub(imported).ok_or_else(|| invalid("a definition"))?;
        if defined >= *owner.shape.defined.get(kind) {
            return Err(invalid("a definition"));
        }
        add(*owner.defined.get(kind), defined)
    }
}

const IMPORT_TYPES: Unmerged = Unmerged::Unsupported("an import under different types");

fn add(a: u32, b: u32) -> Result<u32, Unmerged> {
    a.checked_add(b).ok_or(Unmerged::Unsupported("so large a component"))
}

/// The type of an import of a member in the merged module.
fn entity_type(member: &Member<'_, '_>, ty: TypeRef) -> Result<EntityType, Unmerged> {
    let concrete = match ty {
        TypeRef::Func(ty) => return Ok(EntityType::Function(member.map_type(ty)?)),
        TypeRef::Table(ty) => ty.element_type.type_index(),
        TypeRef::Global(ty) => ty.content_type.as_reference_type().and_then(|ty| ty.type_index()),
        TypeRef::Memory(_) => None,
        TypeRef::Tag(_) | TypeRef::FuncExact(_) => return Err(IMPORT_TYPES),
    };
    if concrete.is_some() {
        return Err(Unmerged::Unsupported("an import that holds references to typed functions"));
    }
    EntityType::try_from(ty).map_err(|_| IMPORT_TYPES)
}

/// A type that what satisfies both types has.
fn stricter(a: EntityType, b: EntityType) -> Result<EntityType, Unmerged> {
    match (a, b) {
        (EntityType::Table(a), EntityType::Table(b)) => {
            let (minimum, maximum) = limits((a.minimum, a.maximum), (b.minimum, b.maximum));
            let merged = TableType { minimum, maximum, ..a };
            let same = TableType { minimum, maximum, ..b } == merged;
            if same { Ok(EntityType::Table(merged)) } else { Err(IMPORT_TYPES) }
        }
        (EntityType::Memory(a), EntityType::Memory(b)) => {
            let (minimum, maximum) = limits((a.minimum, a.maximum), (b.minimum, b.maximum));
            let merged = MemoryType { minimum, maximum, ..a };
            let same = MemoryType { minimum, maximum, ..b } == merged;
            if same { Ok(EntityType::Memory(merged)) } else { Err(IMPORT_TYPES) }
        }
        (a, b) if a == b => Ok(a),
        _ => Err(IMPORT_TYPES),
    }
}

type Limits = (u64, Option<u64>);

fn limits(a: Limits, b: Limits) -> Limits {
    let maximum = match (a.1, b.1) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    (a.0.max(b.0), maximum)
}
