//! The Kubernetes API server: filters, the one registry of every kind, watch cache, discovery.
