//! What the rest must know about a core module without its code.

use crate::{
    FEATURES,
    error::{Unmerged, invalid},
    space::{Kind, PerKind},
};
use std::collections::{BTreeSet, HashMap};
use wasmparser::{
    BinaryReader, CodeSectionReader, CompositeInnerType, DataKind, DataSectionReader, ElementKind,
    ElementSectionReader, ExportSectionReader, FuncType, FunctionSectionReader,
    GlobalSectionReader, Import, ImportSectionReader, KnownCustom, MemorySectionReader,
    NameSectionReader, Parser, Payload, RecGroup, TableSectionReader, TypeSectionReader,
};

/// A core module: its interface, and its sections to be read again when it is merged.
pub(crate) struct Shape<'a> {
    /// The whole module.
    pub(crate) bytes: &'a [u8],
    pub(crate) types: Vec<FuncType>,
    pub(crate) imports: Vec<Import<'a>>,
    /// How many imports of each kind there are.
    pub(crate) imported: PerKind<u32>,
    /// How many of each kind it defines itself.
    pub(crate) defined: PerKind<u32>,
    pub(crate) exports: HashMap<&'a str, (Kind, u32)>,
    /// A name under which it exports each item that it exports.
    pub(crate) export_names: HashMap<(Kind, u32), &'a str>,
    pub(crate) start: Option<u32>,
    /// The tables and memories that its active segments write to, each once.
    pub(crate) written: Vec<(Kind, u32)>,
    pub(crate) sections: Sections<'a>,
    /// Why it cannot be merged with others.
    pub(crate) unsupported: Option<&'static str>,
}

/// The sections that a merge reads.
#[derive(Default)]
pub(crate) struct Sections<'a> {
    pub(crate) functions: Option<FunctionSectionReader<'a>>,
    pub(crate) tables: Option<TableSectionReader<'a>>,
    pub(crate) memories: Option<MemorySectionReader<'a>>,
    pub(crate) globals: Option<GlobalSectionReader<'a>>,
    pub(crate) elements: Option<ElementSectionReader<'a>>,
    pub(crate) code: Option<CodeSectionReader<'a>>,
    pub(crate) data: Option<DataSectionReader<'a>>,
    pub(crate) names: Option<NameSectionReader<'a>>,
}

impl Sections<'_> {
    pub(crate) fn element_count(&self) -> u32 {
        self.elements.as_ref().map_or(0, |elements| elements.count())
    }

    pub(crate) fn data_count(&self) -> u32 {
        self.data.as_ref().map_or(0, |data| data.count())
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> u32 {
        self.element_count().saturating_add(self.data_count())
    }
}

impl<'a> Shape<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Unmerged> {
        let mut shape = Self {
            bytes,
            types: Vec::new(),
            imports: Vec::new(),
            imported: PerKind::default(),
            defined: PerKind::default(),
            exports: HashMap::new(),
            export_names: HashMap::new(),
            start: None,
            written: Vec::new(),
            sections: Sections::default(),
            unsupported: None,
        };
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        for payload in parser.parse_all(bytes) {
            shape.section(payload?)?;
        }
        shape.written()?;
        Ok(shape)
    }

    fn section(&mut self, payload: Payload<'a>) -> Result<(), Unmerged> {
        match payload {
            Payload::TypeSection(types) => self.types(types)?,
            Payload::ImportSection(imports) => self.imports(imports)?,
            Payload::FunctionSection(functions) => {
                self.defined.func = functions.count();
                self.sections.functions = Some(functions);
            }
            Payload::TableSection(tables) => {
                self.defined.table = tables.count();
                self.sections.tables = Some(tables);
            }
            Payload::MemorySection(memories) => {
                self.defined.memory = memories.count();
                self.sections.memories = Some(memories);
            }
            Payload::TagSection(tags) => {
                self.defined.tag = tags.count();
                self.unsupported = Some("a module with exception tags");
            }
            Payload::GlobalSection(globals) => {
                self.defined.global = globals.count();
                self.sections.globals = Some(globals);
            }
            Payload::ExportSection(exports) => self.exports(exports)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(elements) => self.sections.elements = Some(elements),
            Payload::CodeSectionStart { range, .. } => {
                let code = self.bytes.get(range.clone()).ok_or_else(|| invalid("code"))?;
                let reader = BinaryReader::new_features(code, range.start, FEATURES);
                self.sections.code = Some(CodeSectionReader::new(reader)?);
            }
            Payload::DataSection(data) => self.sections.data = Some(data),
            Payload::CustomSection(custom) => {
                if let KnownCustom::Name(names) = custom.as_known() {
                    self.sections.names = Some(names);
                }
            }
            Payload::Version { .. }
            | Payload::DataCountSection { .. }
            | Payload::CodeSectionEntry(_)
            | Payload::End(_) => {}
            _ => self.unsupported = Some("a module with an unknown section"),
        }
        Ok(())
    }

    fn types(&mut self, types: TypeSectionReader<'a>) -> Result<(), Unmerged> {
        for group in types {
            match plain_function(group?) {
                Some(ty) => self.types.push(ty),
                None => {
                    self.unsupported = Some("a module with other types than those of functions");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn imports(&mut self, imports: ImportSectionReader<'a>) -> Result<(), Unmerged> {
        for import in imports.into_imports() {
            let import = import?;
            let kind = Kind::of_import(&import.ty)?;
            if kind == Kind::Tag {
                self.unsupported = Some("a module with exception tags");
            }
            *self.imported.get_mut(kind) += 1;
            self.imports.push(import);
        }
        Ok(())
    }

    fn exports(&mut self, exports: ExportSectionReader<'a>) -> Result<(), Unmerged> {
        for export in exports {
            let export = export?;
            let item = (Kind::of_export(export.kind)?, export.index);
            self.exports.insert(export.name, item);
            self.export_names.entry(item).or_insert(export.name);
        }
        Ok(())
    }

    fn written(&mut self) -> Result<(), Unmerged> {
        let mut written = BTreeSet::new();
        for element in self.sections.elements.iter().cloned().flatten() {
            if let ElementKind::Active { table_index, .. } = element?.kind {
                written.insert((Kind::Table, table_index.unwrap_or(0)));
            }
        }
        for data in self.sections.data.iter().cloned().flatten() {
            if let DataKind::Active { memory_index, .. } = data?.kind {
                written.insert((Kind::Memory, memory_index));
            }
        }
        self.written = written.into_iter().collect();
        Ok(())
    }
}

/// The type if it is a function's that is equal to another one when it looks the same.
fn plain_function(group: RecGroup) -> Option<FuncType> {
    if group.is_explicit_rec_group() {
        return None;
    }
    let ty = group.into_types().next()?;
    let composite = ty.composite_type;
    let plain = ty.is_final
        && ty.supertype_idx.is_none()
        && !composite.shared
        && composite.descriptor_idx.is_none()
        && composite.describes_idx.is_none();
    let CompositeInnerType::Func(func) = composite.inner else { return None };
    let mut values = func.params().iter().chain(func.results());
    let concrete = values.any(|value| {
        value.as_reference_type().is_some_and(|reference| reference.type_index().is_some())
    });
    (plain && !concrete).then_some(func)
}
