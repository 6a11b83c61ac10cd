//! Cluster DNS: Services and Pods to records to the protocol.
