//! Constant expressions: what is known of a global of another member is written in its place.
//!
//! An imported global may be used in a constant expression, one that the module itself defines must
//! not everywhere. It is better anyway: segments at known offsets need no code at instantiation.

use crate::{
    error::{Unmerged, invalid},
    link::Member,
    space::{Kind, at},
};
use wasm_encoder::{
    ConstExpr, Instruction,
    reencode::{Reencode, RoundtripReencoder},
};
use wasmparser::{HeapType, Operator};

/// A constant that takes one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Constant {
    I32(i32),
    I64(i64),
    F32(wasmparser::Ieee32),
    F64(wasmparser::Ieee64),
    V128(i128),
    /// The null reference of an abstract type.
    Null(wasm_encoder::HeapType),
    /// A reference to a function of the merged module.
    Func(u32),
    /// The value of a global that the merged module imports.
    Global(u32),
}

impl Constant {
    fn instruction(self) -> Instruction<'static> {
        match self {
            Self::I32(value) => Instruction::I32Const(value),
            Self::I64(value) => Instruction::I64Const(value),
            Self::F32(value) => Instruction::F32Const(value.into()),
            Self::F64(value) => Instruction::F64Const(value.into()),
            Self::V128(value) => Instruction::V128Const(value),
            Self::Null(ty) => Instruction::RefNull(ty),
            Self::Func(func) => Instruction::RefFunc(func),
            Self::Global(global) => Instruction::GlobalGet(global),
        }
    }
}

/// The values of the globals of the merged module, as far as they are known: those of imported
/// immutable ones are themselves.
pub(crate) type Globals = [Option<Constant>];

/// A constant expression of the merged module.
pub(crate) struct Folded {
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    Constant(Constant),
    Operator(Arithmetic),
}

#[derive(Clone, Copy)]
enum Arithmetic {
    I32Add,
    I32Sub,
    I32Mul,
    I64Add,
    I64Sub,
    I64Mul,
}

impl Folded {
    /// Reads an expression of a member and computes what is known.
    pub(crate) fn read(
        expression: &wasmparser::ConstExpr<'_>,
        member: &Member<'_, '_>,
        globals: &Globals,
    ) -> Result<Self, Unmerged> {
        let mut folded = Self { steps: Vec::new() };
        let mut operators = expression.get_operators_reader();
        while !operators.is_end_then_eof() {
            let operator = operators.read()?;
            let step = match operator {
                Operator::I32Const { value } => Step::Constant(Constant::I32(value)),
                Operator::I64Const { value } => Step::Constant(Constant::I64(value)),
                Operator::F32Const { value } => Step::Constant(Constant::F32(value)),
                Operator::F64Const { value } => Step::Constant(Constant::F64(value)),
                Operator::V128Const { value } => Step::Constant(Constant::V128(value.i128())),
                Operator::RefNull { hty } => Step::Constant(Constant::Null(null(hty)?)),
                Operator::RefFunc { function_index } => {
                    Step::Constant(Constant::Func(member.map(Kind::Func, function_index)?))
                }
                Operator::GlobalGet { global_index } => {
                    let known = at(globals, member.map(Kind::Global, global_index)?);
                    let known = known.copied().flatten();
                    Step::Constant(known.ok_or(Unmerged::Unsupported("a computed global"))?)
                }
                Operator::I32Add => Step::Operator(Arithmetic::I32Add),
                Operator::I32Sub => Step::Operator(Arithmetic::I32Sub),
                Operator::I32Mul => Step::Operator(Arithmetic::I32Mul),
                Operator::I64Add => Step::Operator(Arithmetic::I64Add),
                Operator::I64Sub => Step::Operator(Arithmetic::I64Sub),
                Operator::I64Mul => Step::Operator(Arithmetic::I64Mul),
                _ => return Err(Unmerged::Unsupported("a constant expression")),
            };
            folded.push(step);
        }
        if folded.steps.is_empty() {
            return Err(invalid("an empty constant expression"));
        }
        Ok(folded)
    }

    /// Adds a step; an operator whose operands are known, as what it makes of them.
    fn push(&mut self, step: Step) {
        let Step::Operator(operator) = step else {
            self.steps.push(step);
            return;
        };
        // The operands of an operator are what was pushed last, if those are constants.
        if let [.., Step::Constant(a), Step::Constant(b)] = *self.steps.as_slice()
            && let Some(result) = operator.apply(a, b)
        {
            self.steps.truncate(self.steps.len() - 2);
            self.steps.push(Step::Constant(result));
        } else {
            self.steps.push(step);
        }
    }

    /// Its value, if one instruction has it.
    pub(crate) fn constant(&self) -> Option<Constant> {
        match *self.steps.as_slice() {
            [Step::Constant(constant)] => Some(constant),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> ConstExpr {
        ConstExpr::extended(self.steps.iter().map(|step| match step {
            Step::Constant(constant) => constant.instruction(),
            Step::Operator(operator) => operator.instruction(),
        }))
    }
}

impl Arithmetic {
    fn apply(self, a: Constant, b: Constant) -> Option<Constant> {
        match (self, a, b) {
            (Self::I32Add, Constant::I32(a), Constant::I32(b)) => {
                Some(Constant::I32(a.wrapping_add(b)))
            }
            (Self::I32Sub, Constant::I32(a), Constant::I32(b)) => {
                Some(Constant::I32(a.wrapping_sub(b)))
            }
            (Self::I32Mul, Constant::I32(a), Constant::I32(b)) => {
                Some(Constant::I32(a.wrapping_mul(b)))
            }
            (Self::I64Add, Constant::I64(a), Constant::I64(b)) => {
                Some(Constant::I64(a.wrapping_add(b)))
            }
            (Self::I64Sub, Constant::I64(a), Constant::I64(b)) => {
                Some(Constant::I64(a.wrapping_sub(b)))
            }
            (Self::I64Mul, Constant::I64(a), Constant::I64(b)) => {
                Some(Constant::I64(a.wrapping_mul(b)))
            }
            _ => None,
        }
    }

    fn instruction(self) -> Instruction<'static> {
        match self {
            Self::I32Add => Instruction::I32Add,
            Self::I32Sub => Instruction::I32Sub,
            Self::I32Mul => Instruction::I32Mul,
            Self::I64Add => Instruction::I64Add,
            Self::I64Sub => Instruction::I64Sub,
            Self::I64Mul => Instruction::I64Mul,
        }
    }
}

fn null(ty: HeapType) -> Result<wasm_encoder::HeapType, Unmerged> {
    const UNKNOWN: Unmerged = Unmerged::Unsupported("a null reference to a typed function");
    match ty {
        HeapType::Abstract { .. } => RoundtripReencoder.heap_type(ty).map_err(|_| UNKNOWN),
        HeapType::Concrete(_) | HeapType::Exact(_) => Err(UNKNOWN),
    }
}
