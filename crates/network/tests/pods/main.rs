//! The pod network with real namespaces, interfaces and sockets. Needs root.
//!
//! Each test has a machine of its own: a network namespace in which the test's thread plays the node.

mod attach;
mod host_ports;
mod lifecycle;
mod machine;
