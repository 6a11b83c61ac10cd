//! The server as a service for clients within the process: no socket, no TLS, the same rules.

use super::ApiServer;
use super::chain::Origin;
use crate::http::{Body, BoxError, Response};
use crate::user::{AUTHENTICATED, UserInfo};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Answers requests as made by one user. It can be had from [`ApiServer::local_service`] alone: nothing that comes over the
/// network can be taken for it.
#[derive(Clone, Debug)]
pub struct LocalService {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl LocalService {
    pub(super) fn new(server: Arc<ApiServer>, mut user: UserInfo) -> Self {
        if !user.in_group(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        LocalService { server, user: Arc::new(user) }
    }
}

impl<B> tower::Service<http::Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let (server, user) = (self.server.clone(), self.user.clone());
        Box::pin(async move { Ok(server.answer(request, Origin::Local(user)).await) })
    }
}
