//! Compiles `proto/cri.proto` in process (protox), so that building needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/cri.proto");
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    // Its derived `Debug` would put registry passwords into logs; lib.rs writes one that doesn't.
    config.skip_debug(["runtime.v1.AuthConfig"]);
    // Maps keep their order, so that equal messages encode to equal bytes.
    config.btree_map(["."]);
    // An exec's output is up to 16 MiB: hand it on without copying.
    config.bytes([".runtime.v1.ExecSyncResponse"]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
