//! Images from end to end: real and invented registries, archives, restarts. Needs root.

use std::{
    fs,
    io::Cursor,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cri::v1::AuthConfig;
use proptest::prelude::*;
use serde_json::json;

use super::{
    Error, Images, Options, Platform, Progress, Pull,
    testing::{
        Asked, Content, DockerRegistry, FakeRegistry, Member, Packing, Reply, TestImage, gzip, reply_with, tarball,
    },
};
use crate::{
    content::Digest,
    registry::{Hosts, Proxies, chain},
};

fn options(registry: &str) -> Options {
    let mirrors = vec![format!("docker.io=http://{registry}").parse().unwrap()];
    Options { hosts: Hosts { mirrors, certificates: Vec::new(), proxies: Proxies::default() }, ..Options::default() }
}

fn open(dir: &Path, registry: &str) -> Images {
    Images::open(dir, options(registry)).unwrap()
}

fn named(reference: &str) -> Pull {
    Pull { reference: reference.into(), ..Pull::default() }
}

fn read(images: &Images, name: &str, path: &str) -> Option<String> {
    let image = images.resolve(name)?;
    let mount = images.snapshots().view("reader", &image).unwrap();
    // The first layer that has it: enough for images without whiteouts.
    let content = mount.lower.iter().find_map(|layer| fs::read_to_string(layer.join(path)).ok());
    images.snapshots().remove("reader").unwrap();
    content
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        tokio::task::yield_now().await;
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().count() == 0
}

/// Nothing half done, and no layer that no image has.
async fn assert_clean(dir: &Path) {
    wait_until("nothing is left being made", || is_empty(&dir.join("tmp"))).await;
    assert!(is_empty(&dir.join("layers")), "no layer stays");
}

fn web_server() -> TestImage {
    TestImage::new(
        &[
            (Packing::Gzip, vec![Member::dir("etc"), Member::file("etc/os", "base")]),
            (Packing::Zstd, vec![Member::file("usr/sbin/server", "binary").mode(0o755)]),
            (Packing::Plain, vec![Member::file("etc/server.conf", "daemon off")]),
        ],
        json!({"Env": ["PATH=/usr/sbin"], "Entrypoint": ["server"], "Cmd": ["-g"], "User": "33:33",
            "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT", "WorkingDir": "/srv",
            "Labels": {"maintainer": "us"}, "Volumes": {"/data": {}}}),
    )
}

#[tokio::test]
async fn an_image_comes_from_a_real_registry() {
    let mut registry = DockerRegistry::start();
    let image = web_server();
    registry.push("library/server:1.0", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), registry.address());

    let pulled = images.pull(named("server:1.0")).await.unwrap();
    assert_eq!(pulled.id(), &image.config.digest());
    assert_eq!(pulled.repo_tags(), ["docker.io/library/server:1.0"]);
    let digest = format!("docker.io/library/server@{}", image.manifest.digest());
    assert_eq!(pulled.repo_digests(), [digest.as_str()]);
    let config = pulled.config();
    assert_eq!((config.entrypoint.as_slice(), config.cmd.as_slice()), (&["server".into()][..], &["-g".into()][..]));
    assert_eq!((config.stop_signal.as_str(), config.working_dir.as_str()), ("SIGQUIT", "/srv"));
    assert_eq!(
        (config.exposed_ports.as_slice(), config.volumes.as_slice()),
        (&["80/tcp".into()][..], &["/data".into()][..])
    );
    assert_eq!(pulled.user(), (Some(33), None));
    for (path, content) in [("etc/os", "base"), ("usr/sbin/server", "binary"), ("etc/server.conf", "daemon off")] {
        assert_eq!(read(&images, "server:1.0", path).as_deref(), Some(content));
    }

    // Under each of its names, after a restart, and without the registry.
    let id = pulled.id().clone();
    drop((pulled, images));
    registry.stop();
    let images = open(dir.path(), registry.address());
    for name in ["server:1.0", "docker.io/library/server:1.0", &digest, id.as_str(), id.hex(), &id.hex()[..12]] {
        assert_eq!(images.resolve(name).expect(name).id(), &id, "{name}");
    }
    for name in ["server", "other/server:1.0", &id.hex()[..3], "", "sha256:", "..", &"0".repeat(64)] {
        assert!(images.resolve(name).is_none(), "{name}");
    }
    let failed = images.pull(named("server:1.0")).await.unwrap_err();
    assert!(chain(&failed).contains("connection refused"), "{}", chain(&failed));

    images.remove("server:1.0").unwrap();
    assert!(images.list().is_empty() && images.resolve(id.as_str()).is_none());
    assert_clean(dir.path()).await;
    assert!(is_empty(&dir.path().join("blobs/sha256")));
}

#[tokio::test]
async fn the_image_for_this_machine_comes_from_an_index() {
    let registry = DockerRegistry::start();
    let (os, arch) = Platform::here();
    let (ours, theirs) = (TestImage::simple("ours"), TestImage::simple("theirs"));
    for image in [&ours, &theirs] {
        registry.push("library/multi:any", image).await;
    }
    let foreign = if arch == "amd64" { "arm64" } else { "amd64" };
    let index = TestImage::index(&[(&theirs, os, foreign), (&ours, os, arch)]);
    registry.push_manifest("library/multi", "v1", &index).await;
    let useless = TestImage::index(&[(&theirs, os, foreign)]);
    registry.push_manifest("library/multi", "foreign", &useless).await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), registry.address());

    let pulled = images.pull(named("multi:v1")).await.unwrap();
    assert_eq!(pulled.id(), &ours.config.digest());
    assert_eq!(pulled.repo_digests(), [format!("docker.io/library/multi@{}", index.digest())]);
    // By the index's digest too, which finds it here.
    let by_digest = images.pull(named(&format!("multi@{}", index.digest()))).await.unwrap();
    assert_eq!(by_digest.id(), pulled.id());

    let error = images.pull(named("multi:foreign")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    assert!(chain(&error).contains("no match for platform in manifest"), "{}", chain(&error));
}

#[tokio::test]
async fn what_is_missing_reads_as_containerd_says_it() {
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), registry.address());
    let name = format!("{}/nginx:bad", registry.address());
    let error = images.pull(named(&name)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    assert_eq!(
        chain(&error),
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": \
             {name}: not found"
        )
    );
    let error = images.pull(named("NGINX:bad")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert_eq!(
        chain(&error),
        "failed to parse image reference \"NGINX:bad\": invalid reference format: repository name \
         (library/NGINX) must be lowercase"
    );
}

#[tokio::test]
async fn a_tag_moves_to_the_image_that_was_pulled_last() {
    let registry = DockerRegistry::start();
    let (old, new) = (TestImage::simple("old"), TestImage::simple("new"));
    registry.push("library/app:latest", &old).await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), registry.address());
    images.pull(named("app")).await.unwrap();
    registry.push("library/app:latest", &new).await;
    registry.push("library/app:v2", &new).await;
    images.pull(named("app")).await.unwrap();
    images.pull(named("app:v2")).await.unwrap();

    assert_eq!(images.resolve("app").unwrap().id(), &new.config.digest());
    assert_eq!(images.resolve("app").unwrap().repo_tags().len(), 2);
    let before = images.resolve(old.config.digest().as_str()).unwrap();
    assert!(before.repo_tags().is_empty());
    assert_eq!(before.repo_digests().len(), 1);
    drop((before, images));
    let images = open(dir.path(), registry.address());
    assert_eq!(images.list().len(), 2);
    // All names of an image go at once.
    images.remove("app:v2").unwrap();
    assert!(images.resolve("app").is_none());
    assert_eq!(images.list().len(), 1);
}

/// Two images that share a large layer below.
fn relatives() -> (TestImage, TestImage) {
    let base = || (Packing::Gzip, vec![Member::file("base", "shared ".repeat(100_000))]);
    let top = |text: &str| (Packing::Gzip, vec![Member::file("top", text)]);
    (TestImage::new(&[base(), top("one")], json!({})), TestImage::new(&[base(), top("two")], json!({})))
}

#[tokio::test]
async fn a_layer_is_fetched_once_for_all_who_want_it() {
    let (one, two) = relatives();
    let by_tag = (one.manifest.clone(), two.manifest.clone());
    let registry = FakeRegistry::start(&[&one, &two], move |asked| {
        let tag = asked.target.split_once("/manifests/")?.1.split('?').next()?;
        match tag {
            "one" => Some(reply_with(asked, &by_tag.0)),
            "two" => Some(reply_with(asked, &by_tag.1)),
            _ => None,
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), &registry.address());
    let names = ["app:one", "app:two", "app:one", "other:two"];
    let pulls = names.map(|name| images.pull(named(name)));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let fetched = |content: &Content| {
        let digest = content.digest().to_string();
        registry.count(|asked| asked.is_blob() && asked.target.contains(&digest))
    };
    assert_eq!(one.layers[0].digest(), two.layers[0].digest());
    assert_eq!((fetched(&one.layers[0]), fetched(&one.layers[1]), fetched(&two.layers[1])), (1, 1, 1));
    assert_eq!(read(&images, "app:one", "top").as_deref(), Some("one"));
    assert_eq!(read(&images, "other:two", "top").as_deref(), Some("two"));

    // A shared layer stays for the one that is left.
    images.remove("app:one").unwrap();
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 2);
    assert!(read(&images, "app:two", "base").is_some());
    images.remove("app:two").unwrap();
    assert_clean(dir.path()).await;
}

#[tokio::test]
async fn an_interrupted_pull_keeps_what_it_finished() {
    let (image, _) = relatives();
    let top = image.layers[1].digest().to_string();
    let broken = Arc::new(AtomicBool::new(true));
    let (is_broken, target) = (broken.clone(), top.clone());
    let registry = FakeRegistry::start(&[&image], move |asked| {
        (is_broken.load(Ordering::SeqCst) && asked.target.contains(&target)).then(|| Reply::status(403))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { parallel_layers: 1, ..options(&registry.address()) };
    let images = Images::open(dir.path(), options).unwrap();
    let error = images.pull(named("app")).await.unwrap_err();
    assert!(chain(&error).contains("403 Forbidden"), "{}", chain(&error));
    assert!(images.list().is_empty());
    drop(images);

    broken.store(false, Ordering::SeqCst);
    let (path, address) = (dir.path().to_owned(), registry.address());
    let images = tokio::task::spawn_blocking(move || open(&path, &address)).await.unwrap();
    images.pull(named("app")).await.unwrap();
    let base = image.layers[0].digest().to_string();
    assert_eq!(registry.count(|asked| asked.target.contains(&base)), 1);
}

#[tokio::test]
async fn a_cancelled_pull_leaves_nothing_behind() {
    let image = TestImage::simple(&"content ".repeat(500_000));
    let layer = image.layers[0].clone();
    let registry = FakeRegistry::start(&[&image], move |asked| {
        asked.is_blob().then(|| reply_with(asked, &layer)).filter(|_| asked.target.contains(layer.digest().as_str()))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), &registry.address());
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let progress = Arc::new(move |progress| {
        if matches!(progress, Progress::Layer { .. }) {
            begun.send(()).ok();
        }
    });
    let mut pull = Box::pin(images.pull(Pull { progress: Some(progress), ..named("app") }));
    tokio::select! {
        _ = &mut pull => panic!("it should have been cancelled first"),
        _ = has_begun.recv() => {}
    }
    drop(pull);
    wait_until("the layer is dropped", || is_empty(&dir.path().join("tmp"))).await;
    // And the next pull is not held up by it.
    images.pull(named("app")).await.unwrap();
    assert_eq!(images.list().len(), 1);
}

#[tokio::test]
async fn progress_is_told_to_the_end() {
    let image = web_server();
    let registry = FakeRegistry::start(&[&image], |_| None).await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), &registry.address());
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let progress = Arc::new(move |step| log.lock().unwrap().push(step));
    images.pull(Pull { progress: Some(progress), ..named("app") }).await.unwrap();
    let told = told.lock().unwrap().clone();
    let digest = image.manifest.digest().to_string();
    let reference = "docker.io/library/app:latest".to_owned();
    assert_eq!(told[0], Progress::Resolved { reference, digest });
    for layer in &image.layers {
        let (digest, total) = (layer.digest().to_string(), layer.bytes.len() as u64);
        assert!(told.contains(&Progress::Layer { digest: digest.clone(), offset: total, total }));
        assert!(told.contains(&Progress::Unpacked { digest }));
    }
}

#[tokio::test]
async fn credentials_of_the_pull_are_used_and_checked_each_time() {
    let image = TestImage::simple("secret");
    let registry = FakeRegistry::start(&[&image], |asked| {
        let allowed = asked.header(http::header::AUTHORIZATION) == Some("Basic dXNlcjpzZWNyZXQ=");
        (!allowed).then(|| Reply::status(401).with("www-authenticate", "Basic realm=\"r\""))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), &registry.address());
    let auth = AuthConfig { username: "user".into(), password: "secret".into(), ..Default::default() };
    images.pull(Pull { auth: Some(auth), ..named("app") }).await.unwrap();
    // That it is here already gives nobody the right to it.
    let error = images.pull(named("app")).await.unwrap_err();
    assert!(chain(&error).contains("pull access denied"), "{}", chain(&error));
}

#[tokio::test]
async fn content_that_lies_is_refused_and_leaves_nothing() {
    let good = TestImage::simple("content");
    let with_config =
        |document: serde_json::Value| TestImage::assemble(document, good.layers.clone(), good.tars.clone());
    let (os, arch) = Platform::here();
    let diff_ids = |ids: &[Digest]| json!({"os": os, "architecture": arch, "rootfs": {"diff_ids": ids}});
    let diff_id = Digest::of(&good.tars[0]);
    let truncated = {
        let mut layer = good.layers[0].clone();
        layer.bytes.truncate(layer.bytes.len() / 2);
        TestImage::assemble(diff_ids(std::slice::from_ref(&diff_id)), vec![layer], Vec::new())
    };
    let hostile = TestImage::new(&[(Packing::Gzip, vec![Member::file("../../evil", "evil")])], json!({}));
    for (image, why) in [
        (with_config(diff_ids(&[])), "mismatched image rootfs and manifest layers"),
        (with_config(diff_ids(&[diff_id.clone(), diff_id.clone()])), "mismatched image rootfs"),
        (with_config(diff_ids(&[Digest::of(b"other")])), "wrong diff id calculated on extraction"),
        (
            with_config(json!({"os": "plan9", "architecture": arch, "rootfs": {"diff_ids": [diff_id]}})),
            "no match for platform",
        ),
        (with_config(json!("nothing")), "invalid manifest"),
        (truncated, "failed to extract layer"),
        (hostile, "must not contain \"..\""),
    ] {
        let registry = FakeRegistry::start(&[&image], |_| None).await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path(), &registry.address());
        let error = images.pull(named("app")).await.unwrap_err();
        assert!(chain(&error).contains(why), "{why}: {}", chain(&error));
        assert!(images.list().is_empty());
        assert_clean(dir.path()).await;
    }
    // Bytes that differ from their digest on the way.
    let layer = good.layers[0].clone();
    let registry = FakeRegistry::start(&[&good], move |asked| {
        let mut layer = layer.clone();
        let wanted = asked.target.contains(layer.digest().as_str());
        *layer.bytes.last_mut().unwrap() ^= 1;
        wanted.then(|| Reply::body(layer.bytes))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), &registry.address());
    let error = images.pull(named("app")).await.unwrap_err();
    assert!(chain(&error).contains("unexpected commit digest"), "{}", chain(&error));
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    assert_clean(dir.path()).await;
}

#[tokio::test]
async fn archives_of_docker_and_oci_load() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), "127.0.0.1:1");
    let base = || vec![Member::file("base", "base")];
    // The same layer twice, which docker saves as a link.
    let image = TestImage::new(
        &[(Packing::Gzip, base()), (Packing::Gzip, base()), (Packing::Zstd, vec![Member::file("top", "top")])],
        json!({"Cmd": ["run"]}),
    );
    let docker = image.docker_archive(&["app:v1", "quay.io/x/app:v2"]);
    let loaded = images.load(Cursor::new(docker.clone())).await.unwrap();
    assert_eq!(loaded[0].id(), &image.config.digest());
    assert_eq!(loaded[0].repo_tags(), ["docker.io/library/app:v1", "quay.io/x/app:v2"]);
    assert_eq!(read(&images, "app:v1", "top").as_deref(), Some("top"));
    assert_eq!(images.load(Cursor::new(gzip(&docker))).await.unwrap().len(), 1);
    images.remove("app:v1").unwrap();
    drop(loaded);

    let loaded = images.load(Cursor::new(image.oci_archive("app:v3"))).await.unwrap();
    assert_eq!(loaded[0].repo_tags(), ["docker.io/library/app:v3"]);
    let digest = format!("docker.io/library/app@{}", image.manifest.digest());
    assert_eq!(loaded[0].repo_digests(), [digest.as_str()]);
    assert_eq!(read(&images, &digest, "base").as_deref(), Some("base"));
    let manifest = images.document(loaded[0].manifest().unwrap()).unwrap();
    assert_eq!(manifest, image.manifest.bytes);
}

#[tokio::test]
async fn archives_that_are_none_say_so_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), "127.0.0.1:1");
    let image = TestImage::simple("content");
    let mut cut = image.docker_archive(&["app:v1"]);
    cut.truncate(cut.len() / 2);
    let manifest = |text: &str| tarball(&[Member::file("manifest.json", text)]);
    let escape = r#"[{"Config": "../../../etc/hostname", "RepoTags": [], "Layers": []}]"#;
    let looped = tarball(&[
        Member::symlink("a", "b"),
        Member::symlink("b", "a"),
        Member::file("manifest.json", r#"[{"Config": "a", "RepoTags": [], "Layers": []}]"#),
    ]);
    let outside = tarball(&[
        Member::symlink("config", "/etc/hostname"),
        Member::file("manifest.json", r#"[{"Config": "config", "RepoTags": [], "Layers": []}]"#),
    ]);
    for (archive, why) in [
        (b"not a tar at all, but long enough to be a header of one".repeat(20), "invalid tar header"),
        (Vec::new(), "neither manifest.json"),
        (tarball(&[Member::file("x", "")]), "neither manifest.json"),
        (manifest("[]"), "holds no image"),
        (manifest("{"), "manifest.json"),
        (manifest(escape), "missing from the archive"),
        (looped, "missing from the archive"),
        (outside, "missing from the archive"),
        (cut, ""),
        (image.docker_archive(&["Not A Name"]), "Not A Name"),
    ] {
        let error = images.load(Cursor::new(archive)).await.unwrap_err();
        let said = chain(&error);
        assert!(said.starts_with("failed to load images") && said.contains(why), "{why}: {said}");
    }
    assert!(images.list().is_empty());
    wait_until("nothing is left being made", || is_empty(&dir.path().join("tmp"))).await;
}

#[tokio::test]
async fn the_built_in_image_needs_no_registry() {
    let dir = tempfile::tempdir().unwrap();
    let executable = dir.path().join("exe");
    fs::write(&executable, "#!first").unwrap();
    let store = dir.path().join("images");
    let open = || {
        let executable = Some(executable.clone());
        Images::open(&store, Options { executable, ..options("127.0.0.1:1") }).unwrap()
    };
    let images = open();
    let name = "pilothouse.local/pilothouse";
    let first = images.pull(named(name)).await.unwrap();
    for tag in [":latest", ":pause", ":v9.9"] {
        assert_eq!(images.resolve(&format!("{name}{tag}")).unwrap().id(), first.id());
    }
    assert!(first.is_pinned());
    assert_eq!(first.config().entrypoint, ["/pilothouse", "demo-server"]);
    assert_eq!(read(&images, name, "pilothouse").as_deref(), Some("#!first"));
    assert!(read(&images, name, "etc/passwd").unwrap().starts_with("root:x:0:0:"));
    assert!(matches!(images.remove(name), Err(Error::BuiltIn(_))));
    let error = images.pull(named("pilothouse.local/other")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);

    // The same executable makes the same image, and another one another.
    let layers = || fs::read_dir(store.join("layers")).unwrap().count();
    let id = first.id().clone();
    drop((first, images));
    let images = open();
    assert_eq!((images.resolve(name).unwrap().id(), layers()), (&id, 1));
    images.snapshots().prepare("old", &images.resolve(name).unwrap()).unwrap();
    drop(images);
    fs::write(&executable, "#!second, longer").unwrap();
    let images = open();
    assert_eq!(read(&images, name, "pilothouse").as_deref(), Some("#!second, longer"));
    assert_eq!(images.list().len(), 1);
    // A container of the old one goes on undisturbed.
    let old = images.snapshots().get("old").unwrap().unwrap();
    assert_eq!(fs::read_to_string(old.lower[0].join("pilothouse")).unwrap(), "#!first");
    images.snapshots().remove("old").unwrap();
    assert_eq!(layers(), 1);
    drop(images);
    let without = Images::open(&store, options("127.0.0.1:1")).unwrap();
    assert!(without.list().is_empty());
}

#[tokio::test]
async fn one_process_has_the_images_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), "127.0.0.1:1");
    let error = Images::open(dir.path(), Options::default()).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(images);
    open(dir.path(), "127.0.0.1:1");
}

#[tokio::test]
async fn damage_on_disk_costs_the_image_and_not_the_start() {
    let registry = DockerRegistry::start();
    let (one, two) = (TestImage::simple("one"), TestImage::simple("two"));
    registry.push("library/one:v", &one).await;
    registry.push("library/two:v", &two).await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path(), registry.address());
    for name in ["one:v", "two:v"] {
        images.pull(named(name)).await.unwrap();
    }
    drop(images);
    fs::write(dir.path().join("blobs/sha256").join(one.config.digest().hex()), "damaged").unwrap();
    let images = open(dir.path(), registry.address());
    assert!(images.resolve("one:v").is_none() && images.resolve("two:v").is_some());
    images.pull(named("one:v")).await.unwrap();
    drop(images);
    for entry in fs::read_dir(dir.path().join("layers")).unwrap() {
        fs::write(entry.unwrap().path().join("layer.json"), "").unwrap();
    }
    let images = open(dir.path(), registry.address());
    assert!(images.list().is_empty());
    images.pull(named("two:v")).await.unwrap();
    assert_eq!(read(&images, "two:v", "file").as_deref(), Some("two"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a registry answers, a pull ends with an error or the right image, and no trace.
    #[test]
    fn any_registry_is_survived(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4),
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..3),
        target in 0usize..3,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let image = TestImage::simple("content");
            let mut content = [&image.manifest, &image.config, &image.layers[0]][target].clone();
            let digest = content.digest().to_string();
            let length = content.bytes.len();
            for (at, byte) in &flips {
                content.bytes[at % length] = *byte;
            }
            let (garbage, turn) = (bodies.clone(), Mutex::new(0));
            let altered = content.bytes.clone();
            let registry = FakeRegistry::start(&[&image], move |asked: &Asked| {
                if !asked.target.contains(&digest) || asked.method == http::Method::HEAD {
                    return None;
                }
                let mut turn = turn.lock().unwrap();
                *turn += 1;
                Some(Reply::body(if flips.is_empty() { garbage[*turn % garbage.len()].clone() } else { altered.clone() }))
            })
            .await;
            let dir = tempfile::tempdir().unwrap();
            let images = open(dir.path(), &registry.address());
            match images.pull(named("app")).await {
                Ok(pulled) => assert_eq!(pulled.id(), &image.config.digest()),
                Err(_) => assert_clean(dir.path()).await,
            }
        });
    }
}
