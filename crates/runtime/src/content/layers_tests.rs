//! Layers come whole or not at all, and go when nobody wants them.

use std::{fs, path::Path, sync::Arc};

use super::{Layers, Staged};
use crate::{
    content::{Digest, Grafts, Usage, unpack},
    image::testing::{Member, tarball},
};

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn stage(layers: &Layers, members: &[Member]) -> (Staged, Usage, Grafts) {
    let staged = layers.stage().unwrap();
    let (usage, grafts) = unpack(&tarball(members)[..], &staged.tree(), &staged.scratch()).unwrap();
    (staged, usage, grafts)
}

fn add(layers: &Layers, name: &str, members: &[Member], below: &[&str]) -> std::path::PathBuf {
    let (staged, usage, grafts) = stage(layers, members);
    let below: Vec<_> = below.iter().map(|name| digest(name)).collect();
    let layer = layers.commit(staged, digest(name), usage, &grafts, &below).unwrap();
    layers.tree(&layer)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().count() == 0
}

/// Deletion goes on behind the caller's back.
fn wait_until(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < end, "nothing happened for 20 s");
        std::thread::yield_now();
    }
}

#[test]
fn layers_survive_a_restart_and_leftovers_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = Layers::open(dir.path()).unwrap();
    let tree = add(&first, "a", &[Member::file("f", "content")], &[]);
    // As a crash leaves them: something half unpacked, a layer without its description.
    std::mem::forget(first.stage().unwrap());
    fs::create_dir_all(dir.path().join("layers/77/fs")).unwrap();
    drop(first);

    let second = Layers::open(dir.path()).unwrap();
    let layer = second.get(&digest("a")).unwrap();
    assert_eq!(second.tree(&layer), tree);
    assert_eq!(second.usage(), layer.usage);
    assert_eq!(fs::read(tree.join("f")).unwrap(), b"content");
    wait_until(|| is_empty(&dir.path().join("tmp")) && !dir.path().join("layers/77").exists());
    let next = add(&second, "b", &[], &[]);
    assert_ne!(next, tree);
}

#[test]
fn a_layer_that_was_not_committed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let layers = Layers::open(dir.path()).unwrap();
    drop(stage(&layers, &[Member::file("f", "content")]));
    wait_until(|| is_empty(&dir.path().join("tmp")));
    assert!(is_empty(&dir.path().join("layers")));
}

#[test]
fn only_what_nobody_pins_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let layers = Arc::new(Layers::open(dir.path()).unwrap());
    let trees: Vec<_> = ["a", "b", "c"].map(|name| add(&layers, name, &[], &[])).into();
    layers.own(&[digest("a"), digest("b")]);
    let pins = layers.pin(vec![digest("a")]);
    layers.collect().unwrap();
    // "a" is pinned, "c" never had an owner: a pull that failed may come back for it.
    assert!(layers.get(&digest("b")).is_none() && !trees[1].exists());
    assert!(trees[0].exists() && trees[2].exists());
    drop(pins);
    layers.collect().unwrap();
    assert!(layers.get(&digest("a")).is_none() && !trees[0].exists());
    wait_until(|| is_empty(&dir.path().join("tmp")));
}

#[tokio::test]
async fn one_makes_a_layer_and_the_others_wait() {
    let dir = tempfile::tempdir().unwrap();
    let layers = Arc::new(Layers::open(dir.path()).unwrap());
    let (a, b) = (digest("a"), digest("b"));
    let held = layers.lock(&a).await;
    let other = layers.lock(&b).await;
    let mut waiting = Box::pin(layers.lock(&a));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop((held, other));
    waiting.await;
}

#[test]
fn directories_that_a_layer_only_uses_look_as_below() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let layers = Layers::open(dir.path()).unwrap();
    let attributes = |dir: Member| dir.mode(0o1770).owner(33, 44).pax("SCHILY.xattr.user.k", "v");
    let base = [attributes(Member::dir("srv")), attributes(Member::dir("srv/www")), Member::dir("new")];
    add(&layers, "base", &base, &[]);
    add(&layers, "middle", &[Member::file(".wh.new", "")], &["base"]);
    let members = [Member::file("srv/www/x", ""), Member::file("new/x", "").owner(9, 9)];
    let tree = add(&layers, "top", &members, &["middle", "base"]);
    for path in ["srv", "srv/www"] {
        let meta = fs::metadata(tree.join(path)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1770, 33, 44), "{path}");
        assert_eq!(meta.mtime(), 1_600_000_000);
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(tree.join(path), "user.k", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"v");
    }
    let meta = fs::metadata(tree.join("new")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 0), "deleted in between");
}

#[test]
fn hard_links_reach_the_layers_below() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let layers = Layers::open(dir.path()).unwrap();
    add(&layers, "base", &[Member::file("bin/tool", "tool").mode(0o4755).owner(5, 6)], &[]);
    let links = [Member::hard_link("one", "bin/tool"), Member::hard_link("bin/two", "one")];
    let tree = add(&layers, "top", &links, &["base"]);
    let one = fs::metadata(tree.join("one")).unwrap();
    assert_eq!((one.mode() & 0o7777, one.uid(), one.gid(), one.nlink()), (0o4755, 5, 6, 2));
    assert_eq!(fs::read(tree.join("bin/two")).unwrap(), b"tool");

    let (staged, usage, grafts) = stage(&layers, &[Member::hard_link("x", "no/such")]);
    let error = layers.commit(staged, digest("bad"), usage, &grafts, &[digest("base")]).unwrap_err();
    assert!(error.to_string().contains("in no layer"), "{error}");
    assert!(layers.get(&digest("bad")).is_none());
}

/// As kaniko and others write them, for whom a parent directory is what the image has there.
#[test]
fn what_is_written_through_a_link_below_goes_where_it_leads() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let layers = Layers::open(dir.path()).unwrap();
    let base = [
        Member::dir("usr").mode(0o711).owner(1, 2),
        Member::dir("usr/lib").mode(0o750).owner(3, 4),
        Member::file("usr/lib/libc", "c"),
        Member::dir("usr/lib/deep"),
        Member::symlink("lib", "usr/lib"),
        Member::symlink("alias", "/lib/../lib/deep"),
        Member::symlink("dangling", "nowhere"),
    ];
    add(&layers, "base", &base, &[]);
    let top = [
        Member::file("lib/new/x", "x"),
        Member::file("lib/.wh.libc", ""),
        Member::file("alias/y", "y"),
        Member::hard_link("lib/z", "lib/new/x"),
        Member::hard_link("lib/of-below", "lib/libd"),
        Member::file("dangling/w", "w"),
    ];
    add(&layers, "middle", &[Member::file("usr/lib/libd", "d")], &["base"]);
    let tree = add(&layers, "top", &top, &["middle", "base"]);
    assert!(!tree.join("lib").exists() && !tree.join("alias").exists(), "the links show");
    for (path, content) in [
        ("usr/lib/new/x", "x"),
        ("usr/lib/deep/y", "y"),
        ("usr/lib/z", "x"),
        ("usr/lib/of-below", "d"),
        ("dangling/w", "w"),
    ] {
        assert_eq!(fs::read_to_string(tree.join(path)).unwrap(), content, "{path}");
    }
    let whiteout = fs::symlink_metadata(tree.join("usr/lib/libc")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    for (path, wanted) in [("usr", (0o711, 1, 2)), ("usr/lib", (0o750, 3, 4))] {
        let meta = fs::metadata(tree.join(path)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), wanted, "{path}");
        assert_eq!(meta.mtime(), 1_600_000_000, "{path}");
    }
}
