//! etcd's v3 messages and services, compiled from `proto/etcd.proto`.

#![allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]

tonic::include_proto!("etcdserverpb");

impl From<crate::KeyValue> for KeyValue {
    fn from(kv: crate::KeyValue) -> Self {
        let crate::KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        Self { key, value, create_revision, mod_revision, version, lease }
    }
}
