//! What functions of the canonical ABI refer to on the core level.

use crate::{error::Unmerged, space::Kind};
use std::collections::HashMap;
use wasm_encoder::{
    CanonicalFunctionSection,
    reencode::{self, Reencode, ReencodeComponent},
};
use wasmparser::{CanonicalFunction, CanonicalOption};

/// The core items that a function is made from.
pub(crate) fn operands(function: &CanonicalFunction) -> Result<Vec<(Kind, u32)>, Unmerged> {
    use CanonicalFunction as F;
    Ok(match function {
        F::Lift { core_func_index, options, .. } => {
            let mut operands = of_options(options)?;
            operands.push((Kind::Func, *core_func_index));
            operands
        }
        F::Lower { options, .. }
        | F::TaskReturn { options, .. }
        | F::StreamRead { options, .. }
        | F::StreamWrite { options, .. }
        | F::FutureRead { options, .. }
        | F::FutureWrite { options, .. }
        | F::ErrorContextNew { options }
        | F::ErrorContextDebugMessage { options } => of_options(options)?,
        F::WaitableSetWait { memory, .. } | F::WaitableSetPoll { memory, .. } => {
            vec![(Kind::Memory, *memory)]
        }
        F::ThreadNewIndirect { table_index, .. } => vec![(Kind::Table, *table_index)],
        F::ThreadSpawnRef { .. }
        | F::ThreadSpawnIndirect { .. }
        | F::ThreadAvailableParallelism => {
            return Err(Unmerged::Unsupported("a component with shared-everything threads"));
        }
        F::ResourceNew { .. }
        | F::ResourceDrop { .. }
        | F::ResourceRep { .. }
        | F::BackpressureInc
        | F::BackpressureDec
        | F::TaskCancel
        | F::ContextGet { .. }
        | F::ContextSet { .. }
        | F::ThreadYield { .. }
        | F::SubtaskDrop
        | F::SubtaskCancel { .. }
        | F::StreamNew { .. }
        | F::StreamCancelRead { .. }
        | F::StreamCancelWrite { .. }
        | F::StreamDropReadable { .. }
        | F::StreamDropWritable { .. }
        | F::FutureNew { .. }
        | F::FutureCancelRead { .. }
        | F::FutureCancelWrite { .. }
        | F::FutureDropReadable { .. }
        | F::FutureDropWritable { .. }
        | F::ErrorContextDrop
        | F::WaitableSetNew
        | F::WaitableSetDrop
        | F::WaitableJoin
        | F::ThreadIndex
        | F::ThreadResumeLater
        | F::ThreadSuspend { .. }
        | F::ThreadSuspendThenResume { .. }
        | F::ThreadYieldThenResume { .. }
        | F::ThreadSuspendThenPromote { .. }
        | F::ThreadYieldThenPromote { .. } => Vec::new(),
    })
}

fn of_options(options: &[CanonicalOption]) -> Result<Vec<(Kind, u32)>, Unmerged> {
    let mut operands = Vec::new();
    for option in options {
        match *option {
            CanonicalOption::Memory(memory) => operands.push((Kind::Memory, memory)),
            CanonicalOption::Realloc(func)
            | CanonicalOption::PostReturn(func)
            | CanonicalOption::Callback(func) => operands.push((Kind::Func, func)),
            CanonicalOption::UTF8
            | CanonicalOption::UTF16
            | CanonicalOption::CompactUTF16
            | CanonicalOption::Async
            | CanonicalOption::CoreType(_) => {}
            CanonicalOption::Gc => {
                return Err(Unmerged::Unsupported("a component with garbage collected values"));
            }
        }
    }
    Ok(operands)
}

/// Whether it defines a function of the component; the others define core functions.
pub(crate) fn is_lift(function: &CanonicalFunction) -> bool {
    matches!(function, CanonicalFunction::Lift { .. })
}

/// Adds a function whose operands have new numbers. Types and the functions of the component keep
/// theirs, for items that define them keep their order.
pub(crate) fn encode(
    section: &mut CanonicalFunctionSection,
    function: CanonicalFunction,
    renumbered: HashMap<(Kind, u32), u32>,
) -> Result<(), Unmerged> {
    Ok(Renumber(renumbered).parse_component_canonical(section, function)?)
}

struct Renumber(HashMap<(Kind, u32), u32>);

impl Renumber {
    fn new_index(&self, kind: Kind, old: u32) -> Result<u32, reencode::Error<Unmerged>> {
        let new = self.0.get(&(kind, old)).copied();
        // An operand that `operands` does not know.
        new.ok_or_else(|| Unmerged::Unsupported("a function of the canonical ABI").into())
    }
}

impl Reencode for Renumber {
    type Error = Unmerged;

    fn function_index(&mut self, func: u32) -> Result<u32, reencode::Error<Unmerged>> {
        self.new_index(Kind::Func, func)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, reencode::Error<Unmerged>> {
        self.new_index(Kind::Memory, memory)
    }

    fn table_index(&mut self, table: u32) -> Result<u32, reencode::Error<Unmerged>> {
        self.new_index(Kind::Table, table)
    }
}

impl ReencodeComponent for Renumber {}
