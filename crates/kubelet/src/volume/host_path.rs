//! Directories and files of the node itself.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt, OpenOptionsExt as _},
    path::Path,
};

/// Checks that `path` is of the wanted type, and makes it if the type says so.
///
/// # Errors
/// Upstream's texts.
pub(crate) fn check(path: &Path, kind: &str) -> Result<(), String> {
    let refused = |what: &str| format!("hostPath type check failed: {} is not {what}", path.display());
    let failed = |error: io::Error| format!("hostPath type check failed: {}: {error}", path.display());
    let kind_of = || match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(failed(error)),
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if kind_of()?.is_none() {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
            }
            kind_of()?.filter(fs::FileType::is_dir).map(drop).ok_or_else(|| refused("a directory"))
        }
        "Directory" => kind_of()?.filter(fs::FileType::is_dir).map(drop).ok_or_else(|| refused("a directory")),
        "FileOrCreate" => {
            if kind_of()?.is_none() {
                let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
                made.map_err(failed)?;
            }
            kind_of()?.filter(fs::FileType::is_file).map(drop).ok_or_else(|| refused("a file"))
        }
        "File" => kind_of()?.filter(fs::FileType::is_file).map(drop).ok_or_else(|| refused("a file")),
        "Socket" => kind_of()?.filter(FileTypeExt::is_socket).map(drop).ok_or_else(|| refused("a socket file")),
        "CharDevice" => {
            kind_of()?.filter(FileTypeExt::is_char_device).map(drop).ok_or_else(|| refused("a character device"))
        }
        "BlockDevice" => {
            kind_of()?.filter(FileTypeExt::is_block_device).map(drop).ok_or_else(|| refused("a block device"))
        }
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind, ok) in [
            (at("any"), "", true),
            (at("none"), "Directory", false),
            (at("none"), "File", false),
            (at("file"), "Directory", false),
            (at("file"), "File", true),
            (at("d/e"), "DirectoryOrCreate", true),
            (at("d/e"), "Directory", true),
            (at("f"), "FileOrCreate", true),
            (at("file"), "DirectoryOrCreate", false),
            (at("d"), "FileOrCreate", false),
            (at("socket"), "Socket", true),
            (at("file"), "Socket", false),
            ("/dev/null".into(), "CharDevice", true),
            ("/dev/null".into(), "BlockDevice", false),
            (at("file"), "Other", false),
        ] {
            assert_eq!(check(&path, kind).is_ok(), ok, "{} {kind}", path.display());
        }
        assert_eq!(
            check(&at("file"), "Directory").unwrap_err(),
            format!("hostPath type check failed: {} is not a directory", at("file").display())
        );
    }
}
