//! Compiles the protocol descriptions in process (protox), so that building needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["cri.proto", "images.proto"], ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    // Their derived `Debug` would put passwords into logs; redact.rs writes one that doesn't.
    config.skip_debug(["runtime.v1.AuthConfig", "pilothouse.images.v1.PullRequest"]);
    // Maps keep their order, so that equal messages encode to equal bytes.
    config.btree_map(["."]);
    // Output of an exec and archives of images are large: hand them on without copying.
    config.bytes([".runtime.v1.ExecSyncResponse", ".pilothouse.images.v1.LoadRequest"]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
