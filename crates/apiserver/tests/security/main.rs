//! Security through the whole server: a real store, the registry, the filters; some of it over real TLS.

mod access;
mod admission;
mod certificates;
mod cluster;
mod components;
mod fairness;
mod groups;
mod pod_security;
mod pods;
mod proxy;
mod services;
mod slow;
mod start;
mod tokens;
mod wire;
