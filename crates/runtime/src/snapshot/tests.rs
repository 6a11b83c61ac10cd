//! Root filesystems really mounted. Needs root.

use std::{fs, path::Path};

use serde_json::json;

use super::{Error, Snapshots, is_mount};
use crate::image::{
    Images, Options,
    testing::{Member, Packing, TestImage},
};

/// Images in a directory, unmounted at the end whatever happens.
struct Fixture {
    images: Images,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::below("")
    }

    fn below(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join(name), Options::default()).unwrap();
        Self { images, dir }
    }

    fn snapshots(&self) -> &Snapshots {
        self.images.snapshots()
    }

    async fn load(&self, layers: &[Vec<Member>]) -> std::sync::Arc<crate::image::Image> {
        let layers: Vec<_> = layers.iter().map(|layer| (Packing::Plain, layer.clone())).collect();
        let archive = TestImage::new(&layers, json!({})).docker_archive(&["test:v1"]);
        self.images.load(std::io::Cursor::new(archive)).await.unwrap().remove(0)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for id in self.snapshots().list() {
            drop(self.snapshots().unmount(&id));
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_container_sees_all_layers_and_changes_none() {
    let fixture = Fixture::new();
    let image = fixture
        .load(&[
            vec![
                Member::dir("./").mode(0o751),
                Member::file("kept", "one"),
                Member::file("removed", ""),
                Member::file("replaced", "old"),
                Member::file("emptied/a", ""),
            ],
            vec![
                Member::file(".wh.removed", ""),
                Member::file("replaced", "new"),
                Member::file("emptied/.wh..wh..opq", ""),
                Member::file("emptied/b", ""),
            ],
        ])
        .await;
    let snapshots = fixture.snapshots();
    let (first, second) = ("first", "second");
    for id in [first, second] {
        snapshots.prepare(id, &image).unwrap();
    }
    let root = snapshots.mount(first).unwrap();
    assert_eq!(names(&root), ["emptied", "kept", "replaced"]);
    assert_eq!(names(&root.join("emptied")), ["b"]);
    assert_eq!(fs::read_to_string(root.join("replaced")).unwrap(), "new");
    fs::write(root.join("kept"), "changed").unwrap();
    fs::remove_file(root.join("replaced")).unwrap();
    fs::write(root.join("added"), vec![1; 100_000]).unwrap();
    // Mounting again changes nothing.
    assert_eq!(snapshots.mount(first).unwrap(), root);
    assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "changed");

    let usage = snapshots.usage(first).unwrap();
    assert!(usage.bytes >= 100_000 && usage.bytes < 200_000, "{usage:?}");
    assert_eq!(usage.inodes, 4);
    let other = snapshots.mount(second).unwrap();
    assert_eq!(fs::read_to_string(other.join("kept")).unwrap(), "one");
    assert_eq!(names(&other), ["emptied", "kept", "replaced"]);

    snapshots.unmount(first).unwrap();
    snapshots.unmount(first).unwrap();
    assert!(!is_mount(&root).unwrap());
    assert!(names(&root).is_empty());
    let root = snapshots.mount(first).unwrap();
    assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "changed");
    for id in [first, second] {
        snapshots.remove(id).unwrap();
        snapshots.remove(id).unwrap();
    }
    assert!(!root.exists() && snapshots.list().is_empty());
}

#[tokio::test]
async fn images_of_any_number_of_layers_mount() {
    let fixture = Fixture::new();
    let layers = |count: usize| {
        let name = |number: usize| vec![Member::file(format!("f{number}"), number.to_string())];
        (0..count).map(name).collect::<Vec<_>>()
    };
    // None, one, more than absolute paths leave room for, and as many as overlayfs takes.
    for count in [0, 1, 130, 500] {
        let image = fixture.load(&layers(count)).await;
        let id = format!("with-{count}");
        fixture.snapshots().prepare(&id, &image).unwrap();
        let root = fixture.snapshots().mount(&id).unwrap();
        assert_eq!(names(&root).len(), count);
        if let Some(last) = count.checked_sub(1) {
            let read = |number: usize| fs::read_to_string(root.join(format!("f{number}"))).unwrap();
            assert_eq!((read(0), read(last)), ("0".into(), last.to_string()));
        }
        fs::write(root.join("written"), "").unwrap();

        let view = format!("view-{count}");
        fixture.snapshots().view(&view, &image).unwrap();
        let root = fixture.snapshots().mount(&view).unwrap();
        assert_eq!(names(&root).len(), count);
        let error = fs::write(root.join("written"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
}

#[tokio::test]
async fn a_directory_may_be_called_anything() {
    let fixture = Fixture::below("a:b,c\\d e");
    let image = fixture.load(&[vec![Member::file("a", "")], vec![Member::file("b", "")]]).await;
    fixture.snapshots().prepare("x", &image).unwrap();
    let root = fixture.snapshots().mount("x").unwrap();
    fs::write(root.join("c"), "").unwrap();
    assert_eq!(names(&root), ["a", "b", "c"]);
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let fixture = Fixture::new();
    let image = fixture.load(&[]).await;
    for name in ["", ".", "..", "../x", "a/b", "a\0b", ".hidden", &"x".repeat(300)] {
        assert!(matches!(fixture.snapshots().prepare(name, &image), Err(Error::Name(_))), "{name:?}");
        assert!(fixture.snapshots().remove(name).is_err(), "{name:?}");
    }
    fixture.snapshots().prepare("x", &image).unwrap();
    assert!(matches!(fixture.snapshots().prepare("x", &image), Err(Error::Exists(_))));
    assert!(matches!(fixture.snapshots().mount("y"), Err(Error::NotFound(_))));
    assert!(matches!(fixture.snapshots().usage("y"), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_restart_finds_what_runs_and_clears_the_rest() {
    let mut fixture = Fixture::new();
    let image = fixture.load(&[vec![Member::file("a", "")], vec![Member::file("b", "")]]).await;
    let described = fixture.snapshots().prepare("running", &image).unwrap();
    fixture.snapshots().prepare("stale", &image).unwrap();
    let root = fixture.snapshots().mount("running").unwrap();
    let stale = fixture.snapshots().mount("stale").unwrap();
    fs::write(root.join("written"), "here").unwrap();
    // What a crash leaves in the middle of prepare.
    let half = fixture.snapshots().root().join("half");
    fs::create_dir_all(half.join("fs")).unwrap();
    drop(image);
    let dir = fixture.dir.path().to_owned();
    fixture.images = {
        let elsewhere = tempfile::tempdir().unwrap();
        let aside = Images::open(elsewhere.path(), Options::default()).unwrap();
        drop(std::mem::replace(&mut fixture.images, aside));
        Images::open(&dir, Options::default()).unwrap()
    };
    let snapshots = fixture.snapshots();
    assert!(!half.exists());
    assert_eq!(snapshots.get("running").unwrap().unwrap(), described);
    assert_eq!(fs::read_to_string(root.join("written")).unwrap(), "here");

    // The image goes, but not from under the container.
    fixture.images.remove("test:v1").unwrap();
    assert!(is_mount(&root).unwrap() && root.join("a").exists());
    snapshots.retain(&["running".into()]).unwrap();
    assert_eq!(snapshots.list(), ["running"]);
    assert!(!stale.exists());
    snapshots.unmount("running").unwrap();
    assert!(snapshots.mount("running").unwrap().join("b").exists());
    snapshots.remove("running").unwrap();
    assert_eq!(fixture.images.usage().inodes, 0, "its layers were kept for it alone");
}
