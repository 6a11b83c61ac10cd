//! etcd's v3 messages and services, compiled from `proto/etcd.proto`.

#![allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]

tonic::include_proto!("etcdserverpb");
