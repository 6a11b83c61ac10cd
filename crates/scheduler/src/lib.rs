//! The scheduler: queue, incremental snapshot, plugin framework.
