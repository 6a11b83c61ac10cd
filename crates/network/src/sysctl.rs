//! Settings under `/proc/sys/net`. They are those of the calling thread's network namespace.

use std::fs;
use std::path::PathBuf;

use crate::{Error, Result};

/// Reads a setting, such as `ipv4/ip_forward`, without the newline.
pub fn read(name: &str) -> Result<String> {
    let path = path(name);
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    Ok(text.trim().to_owned())
}

/// Writes a setting.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).map_err(Error::file("write", &path))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}
