//! API objects for tests, and questions about them.

#![allow(dead_code, reason = "not every test needs everything")]

use dns::answer::{Answer, Ttls, Zone, answer};
use dns::objects;
use dns::records::{Records, name_of};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::{Value, json};

pub(crate) const TTLS: Ttls = Ttls { positive: 30, negative: 5 };

pub(crate) fn zone() -> Zone {
    Zone::new("cluster.local", TTLS).unwrap()
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

pub(crate) fn slice(name: &str, service: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

pub(crate) fn records(objects: &[Value]) -> Records {
    let mut records = Records::default();
    objects.iter().for_each(|object| apply(&mut records, object));
    records
}

pub(crate) fn apply(records: &mut Records, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Service" => records.apply_service(&parse::<objects::Service>(object)),
        "EndpointSlice" => records.apply_slice(&parse::<objects::EndpointSlice>(object)),
        "Namespace" => records.apply_namespace(&parse::<objects::Namespace>(object)),
        kind => panic!("what is a {kind}?"),
    }
}

pub(crate) fn delete(records: &mut Records, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Service" => records.delete_service(&name_of(&parse::<objects::Service>(object).metadata)),
        "EndpointSlice" => records.delete_slice(&name_of(&parse::<objects::EndpointSlice>(object).metadata)),
        kind => panic!("what is a {kind}?"),
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap()
}

pub(crate) fn query(name: &str, kind: &str) -> Query {
    Query::query(Name::from_ascii(name).unwrap(), kind.parse::<RecordType>().unwrap())
}

/// An answer as text, sorted: the code, and the records of each section.
pub(crate) fn ask(records: &Records, name: &str, kind: &str) -> String {
    match answer(&zone(), records, &query(name, kind), 0) {
        Answer::Own(own) => {
            let mut lines: Vec<String> = own.answers.iter().map(show).collect();
            lines.sort();
            let mut more: Vec<String> = own.additionals.iter().map(|record| format!("+ {}", show(record))).collect();
            more.sort();
            lines.extend(more);
            let soa = own.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
            match (own.code, lines.is_empty(), soa) {
                (ResponseCode::NXDomain, true, true) => "no such name".into(),
                (ResponseCode::NoError, true, true) => "no such record".into(),
                (ResponseCode::NoError, false, false) => lines.join("\n"),
                other => panic!("{other:?}"),
            }
        }
        Answer::Alias { alias, target } => format!("{} -> {target}", show(&alias)),
        Answer::Elsewhere => "elsewhere".into(),
        Answer::Refused => "refused".into(),
    }
}

fn show(record: &Record) -> String {
    format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
}
