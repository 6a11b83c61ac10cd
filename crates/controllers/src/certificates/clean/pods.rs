//! Requests for certificates of pods, a while after they were made: by then they are decided, and their pod has read them.

use super::{again_and_again, remove};
use crate::{Context, Error, Running, gone_is_fine};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client};
use std::time::Duration;

const LOOK: Duration = Duration::from_mins(5);
const KEPT: i64 = 15 * 60;
/// How many are read at a time.
const PAGE: u32 = 500;

type Request = PartialObjectMeta<PodCertificateRequest>;

fn is_over(request: &Request, now: Timestamp) -> bool {
    let made = request.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| made.0.as_second() + KEPT <= now.as_second())
}

async fn clean(client: &Client, now: Timestamp) -> Result<(), Error> {
    let all: Api<PodCertificateRequest> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        // Behind a gate that is on, the kind may still not be served.
        let Some(page) = gone_is_fine(all.list_metadata(&params).await)? else { return Ok(()) };
        for request in page.items.iter().filter(|request| is_over(request, now)) {
            let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
            remove(&Api::<PodCertificateRequest>::namespaced(client.clone(), namespace), &request.metadata).await;
        }
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(()),
        }
    }
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("podcertificaterequestcleaner");
    let on = context.config.gates.enabled("PodCertificateRequest");
    again_and_again(context.shutdown.clone(), LOOK, move || {
        let client = client.clone();
        async move {
            if on && let Err(error) = clean(&client, Timestamp::now()).await {
                tracing::warn!("requests for certificates of pods cannot be looked at: {error}");
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_kept_for_a_quarter_of_an_hour() {
        let made = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "r", "creationTimestamp": "1970-01-01T00:00:00Z"}});
        let request: Request = serde_json::from_value(made).expect("a request");
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("a time");
        assert!(!is_over(&request, at(899)) && is_over(&request, at(900)));
    }
}
