//! What a container and its sandbox are told to be: the translation of a pod's specification into
//! CRI configurations.

pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod hostname;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod service_env;
