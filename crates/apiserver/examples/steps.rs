//! What the steps of a pod's create cost, each alone.

use apiserver::cache::{Entry, Paths};
use apiserver::registry::{complete, meta};
use schema::apply::{Manager, OneShape};
use schema::{Encoded, Map};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 3_000;

#[allow(clippy::print_stdout, reason = "the measurement's result")]
fn time<T>(what: &str, mut work: impl FnMut() -> T) {
    for _ in 0..ROUNDS / 10 {
        black_box(work());
    }
    let began = Instant::now();
    for _ in 0..ROUNDS {
        black_box(work());
    }
    println!("{what:<36} {:>8.2} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env: Vec<String> =
        (0..24).map(|n| format!(r#"{{"name":"VARIABLE_{n}","value":"value number {n} of the pod"}}"#)).collect();
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-1","namespace":"ns-1","labels":{{"app":"app-1","tier":"backend","pod-template-hash":"5d59d67564"}},"annotations":{{"example.com/checksum":"0123456789abcdef0123456789abcdef"}}}},"spec":{{"nodeName":"node-1","serviceAccountName":"default","containers":[{{"name":"main","image":"registry.example.com/team/application:1.2.3","ports":[{{"containerPort":8080,"name":"http"}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}},"requests":{{"cpu":"250m","memory":"256Mi"}}}},"env":[{}],"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080}}}},"volumeMounts":[{{"name":"config","mountPath":"/etc/config"}}]}}],"volumes":[{{"name":"config","configMap":{{"name":"config"}}}}],"tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}}}}"#,
        env.join(",")
    );
    let row = schema::resource::get("", "v1", "pods").ok_or("pods are served")?;
    let ty = row.schema.root();
    let paths = Paths::of(row);
    let strategy = apiserver::strategy::of(row, &apiserver::surface::Surface::default());
    let cx = apiserver::context::Context::internal();
    let manager =
        Manager { name: "m", api_version: "v1", subresource: "", now: "2024-01-01T00:00:00Z", versions: &OneShape };
    let reset = apiserver::registry::managed::reset_fields(row, "");
    time("decode", || schema::json::decode(ty, text.as_bytes()));
    let decoded = schema::json::decode(ty, text.as_bytes())?.object;
    time("clone", || decoded.clone());
    time("complete (and clone)", || {
        let mut object = decoded.clone();
        complete::complete(ty, &mut object, None);
        object
    });
    let mut object: Map = decoded.clone();
    complete::complete(ty, &mut object, None);
    time("track (and clone)", || {
        let mut object = object.clone();
        schema::apply::track(ty, None, &mut object, &manager, &reset);
        object
    });
    let mut tracked = object.clone();
    schema::apply::track(ty, None, &mut tracked, &manager, &reset);
    meta::fill_new(&cx, &mut tracked);
    let features = schema::validation::Features::default();
    let kind = apiserver::strategy::Kind { row, features };
    time("metadata validation", || meta::validate(row, &tracked, features));
    time("validation", || strategy.validate_create(&cx, kind, &tracked));
    time("warnings", || strategy.warnings_on_create(kind, &tracked));
    time("normalise (and clone)", || {
        let mut object = tracked.clone();
        schema::normal::normalise(ty, &mut object, None).map(|()| object)
    });
    schema::normal::normalise(ty, &mut tracked, None)?;
    time("encode", || Encoded::new(&tracked));
    let encoded = Encoded::new(&tracked);
    time("stored", || encoded.stored("v1", "Pod"));
    let stored = encoded.stored("v1", "Pod");
    let head = schema::encoded::head("v1", "Pod");
    time("entry", || Entry::from_stored("ns-1/pod-1", 7, &stored, &head, &row.schema, &paths));
    let entry = Entry::from_stored("ns-1/pod-1", 7, &stored, &head, &row.schema, &paths)?;
    time("decode the entry", || entry.decode(&row.schema, "v1", "Pod"));
    let live = entry.decode(&row.schema, "v1", "Pod")?;
    let mut patched = live.clone();
    patched.set_at(&["status", "phase"], "Running");
    time("track an update (and clone)", || {
        let mut object = patched.clone();
        schema::apply::track(ty, Some(&live), &mut object, &manager, &reset);
        object
    });
    time("validation of an update", || strategy.validate_update(&cx, kind, "status", &patched, &live));
    time("drop", || {
        drop(live.clone());
    });
    println_size(&stored);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the measurement's result")]
fn println_size(stored: &[u8]) {
    println!("the stored object has {} bytes", stored.len());
}
