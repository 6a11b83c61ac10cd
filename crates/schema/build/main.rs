//! Draws the catalogue: the type graph, its documentation and the resources, as constants of the crate.
//!
//! Structure comes from `k8s-openapi`; what it doesn't say from the tables under `tables/`. A table row that names a type
//! or field which doesn't exist fails the build, and so does a type or field without a row.

mod draw;
mod emit;
mod model;
mod resources;
mod tables;
mod views;

#[path = "../src/types/rows.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the crate")]
mod rows;

use std::path::Path;

#[allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=tables");
    println!("cargo::rerun-if-changed=src/types/rows.rs");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    let tables = tables::Types::read(Path::new("tables/types.txt"));
    let resources = resources::read(Path::new("tables/resources.txt"));
    let model = model::Model::build(&draw::definitions(), tables, &resources);
    let write = |name: &str, content: &[u8]| {
        std::fs::write(out.join(name), content).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    write("types.rs", emit::types(&model, &resources).as_bytes());
    write("docs.z", &emit::docs(&model));
    write("resources.rs", resources::emit(&model, &resources).as_bytes());
    write("views.rs", views::emit(&model, &resources).as_bytes());
}
