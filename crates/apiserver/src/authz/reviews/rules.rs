//! SelfSubjectRulesReview: what may the asker do in a namespace?

use super::list_value;
use crate::authz::Authorizer;
use crate::context::Context;
use crate::options::Options;
use crate::registry::{Served, Virtual};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

pub struct SelfSubjectRulesReview {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Virtual for SelfSubjectRulesReview {
    async fn create(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        _namespace: &str,
        mut object: Map,
        _options: &Options,
    ) -> Result<Map, Status> {
        let namespace = object.str_at(&["spec", "namespace"]);
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let rules = self.authorizer.rules_for(&cx.user, namespace).await;
        let resources = rules.resources.iter().map(|rule| {
            let mut map = Map::new();
            map.insert("verbs", list_value(&rule.verbs));
            for (key, list) in
                [("apiGroups", &rule.groups), ("resources", &rule.resources), ("resourceNames", &rule.names)]
            {
                if !list.is_empty() {
                    map.insert(key, list_value(list));
                }
            }
            Value::Map(map)
        });
        let paths = rules.paths.iter().map(|rule| {
            let mut map = Map::new();
            map.insert("verbs", list_value(&rule.verbs));
            map.insert("nonResourceURLs", list_value(&rule.paths));
            Value::Map(map)
        });
        let mut status = Map::new();
        status.insert("resourceRules", resources.collect::<Vec<_>>());
        status.insert("nonResourceRules", paths.collect::<Vec<_>>());
        status.insert("incomplete", rules.incomplete);
        if !rules.error.is_empty() {
            status.insert("evaluationError", rules.error);
        }
        object.insert("status", status);
        Ok(object)
    }
}
