//! The vocabulary of the Kubernetes API, without IO: group/version/kind, names, quantities, selectors, Status errors, resource versions.
