//! Authorizers in a row, and how a refusal is worded.

use super::{Attributes, Authorizer, Decision, Rules};
use crate::user::{self, UserInfo};
use api::{GroupResource, Status};
use async_trait::async_trait;
use std::sync::Arc;

/// `system:masters` may do everything; then each authorizer is asked until one has an opinion.
#[derive(Clone)]
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(user::MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                opinion => return opinion,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        let mut errors: Vec<String> = Vec::new();
        for authorizer in &self.0 {
            let more = authorizer.rules_for(user, namespace).await;
            all.resources.extend(more.resources);
            all.paths.extend(more.paths);
            all.incomplete |= more.incomplete;
            if !more.error.is_empty() {
                errors.push(more.error);
            }
        }
        all.error = errors.join(", ");
        all
    }
}

/// 403 as upstream words it: `pods is forbidden: User "x" cannot list resource "pods" in API group "" at the cluster scope`.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = api::field::go_quote(&attributes.user.name);
    let verb = attributes.verb;
    let (resource, what) = if attributes.is_resource {
        let resource = match attributes.subresource {
            "" => attributes.resource.to_owned(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let place = match attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let what =
            format!("User {user} cannot {verb} resource {resource:?} in API group {:?} {place}", attributes.group);
        (GroupResource::new(attributes.group.to_owned(), attributes.resource.to_owned()), what)
    } else {
        (GroupResource::new("", ""), format!("User {user} cannot {verb} path {:?}", attributes.path))
    };
    let why = if reason.is_empty() { what } else { format!("{what}: {reason}") };
    Status::forbidden(&resource, attributes.name, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestInfo;

    fn refused(method: &str, path: &str, reason: &str) -> String {
        let user = UserInfo::new("x", ["g"]);
        let info = RequestInfo::parse(method, path, "").expect("a path");
        forbidden(&Attributes::of(&user, &info), reason).message
    }

    #[test]
    fn refusals_are_worded_as_upstreams() {
        assert_eq!(
            refused("GET", "/apis/apps/v1/namespaces/default/deployments", ""),
            "deployments.apps is forbidden: User \"x\" cannot list resource \"deployments\" in API group \"apps\" in the namespace \"default\""
        );
        assert_eq!(
            refused("POST", "/api/v1/namespaces/a/pods/p/exec", ""),
            "pods \"p\" is forbidden: User \"x\" cannot create resource \"pods/exec\" in API group \"\" in the namespace \"a\""
        );
        assert_eq!(
            refused("GET", "/api/v1/nodes", "why"),
            "nodes is forbidden: User \"x\" cannot list resource \"nodes\" in API group \"\" at the cluster scope: why"
        );
        assert_eq!(refused("GET", "/metrics", ""), "forbidden: User \"x\" cannot get path \"/metrics\"");
    }
}
