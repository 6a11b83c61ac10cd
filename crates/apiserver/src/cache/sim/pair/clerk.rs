//! Who writes Services, and how.

use crate::allocator::ServiceAllocator;
use crate::allocator::range::{AddressRange, PortRange};
use crate::cache::sim::server::Up;
use crate::cache::sim::write::{decoded, patch, with_dice};
use crate::context::Context;
use crate::lookup::FromCaches;
use crate::options::{FieldValidation, Options};
use crate::registry::mutation::PatchKind;
use crate::registry::{Allocator, Place, Registry};
use crate::user::UserInfo;
use api::Status;
use jiff::Timestamp;
use schema::{Map, Resource};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Store;
use store::testing::random::Random;

pub(super) const NAMESPACE: &str = "a";
/// Six addresses, and as many ports.
pub(super) const ADDRESSES: &str = "10.0.0.0/29";
pub(super) const PORTS: &str = "30000-30005";
pub(super) const SIZE: usize = 6;
pub(super) const MARK: &str = "w";
/// Those that claim more come more often.
const KINDS: [&str; 6] = ["ClusterIP", "ClusterIP", "NodePort", "NodePort", "LoadBalancer", "ExternalName"];

/// What is served, and what the allocator looks into.
pub(super) fn rows() -> Vec<&'static Resource> {
    [("", "v1", "services"), ("networking.k8s.io", "v1", "ipaddresses"), ("networking.k8s.io", "v1", "servicecidrs")]
        .into_iter()
        .map(|(group, version, plural)| schema::resource::get(group, version, plural).expect("a built-in resource"))
        .collect()
}

pub(super) fn allocator(store: Arc<dyn Store>, registry: &Registry) -> Arc<dyn Allocator> {
    let objects = Arc::new(FromCaches::new(registry.caches().clone()));
    let ranges = vec![AddressRange::parse(ADDRESSES).expect("a range")];
    Arc::new(ServiceAllocator::new(store, objects, ranges, PortRange::parse(PORTS).expect("a range")))
}

/// A write of a Service.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) verb: Verb,
    /// It is only to be told what would be done.
    pub(super) dry: bool,
    pub(super) mark: String,
    pub(super) now: Timestamp,
    pub(super) dice: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Verb {
    /// With this `spec`, but for its ports.
    Create(Spec),
    /// Makes it another.
    Change(Spec),
    Delete,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) kind: &'static str,
    /// This cluster IP, or `None`.
    pub(super) address: Option<String>,
    /// This node port.
    pub(super) port: Option<u16>,
}

impl Spec {
    fn value(&self) -> serde_json::Value {
        let mut port = serde_json::json!({ "port": 80 });
        if let Some(node_port) = self.port {
            port["nodePort"] = node_port.into();
        }
        let mut spec = serde_json::json!({ "type": self.kind, "ports": [port] });
        if let Some(address) = &self.address {
            spec["clusterIP"] = address.as_str().into();
        }
        if self.kind == "ExternalName" {
            spec["externalName"] = "x.example".into();
        }
        spec
    }
}

/// A Service, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) name: String,
    pub(super) revision: i64,
    pub(super) mark: String,
    pub(super) kind: String,
    pub(super) addresses: BTreeSet<String>,
    pub(super) ports: BTreeSet<u16>,
    pub(super) gone: bool,
}

impl Served {
    pub(super) fn of(object: &serde_json::Value, revision: Option<i64>) -> Served {
        let text = |path: &str| object.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let list = |path: &str| object.pointer(path).and_then(serde_json::Value::as_array).into_iter().flatten();
        let addresses = list("/spec/clusterIPs").filter_map(serde_json::Value::as_str).filter(|ip| *ip != "None");
        let ports = list("/spec/ports").filter_map(|port| port.get("nodePort")?.as_u64()?.try_into().ok());
        Served {
            name: text("/metadata/name"),
            revision: revision.unwrap_or_else(|| text("/metadata/resourceVersion").parse().unwrap_or(0)),
            mark: text("/metadata/annotations/w"),
            kind: text("/spec/type"),
            addresses: addresses.map(str::to_owned).collect(),
            ports: ports.collect(),
            gone: false,
        }
    }
}

impl Request {
    /// Any one of a Service that is there, or is not.
    pub(super) fn any(random: &mut Random, name: String, exists: bool, unique: u64, wall: i64) -> Request {
        let spec = Spec {
            kind: KINDS[random.index(KINDS.len())],
            address: None,
            port: random.chance(20).then(|| 30_000 + random.below(SIZE as u64) as u16),
        };
        let address = match random.below(10) {
            0 | 1 => Some(format!("10.0.0.{}", 1 + random.below(SIZE as u64))),
            2 if spec.kind == "ClusterIP" => Some("None".to_owned()),
            _ => None,
        };
        let port = spec.port.filter(|_| matches!(spec.kind, "NodePort" | "LoadBalancer"));
        let spec = Spec { address: address.filter(|_| spec.kind != "ExternalName"), port, ..spec };
        let verb = match (exists, random.below(10)) {
            (false, _) | (_, 0) => Verb::Create(spec),
            (true, 1..4) => Verb::Change(Spec { address: None, ..spec }),
            (true, _) => Verb::Delete,
        };
        Request {
            name,
            verb,
            dry: random.chance(15),
            mark: format!("m{unique}"),
            now: Timestamp::from_millisecond(wall).unwrap_or_default(),
            dice: random.draw(),
        }
    }

    async fn perform(&self, up: &Up) -> Result<(Map, bool), Status> {
        let served =
            up.registry.served("", "v1", "services").ok_or_else(|| Status::internal("Services are not served"))?;
        let cx = Context::new(Arc::new(UserInfo::apiserver()), "client", self.now);
        let options = Options { dry_run: self.dry, field_validation: FieldValidation::Strict, ..Options::default() };
        let metadata =
            serde_json::json!({ "name": self.name, "namespace": NAMESPACE, "annotations": { MARK: self.mark } });
        match &self.verb {
            Verb::Create(spec) => {
                let object = serde_json::json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec.value(),
                });
                let object = decoded(&served.resource, &object.to_string())?;
                Ok((up.registry.create(&cx, &served, NAMESPACE, object, &options).await?.object, false))
            }
            Verb::Change(spec) => {
                let change = serde_json::json!({ "metadata": metadata, "spec": spec.value() });
                let mutation = patch(&served, PatchKind::Merge, &change.to_string())?;
                let place = Place { namespace: NAMESPACE, name: &self.name, subresource: "" };
                Ok((up.registry.update(&cx, &served, place, &mutation, &options).await?.object, false))
            }
            Verb::Delete => {
                let deleted = up.registry.delete(&cx, &served, NAMESPACE, &self.name, &options).await?;
                Ok((deleted.object.object, deleted.gone))
            }
        }
    }
}

/// Does what is asked for.
pub(super) async fn ask(up: Up, request: Request) -> Result<Served, Status> {
    let (object, gone) = with_dice(request.dice, request.perform(&up)).await?;
    let text = schema::json::to_string(&object);
    let object = serde_json::from_str(&text).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Served { gone, ..Served::of(&object, None) })
}
