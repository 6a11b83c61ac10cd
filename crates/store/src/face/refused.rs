//! Users, roles and passwords are not served: who reaches the socket, or shows a certificate, may do everything.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

#[derive(Clone)]
pub(super) struct Auth;

impl NamedService for Auth {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl<B> tower::Service<tonic::codegen::http::Request<B>> for Auth {
    type Response = tonic::codegen::http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::codegen::http::Request<B>) -> Self::Future {
        let status = Status::unimplemented(
            "users and roles are not served: access is by the owner of the unix socket, or by client certificate",
        );
        ready(Ok(status.into_http()))
    }
}
