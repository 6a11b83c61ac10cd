//! The escape hatch for what is asked of one object but is not the object: scale, binding, eviction, token, exec, log….

use super::Served;
use crate::context::Context;
use crate::http::{Body, Request, Response};
use crate::options::Options;
use api::{GroupResource, Status};
use async_trait::async_trait;
use schema::Map;
use std::sync::Arc;

/// Which subresource of which object.
#[derive(Clone, Debug)]
pub struct Target {
    pub served: Arc<Served>,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource in the path (`/proxy/a/b`: `a/b`), as the client wrote it.
    pub rest: String,
}

impl Target {
    /// 405 for a verb that it does not take.
    pub fn unsupported(&self, verb: &str) -> Status {
        let plural = format!("{}/{}", self.served.resource.plural, self.subresource);
        Status::method_not_supported(&GroupResource::new(self.served.resource.group.clone(), plural), verb)
    }
}

/// A subresource. Which verbs it takes is said by its row; only those reach it.
///
/// A *lens* ([`Subresource::read`], [`Subresource::write`]) shows the object in another shape: get, update, patch and apply
/// on it are then the registry's own, against the object. Subresources that are the object itself under other rules
/// (status, approval, ephemeralcontainers…) need none of this: they are the strategy's
/// [`prepare_for_update`](crate::strategy::Strategy::prepare_for_update) with their name.
#[async_trait]
pub trait Subresource: Send + Sync + 'static {
    /// Lens: the object as the subresource shows it.
    ///
    /// # Errors
    /// Why it can't be shown.
    fn read(&self, target: &Target, object: &Map) -> Result<Map, Status> {
        let _ = object;
        Err(target.unsupported("get"))
    }

    /// Lens: brings a changed subresource into the object.
    ///
    /// # Errors
    /// Why it is refused.
    fn write(&self, target: &Target, object: &mut Map, changed: Map) -> Result<(), Status> {
        let _ = (object, changed);
        Err(target.unsupported("update"))
    }

    /// Lens: the path of the one field that it shows and writes, and the version it is shown in, so that who applies through
    /// it owns that field of the object.
    fn window(&self) -> Option<(&'static [&'static str], &'static str)> {
        None
    }

    /// POST of what the row says it takes, decoded, defaulted and through mutating and validating admission (as a create of
    /// the subresource). What it returns is answered with 201, or with the code of a `Status`.
    ///
    /// # Errors
    /// The refusal.
    async fn create(&self, cx: &Context, target: &Target, object: Map, options: &Options) -> Result<Map, Status> {
        let _ = (cx, object, options);
        Err(target.unsupported("create"))
    }

    /// Whether requests are streams of their own: then every method comes to [`Subresource::connect`].
    fn connects(&self) -> bool {
        false
    }

    /// Takes the request over: exec, attach, port-forward, log, proxy. Authorization is done; admission is the
    /// implementation's to call, through [`Registry::admit_connect`](super::Registry::admit_connect), where upstream does.
    ///
    /// # Errors
    /// The refusal, while nothing is sent.
    async fn connect(&self, cx: &Context, target: &Target, request: Request) -> Result<Response<Body>, Status> {
        let _ = (cx, request);
        Err(target.unsupported("connect"))
    }
}
