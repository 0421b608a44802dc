//! How large the pool of instances is, and how the two engines are set up.
//!
//! Two engines, because support for the concurrency of WASI 0.3 costs every host call of 0.2
//! guests a task that they never use.

use super::{
    config::{EngineConfig, Isolation, Limits, Maxima},
    machine::Machine,
    residency::Capacity,
};
use crate::host::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES, Pressure};
use std::fmt;
use wasmtime::{
    Config, Enabled, Engine, ModuleVersionStrategy, OptLevel, PoolingAllocationConfig, Result,
    WasmBacktraceDetails,
};

/// The release of the engine: native code of another one is never loaded. A test holds it against
/// the lock file.
pub(crate) const ENGINE_RELEASE: &str = "48.0.8";

/// Raised when the same artifact shall become other native code with the same engine, as after a
/// change of how components are merged.
const CODE_VERSION: u32 = 1;

/// The most instances a derived pool has; a 47-bit address space holds about 30,000 slots.
const MAX_POOL: u64 = 4096;
/// Memory maps that an instance in use may need over both engines' pools: two for its stack in
/// each, four for its memory, the rest for tables.
const MAPS_PER_INSTANCE: u64 = 24;
/// Bytes of a memory that stay resident between two instances of a slot.
const KEEP_RESIDENT: usize = 1 << 20;
/// Bytes of a table that stay resident.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Memory a stack and an instance's own records may take, in bytes.
const OVERHEAD_PER_INSTANCE: u64 = 2 << 20;
/// Memory maps of a function whose code is loaded; it has one file descriptor, too.
const MAPS_PER_FUNCTION: u64 = 4;
/// Tables that the pool has for each place.
pub(super) const TABLES_PER_PLACE: u32 = 4;
/// Slots that may stay warm although nobody uses them: each may keep what a function wrote
/// resident, up to a mebibyte.
const WARM_SLOTS: u32 = 100;

/// Which of the two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flavor {
    /// Components of WASI 0.2 and modules of WASI 0.1.
    Sync,
    /// Components of WASI 0.3.
    Concurrent,
}

impl Flavor {
    /// What decides about native code, the same in the host and in the compile process.
    fn config(self, line_numbers: bool) -> Result<Config> {
        let mut config = Config::new();
        let concurrent = self == Self::Concurrent;
        config
            .wasm_component_model_async(concurrent)
            .concurrency_support(concurrent)
            .epoch_interruption(true)
            .max_wasm_stack(512 << 10)
            .async_stack_size(2 << 20)
            .memory_may_move(false)
            // Snapshots of whole interpreters stay copy-on-write up to this size.
            .memory_guaranteed_dense_image_size(128 << 20)
            .cranelift_opt_level(OptLevel::Speed)
            // Unwinding native frames is never needed.
            .native_unwind_info(false)
            // Without, a trap names functions by symbol.
            .generate_address_map(line_numbers)
            .debug_symbols(false)
            .wasm_backtrace_details(match line_numbers {
                true => WasmBacktraceDetails::Enable,
                false => WasmBacktraceDetails::Disable,
            })
            .module_version(ModuleVersionStrategy::Custom(format!(
                "faas-{ENGINE_RELEASE}-{CODE_VERSION}"
            )))?;
        Ok(config)
    }

    /// An engine that runs instances from a pool.
    pub(crate) fn engine(self, plan: &PoolPlan) -> Result<Engine> {
        let n = plan.instances;
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(n)
            // A number that is counted, and takes no room.
            .total_core_instances(n.saturating_mul(MAX_INSTANCES))
            // An instance with several memories takes as many places, and runs alone where there are
            // not as many.
            .total_memories(n.max(MAX_MEMORIES))
            .total_tables(n.max(MAX_MEMORIES).saturating_mul(TABLES_PER_PLACE))
            .total_stacks(n.saturating_add(n / 8))
            .max_unused_warm_slots(n.min(WARM_SLOTS))
            .max_memory_size(usize::try_from(plan.memory_limit).unwrap_or(usize::MAX))
            .table_elements(plan.table_elements)
            .max_core_instance_size(4 << 20)
            .max_component_instance_size(4 << 20)
            .max_core_instances_per_component(MAX_INSTANCES)
            .max_memories_per_component(MAX_MEMORIES)
            .max_tables_per_component(MAX_TABLES)
            .max_tables_per_module(8)
            .decommit_batch_size(1);
        if plan.page_map_reset {
            pool.linear_memory_keep_resident(KEEP_RESIDENT)
                .table_keep_resident(TABLE_KEEP_RESIDENT)
                .pagemap_scan(Enabled::Yes);
        }
        let mut config = self.config(plan.line_numbers)?;
        config.allocation_strategy(pool);
        Engine::new(&config)
    }

    /// An engine that only compiles.
    pub(crate) fn compiler(self, line_numbers: bool) -> Result<Engine> {
        Engine::new(&self.config(line_numbers)?)
    }
}

/// What the pool is made of, derived from the machine once, at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolPlan {
    /// The most instances at once.
    pub(crate) instances: u32,
    /// The most linear memory of one instance, in bytes.
    pub(crate) memory_limit: u64,
    /// The most elements of one table.
    pub(crate) table_elements: usize,
    /// The most linear memory of all instances together, in bytes.
    pub(crate) memory_budget: u64,
    /// What the node needs beside instances and their code at most, in bytes.
    pub(crate) beside: u64,
    /// What the node may use, in bytes.
    pub(crate) machine_memory: u64,
    /// Whether used slots are reset by page map.
    pub(crate) page_map_reset: bool,
    /// Whether native code tells lines of its source.
    pub(crate) line_numbers: bool,
    /// How much native code may be in memory.
    pub(crate) capacity: Capacity,
}

impl PoolPlan {
    /// The plan for this machine. `beside` is what the node needs beside instances and their code at
    /// most, in bytes: connections, logs, uploads.
    pub(crate) fn for_this_machine(
        config: &EngineConfig,
        limits: &Limits,
        maxima: &Maxima,
        beside: u64,
    ) -> Self {
        let plan = Self::derive(config, limits, &Machine::read(config), beside);
        let memory_limit = plan.memory_limit.max(maxima.memory_bytes);
        Self { memory_limit, ..plan }
    }

    fn derive(config: &EngineConfig, limits: &Limits, machine: &Machine, beside: u64) -> Self {
        // A sixth of the maps and half of the files, beside the pool's and the clients' share.
        let by_maps = machine.max_maps / 6 / MAPS_PER_FUNCTION;
        let functions = match config.loaded_functions {
            0 => by_maps.min(machine.max_files / 2).max(16),
            set => u64::from(set),
        };
        let capacity = Capacity {
            functions: usize::try_from(functions).unwrap_or(usize::MAX),
            bytes: match config.loaded_code_bytes {
                0 => machine.memory / 16,
                set => set,
            },
        };
        // The rest is the kernel's, for sockets and files.
        let spendable = machine.memory / 5 * 4;
        let left = spendable.saturating_sub(capacity.bytes.saturating_add(beside));
        let memory_budget = match config.memory_budget_bytes {
            0 => (machine.memory / 2).min(left / 4 * 3),
            set => set,
        };
        let by_maps = machine.max_maps.saturating_mul(3) / 4 / MAPS_PER_INSTANCE;
        let by_memory = left.saturating_sub(memory_budget) / OVERHEAD_PER_INSTANCE;
        let wish = match config.pool_size {
            0 => by_maps.min(MAX_POOL),
            set => u64::from(set),
        };
        let instances = u32::try_from(wish.min(by_memory).max(1)).unwrap_or(1);
        Self {
            instances,
            memory_limit: limits.memory_bytes,
            table_elements: limits.table_elements,
            memory_budget,
            beside,
            machine_memory: machine.memory,
            // The page map does not show a page that was swapped out as written, so with swap a
            // used slot could keep what its last guest wrote there.
            page_map_reset: config.isolation == Isolation::Fast
                && machine.page_map_scan
                && !machine.swap,
            line_numbers: config.line_numbers,
            capacity,
        }
    }

    /// The most memory that the node can take in all, in bytes.
    pub(crate) fn worst_case(&self) -> u64 {
        let slots = u64::from(self.instances);
        let memories = slots.saturating_mul(self.memory_limit).min(self.memory_budget);
        let instances = memories.saturating_add(slots.saturating_mul(OVERHEAD_PER_INSTANCE));
        instances.saturating_add(self.capacity.bytes).saturating_add(self.beside)
    }

    /// How much it matters that the node uses so much memory.
    pub(super) fn pressure(&self, used: u64) -> Pressure {
        let twentieth = self.machine_memory / 20;
        match used {
            used if used > twentieth.saturating_mul(18) => Pressure::Critical,
            used if used > twentieth.saturating_mul(17) => Pressure::High,
            _ => Pressure::None,
        }
    }

    /// What the operator should know of it, if anything.
    pub(crate) fn warning(&self, config: &EngineConfig) -> Option<String> {
        let mib = |bytes: u64| bytes >> 20;
        if self.worst_case() > self.machine_memory / 5 * 4 {
            return Some(format!(
                "the node may need {} MiB and has {} MiB: it may be killed. Lower \
                 `engine.memory_budget_bytes` or `engine.loaded_code_bytes`",
                mib(self.worst_case()),
                mib(self.machine_memory)
            ));
        }
        (self.instances < config.pool_size).then(|| {
            format!(
                "`engine.pool_size` is {}, and the memory of this machine is enough for {}",
                config.pool_size, self.instances
            )
        })
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{} instances · {} MiB each at most · page-map reset {} · worst case {:.1} of {:.1} GiB",
            self.instances,
            self.memory_limit >> 20,
            if self.page_map_reset { "on" } else { "off" },
            gib(self.worst_case()),
            gib(self.machine_memory),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let (memory, max_maps, max_files) = (24 << 30, 65_530, 20_000);
        Machine { memory, max_maps, max_files, page_map_scan: true, swap: false }
    }

    const BESIDE: u64 = 128 << 20;

    fn plan(machine: &Machine) -> PoolPlan {
        PoolPlan::derive(&EngineConfig::default(), &Limits::default(), machine, BESIDE)
    }

    fn with(config: &EngineConfig, memory: u64) -> PoolPlan {
        PoolPlan::derive(config, &Limits::default(), &Machine { memory, ..machine() }, BESIDE)
    }

    #[test]
    fn the_pool_fits_the_machine() {
        let config = EngineConfig::default();
        assert_eq!(plan(&machine()).instances, 2047);
        for (mib, instances) in [(256, 7), (512, 31), (1024, 78), (4096, 422), (1 << 20, 2047)] {
            let plan = with(&config, mib << 20);
            assert_eq!(plan.instances, instances, "{mib} MiB");
            assert!(plan.worst_case() <= plan.machine_memory / 5 * 4, "{mib} MiB");
            assert_eq!(plan.warning(&config), None);
        }
    }

    #[test]
    fn a_pool_that_does_not_fit_is_made_smaller() {
        let config = EngineConfig { pool_size: 1000, ..EngineConfig::default() };
        assert_eq!(with(&config, 24 << 30).instances, 1000);
        let small = with(&config, 1 << 30);
        assert_eq!(small.instances, 78);
        assert!(small.warning(&config).unwrap().contains("enough for 78"));
        let greedy = EngineConfig { memory_budget_bytes: 2 << 30, ..config };
        let plan = with(&greedy, 1 << 30);
        assert_eq!(plan.instances, 1);
        assert!(plan.warning(&greedy).unwrap().contains("enough for 1"));
    }

    #[test]
    fn swap_turns_page_map_reset_off() {
        assert!(plan(&machine()).page_map_reset);
        assert!(!plan(&Machine { swap: true, ..machine() }).page_map_reset);
        assert!(!plan(&Machine { page_map_scan: false, ..machine() }).page_map_reset);
        let strict = EngineConfig { isolation: Isolation::Strict, ..EngineConfig::default() };
        assert!(!PoolPlan::derive(&strict, &Limits::default(), &machine(), BESIDE).page_map_reset);
    }

    #[test]
    fn the_compile_process_makes_code_for_the_pool() {
        let plan = PoolPlan { instances: 2, ..plan(&machine()) };
        for flavor in [Flavor::Sync, Flavor::Concurrent] {
            let code =
                flavor.compiler(false).unwrap().precompile_module(b"\0asm\x01\0\0\0").unwrap();
            let engine = flavor.engine(&plan).unwrap();
            #[expect(unsafe_code, reason = "the code was made one line above")]
            let loaded = unsafe { wasmtime::Module::deserialize(&engine, code) };
            assert!(loaded.is_ok(), "{flavor:?}: {:?}", loaded.err());
        }
    }
}
