//! Layers as builders make them, and layers made to escape. Needs root, as unpacking does.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{Grafts, Usage, unpack};
use crate::image::testing::{Member, tarball};

struct Unpacked {
    dir: tempfile::TempDir,
    grafts: Grafts,
    usage: Usage,
}

impl Unpacked {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn meta(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let meta = self.meta(path);
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(self.path(path), name, value.as_mut_slice()).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn is_opaque(&self, path: &str) -> bool {
        self.xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
    }
}

fn try_layer(members: &[Member]) -> (Unpacked, std::io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["root", "scratch", "outside"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    let result = unpack(&tarball(members)[..], &dir.path().join("root"), &dir.path().join("scratch"));
    let (done, result) = match result {
        Ok(done) => (done, Ok(())),
        Err(error) => (<(Usage, Grafts)>::default(), Err(error)),
    };
    (Unpacked { dir, usage: done.0, grafts: done.1 }, result)
}

fn layer(members: &[Member]) -> Unpacked {
    let (unpacked, result) = try_layer(members);
    result.unwrap();
    unpacked
}

fn refused(members: &[Member], why: &str) -> Unpacked {
    let (unpacked, result) = try_layer(members);
    let error = result.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    unpacked
}

#[test]
fn everything_a_tar_can_say_arrives() {
    let mut nested = Member::dir("var/lib");
    nested.mtime = 1_111_111_111;
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let unpacked = layer(&[
        Member::dir("./"),
        Member::dir("./var").mode(0o1777),
        nested,
        Member::file("var/lib/file", "content").owner(1000, 50).mode(0o640),
        Member::file("var/su", "#!").owner(1000, 0).mode(0o6755),
        Member::file("var/ping", "").mode(0o755).pax("SCHILY.xattr.security.capability", capability),
        Member::file("var/noted", "").pax("SCHILY.xattr.user.note", "a\nb"),
        Member::hard_link("var/again", "var/lib/file"),
        Member::symlink("var/link", "/etc/passwd").owner(7, 8),
        Member::device("var/null", b'3', 1, 3),
        Member::device("var/disk", b'4', 8, 1),
        Member::device("var/pipe", b'6', 0, 0),
    ]);
    let file = unpacked.meta("var/lib/file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1000, 50, 0o640));
    assert_eq!((file.mtime(), file.nlink()), (1_600_000_000, 2));
    assert_eq!(unpacked.read("var/again"), "content");
    assert_eq!(unpacked.meta("var/su").mode() & 0o7777, 0o6755);
    assert_eq!(unpacked.meta("var").mode() & 0o7777, 0o1777);
    assert_eq!(unpacked.meta("var/lib").mtime(), 1_111_111_111);
    assert_eq!(unpacked.meta("var").mtime(), 1_600_000_000);
    assert_eq!(unpacked.xattr("var/ping", "security.capability").unwrap(), capability);
    assert_eq!(unpacked.xattr("var/noted", "user.note").unwrap(), b"a\nb");
    assert_eq!(fs::read_link(unpacked.path("var/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!((unpacked.meta("var/link").uid(), unpacked.meta("var/link").gid()), (7, 8));
    assert_eq!(unpacked.meta("var/null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(unpacked.meta("var/null").mode() & 0o7777, 0o666);
    assert!(unpacked.meta("var/disk").file_type().is_block_device());
    assert!(unpacked.meta("var/pipe").file_type().is_fifo());
    assert!(unpacked.grafts.is_empty());
    assert_eq!(unpacked.usage, Usage { bytes: 3 * 4096 + 2 * 4096, inodes: 10 + 1 });
}

#[test]
fn later_entries_replace_earlier_ones() {
    let unpacked = layer(&[
        Member::file("a", "one"),
        Member::file("a", "two"),
        Member::dir("d"),
        Member::file("d/kept", ""),
        Member::dir("d").mode(0o700),
        Member::dir("gone"),
        Member::file("gone/x", ""),
        Member::file("gone", "a file now"),
        Member::symlink("s", "d"),
        Member::file("s", "no longer a link"),
    ]);
    assert_eq!(unpacked.read("a"), "two");
    assert!(unpacked.path("d/kept").exists());
    assert_eq!(unpacked.meta("d").mode() & 0o777, 0o700);
    assert_eq!(unpacked.read("gone"), "a file now");
    assert_eq!(unpacked.read("s"), "no longer a link");
    assert_eq!(fs::read_dir(unpacked.path("d")).unwrap().count(), 1);
}

#[test]
fn whiteouts_become_overlayfs() {
    let unpacked = layer(&[
        Member::file("etc/.wh.removed", ""),
        Member::dir("emptied"),
        Member::file("emptied/.wh..wh..opq", ""),
        Member::file("emptied/new", ""),
        // Deleted below and made again, told in either order.
        Member::file(".wh.before", ""),
        Member::dir("before"),
        Member::dir("after"),
        Member::file(".wh.after", ""),
        Member::file(".wh.file", ""),
        Member::file("file", "new"),
        Member::file(".wh.implied", ""),
        Member::file("implied/x", ""),
    ]);
    assert!(unpacked.is_whiteout("etc/removed"));
    assert!(unpacked.is_opaque("emptied") && unpacked.path("emptied/new").exists());
    assert!(!unpacked.path("emptied/.wh..wh..opq").exists());
    assert!(unpacked.is_opaque("before") && unpacked.is_opaque("after"));
    assert!(unpacked.is_opaque("implied") && unpacked.path("implied/x").exists());
    assert_eq!(unpacked.read("file"), "new");
    assert_eq!(unpacked.grafts.dirs, [PathBuf::from("etc"), "implied".into()]);
}

#[test]
fn leftovers_of_aufs_are_left_out_but_their_links_work() {
    let unpacked = layer(&[
        Member::dir(".wh..wh.plnk"),
        Member::file(".wh..wh.plnk/123.456", "shared"),
        Member::file(".wh..wh.aufs", ""),
        Member::dir(".wh..wh.orph"),
        Member::hard_link("one", ".wh..wh.plnk/123.456"),
        Member::hard_link("two", "/.wh..wh.plnk/123.456"),
    ]);
    assert_eq!((unpacked.read("one"), unpacked.read("two")), ("shared".into(), "shared".into()));
    assert_eq!(fs::read_dir(unpacked.path("")).unwrap().count(), 2);
}

#[test]
fn sparse_files_keep_their_holes() {
    let unpacked = layer(&[Member::file("holes", "headtail")
        .pax("GNU.sparse.map", "0,4,1000000,4")
        .pax("GNU.sparse.size", "2000000")]);
    let content = fs::read(unpacked.path("holes")).unwrap();
    assert_eq!((content.len(), &content[..4]), (2_000_000, &b"head"[..]));
    assert_eq!(&content[999_999..1_000_005], b"\0tail\0");
    assert!(unpacked.meta("holes").blocks() * 512 < 100_000);
}

#[test]
fn absolute_names_are_relative_to_the_image() {
    let unpacked = layer(&[Member::file("/etc/motd", "inside"), Member::file("//srv/x", "")]);
    assert_eq!(unpacked.read("etc/motd"), "inside");
    assert!(unpacked.path("srv/x").exists());
}

#[test]
fn a_name_with_dots_is_refused() {
    for name in ["../evil", "a/../../evil", "/../evil", "a/..", "./../../evil"] {
        let unpacked = refused(&[Member::file(name, "evil")], "\"..\"");
        assert!(!unpacked.dir.path().join("evil").exists());
    }
}

#[test]
fn a_link_out_of_the_image_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let absolute = outside.path().to_str().unwrap();
    for target in [absolute, "../outside", "../../../../../../../../../../etc", "/proc/self/cwd/.."] {
        let unpacked = layer(&[
            Member::symlink("exit", target),
            Member::file("exit/planted", "evil"),
            Member::file("exit/secret", "overwritten"),
        ]);
        let is_untouched =
            |dir: &Path| !dir.join("planted").exists() && fs::read(dir.join("secret")).unwrap() == b"secret";
        assert!(is_untouched(outside.path()), "{target}");
        assert!(is_untouched(&unpacked.dir.path().join("outside")), "{target}");
        assert!(!Path::new("/etc/planted").exists());
    }
}

#[test]
fn a_hard_link_does_not_reach_outside() {
    let unpacked = refused(&[Member::hard_link("stolen", "../outside/secret")], "\"..\"");
    assert!(!unpacked.path("stolen").exists());
    // Through a link that was planted first, and to the link itself.
    let unpacked = layer(&[
        Member::symlink("exit", "/"),
        Member::hard_link("stolen", "exit/etc/passwd"),
        Member::symlink("passwd", "/etc/passwd"),
        Member::hard_link("again", "passwd"),
    ]);
    assert!(!unpacked.path("stolen").exists());
    assert_eq!(unpacked.grafts.links.len(), 1);
    assert!(unpacked.meta("again").is_symlink());
}

#[test]
fn a_file_is_not_written_through_a_link_of_its_name() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let unpacked = layer(&[
        Member::symlink("x", outside.path().to_str().unwrap()),
        Member::file("x", "evil"),
        Member::symlink("y", outside.path().to_str().unwrap()),
        Member::dir("y").mode(0o777).owner(5, 5),
    ]);
    assert_eq!(fs::read(outside.path()).unwrap(), b"");
    assert_eq!(outside.as_file().metadata().unwrap().uid(), 0);
    assert!(unpacked.meta("x").is_file() && unpacked.meta("y").is_dir());
}

#[test]
fn a_whiteout_hides_one_name_in_its_own_directory() {
    for name in [".wh...", "a/.wh...", ".wh.", "a/.wh..", ".wh.x/file", ".wh.x/.wh.y"] {
        let (unpacked, result) = try_layer(&[Member::dir("a"), Member::file(name, "")]);
        assert!(result.is_err(), "{name}");
        assert!(unpacked.path("a").is_dir(), "{name}");
    }
}

#[test]
fn owners_that_mean_something_else_are_refused() {
    for member in [
        Member::file("x", "").owner(u64::from(u32::MAX), 0),
        Member::file("x", "").owner(0, u64::from(u32::MAX)),
        Member::file("x", "").pax("uid", "4294967296"),
        Member::dir("x").owner(1 << 33, 0),
        Member::symlink("x", "y").owner(u64::from(u32::MAX), 0),
    ] {
        refused(&[member], "out of range");
    }
}

#[test]
fn overlayfs_own_attributes_do_not_come_from_an_image() {
    let unpacked = layer(&[
        Member::dir("d")
            .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
            .pax("SCHILY.xattr.trusted.overlay.opaque", "y"),
        Member::file("f", "").pax("SCHILY.xattr.trusted.overlay.metacopy", ""),
    ]);
    assert_eq!(unpacked.xattr("d", "trusted.overlay.redirect"), None);
    assert!(!unpacked.is_opaque("d"));
    assert_eq!(unpacked.xattr("f", "trusted.overlay.metacopy"), None);
}

#[test]
fn nonsense_is_refused() {
    refused(&[Member::dir("d"), Member::hard_link("x", "d")], "directory");
    refused(&[Member::hard_link("x", "")], "nothing");
    refused(&[Member::symlink("x", "")], "nothing");
    refused(&[Member::file("f", ""), Member::file("f/below", "")], "not a directory");
    refused(&[Member::symlink("loop", "loop"), Member::file("loop/x", "")], "");
    refused(&[Member::file("x".repeat(90), "").pax("path", "y".repeat(300))], "255");
    let mut cut = tarball(&[Member::file("f", [0; 4096])]);
    cut.truncate(3000);
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&cut[..], dir.path(), dir.path()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Members of any kind under a few colliding names, links pointing everywhere: nothing outside
    /// the tree is ever touched, whether unpacking succeeds or not.
    #[test]
    fn nothing_escapes(
        members in proptest::collection::vec(
            (0usize..6, "(|/|\\.\\./)(a|b|s|\\.wh\\.a|\\.\\.|\\.)(/(a|b|s|\\.wh\\.\\.wh\\.\\.opq|\\.\\.)){0,3}",
             "(/|\\.\\./|\\.\\./\\.\\./|)(a|b|s|outside|outside/secret|\\.\\.)(/(a|b|secret))?"),
            0..12,
        )
    ) {
        let members: Vec<_> = members.iter().map(|(kind, name, link)| match kind {
            0 => Member::dir(name).mode(0o777),
            1 => Member::symlink(name, link),
            2 => Member::hard_link(name, link),
            3 => Member::device(name, b'3', 0, 0),
            _ => Member::file(name, "evil").mode(0o4777),
        }).collect();
        let (unpacked, _) = try_layer(&members);
        let outside = unpacked.dir.path().join("outside");
        let secret = fs::metadata(outside.join("secret")).unwrap();
        prop_assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        prop_assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        prop_assert_eq!((secret.nlink(), secret.permissions().mode() & 0o7777), (1, 0o644));
        let mut beside: Vec<_> =
            fs::read_dir(unpacked.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        prop_assert_eq!(beside, ["outside", "root", "scratch"]);
    }
}
