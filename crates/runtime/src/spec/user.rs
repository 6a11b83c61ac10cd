//! Who a container's process is: the image's own users and groups, never the machine's.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
};

use crate::shim::syscalls;

/// Largest number that a user or group may have: past it, numbers wrap around somewhere.
const MAX_ID: i64 = i32::MAX as i64;

/// Longest user or group file that is read.
const MAX_FILE: u64 = 16 << 20;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserRequest {
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    /// Used when there is no `uid`.
    pub(crate) username: String,
    /// `USER` of the image, used when there is neither.
    pub(crate) image_user: String,
    pub(crate) supplemental_groups: Vec<i64>,
    /// Whether the image's group file adds groups.
    pub(crate) merge_image_groups: bool,
}

/// The image's files; an image without them has empty ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Databases {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// A user that can't be run as.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("{kind} {id} is out of range: it must be in 0-2147483647")]
    Range { kind: &'static str, id: i64 },
    #[error("user group \"{0}\" is specified without user")]
    GroupWithoutUser(i64),
}

impl Databases {
    /// Reads both from a root file system, following links only inside of it.
    pub(crate) fn read(rootfs: &Path) -> io::Result<Self> {
        let root = syscalls::open_path(rootfs)?;
        let read = |path: &str| -> io::Result<String> {
            let file = match syscalls::open_in_root(root.as_fd(), Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK) {
                Ok(fd) => std::fs::File::from(fd),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
                Err(error) => return Err(error),
            };
            if !file.metadata()?.is_file() {
                return Ok(String::new());
            }
            let mut bytes = Vec::new();
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    fn users(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or("");
            Some(PasswdEntry { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or("").split(',').collect();
            Some(GroupEntry { name, gid, members })
        })
    }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

fn checked(kind: &'static str, id: i64) -> Result<u32, UserError> {
    if (0..=MAX_ID).contains(&id) { Ok(id as u32) } else { Err(UserError::Range { kind, id }) }
}

/// Finds out who that is.
pub(crate) fn resolve(request: &UserRequest, files: &Databases) -> Result<User, UserError> {
    let (user_part, group_part) = match (request.uid, request.username.as_str(), request.gid) {
        (None, "", Some(gid)) => return Err(UserError::GroupWithoutUser(gid)),
        (None, "", None) => split_image_user(&request.image_user),
        (_, name, gid) if !name.is_empty() => (name.to_owned(), gid.map(|g| g.to_string())),
        (Some(uid), _, gid) => {
            checked("uid", uid)?;
            (uid.to_string(), gid.map(|g| g.to_string()))
        }
        _ => (String::new(), None),
    };
    let (uid, primary, entry_name, home) = find_user(&user_part, files)?;
    let gid = match group_part {
        Some(group) => find_group(&group, files)?,
        None => primary,
    };
    let mut groups = vec![gid];
    if request.merge_image_groups
        && let Some(name) = entry_name
    {
        for group in files.groups() {
            if group.members.contains(&name.as_str()) && !groups.contains(&group.gid) {
                groups.push(group.gid);
            }
        }
    }
    for group in &request.supplemental_groups {
        let group = checked("supplemental group", *group)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(User { uid, gid, groups, home })
}

fn split_image_user(user: &str) -> (String, Option<String>) {
    match user.split_once(':') {
        Some((user, group)) if !group.is_empty() => (user.to_owned(), Some(group.to_owned())),
        Some((user, _)) => (user.to_owned(), None),
        None => (user.to_owned(), None),
    }
}

/// Number, primary group, name in the file, home.
fn find_user(text: &str, files: &Databases) -> Result<(u32, u32, Option<String>, String), UserError> {
    let text = if text.is_empty() { "0" } else { text };
    let number = text.parse::<i64>().ok();
    let entry = files.users().find(|u| match number {
        Some(number) => i64::from(u.uid) == number,
        None => u.name == text,
    });
    match (entry, number) {
        (Some(entry), _) => {
            let uid = checked("uid", i64::from(entry.uid))?;
            let gid = checked("gid", i64::from(entry.gid))?;
            let home = if entry.home.is_empty() { "/" } else { entry.home };
            Ok((uid, gid, Some(entry.name.to_owned()), home.to_owned()))
        }
        (None, Some(number)) => {
            let uid = checked("uid", number)?;
            let home = if uid == 0 { "/root" } else { "/" };
            Ok((uid, 0, None, home.to_owned()))
        }
        (None, None) => Err(UserError::NoUser(text.to_owned())),
    }
}

fn find_group(text: &str, files: &Databases) -> Result<u32, UserError> {
    if let Ok(number) = text.parse::<i64>() {
        return checked("gid", number);
    }
    let entry = files.groups().find(|g| g.name == text).ok_or_else(|| UserError::NoGroup(text.to_owned()))?;
    checked("gid", i64::from(entry.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Databases {
        Databases {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv/web:/sbin/nologin\nbroken\n\
                     evil:x:4294967295:0::/:/bin/sh\n"
                .into(),
            group: "root:x:0:\nweb:x:102:\nlogs:x:4:web,root\ncache:x:5:web\n".into(),
        }
    }

    fn user(request: UserRequest) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        resolve(&request, &files()).map(|u| (u.uid, u.gid, u.groups, u.home))
    }

    #[test]
    fn what_is_asked_wins_over_the_image() {
        let base = || UserRequest { merge_image_groups: true, image_user: "web".into(), ..Default::default() };
        assert_eq!(user(base()).unwrap(), (101, 102, vec![102, 4, 5], "/srv/web".into()));
        let by_uid = UserRequest { uid: Some(0), ..base() };
        assert_eq!(user(by_uid).unwrap(), (0, 0, vec![0, 4], "/root".into()));
        let strict = UserRequest { merge_image_groups: false, supplemental_groups: vec![2000, 2000], ..base() };
        assert_eq!(user(strict).unwrap().2, [102, 2000]);
        let unknown = UserRequest { uid: Some(4711), gid: Some(4712), ..base() };
        assert_eq!(user(unknown).unwrap(), (4711, 4712, vec![4712], "/".into()));
        let image = UserRequest { image_user: "101:logs".into(), ..base() };
        assert_eq!(user(image).unwrap().1, 4);
        let nobody = UserRequest::default();
        assert_eq!(user(nobody).unwrap(), (0, 0, vec![0], "/root".into()));
    }

    #[test]
    fn numbers_that_would_wrap_are_refused() {
        for id in [-1, 1 << 31, 1 << 32, i64::MAX, i64::MIN] {
            let by_uid = UserRequest { uid: Some(id), ..Default::default() };
            assert!(matches!(user(by_uid), Err(UserError::Range { .. })), "{id}");
            let by_image = UserRequest { image_user: id.to_string(), ..Default::default() };
            assert!(matches!(user(by_image), Err(UserError::Range { .. })), "{id}");
            let by_group = UserRequest { uid: Some(1), gid: Some(id), ..Default::default() };
            assert!(matches!(user(by_group), Err(UserError::Range { .. })), "{id}");
            let supplemental = UserRequest { supplemental_groups: vec![id], ..Default::default() };
            assert!(matches!(user(supplemental), Err(UserError::Range { .. })), "{id}");
        }
        // Also when the image's own file says so, or a number has too many digits to be one.
        for name in ["evil", "99999999999999999999"] {
            let request = UserRequest { image_user: name.into(), ..Default::default() };
            assert!(user(request).is_err(), "{name}");
        }
    }

    #[test]
    fn names_must_exist() {
        let request = UserRequest { image_user: "ghost".into(), ..Default::default() };
        assert_eq!(
            user(request).unwrap_err().to_string(),
            "unable to find user ghost: no matching entries in passwd file"
        );
        let request = UserRequest { image_user: "web:ghost".into(), ..Default::default() };
        assert_eq!(user(request).unwrap_err(), UserError::NoGroup("ghost".into()));
        let request = UserRequest { gid: Some(3), ..Default::default() };
        assert_eq!(user(request).unwrap_err(), UserError::GroupWithoutUser(3));
    }
}
