//! DenyServiceExternalIPs: no Service takes over addresses that the cluster did not give it.

use super::{Admission, Attributes, Operation, Sides};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};

pub struct DenyServiceExternalIps;

fn addresses(service: &Map) -> &[Value] {
    service.at(&["spec", "externalIPs"]).and_then(Value::as_list).unwrap_or_default()
}

#[async_trait]
impl Admission for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        // What is there already stays.
        let known = a.old.map(addresses).unwrap_or_default();
        if a.is("", "services") && addresses(a.object).iter().any(|address| !known.contains(address)) {
            return Err(a.forbidden("Use of external IPs is denied by admission control"));
        }
        Ok(())
    }
}
