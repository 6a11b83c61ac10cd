//! Repairs over a real store.

use super::*;
use crate::allocator::bitmap::PortBitmap;
use crate::allocator::range::PortRange;
use crate::lookup::FromCaches;
use crate::registry::{Hooks, complete};
use crate::test_support::{Opened, map, opened};
use schema::Encoded;
use store::{Op, Txn};

struct Rig {
    opened: Opened,
    server: Server,
    repair: Repair,
}

impl Rig {
    async fn new() -> Self {
        let opened = opened().await;
        let registry = opened.registry.clone();
        let objects = Arc::new(FromCaches::new(registry.caches().clone()));
        let (range, ports) = (AddressRange::parse("10.0.0.0/24"), PortRange::parse("30000-30005"));
        let (range, ports) = (range.expect("a range"), ports.expect("a range"));
        let allocator = Arc::new(ServiceAllocator::new(registry.store().clone(), objects, vec![range], ports));
        registry.install(Hooks { allocators: vec![("", "services", allocator.clone())], ..Hooks::default() });
        let repair = Repair {
            registry: Arc::downgrade(&registry),
            allocator: Arc::downgrade(&allocator),
            addresses: Acting::new(ADDRESS_CONTROLLER, "host"),
            ports: Counting::new(PORT_CONTROLLER),
            leaks: Leaks::new(),
        };
        let rig = Rig { opened, server: Server { registry, allocator }, repair };
        rig.make(SERVICE_CIDRS, "", "{metadata: {name: kubernetes}, spec: {cidrs: [10.0.0.0/24]}}").await;
        rig
    }

    async fn make(&self, kind: Stored, namespace: &str, object: &str) {
        let served = self.server.served(kind).expect("served");
        let mut object = map(object);
        complete::complete(served.resource.schema.root(), &mut object, None);
        let (cx, options) = (context(), Options::default());
        self.server.registry.create(&cx, &served, namespace, object, &options).await.expect("made");
    }

    /// What nobody could do by the API.
    async fn put(&self, key: &str, value: Option<bytes::Bytes>) {
        let op = match value {
            Some(value) => Op::Put { key: key.to_owned().into(), value, lease: 0 },
            None => Op::Delete { keys: store::KeyRange::key(key.to_owned()) },
        };
        let revision = self.opened.store.txn(Txn::of(vec![op])).await.expect("written").revision;
        self.server.registry.caches().reached(revision.cast_unsigned()).await.expect("seen");
    }

    async fn put_service(&self, name: &str, spec: &str) {
        let service = map(&format!("{{metadata: {{name: {name}, namespace: ns, uid: u-{name}}}, spec: {spec}}}"));
        let value = Encoded::new(&service).stored("v1", "Service");
        self.put(&format!("/registry/services/specs/ns/{name}"), Some(value)).await;
    }

    fn claim(&self, ip: &str) -> Option<Arc<Map>> {
        self.server.allocator.objects().get(IP_ADDRESSES, "", ip).expect("readable")
    }

    fn holder(&self, ip: &str) -> Option<String> {
        self.claim(ip).map(|claim| claim.str_at(&["spec", "parentRef", "name"]).to_owned())
    }

    async fn caught_up(&self) {
        self.server.allocator.objects().consistent().await.expect("reached");
    }

    /// The events of a Service or IPAddress: how often, reason and message.
    async fn events(&self, of: &str) -> Vec<Map> {
        self.caught_up().await;
        let served = self.server.registry.served("", "v1", "events").expect("served");
        let (state, _) = served.storage("list").expect("stored").now();
        let all = state.range(&Scope::All, None).map(|entry| served.decode(entry).expect("readable"));
        all.filter(|event| event.str_at(&["involvedObject", "name"]) == of).collect()
    }
}

#[tokio::test]
async fn a_claim_that_was_removed_is_made_again() {
    let mut rig = Rig::new().await;
    let service = "{metadata: {name: s}, spec: {ports: [{port: 80}], clusterIP: 10.0.0.9}}";
    rig.make(SERVICES, "ns", service).await;
    rig.repair.service(&rig.server, "ns/s").await.expect("looked at");
    let first = rig.claim("10.0.0.9").expect("claimed");
    for count in [None, Some(2), Some(3)] {
        rig.put("/registry/ipaddresses/10.0.0.9", None).await;
        rig.repair.service(&rig.server, "ns/s").await.expect("mended");
        let second = rig.claim("10.0.0.9").expect("claimed again");
        assert_eq!(
            (second.get("spec"), second.at(&["metadata", "labels"])),
            (first.get("spec"), first.at(&["metadata", "labels"]))
        );
        let events = rig.events("s").await;
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(event.at(&["series", "count"]).and_then(Value::as_i64), count);
        assert_eq!(event.str_at(&["reason"]), "ClusterIPNotAllocated");
        assert_eq!(event.str_at(&["message"]), "Cluster IP [IPv4]: 10.0.0.9 is not allocated; repairing");
        assert_eq!(event.str_at(&["action"]), "ClusterIPAllocation");
        assert_eq!(event.str_at(&["reportingComponent"]), "ipallocator-repair-controller");
        assert_eq!(event.str_at(&["reportingInstance"]), "ipallocator-repair-controller-host");
    }
}

#[tokio::test]
async fn a_wrong_claim_becomes_right_where_it_is() {
    let mut rig = Rig::new().await;
    rig.make(SERVICES, "ns", "{metadata: {name: s}, spec: {ports: [{port: 80}], clusterIP: 10.0.0.9}}").await;
    rig.repair.service(&rig.server, "ns/s").await.expect("looked at");
    let right = rig.claim("10.0.0.9").expect("claimed");
    let mut wrong = Map::clone(&right);
    wrong.remove_at(&["metadata", "labels"]);
    wrong.remove_at(&["metadata", "resourceVersion"]);
    wrong.set_at(&["spec", "parentRef", "resource"], "others");
    let stored = Encoded::new(&wrong).stored("networking.k8s.io/v1", "IPAddress");
    rig.put("/registry/ipaddresses/10.0.0.9", Some(stored)).await;
    rig.repair.service(&rig.server, "ns/s").await.expect("mended");
    let mended = rig.claim("10.0.0.9").expect("claimed");
    let of = |claim: &Map| (claim.get("spec").cloned(), claim.at(&["metadata", "labels"]).cloned());
    assert_eq!(of(&mended), of(&right));
    assert_eq!(mended.str_at(&["metadata", "uid"]), right.str_at(&["metadata", "uid"]), "it was there all the time");
}

#[tokio::test]
async fn who_shares_an_address_is_told_and_its_first_holder_keeps_it() {
    let mut rig = Rig::new().await;
    let service = "{metadata: {name: s}, spec: {ports: [{port: 80}], clusterIP: 10.0.0.9}}";
    rig.make(SERVICES, "ns", service).await;
    rig.put_service("t", "{clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9]}").await;
    for key in ["ns/s", "ns/t"] {
        rig.repair.service(&rig.server, key).await.expect("looked at");
    }
    assert_eq!(rig.holder("10.0.0.9").as_deref(), Some("s"));
    assert!(rig.events("s").await.is_empty());
    assert_eq!(rig.events("t").await[0].str_at(&["reason"]), "ClusterIPAlreadyAllocated");
    // When the holder is gone without giving it back, the other one has it.
    rig.put("/registry/services/specs/ns/s", None).await;
    rig.repair.service(&rig.server, "ns/t").await.expect("mended");
    assert_eq!(rig.holder("10.0.0.9").as_deref(), Some("t"));
}

#[tokio::test]
async fn claims_of_nobody_go_after_a_minute() {
    let mut rig = Rig::new().await;
    let claim = |ip: &str, made: &str| {
        let labels =
            "{ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io, ipaddress.kubernetes.io/ip-family: IPv4}";
        let metadata = format!("{{name: {ip}, uid: u, creationTimestamp: '{made}', labels: {labels}}}");
        let spec = "{parentRef: {resource: services, namespace: ns, name: gone}}";
        Encoded::new(&map(&format!("{{metadata: {metadata}, spec: {spec}}}")))
            .stored("networking.k8s.io/v1", "IPAddress")
    };
    let now = Timestamp::now().to_string();
    for (ip, made) in [("10.0.0.7", "2026-01-01T00:00:00Z"), ("10.0.0.8", &now)] {
        rig.put(&format!("/registry/ipaddresses/{ip}"), Some(claim(ip, made))).await;
    }
    let of = async |rig: &mut Rig, ip: &str| rig.repair.address(&rig.server, ip).await.expect("looked at");
    assert_eq!(of(&mut rig, "10.0.0.7").await, None);
    let left = of(&mut rig, "10.0.0.8").await.expect("a moment more");
    assert!(left > Duration::from_secs(30) && left < Duration::from_secs(62), "{left:?}");
    rig.caught_up().await;
    assert!(rig.claim("10.0.0.7").is_none() && rig.claim("10.0.0.8").is_some());
    assert_eq!(rig.events("10.0.0.7").await[0].str_at(&["reason"]), "IPAddressNotAllocated");
}

#[tokio::test]
async fn node_ports_are_taken_as_services_have_them() {
    let mut rig = Rig::new().await;
    rig.put_service("a", "{type: NodePort, ports: [{port: 80, nodePort: 30001, protocol: TCP}]}").await;
    for _ in 0..2 {
        rig.repair.ports(&rig.server).await.expect("rebuilt");
        let stored = rig.server.allocator.stored_ports().await.expect("readable").bitmap;
        assert_eq!(stored.ports().collect::<Vec<_>>(), [30001]);
    }
    let events = rig.events("a").await;
    assert_eq!(events.len(), 1, "it is mended");
    assert_eq!(events[0].str_at(&["message"]), "Port 30001 is not allocated; repairing");
    assert_eq!(events[0].str_at(&["source", "component"]), "portallocator-repair-controller");
    // One that nobody has is free when it was looked at three times.
    let stored = rig.server.allocator.stored_ports().await.expect("readable");
    let mut bitmap: PortBitmap = stored.bitmap;
    bitmap.set(30003, true);
    assert!(rig.server.allocator.put_ports(&bitmap, stored.revision).await.expect("written"));
    assert!(!rig.server.allocator.put_ports(&bitmap, stored.revision).await.expect("answered"), "it has changed");
    for taken in [2, 2, 1] {
        rig.repair.ports(&rig.server).await.expect("rebuilt");
        let stored = rig.server.allocator.stored_ports().await.expect("readable").bitmap;
        assert_eq!(stored.ports().count(), taken);
    }
}
