//! A program whose native code is loaded and linked: all that can be done before a request is.

use super::{
    cache::{CacheMiss, CodeCache},
    pool::{Flavor, PoolPlan, TABLES_PER_PLACE},
};
use crate::host::{self, HostState, ModuleState};
use faas_api::{Digest, Kind};
use std::{fs, io, path::Path};
use wasmtime::{
    Engine, InstancePre, Linker as ModuleLinker, ResourcesRequired, Result,
    component::{Component, Linker},
};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::{p2::bindings::ProxyPre, p3::bindings::ServicePre};

/// Bytes of a page of linear memory.
const WASM_PAGE: u64 = 64 << 10;

/// A program that can be instantiated.
pub(super) enum Prepared {
    /// A component that speaks `wasi:http` 0.3.
    Http03(ServicePre<HostState>),
    /// A component that speaks `wasi:http` 0.2.
    Http02(ProxyPre<HostState>),
    /// A component that is called as CGI.
    Cgi02(CommandPre<HostState>),
    /// A core module that is called as CGI.
    Cgi01(InstancePre<ModuleState>),
}

impl Prepared {
    /// The engine it is for.
    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::Http03(pre) => pre.engine(),
            Self::Http02(pre) => pre.engine(),
            Self::Cgi02(pre) => pre.engine(),
            Self::Cgi01(pre) => pre.module().engine(),
        }
    }

    /// How many places an instance takes in the pool: one for each of its memories, and for as many
    /// tables as the pool has for each place. So whoever has a place has all that belongs to it.
    pub(super) fn places(&self) -> u32 {
        let required = match self {
            Self::Http03(pre) => pre.instance_pre().component().resources_required(),
            Self::Http02(pre) => pre.instance_pre().component().resources_required(),
            Self::Cgi02(pre) => pre.instance_pre().component().resources_required(),
            Self::Cgi01(pre) => Some(pre.module().resources_required()),
        };
        // Not known only of components that instantiate others they import, which nothing offers.
        let tables = required.as_ref().map_or(0, |required| required.num_tables);
        let memories = required.map_or(0, |required| required.num_memories);
        memories.max(tables.div_ceil(TABLES_PER_PLACE)).max(1)
    }

    /// The size of its mapped native code, in bytes.
    pub(super) fn image_bytes(&self) -> u64 {
        let range = match self {
            Self::Http03(pre) => pre.instance_pre().component().image_range(),
            Self::Http02(pre) => pre.instance_pre().component().image_range(),
            Self::Cgi02(pre) => pre.instance_pre().component().image_range(),
            Self::Cgi01(pre) => pre.module().image_range(),
        };
        (range.end as u64).saturating_sub(range.start as u64)
    }
}

/// One of the two engines with its linker and its native code.
struct Side {
    engine: Engine,
    linker: Linker<HostState>,
    cache: CodeCache,
}

/// Both engines.
pub(super) struct Engines {
    sync: Side,
    concurrent: Side,
    modules: ModuleLinker<ModuleState>,
    memory_limit: u64,
    /// Whether used slots are reset by page map.
    pub(super) page_map_reset: bool,
}

/// Why a program cannot be prepared.
#[derive(Debug)]
pub(super) enum PrepareError {
    /// Its native code is not there, or was refused; it must be compiled.
    Miss(CacheMiss),
    /// It does not fit this host; the text says why.
    Refused(String),
}

/// Which engine runs a kind, and whether it is a component.
pub(super) fn engine_of(kind: Kind) -> (Flavor, bool) {
    match kind {
        Kind::Http03 => (Flavor::Concurrent, true),
        Kind::Http02 | Kind::Cgi02 => (Flavor::Sync, true),
        Kind::Cgi01 => (Flavor::Sync, false),
    }
}

impl Engines {
    /// Makes both engines and all linkers.
    pub(super) fn new(plan: &PoolPlan, cache_root: &Path, key: [u8; 32]) -> Result<Self> {
        let side = |flavor: Flavor, link: fn(&mut Linker<HostState>) -> Result<()>| {
            let engine = flavor.engine(plan)?;
            let mut linker = Linker::new(&engine);
            link(&mut linker)?;
            let cache = CodeCache::open(cache_root, &engine, key)
                .map_err(|error: io::Error| wasmtime::format_err!("cache folder: {error}"))?;
            wasmtime::error::Ok(Side { engine, linker, cache })
        };
        let sync = side(Flavor::Sync, host::link_02)?;
        let concurrent = side(Flavor::Concurrent, host::link_03)?;
        let mut modules = ModuleLinker::new(&sync.engine);
        host::link_01(&mut modules)?;
        let PoolPlan { memory_limit, page_map_reset, .. } = *plan;
        Ok(Self { sync, concurrent, modules, memory_limit, page_map_reset })
    }

    /// Both engines, for whoever ticks them.
    pub(super) fn both(&self) -> [Engine; 2] {
        [self.sync.engine.clone(), self.concurrent.engine.clone()]
    }

    /// Where native code of a kind is kept.
    pub(super) fn cache(&self, kind: Kind) -> &CodeCache {
        &self.side(kind).cache
    }

    /// Removes native code, whichever engine it is for.
    pub(super) fn forget(&self, digest: &Digest) {
        self.sync.cache.remove(digest);
        self.concurrent.cache.remove(digest);
    }

    /// Removes native code below `root` that is for neither of them. Returns for how many engines.
    pub(super) fn forget_others(&self, root: &Path) -> io::Result<usize> {
        let mut forgotten = 0;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let ours = [&self.sync, &self.concurrent];
            if ours.iter().all(|side| side.cache.dir() != entry.path())
                && entry.file_type()?.is_dir()
            {
                fs::remove_dir_all(entry.path())?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    fn side(&self, kind: Kind) -> &Side {
        match engine_of(kind).0 {
            Flavor::Sync => &self.sync,
            Flavor::Concurrent => &self.concurrent,
        }
    }

    /// Loads and links. Blocks on files.
    pub(super) fn prepare(&self, digest: &Digest, kind: Kind) -> Result<Prepared, PrepareError> {
        let Side { engine, linker, cache } = self.side(kind);
        if kind == Kind::Cgi01 {
            let module = cache.module(engine, digest).map_err(PrepareError::Miss)?;
            self.check_memory(&module.resources_required())?;
            let pre = self.modules.instantiate_pre(&module).map_err(refused)?;
            return Ok(Prepared::Cgi01(pre));
        }
        let component: Component = cache.component(engine, digest).map_err(PrepareError::Miss)?;
        if let Some(required) = component.resources_required() {
            self.check_memory(&required)?;
        }
        let pre = linker.instantiate_pre(&component).map_err(refused)?;
        Ok(match kind {
            Kind::Http03 => Prepared::Http03(ServicePre::new(pre).map_err(refused)?),
            Kind::Http02 => Prepared::Http02(ProxyPre::new(pre).map_err(refused)?),
            Kind::Cgi02 | Kind::Cgi01 => Prepared::Cgi02(CommandPre::new(pre).map_err(refused)?),
        })
    }

    /// Better at the deploy than at the first request.
    fn check_memory(&self, required: &ResourcesRequired) -> Result<(), PrepareError> {
        let initial = required.max_initial_memory_size.unwrap_or(0).saturating_mul(WASM_PAGE);
        if initial <= self.memory_limit {
            return Ok(());
        }
        Err(PrepareError::Refused(format!(
            "it starts with {} MiB of memory; limit `memory_bytes` is {} MiB",
            initial >> 20,
            self.memory_limit >> 20
        )))
    }
}

fn refused(error: wasmtime::Error) -> PrepareError {
    PrepareError::Refused(format!("{error:#}"))
}
