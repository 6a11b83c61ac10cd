//! TokenReview and SelfSubjectReview: who is somebody?

use super::{EMPTY, list_value, metadata_errors, no_namespace, strings, user_map};
use crate::authn::tokens::TokenAuthenticator;
use crate::context::Context;
use crate::options::Options;
use crate::registry::{Served, Virtual};
use api::{GroupKind, Status};
use async_trait::async_trait;
use schema::Map;
use std::sync::Arc;

/// Whom a token proves its holder to be.
pub struct TokenReview {
    pub tokens: Arc<dyn TokenAuthenticator>,
    /// Assumed where the review names no audience.
    pub audiences: Vec<String>,
}

#[async_trait]
impl Virtual for TokenReview {
    async fn create(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        namespace: &str,
        mut object: Map,
        _options: &Options,
    ) -> Result<Map, Status> {
        no_namespace(namespace)?;
        let token = object.str_at(&["spec", "token"]);
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = strings(&object, &["spec", "audiences"]);
        let wanted = if asked.is_empty() { &self.audiences } else { &asked };
        let mut status = Map::new();
        match self.tokens.authenticate(token, wanted).await {
            Ok(Some(found)) => {
                cx.tell(&found.told);
                status.insert("authenticated", true);
                status.insert("user", user_map(&found.user));
                if !found.audiences.is_empty() {
                    status.insert("audiences", list_value(&found.audiences));
                }
            }
            Ok(None) => {
                status.insert("user", Map::new());
                status.insert("error", "invalid bearer token");
            }
            Err(error) => {
                status.insert("user", Map::new());
                status.insert("error", format!("[invalid bearer token, {error}]"));
            }
        }
        object.insert("status", status);
        Ok(object)
    }
}

/// Who the asker is.
pub struct SelfSubjectReview;

#[async_trait]
impl Virtual for SelfSubjectReview {
    async fn create(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        _namespace: &str,
        mut object: Map,
        _options: &Options,
    ) -> Result<Map, Status> {
        if let Some(error) = metadata_errors(&object, &[], EMPTY) {
            let kind = GroupKind::new("authentication.k8s.io", "SelfSubjectReview");
            return Err(Status::invalid(&kind, "", &[error]));
        }
        object.set_at(&["metadata", "creationTimestamp"], cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let mut status = Map::new();
        status.insert("userInfo", user_map(&cx.user));
        object.insert("status", status);
        Ok(object)
    }
}
