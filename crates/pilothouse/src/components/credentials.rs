//! Clients under the names of service accounts: each has its own short-lived token, asked for when it is first needed and
//! again before it ends, so that every controller has its own rights and no more.

use super::client::Connections;
use anyhow::{Context, Result};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ObjectMeta, PostParams};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Api, Client, Config};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tower::{BoxError, Layer, Service};

const NAMESPACE: &str = "kube-system";
const LIFE: Duration = Duration::from_secs(3600);
/// A token is replaced after this part of its life.
const RENEW: f64 = 0.8;

/// Makes clients of service accounts of `kube-system`.
#[derive(Clone)]
pub struct Accounts {
    connections: Connections,
    config: Config,
    /// Who asks for their tokens.
    manager: Client,
    agent: &'static str,
}

impl Accounts {
    /// `connections` must carry no credentials of their own.
    pub fn new(connections: Connections, config: &Config, manager: Client, agent: &'static str) -> Self {
        Accounts { connections, config: config.clone(), manager, agent }
    }

    /// A client that acts as the account.
    pub fn client(&self, name: &str) -> Result<Client> {
        let mut config = self.config.clone();
        config.headers = vec![(http::header::USER_AGENT, HeaderValue::from_static(self.agent))];
        config.auth_info = kube::config::AuthInfo::default();
        let source =
            Arc::new(Source { manager: self.manager.clone(), account: name.to_owned(), token: Mutex::default() });
        let service = config.extra_headers_layer().context("headers")?.layer(self.connections.clone());
        let service = config.base_uri_layer().layer(WithToken { inner: service, source });
        Ok(ClientBuilder::new(service, NAMESPACE).build())
    }
}

/// The token of one account.
struct Source {
    manager: Client,
    account: String,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Source {
    async fn header(&self) -> Result<HeaderValue, kube::Error> {
        let mut token = self.token.lock().await;
        if let Some((header, _)) = token.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return Ok(header.clone());
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.manager.clone(), NAMESPACE);
        let life = i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(life), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let ask = || accounts.create_token_request(&self.account, &params, &request);
        let answer = match ask().await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let account = ServiceAccount {
                    metadata: ObjectMeta { name: Some(self.account.clone()), ..ObjectMeta::default() },
                    ..ServiceAccount::default()
                };
                match accounts.create(&params, &account).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(e) => return Err(e),
                }
                ask().await?
            }
            other => other?,
        };
        let status = answer.status.unwrap_or_default();
        let token_text = status.token.unwrap_or_default();
        let mut header = HeaderValue::try_from(format!("Bearer {token_text}"))
            .map_err(|e| kube::Error::Service(format!("the token of {}: {e}", self.account).into()))?;
        header.set_sensitive(true);
        // The server may give less than was asked for.
        let given = status.expiration_timestamp.map(|until| until.0.duration_since(jiff::Timestamp::now()));
        let life = given.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default().min(LIFE);
        *token = Some((header.clone(), Instant::now() + life.mul_f64(RENEW)));
        Ok(header)
    }
}

/// Puts the account's token on every request.
#[derive(Clone)]
struct WithToken<S> {
    inner: S,
    source: Arc<Source>,
}

impl<S> Service<http::Request<Body>> for WithToken<S>
where
    S: Service<http::Request<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that was polled ready is used; its clone is for the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let source = self.source.clone();
        Box::pin(async move {
            let header = source.header().await?;
            request.headers_mut().insert(AUTHORIZATION, header);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
