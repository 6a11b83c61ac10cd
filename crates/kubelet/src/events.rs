//! Events: what happened to pods and the node, told in the API.

pub(crate) use api::events::Kind as Severity;

use api::events::{Reference, Source};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::spec::{PodExt, Role};

/// The component that reports.
const COMPONENT: &str = "kubelet";

/// A place to report events to; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(client::events::Recorder);

impl Recorder {
    /// A recorder, and the task that sends what it is told until `stop`.
    pub(crate) fn new(client: Client, node: &str, stop: CancellationToken) -> (Self, impl Future<Output = ()> + use<>) {
        let source = Source { component: COMPONENT.to_owned(), host: node.to_owned() };
        let (recorder, sending) = client::events::Recorder::new(client, source, stop);
        (Self(recorder), sending)
    }

    /// Reports about a pod.
    pub(crate) fn pod(&self, pod: &Pod, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.0.tell(reference(pod), severity, reason, message.into());
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
        self.0.tell(object, severity, reason, message.into());
    }

    /// Reports about the node; its name serves as its uid, as upstream has it.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &'static str, message: impl Into<String>) {
        let object =
            Reference { kind: "Node".to_owned(), name: name.to_owned(), uid: name.to_owned(), ..Reference::default() };
        self.0.tell(object, severity, reason, message.into());
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
