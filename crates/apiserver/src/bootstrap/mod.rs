//! What is there from the start.

pub mod rbac;
