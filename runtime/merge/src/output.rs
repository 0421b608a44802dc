//! Puts the items of a component together into sections.

use wasm_encoder::{
    CanonicalFunctionSection, Component, ComponentAliasSection, ComponentSection,
    ComponentTypeSection, Encode, InstanceSection, RawSection,
};

/// The id of a section that is one core module.
const MODULE: u8 = 1;

/// A component in the making. Neighbours of one kind share a section.
#[derive(Default)]
pub(crate) struct Output<'a> {
    parts: Vec<Part<'a>>,
    open: Open,
}

enum Part<'a> {
    /// A section that is copied.
    Copied { id: u8, bytes: &'a [u8] },
    /// Whole sections, encoded.
    Encoded(Vec<u8>),
    /// The merged module, which is not there yet.
    Merged,
}

/// The section that is being filled.
#[derive(Default)]
enum Open {
    #[default]
    None,
    Raw {
        section: u8,
        count: u32,
        bytes: Vec<u8>,
    },
    Aliases(ComponentAliasSection),
    Instances(InstanceSection),
    Functions(CanonicalFunctionSection),
    Types(ComponentTypeSection),
}

macro_rules! section {
    ($name:ident, $variant:ident, $section:ty) => {
        pub(crate) fn $name<R>(&mut self, add: impl FnOnce(&mut $section) -> R) -> R {
            if let Open::$variant(section) = &mut self.open {
                return add(section);
            }
            self.close();
            let mut section = <$section>::new();
            let result = add(&mut section);
            self.open = Open::$variant(section);
            result
        }
    };
}

impl<'a> Output<'a> {
    section!(aliases, Aliases, ComponentAliasSection);
    section!(instances, Instances, InstanceSection);
    section!(functions, Functions, CanonicalFunctionSection);
    section!(types, Types, ComponentTypeSection);

    /// Adds an item as it is.
    pub(crate) fn raw(&mut self, section: u8, item: &[u8]) {
        if let Open::Raw { section: open, count, bytes } = &mut self.open
            && *open == section
        {
            *count += 1;
            bytes.extend_from_slice(item);
            return;
        }
        self.close();
        self.open = Open::Raw { section, count: 1, bytes: item.to_vec() };
    }

    /// Adds a section as it is.
    pub(crate) fn section(&mut self, id: u8, bytes: &'a [u8]) {
        self.close();
        self.parts.push(Part::Copied { id, bytes });
    }

    /// Adds a core module as it is.
    pub(crate) fn module(&mut self, bytes: &'a [u8]) {
        self.section(MODULE, bytes);
    }

    /// Adds the merged module.
    pub(crate) fn merged_module(&mut self) {
        self.close();
        self.parts.push(Part::Merged);
    }

    /// The component, now that the merged module is there.
    pub(crate) fn finish(mut self, merged: &[u8]) -> Vec<u8> {
        self.close();
        let mut component = Component::HEADER.to_vec();
        for part in &self.parts {
            match part {
                Part::Copied { id, bytes } => copied(*id, bytes, &mut component),
                Part::Encoded(bytes) => component.extend_from_slice(bytes),
                Part::Merged => copied(MODULE, merged, &mut component),
            }
        }
        component
    }

    fn close(&mut self) {
        let mut encoded = Vec::new();
        match std::mem::take(&mut self.open) {
            Open::None => return,
            Open::Raw { section, count, bytes } => {
                let mut data = Vec::new();
                count.encode(&mut data);
                data.extend_from_slice(&bytes);
                copied(section, &data, &mut encoded);
            }
            Open::Aliases(section) => section.append_to_component(&mut encoded),
            Open::Instances(section) => section.append_to_component(&mut encoded),
            Open::Functions(section) => section.append_to_component(&mut encoded),
            Open::Types(section) => section.append_to_component(&mut encoded),
        }
        self.parts.push(Part::Encoded(encoded));
    }
}

fn copied(id: u8, data: &[u8], output: &mut Vec<u8>) {
    RawSection { id, data }.append_to_component(output);
}
