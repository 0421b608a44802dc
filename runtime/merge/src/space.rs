//! The index spaces that a core module and the core level of a component have in common.

use crate::error::Unmerged;
use wasm_encoder::ExportKind;
use wasmparser::{ExternalKind, TypeRef};

/// What a core module imports, defines and exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Func,
    Table,
    Memory,
    Global,
    Tag,
}

impl Kind {
    pub(crate) fn of_export(kind: ExternalKind) -> Result<Self, Unmerged> {
        match kind {
            ExternalKind::Func => Ok(Self::Func),
            ExternalKind::Table => Ok(Self::Table),
            ExternalKind::Memory => Ok(Self::Memory),
            ExternalKind::Global => Ok(Self::Global),
            ExternalKind::Tag => Ok(Self::Tag),
            ExternalKind::FuncExact => Err(Unmerged::Unsupported("an exact function type")),
        }
    }

    pub(crate) fn of_import(ty: &TypeRef) -> Result<Self, Unmerged> {
        match ty {
            TypeRef::Func(_) => Ok(Self::Func),
            TypeRef::Table(_) => Ok(Self::Table),
            TypeRef::Memory(_) => Ok(Self::Memory),
            TypeRef::Global(_) => Ok(Self::Global),
            TypeRef::Tag(_) => Ok(Self::Tag),
            TypeRef::FuncExact(_) => Err(Unmerged::Unsupported("an exact function type")),
        }
    }

    pub(crate) fn encoded(self) -> ExportKind {
        match self {
            Self::Func => ExportKind::Func,
            Self::Table => ExportKind::Table,
            Self::Memory => ExportKind::Memory,
            Self::Global => ExportKind::Global,
            Self::Tag => ExportKind::Tag,
        }
    }
}

/// One `T` for each index space.
#[derive(Debug, Clone, Default)]
pub(crate) struct PerKind<T> {
    pub(crate) func: T,
    pub(crate) table: T,
    pub(crate) memory: T,
    pub(crate) global: T,
    pub(crate) tag: T,
}

impl<T> PerKind<T> {
    pub(crate) fn get(&self, kind: Kind) -> &T {
        match kind {
            Kind::Func => &self.func,
            Kind::Table => &self.table,
            Kind::Memory => &self.memory,
            Kind::Global => &self.global,
            Kind::Tag => &self.tag,
        }
    }

    pub(crate) fn get_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Func => &mut self.func,
            Kind::Table => &mut self.table,
            Kind::Memory => &mut self.memory,
            Kind::Global => &mut self.global,
            Kind::Tag => &mut self.tag,
        }
    }
}

/// The element at an index that came from the component.
pub(crate) fn at<T>(list: &[T], index: u32) -> Option<&T> {
    list.get(usize::try_from(index).ok()?)
}

/// A length as an index; lists are no longer than the component has bytes.
pub(crate) fn index(length: usize) -> Result<u32, Unmerged> {
    u32::try_from(length).map_err(|_| Unmerged::Unsupported("so large a component"))
}
