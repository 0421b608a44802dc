//! Writes the merged module.

use crate::{
    constant::{Constant, Folded, Globals},
    error::Unmerged,
    link::{Link, Member},
    space::{Kind, index},
};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType,
    ExportSection, Function, FunctionSection, GlobalSection, ImportSection, MemorySection, Module,
    NameMap, NameSection, StartSection, TableSection, TypeSection,
    reencode::{Error, Reencode},
};
use wasmparser::{FuncType, Name, TableInit};

/// The module that members import from, under numbers.
pub(crate) const IMPORTS: &str = "";

/// An export of the merged module; its name is its number.
pub(crate) type Export = (Kind, u32);

/// Writes the module that has all of the members.
pub(crate) fn module(link: &Link<'_, '_>, exports: &[Export]) -> Result<Vec<u8>, Unmerged> {
    let start = Start::of(link)?;
    let globals = Encoded::globals(link)?;
    let mut module = Module::new();
    module.section(&types(link, start.extra_type())?);
    if !link.imports.is_empty() {
        module.section(&imports(link));
    }
    module.section(&functions(link, &start)?);
    let tables = tables(link, &globals.values)?;
    if !tables.is_empty() {
        module.section(&tables);
    }
    let memories = memories(link)?;
    if !memories.is_empty() {
        module.section(&memories);
    }
    if !globals.section.is_empty() {
        module.section(&globals.section);
    }
    module.section(&exported(exports));
    if let Some(function_index) = start.function(link)? {
        module.section(&StartSection { function_index });
    }
    segments_and_code(link, &globals.values, &start, &mut module)?;
    module.section(&names(link)?);
    Ok(module.finish())
}

/// The start functions of the members.
struct Start {
    functions: Vec<u32>,
    /// The type of a function that calls them all, where there are several.
    ty: Option<u32>,
}

impl Start {
    fn of(link: &Link<'_, '_>) -> Result<Self, Unmerged> {
        let mut functions = Vec::new();
        for member in &link.members {
            if let Some(start) = member.shape.start {
                functions.push(member.map(Kind::Func, start)?);
            }
        }
        let several = functions.len() > 1;
        let ty = if several { Some(index(link.types.list.len())?) } else { None };
        Ok(Self { functions, ty })
    }

    fn extra_type(&self) -> Option<FuncType> {
        self.ty.map(|_| FuncType::new([], []))
    }

    /// The start function of the merged module.
    fn function(&self, link: &Link<'_, '_>) -> Result<Option<u32>, Unmerged> {
        // Defined behind all others.
        if self.ty.is_some() {
            Ok(Some(link.total.func))
        } else {
            Ok(self.functions.first().copied())
        }
    }

    fn body(&self) -> Option<Function> {
        self.ty?;
        let mut body = Function::new([]);
        let mut instructions = body.instructions();
        for function in &self.functions {
            instructions.call(*function);
        }
        instructions.end();
        Some(body)
    }
}

fn types(link: &Link<'_, '_>, extra: Option<FuncType>) -> Result<TypeSection, Unmerged> {
    let mut types = TypeSection::new();
    let mut plain = Plain;
    for ty in link.types.list.iter().copied().chain(extra.as_ref()) {
        let ty = plain.func_type(ty.clone())?;
        types.ty().func_type(&ty);
    }
    Ok(types)
}

/// For types that refer to no other ones.
struct Plain;

impl Reencode for Plain {
    type Error = Unmerged;
}

fn imports(link: &Link<'_, '_>) -> ImportSection {
    let mut imports = ImportSection::new();
    for (number, (_, ty)) in link.imports.iter().enumerate() {
        imports.import(IMPORTS, &number.to_string(), *ty);
    }
    imports
}

fn functions(link: &Link<'_, '_>, start: &Start) -> Result<FunctionSection, Unmerged> {
    let mut functions = FunctionSection::new();
    for member in &link.members {
        for ty in member.shape.sections.functions.iter().cloned().flatten() {
            functions.function(member.map_type(ty?)?);
        }
    }
    if let Some(ty) = start.ty {
        functions.function(ty);
    }
    Ok(functions)
}

fn tables(link: &Link<'_, '_>, globals: &Globals) -> Result<TableSection, Unmerged> {
    let mut tables = TableSection::new();
    for member in &link.members {
        let mut remap = Remap { member, globals };
        for table in member.shape.sections.tables.iter().cloned().flatten() {
            let table = table?;
            let ty = remap.table_type(table.ty)?;
            match table.init {
                TableInit::RefNull => tables.table(ty),
                TableInit::Expr(value) => tables.table_with_init(ty, &remap.const_expr(value)?),
            };
        }
    }
    Ok(tables)
}

fn memories(link: &Link<'_, '_>) -> Result<MemorySection, Unmerged> {
    let mut memories = MemorySection::new();
    for member in &link.members {
        for memory in member.shape.sections.memories.iter().cloned().flatten() {
            memories.memory(memory?.into());
        }
    }
    Ok(memories)
}

/// The globals, and what is known of their values.
struct Encoded {
    section: GlobalSection,
    values: Vec<Option<Constant>>,
}

impl Encoded {
    fn globals(link: &Link<'_, '_>) -> Result<Self, Unmerged> {
        let mut values = Vec::new();
        for (_, ty) in &link.imports {
            if let EntityType::Global(ty) = ty {
                let itself = Constant::Global(index(values.len())?);
                values.push((!ty.mutable).then_some(itself));
            }
        }
        let mut section = GlobalSection::new();
        for member in &link.members {
            for global in member.shape.sections.globals.iter().cloned().flatten() {
                let global = global?;
                let value = Folded::read(&global.init_expr, member, &values)?;
                let ty = Remap { member, globals: &values }.global_type(global.ty)?;
                section.global(ty, &value.encode());
                values.push(value.constant().filter(|_| !ty.mutable));
            }
        }
        Ok(Self { section, values })
    }
}

fn exported(exports: &[Export]) -> ExportSection {
    let mut section = ExportSection::new();
    for (number, (kind, index)) in exports.iter().enumerate() {
        section.export(&number.to_string(), kind.encoded(), *index);
    }
    section
}

fn segments_and_code(
    link: &Link<'_, '_>,
    globals: &Globals,
    start: &Start,
    module: &mut Module,
) -> Result<(), Unmerged> {
    let mut elements = ElementSection::new();
    let mut data = DataSection::new();
    let mut code = CodeSection::new();
    for member in &link.members {
        let mut remap = Remap { member, globals };
        let sections = &member.shape.sections;
        if let Some(section) = sections.elements.clone() {
            remap.parse_element_section(&mut elements, section)?;
        }
        if let Some(section) = sections.code.clone() {
            remap.parse_code_section(&mut code, section)?;
        }
        if let Some(section) = sections.data.clone() {
            remap.parse_data_section(&mut data, section)?;
        }
    }
    if let Some(body) = start.body() {
        code.function(&body);
    }
    if !elements.is_empty() {
        module.section(&elements);
    }
    if !data.is_empty() {
        module.section(&DataCountSection { count: data.len() });
    }
    module.section(&code);
    if !data.is_empty() {
        module.section(&data);
    }
    Ok(())
}

/// The names of the functions: traps are reported by them.
fn names(link: &Link<'_, '_>) -> Result<NameSection, Unmerged> {
    let mut named = Vec::new();
    for member in &link.members {
        let functions = member_names(member).unwrap_or_default();
        let imported = member.shape.imported.func;
        for (function, name) in functions {
            // Those of imports are names that the importer has for functions of others.
            if function >= imported && function - imported < member.shape.defined.func {
                named.push((member.map(Kind::Func, function)?, name));
            }
        }
    }
    named.sort_by_key(|(function, _)| *function);
    named.dedup_by_key(|(function, _)| *function);
    let mut map = NameMap::new();
    for (function, name) in named {
        map.append(function, name);
    }
    let mut names = NameSection::new();
    names.functions(&map);
    Ok(names)
}

/// The names in a member. A section of names may be damaged, which harms nothing else.
fn member_names<'a>(member: &Member<'_, 'a>) -> Result<Vec<(u32, &'a str)>, wasmparser::Error> {
    let mut named = Vec::new();
    for subsection in member.shape.sections.names.iter().cloned().flatten() {
        if let Name::Function(functions) = subsection? {
            for naming in functions {
                let naming = naming?;
                named.push((naming.index, naming.name));
            }
        }
    }
    Ok(named)
}

/// Replaces the indices of a member by those of the merged module.
struct Remap<'m, 'g, 'a> {
    member: &'m Member<'g, 'a>,
    globals: &'m Globals,
}

type Mapped = Result<u32, Error<Unmerged>>;

impl Reencode for Remap<'_, '_, '_> {
    type Error = Unmerged;

    fn function_index(&mut self, func: u32) -> Mapped {
        Ok(self.member.map(Kind::Func, func)?)
    }

    fn table_index(&mut self, table: u32) -> Mapped {
        Ok(self.member.map(Kind::Table, table)?)
    }

    fn memory_index(&mut self, memory: u32) -> Mapped {
        Ok(self.member.map(Kind::Memory, memory)?)
    }

    fn global_index(&mut self, global: u32) -> Mapped {
        Ok(self.member.map(Kind::Global, global)?)
    }

    fn tag_index(&mut self, _tag: u32) -> Mapped {
        Err(Unmerged::Unsupported("a module with exception tags").into())
    }

    fn type_index(&mut self, ty: u32) -> Mapped {
        Ok(self.member.map_type(ty)?)
    }

    fn element_index(&mut self, element: u32) -> Mapped {
        offset(self.member.elements, element)
    }

    fn data_index(&mut self, data: u32) -> Mapped {
        offset(self.member.data, data)
    }

    fn const_expr(
        &mut self,
        expression: wasmparser::ConstExpr<'_>,
    ) -> Result<ConstExpr, Error<Unmerged>> {
        Ok(Folded::read(&expression, self.member, self.globals)?.encode())
    }
}

fn offset(base: u32, index: u32) -> Mapped {
    let sum = base.checked_add(index);
    sum.ok_or_else(|| Unmerged::Unsupported("so large a component").into())
}
