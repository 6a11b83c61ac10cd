//! Events: what happened to pods and the node, told in the API. What is told of it is decided by [`Correlator`].

pub(crate) use api::events::Kind as Severity;

use api::events::{Correlator, Delivery, Failure, Next, QUEUED, Reference, Report, Request, Source};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::spec::{PodExt, Role};

/// The component that reports.
const COMPONENT: &str = "kubelet";

/// A place to report events to; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Report>,
}

impl Recorder {
    /// A recorder, and the task that sends what it is told until `stop`.
    pub(crate) fn new(client: Client, node: &str, stop: CancellationToken) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        let source = Source { component: COMPONENT.to_owned(), host: node.to_owned() };
        (Self { sender }, send(client, Correlator::new(source), receiver, stop))
    }

    fn report(&self, about: Reference, kind: Severity, reason: &'static str, message: String) {
        let report = Report { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        // Nobody listens any more when the kubelet stops.
        if self.sender.try_send(report).is_err() {
            tracing::debug!(reason, "an event is dropped: too many wait to be sent, or the kubelet stops");
        }
    }

    /// Reports about a pod.
    pub(crate) fn pod(&self, pod: &Pod, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.report(reference(pod), severity, reason, message.into());
    }

    /// Reports about a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        role: Role,
        name: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut object = reference(pod);
        object.field_path = format!("spec.{}{{{name}}}", role.field());
        self.report(object, severity, reason, message.into());
    }

    /// Reports about the node; its name serves as its uid, as upstream has it.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &'static str, message: impl Into<String>) {
        let object =
            Reference { kind: "Node".to_owned(), name: name.to_owned(), uid: name.to_owned(), ..Reference::default() };
        self.report(object, severity, reason, message.into());
    }
}

fn reference(pod: &Pod) -> Reference {
    Reference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        resource_version: pod.metadata.resource_version.clone().unwrap_or_default(),
        field_path: String::new(),
    }
}

async fn send(
    client: Client,
    mut correlator: Correlator,
    mut reports: mpsc::Receiver<Report>,
    stop: CancellationToken,
) {
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = stop.cancelled() => return,
        };
        let Some(report) = report else { return };
        let Some(mut delivery) = correlator.take(&report) else { continue };
        loop {
            let sent = ask(&client, &delivery).await;
            if let Err(error) = &sent {
                tracing::debug!(reason = report.reason, %error, "an event could not be sent");
            }
            match delivery.answered(sent.map_err(|error| failure(&error))) {
                Next::Done => break,
                Next::Now => {}
                Next::After(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                },
            }
        }
    }
}

fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            Failure::refused(status.code, status.details.as_ref().map(|details| details.retry_after_seconds))
        }
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Failure::Unsendable,
        _ => Failure::NoAnswer,
    }
}

async fn ask(client: &Client, delivery: &Delivery) -> Result<(), kube::Error> {
    let request = match delivery.request() {
        Request::Create(event) => kube::core::Request::new(event.collection())
            .create(&PostParams::default(), event.object().to_string().into_bytes()),
        Request::Count(event, patch) => kube::core::Request::new(event.collection()).patch(
            &event.metadata.name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        ),
    };
    client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}
