//! Compiles the protocol description in process (protox), so that building needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["kms.proto"], ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    // Keys and values are handed on without copying.
    config.bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
