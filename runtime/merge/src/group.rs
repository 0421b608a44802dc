//! Which core instances become one.
//!
//! A core instance may depend on another one directly, by importing what it exports, or through
//! something that is made from its exports: a lowered function that uses its memory, a resource
//! with its destructor, an instance outside the group. Instances of a group may depend on each
//! other only directly; otherwise the merged instance would depend on itself. Hence levels: what is
//! made from an instance of a level raises what imports it to the next level, and the instances of
//! one level can be merged.

use crate::{
    canon, effects,
    error::{Unmerged, invalid},
    graph::{Graph, Source},
    items::Item,
    space::{Kind, at, index},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The most tables that the pool of instances has room for in a module.
const MAX_TABLES: u32 = 8;
/// How often instances that do not fit are taken out of a group.
const MAX_ROUNDS: u32 = 16;

/// Core instances that become one.
pub(crate) struct Group {
    /// The instances, in order.
    pub(crate) members: Vec<u32>,
    /// The position of the item before which the merged instance is made.
    pub(crate) position: u32,
    /// Instances of modules that are made after it though their items are before that position.
    pub(crate) postponed: Vec<u32>,
    is_member: HashSet<u32>,
}

impl Group {
    pub(crate) fn contains(&self, instance: u32) -> bool {
        self.is_member.contains(&instance)
    }

    pub(crate) fn is_postponed(&self, instance: u32) -> bool {
        self.postponed.binary_search(&instance).is_ok()
    }

    /// Whether a member defines it.
    pub(crate) fn defines(&self, source: Source) -> bool {
        matches!(source, Source::Defined { instance, .. } if self.contains(instance))
    }
}

/// Chooses the group that saves the most imports.
pub(crate) fn choose(graph: &Graph<'_>) -> Result<Group, Unmerged> {
    let mut candidates = HashSet::new();
    for (instance, inner) in graph.module_instances() {
        let once = at(&graph.uses, inner.module) == Some(&1);
        if once && graph.shape(inner)?.unsupported.is_none() {
            candidates.insert(instance);
        }
    }
    for _ in 0..MAX_ROUNDS {
        let members = best_level(graph, &candidates)?;
        let dropped = foreign_memories(graph, &members)?;
        if !dropped.is_empty() {
            candidates.retain(|candidate| !dropped.contains(candidate));
            continue;
        }
        let mut tables = 0_u32;
        for member in &members {
            tables = tables.saturating_add(graph.member(*member)?.1.defined.table);
        }
        if tables > MAX_TABLES {
            return Err(Unmerged::Unsupported("modules with more than eight tables"));
        }
        let group = place(graph, members)?;
        match effects::first_out_of_order(graph, &group)? {
            None => return Ok(group),
            Some(member) => candidates.remove(&member),
        };
    }
    Err(Unmerged::Unsupported("a component whose instances depend on each other's order"))
}

/// The candidates of the level that saves the most imports.
fn best_level(graph: &Graph<'_>, candidates: &HashSet<u32>) -> Result<Vec<u32>, Unmerged> {
    let levels = Levels::compute(graph, candidates)?;
    let mut by_level = BTreeMap::<u32, Vec<u32>>::new();
    for (instance, _) in graph.module_instances().filter(|(i, _)| candidates.contains(i)) {
        by_level.entry(levels.instance(instance)).or_default().push(instance);
    }
    let mut best = Err(Unmerged::Nothing);
    let mut most = (0, 0);
    for members in by_level.into_values().filter(|members| members.len() > 1) {
        let inside: HashSet<u32> = members.iter().copied().collect();
        let mut saved = 0_usize;
        for member in &members {
            let sources = graph.member(*member)?.0.sources();
            saved += sources
                .filter(|source| {
                    matches!(source, Source::Defined { instance, .. } if inside.contains(instance))
                })
                .count();
        }
        let score = (saved, members.len());
        if best.is_err() || score > most {
            (best, most) = (Ok(members), score);
        }
    }
    best
}

/// The level of each instance that is a candidate; of all others, the lowest one of what imports
/// them.
struct Levels<'g> {
    candidates: &'g HashSet<u32>,
    instances: HashMap<u32, u32>,
    /// By position, of the functions that canonical definitions make.
    functions: HashMap<u32, u32>,
}

impl<'g> Levels<'g> {
    fn compute(graph: &Graph<'_>, candidates: &'g HashSet<u32>) -> Result<Self, Unmerged> {
        let mut levels = Self { candidates, instances: HashMap::new(), functions: HashMap::new() };
        // Items of the component level keep their order, so all that follows one of them counts
        // as if it depended on it.
        let mut floor = 0;
        let mut instance = 0;
        for (position, item) in graph.items.iter().enumerate() {
            match item {
                Item::Resource { dtor, .. } => {
                    floor = floor.max(levels.outside(graph.core(Kind::Func, *dtor)?));
                }
                Item::Canon(function) => {
                    let mut level = floor;
                    for (kind, operand) in canon::operands(function)? {
                        level = level.max(levels.outside(graph.core(kind, operand)?));
                    }
                    if canon::is_lift(function) {
                        floor = level;
                    } else {
                        levels.functions.insert(index(position)?, level);
                    }
                }
                Item::Instance(_) => {
                    if let Some(inner) = graph.module_instance(instance) {
                        let member = candidates.contains(&instance);
                        let of = |source| {
                            if member { levels.inside(source) } else { levels.outside(source) }
                        };
                        let level = inner.sources().map(of).max().unwrap_or(0);
                        levels.instances.insert(instance, level);
                    }
                    instance += 1;
                }
                Item::Raw { .. } | Item::Section { .. } | Item::Module(_) | Item::Alias { .. } => {}
            }
        }
        Ok(levels)
    }

    fn instance(&self, instance: u32) -> u32 {
        self.instances.get(&instance).copied().unwrap_or(0)
    }

    /// The lowest level of a candidate that imports it.
    fn inside(&self, source: Source) -> u32 {
        match source {
            Source::Canon(position) => self.functions.get(&position).copied().unwrap_or(0),
            Source::Defined { instance, .. } => self.instance(instance),
        }
    }

    /// The lowest level of a candidate that imports what is made from it.
    fn outside(&self, source: Source) -> u32 {
        let level = self.inside(source);
        match source {
            Source::Defined { instance, .. } if self.candidates.contains(&instance) => level + 1,
            _ => level,
        }
    }
}

/// The members that have another memory than most; a merged module has one at most.
fn foreign_memories(graph: &Graph<'_>, members: &[u32]) -> Result<HashSet<u32>, Unmerged> {
    let mut users = HashMap::<Source, u32>::new();
    let mut memories = Vec::new();
    for member in members {
        let (instance, shape) = graph.member(*member)?;
        let mut own = instance.imports.memory.clone();
        own.extend((0..shape.defined.memory).map(|defined| Source::Defined {
            instance: *member,
            kind: Kind::Memory,
            index: shape.imported.memory.saturating_add(defined),
        }));
        for memory in &own {
            *users.entry(*memory).or_default() += 1;
        }
        memories.push((*member, own));
    }
    // The first one where several have as many users.
    let mut main = None;
    for memory in memories.iter().flat_map(|(_, own)| own) {
        let count = users.get(memory).copied().unwrap_or(0);
        if main.is_none_or(|(most, _)| count > most) {
            main = Some((count, *memory));
        }
    }
    let foreign = |own: &[Source]| own.iter().any(|memory| main.is_some_and(|(_, m)| m != *memory));
    Ok(memories.iter().filter(|(_, own)| foreign(own)).map(|(member, _)| *member).collect())
}

/// Finds the place of the merged instance: after all that it depends on, before all that depends
/// on it, and otherwise where the last member is.
fn place(graph: &Graph<'_>, members: Vec<u32>) -> Result<Group, Unmerged> {
    let mut after = None;
    let mut last = 0;
    let is_member: HashSet<u32> = members.iter().copied().collect();
    for member in &members {
        let (inner, _) = graph.member(*member)?;
        last = last.max(inner.position);
        for source in inner.sources() {
            let position = match source {
                Source::Canon(position) => position,
                Source::Defined { instance, .. } if is_member.contains(&instance) => continue,
                Source::Defined { instance, .. } => graph.member(instance)?.0.position,
            };
            after = after.max(Some(position));
        }
    }
    let mut group = Group { members, position: last, postponed: Vec::new(), is_member };
    let dependents = Dependents::compute(graph, &group)?;
    group.position = dependents.first.map_or(last, |first| first.min(last));
    if after.is_some_and(|after| after >= group.position) {
        return Err(Unmerged::Unsupported("a component whose instances depend on each other"));
    }
    for instance in dependents.instances {
        if graph.member(instance)?.0.position < group.position {
            group.postponed.push(instance);
        }
    }
    Ok(group)
}

/// What depends on a group.
struct Dependents {
    /// The first item of the component level.
    first: Option<u32>,
    /// Instances of modules, in order.
    instances: Vec<u32>,
}

impl Dependents {
    fn compute(graph: &Graph<'_>, group: &Group) -> Result<Self, Unmerged> {
        let mut found = Self { first: None, instances: Vec::new() };
        let mut functions = HashSet::new();
        let mut instances = group.is_member.clone();
        let mut instance = 0;
        for (position, item) in graph.items.iter().enumerate() {
            let position = index(position)?;
            let depends = |source| match source {
                Source::Canon(position) => functions.contains(&position),
                Source::Defined { instance, .. } => instances.contains(&instance),
            };
            match item {
                Item::Resource { dtor, .. } => {
                    if depends(graph.core(Kind::Func, *dtor)?) {
                        found.first.get_or_insert(position);
                    }
                }
                Item::Canon(function) => {
                    let mut any = false;
                    for (kind, operand) in canon::operands(function)? {
                        any |= depends(graph.core(kind, operand)?);
                    }
                    if any && canon::is_lift(function) {
                        found.first.get_or_insert(position);
                    } else if any {
                        functions.insert(position);
                    }
                }
                Item::Instance(_) => {
                    let inner = graph.module_instance(instance);
                    let outside = inner.filter(|_| !group.contains(instance));
                    if outside.is_some_and(|inner| inner.sources().any(depends)) {
                        instances.insert(instance);
                        found.instances.push(instance);
                    }
                    instance += 1;
                }
                Item::Raw { .. } | Item::Section { .. } | Item::Module(_) | Item::Alias { .. } => {}
            }
        }
        if instance != index(graph.instances.len())? {
            return Err(invalid("core instances"));
        }
        Ok(found)
    }
}
