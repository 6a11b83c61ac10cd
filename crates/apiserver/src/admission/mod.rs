//! What may be written: plugins that change objects on their way in, and plugins that refuse them.
//!
//! Mutating plugins run after defaulting and before the strategy; validating ones after the strategy's validation, on what
//! is about to be stored. Both run again when a write is tried again against a newer object.

mod always;
pub mod certificates;
mod classes;
pub mod config;
pub mod devices;
pub mod event_rate;
mod limit_ranger;
pub mod namespace;
mod node_restriction;
mod owners;
pub mod placement;
pub mod plugins;
mod pod_groups;
pub mod pod_security;
mod priority;
mod protection;
pub mod quota;
mod service_account;
mod services;
mod token_audience;
mod toleration_restriction;
mod tolerations;
mod topology;
pub(crate) mod walk;

use crate::context::Context;
use crate::measure::Tells;
use crate::options::Options;
use api::Status;
use async_trait::async_trait;
use schema::{Map, Resource};
use std::sync::Arc;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// Exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// `CREATE`, as webhooks and policies spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Which sides a plugin has, as upstream's of its name: the others are not asked, nor measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    Admits,
    Validates,
    Both,
}

impl Sides {
    pub const fn admits(self) -> bool {
        matches!(self, Sides::Admits | Sides::Both)
    }
    pub const fn validates(self) -> bool {
        matches!(self, Sides::Validates | Sides::Both)
    }
}

/// What a plugin is asked about.
#[derive(Debug)]
pub struct Attributes<'a> {
    pub operation: Operation,
    /// The row of the request.
    pub resource: &'a Arc<Resource>,
    /// Empty: the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty when a create leaves the name to `generateName`.
    pub name: &'a str,
    /// User, warnings, audit annotations.
    pub cx: &'a Context,
    pub dry_run: bool,
    /// What is about to be stored, in the version that is stored; empty for a delete; for a connect, its options;
    /// for a create through a subresource (binding, eviction, token), what that takes.
    pub object: &'a mut Map,
    /// What is stored now, for an update or delete.
    pub old: Option<&'a Map>,
    /// The query's options: `fieldManager`, `propagationPolicy` and so on.
    pub options: &'a Options,
}

impl Attributes<'_> {
    /// Whether it is about a resource of this name and group itself, not its subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.resource.plural == plural && self.resource.group == group
    }
    /// Whether it is about this subresource of a resource.
    pub fn is_subresource(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.subresource == subresource && self.resource.plural == plural && self.resource.group == group
    }
    /// 403 with a plugin's reason, as upstream words it.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let resource = api::GroupResource::new(self.resource.group.clone(), self.resource.plural.clone());
        // Mutating plugins are asked before a name is made of `generateName`.
        let said = |key| self.object.str_at(&["metadata", key]);
        let names = [self.name, said("name"), said("generateName"), "Unknown"];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Status::forbidden(&resource, name, why)
    }
}

/// A plugin. Upstream's order of plugins is the order they are given to the server in.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Upstream's name: `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    fn handles(&self, operation: Operation) -> bool;

    /// The sides that it has.
    fn sides(&self) -> Sides;

    /// Whether upstream has it as a plugin. What it asks elsewhere, in front of a storage or in a strategy, is not measured.
    fn is_a_plugin(&self) -> bool {
        true
    }

    /// What it counts itself, if it does.
    fn tells(&self) -> Option<Arc<dyn Tells>> {
        None
    }

    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The refusal, as the client gets it.
    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let _ = attributes;
        Ok(())
    }

    /// Refuses what is about to be stored. It must not change it.
    ///
    /// # Errors
    /// The refusal, as the client gets it.
    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let _ = attributes;
        Ok(())
    }
}

/// The plugins that are on, in their order.
#[derive(Clone, Default)]
pub struct Chain(pub Vec<Arc<dyn Admission>>);

impl Chain {
    /// Runs the mutating side of every plugin that handles the operation.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.0 {
            if plugin.sides().admits() && plugin.handles(attributes.operation) {
                plugin.admit(attributes).await?;
            }
        }
        Ok(())
    }

    /// Runs the validating side of every plugin that handles the operation.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.0 {
            if plugin.sides().validates() && plugin.handles(attributes.operation) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|p| p.name())).finish()
    }
}
