//! The escape hatch for what must be unique beyond one object: cluster IPs, node ports.

use super::Served;
use crate::context::Context;
use api::Status;
use async_trait::async_trait;
use schema::Map;
use std::sync::Arc;

/// What a write of an object takes along: conditions and operations of the same transaction, so that a refused or abandoned
/// write leaves nothing behind and several servers on one store agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub compares: Vec<store::Compare>,
    pub ops: Vec<store::Op>,
}

impl Side {
    pub fn is_empty(&self) -> bool {
        self.compares.is_empty() && self.ops.is_empty()
    }
}

/// Gives objects of one resource what must be unique. Set by the resource it works for.
#[async_trait]
pub trait Allocator: Send + Sync + 'static {
    /// Fills in what a created (`old` is none) or updated object needs, before validation, and says what must be written with
    /// it. It is asked again, with an object as it was before, when a compare of its [`Side`] did not hold.
    ///
    /// `served` is the resource that is written; `dry_run` writes nothing, whatever is returned.
    ///
    /// # Errors
    /// The refusal (a range is full, an address is taken).
    async fn allocate(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        object: &mut Map,
        old: Option<&Map>,
        dry_run: bool,
    ) -> Result<Side, Status>;

    /// What must be written together with the removal of an object. Asked again when a compare did not hold.
    ///
    /// # Errors
    /// When it can't be told; the removal then fails.
    async fn release(&self, cx: &Context, served: &Arc<Served>, object: &Map) -> Result<Side, Status>;
}
