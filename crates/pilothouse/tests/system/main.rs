//! A whole cluster as its user sees it: the built binary, an unmodified kubectl, images from a real registry.
//!
//! One file a scenario. Each cluster runs in network namespaces of its own, so that ports, addresses and rules
//! are nobody else's and scenarios run at the same time. Needs root.

mod bad_input;
mod built_in_image;
mod clients;
mod crash;
mod healing;
mod helm;
mod hostile;
mod kube_rs;
mod kubectl_node;
mod kubectl_read;
mod kubectl_streams;
mod kubectl_versions;
mod kubectl_write;
mod pods;
mod services;
mod support;
#[path = "../../../apiserver/tests/kinds/table.rs"]
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod table;
