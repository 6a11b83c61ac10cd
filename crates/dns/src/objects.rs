//! The parts of API objects that cluster DNS reads.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = core::Service)]
pub struct Service {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it should be.
    #[serde(default)]
    pub spec: ServiceSpec,
}

/// See the API's documentation of ServiceSpec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    pub external_name: String,
    pub ports: Vec<ServicePort>,
}

/// See the API's documentation of ServicePort.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Option<String>,
    pub port: u16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = discovery::EndpointSlice)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, namespace, and the label that names the Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default)]
    pub address_type: String,
    /// The endpoints, all with the same ports. Some clients write `null`.
    #[serde(default)]
    pub endpoints: Option<Vec<Endpoint>>,
    /// The ports. Some clients write `null`.
    #[serde(default)]
    pub ports: Option<Vec<EndpointPort>>,
}

/// See the API's documentation of Endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    pub hostname: Option<String>,
}

/// See the API's documentation of EndpointConditions.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
}

/// See the API's documentation of EndpointPort.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<u16>,
}

/// A Namespace.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = core::Namespace)]
pub struct Namespace {
    /// Its name.
    pub metadata: ObjectMeta,
}
