//! One file for each resource: what its paths take and what they answer.

pub(crate) mod actions;
pub(crate) mod balloon;
pub(crate) mod configure;
pub(crate) mod console;
pub(crate) mod drives;
pub(crate) mod events;
pub(crate) mod instance;
pub(crate) mod logger;
pub(crate) mod machine_config;
pub(crate) mod metrics;
pub(crate) mod mmds;
pub(crate) mod network_interfaces;
pub(crate) mod snapshot;
pub(crate) mod version;
pub(crate) mod vm;
