//! Whether instances that are made in another order do the same.
//!
//! An instance is made in two steps: its tables and memories are allocated and its active segments
//! written, then its start function runs. The merged instance does the first step of all its
//! members before the second one of any. Start functions and nested components may do and see
//! anything, so each step must stay on its side of each of them. Apart from that, segments of one
//! table or memory must be written in their order. Which of several instances fails first makes no
//! difference otherwise: no code has run in between that could have told anybody.

use crate::{
    error::Unmerged,
    graph::{Graph, ModuleInstance, Source},
    group::Group,
    items::Item,
    space::at,
};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The tables, memories and active segments of a core instance.
    Storage(u32),
    /// The start function of a core instance.
    Start(u32),
    /// All that happens when a component is instantiated, by the position of its item.
    Nested(usize),
}

/// A member that would have to be made at another time than the group, if there is one.
pub(crate) fn first_out_of_order(
    graph: &Graph<'_>,
    group: &Group,
) -> Result<Option<u32>, Unmerged> {
    let before = Order::original(graph)?;
    let after = Order::merged(graph, group)?;
    let epochs = before.epochs();
    let positions: HashMap<Step, usize> =
        before.0.iter().enumerate().map(|(position, step)| (*step, position)).collect();
    let mut last = HashMap::<Source, usize>::new();
    let mut previous = None;
    for (step, epoch) in after.epochs_in_order() {
        let mut ordered = epochs.get(&step) == Some(&epoch);
        let position = positions.get(&step).copied();
        if let Step::Storage(instance) = step {
            let (inner, _) = graph.member(instance)?;
            for written in written(graph, instance, inner)? {
                let former = last.insert(written, position.unwrap_or(0));
                ordered &= former.is_none_or(|former| Some(former) < position);
            }
        }
        let member = match step {
            Step::Storage(instance) | Step::Start(instance) if group.contains(instance) => {
                Some(instance)
            }
            _ => None,
        };
        if !ordered {
            // Whatever else moves, moves because members do.
            let any = member.or(previous).or(group.members.last().copied());
            return Ok(any);
        }
        previous = member.or(previous);
    }
    Ok(None)
}

struct Order(Vec<Step>);

impl Order {
    fn original(graph: &Graph<'_>) -> Result<Self, Unmerged> {
        let mut order = Self(Vec::new());
        let mut instance = 0;
        for (position, item) in graph.items.iter().enumerate() {
            match item {
                Item::Instance(_) => {
                    order.instance(graph, instance)?;
                    instance += 1;
                }
                Item::Raw { runs: true, .. } => order.0.push(Step::Nested(position)),
                _ => {}
            }
        }
        Ok(order)
    }

    fn merged(graph: &Graph<'_>, group: &Group) -> Result<Self, Unmerged> {
        let mut order = Self(Vec::new());
        let mut instance = 0;
        for (position, item) in graph.items.iter().enumerate() {
            if usize::try_from(group.position) == Ok(position) {
                for member in &group.members {
                    order.storage(graph, *member)?;
                }
                for member in &group.members {
                    order.start(graph, *member)?;
                }
                for postponed in &group.postponed {
                    order.instance(graph, *postponed)?;
                }
            }
            match item {
                Item::Instance(_) => {
                    if !group.contains(instance) && !group.is_postponed(instance) {
                        order.instance(graph, instance)?;
                    }
                    instance += 1;
                }
                Item::Raw { runs: true, .. } => order.0.push(Step::Nested(position)),
                _ => {}
            }
        }
        Ok(order)
    }

    fn instance(&mut self, graph: &Graph<'_>, instance: u32) -> Result<(), Unmerged> {
        if graph.module_instance(instance).is_some() {
            self.storage(graph, instance)?;
            self.start(graph, instance)?;
        }
        Ok(())
    }

    fn storage(&mut self, graph: &Graph<'_>, instance: u32) -> Result<(), Unmerged> {
        let (_, shape) = graph.member(instance)?;
        let allocates = shape.defined.table > 0 || shape.defined.memory > 0;
        if allocates || !shape.written.is_empty() {
            self.0.push(Step::Storage(instance));
        }
        Ok(())
    }

    fn start(&mut self, graph: &Graph<'_>, instance: u32) -> Result<(), Unmerged> {
        if graph.member(instance)?.1.start.is_some() {
            self.0.push(Step::Start(instance));
        }
        Ok(())
    }

    /// Each step with the number of steps before it in which code runs.
    fn epochs_in_order(&self) -> impl Iterator<Item = (Step, u32)> {
        self.0.iter().scan(0_u32, |epoch, step| {
            let now = *epoch;
            if !matches!(step, Step::Storage(_)) {
                *epoch += 1;
            }
            Some((*step, now))
        })
    }

    fn epochs(&self) -> HashMap<Step, u32> {
        self.epochs_in_order().collect()
    }
}

/// The tables and memories that the active segments of an instance write to.
fn written(
    graph: &Graph<'_>,
    instance: u32,
    inner: &ModuleInstance<'_>,
) -> Result<Vec<Source>, Unmerged> {
    let source = |(kind, index): &(_, u32)| {
        let imported = at(inner.imports.get(*kind), *index).copied();
        imported.unwrap_or(Source::Defined { instance, kind: *kind, index: *index })
    };
    Ok(graph.shape(inner)?.written.iter().map(source).collect())
}
