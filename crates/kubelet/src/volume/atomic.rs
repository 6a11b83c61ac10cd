//! Writing a set of files so that who reads them sees all of the old or all of the new.
//!
//! The files stand in a directory with the time in its name, `..data` is a link to it, and each
//! name that users see is a link through `..data`; renaming one link changes everything at once.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// The owner, if not root.
    pub(crate) uid: Option<u32>,
}

/// Files by their paths, relative to the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// Refuses paths that lead out of the volume or that the writer needs itself.
///
/// # Errors
/// What is wrong with which path.
pub(crate) fn validate(payload: &Payload) -> Result<(), String> {
    for path in payload.keys() {
        let parsed = Path::new(path);
        if path.is_empty() {
            return Err("invalid path: must not be empty".to_owned());
        }
        if path.len() > 4096 {
            return Err(format!("invalid path: must be less than or equal to 4096 characters: {path}"));
        }
        if parsed.is_absolute() {
            return Err(format!("invalid path: must be relative path: {path}"));
        }
        for component in parsed.components() {
            match component {
                Component::ParentDir => {
                    return Err(format!("invalid path: must not contain '..': {path}"));
                }
                Component::Normal(part) if part.len() > 255 => {
                    return Err(format!(
                        "invalid path: filenames must be less than or equal to 255 characters: {path}"
                    ));
                }
                _ => {}
            }
        }
        if path.starts_with("..") {
            return Err(format!("invalid path: must not start with '..': {path}"));
        }
    }
    Ok(())
}

/// Makes `dir` show `payload`; `finish` is given the new files before anybody sees them, to set
/// their ownership. Returns whether anything had to be written.
///
/// # Errors
/// When the file system refuses; what was shown before is still shown then.
pub(crate) fn write(
    dir: &Path,
    payload: &Payload,
    now: Timestamp,
    finish: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    validate(payload).map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
    let old = match fs::read_link(dir.join(DATA)) {
        Ok(target) => Some(dir.join(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && shows(old, payload)?
    {
        // A crash may have come between the files and their names.
        make_names(dir, payload)?;
        return Ok(false);
    }
    let stamped = stamped_dir(dir, now)?;
    let written = write_files(&stamped, payload).and_then(|()| finish(&stamped));
    if let Err(error) = written {
        fs::remove_dir_all(&stamped)?;
        return Err(error);
    }
    let new_data = dir.join(NEW_DATA);
    remove_link(&new_data)?;
    let target = stamped.file_name().map(PathBuf::from).unwrap_or_default();
    symlink(target, &new_data)?;
    fs::rename(&new_data, dir.join(DATA))?;
    make_names(dir, payload)?;
    remove_stale_names(dir, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn remove_link(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the directory holds the payload and nothing else.
fn shows(dir: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                pending.push(path);
                continue;
            }
            let relative = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            // Paths may have been written with more slashes than needed.
            let wanted = payload.iter().find(|(key, _)| clean(key) == Path::new(&relative));
            let Some((_, file)) = wanted else { return Ok(false) };
            let metadata = entry.metadata()?;
            let same_owner = file.uid.is_none_or(|uid| uid == metadata.uid());
            let same_mode = metadata.mode() & file.mode & 0o777 == file.mode & 0o777;
            if !same_owner || !same_mode || fs::read(&path)? != file.data {
                return Ok(false);
            }
            found += 1;
        }
    }
    Ok(found == payload.len())
}

fn clean(path: &str) -> PathBuf {
    Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

fn stamped_dir(dir: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    for _ in 0..100 {
        let random = uuid::Uuid::new_v4().as_u128() % 10_000_000_000;
        let path = dir.join(format!("{stamp}.{random}"));
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => {
                // Whatever the process's mask.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("no free name in {}", dir.display())))
}

fn write_files(dir: &Path, payload: &Payload) -> io::Result<()> {
    use std::io::Write as _;
    for (path, file) in payload {
        let path = dir.join(clean(path));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path)?;
        out.write_all(&file.data)?;
        out.set_permissions(fs::Permissions::from_mode(file.mode))?;
        if let Some(uid) = file.uid {
            std::os::unix::fs::fchown(&out, Some(uid), None)?;
        }
    }
    Ok(())
}

/// The first parts of the payload's paths: what users see in the volume.
fn names(payload: &Payload) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = payload
        .keys()
        .filter_map(|path| clean(path).components().next().map(|first| PathBuf::from(first.as_os_str())))
        .collect();
    names.dedup();
    names
}

fn make_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    for name in names(payload) {
        match symlink(Path::new(DATA).join(&name), dir.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn remove_stale_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted = names(payload);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let ours = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(DATA));
        if ours && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o644, uid: None }))
            .collect()
    }

    fn put(dir: &Path, files: &[(&str, &str)]) -> bool {
        write(dir, &payload(files), Timestamp::now(), |_| Ok(())).unwrap()
    }

    fn listing(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_shown_replaced_and_removed_together() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(put(dir, &[("a", "1"), ("sub/b", "2"), ("sub/c", "3")]));
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(dir.join("sub")).unwrap(), Path::new("..data/sub"));
        let first = fs::read_link(dir.join(DATA)).unwrap();
        assert!(!put(dir, &[("a", "1"), ("sub/b", "2"), ("sub/c", "3")]), "nothing to do");
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first);
        assert!(put(dir, &[("a", "9"), ("d", "4")]));
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
        assert!(!dir.join("sub").exists() && !dir.join(&first).exists());
        assert_eq!(listing(dir).len(), 4, "{:?}", listing(dir));
        assert!(put(dir, &[]));
        assert_eq!(listing(dir).len(), 2);
    }

    #[test]
    fn a_failure_leaves_what_was_shown() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        put(dir, &[("a", "1")]);
        let before = listing(dir);
        let failed = write(dir, &payload(&[("a", "2")]), Timestamp::now(), |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(listing(dir), before);
    }

    #[test]
    fn modes_are_exact_whatever_the_mask() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = payload(&[("a", "1")]);
        files.get_mut("a").unwrap().mode = 0o666;
        write(dir.path(), &files, Timestamp::now(), |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777, 0o666);
    }

    proptest! {
        /// No path, however written, makes a file outside the volume.
        #[test]
        fn hostile_paths_are_refused_or_stay_inside(path in "[a./]{0,12}") {
            let outer = tempfile::tempdir().unwrap();
            let dir = outer.path().join("volume");
            fs::create_dir(&dir).unwrap();
            // Refusal and success are both fine.
            let _ = write(&dir, &payload(&[(&path, "x")]), Timestamp::now(), |_| Ok(()));
            prop_assert_eq!(listing(outer.path()), ["volume"]);
        }
    }
}
