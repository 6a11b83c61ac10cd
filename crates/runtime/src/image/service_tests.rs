//! The services as their clients see them: over a unix socket.

use std::path::Path;

use cri::{
    Client, LoadError,
    images::{PullRequest, pull_progress::Step},
    v1::{
        AuthConfig, Image, ImageFilter, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest,
        PullImageRequest, RemoveImageRequest, StreamImagesRequest,
    },
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, transport::Server};

use super::ImageServer;
use crate::{
    image::{
        Images, Options,
        testing::{DockerRegistry, Member, TestImage, tarball},
    },
    registry::{Hosts, Proxies},
};

fn serve(dir: &Path, registry: &str) -> Client {
    let mirrors = vec![format!("docker.io=http://{registry}").parse().unwrap()];
    let executable = dir.join("exe");
    std::fs::write(&executable, "#!exe").unwrap();
    let hosts = Hosts { mirrors, certificates: Vec::new(), proxies: Proxies::default() };
    let options = Options { hosts, executable: Some(executable), parallel_layers: 0 };
    let server = ImageServer::new(Images::open(&dir.join("images"), options).unwrap());
    let socket = dir.join("cri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(server.cri())
            .add_service(server.own())
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    Client::connect(socket)
}

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.into(), ..ImageSpec::default() })
}

async fn list(client: &Client, filter: Option<&str>) -> Vec<Image> {
    let filter = filter.map(|image| ImageFilter { image: spec(image) });
    let request = ListImagesRequest { filter: filter.clone() };
    let listed = client.image().list_images(request).await.unwrap().into_inner().images;
    let mut stream = client.image().stream_images(StreamImagesRequest { filter }).await.unwrap().into_inner();
    let mut streamed = Vec::new();
    while let Some(batch) = stream.message().await.unwrap() {
        assert!(!batch.images.is_empty());
        streamed.extend(batch.images);
    }
    assert_eq!(listed, streamed);
    listed
}

async fn pull(client: &Client, name: &str) -> Result<String, tonic::Status> {
    let request = PullImageRequest { image: spec(name), ..PullImageRequest::default() };
    Ok(client.image().pull_image(request).await?.into_inner().image_ref)
}

#[tokio::test]
async fn a_kubelet_gets_what_it_expects() {
    let registry = DockerRegistry::start();
    let image = TestImage::simple("content");
    registry.push("library/app:v1", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let client = serve(dir.path(), registry.address());

    let status = |name: &str, verbose| ImageStatusRequest { image: spec(name), verbose };
    let absent = client.image().image_status(status("app:v1", true)).await.unwrap().into_inner();
    assert!(absent.image.is_none() && absent.info.is_empty());
    let id = pull(&client, "app:v1").await.unwrap();
    assert_eq!(id, image.config.digest().to_string());
    assert_eq!(pull(&client, "app:v1").await.unwrap(), id);

    let present = client.image().image_status(status("app:v1", true)).await.unwrap().into_inner();
    let described = present.image.unwrap();
    assert_eq!(described.id, id);
    assert_eq!(described.repo_tags, ["docker.io/library/app:v1"]);
    let digest = format!("docker.io/library/app@{}", image.manifest.digest());
    assert_eq!(described.repo_digests, [digest.as_str()]);
    assert!(described.size > 4096 && !described.pinned && described.uid.is_none());
    let info: serde_json::Value = serde_json::from_str(&present.info["info"]).unwrap();
    assert_eq!(info["imageSpec"]["config"]["Cmd"][0], "/file");
    let quiet = client.image().image_status(status(&id, false)).await.unwrap().into_inner();
    assert!(quiet.info.is_empty() && quiet.image.is_some());

    let all = list(&client, None).await;
    assert_eq!(all.len(), 2);
    assert!(all.iter().any(|image| image.pinned && image.repo_tags.len() == 2));
    assert_eq!(list(&client, Some("app:v1")).await, [described]);
    assert!(list(&client, Some("none")).await.is_empty());

    let usage = client.image().image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    let [filesystem] = usage.image_filesystems.as_slice() else { panic!("one filesystem") };
    assert_eq!(filesystem.fs_id.as_ref().unwrap().mountpoint, dir.path().join("images").to_str().unwrap());
    assert!(filesystem.used_bytes.as_ref().unwrap().value > 0 && filesystem.timestamp > 0);
    assert_eq!(usage.container_filesystems, usage.image_filesystems);

    for _ in 0..2 {
        let request = RemoveImageRequest { image: spec("app:v1") };
        client.image().remove_image(request).await.unwrap();
    }
    assert_eq!(list(&client, None).await.len(), 1);
}

#[tokio::test]
async fn failures_have_containerds_codes() {
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let client = serve(dir.path(), registry.address());
    for (name, code) in [
        (format!("{}/none:v1", registry.address()), Code::NotFound),
        ("Not:A:Name".into(), Code::InvalidArgument),
        (String::new(), Code::InvalidArgument),
        ("127.0.0.1:1/x".into(), Code::Unknown),
        ("pilothouse.local/none".into(), Code::NotFound),
    ] {
        let status = pull(&client, &name).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}: {status:?}");
        assert!(!status.message().is_empty());
    }
    let auth = AuthConfig { auth: "%".into(), ..AuthConfig::default() };
    let request = PullImageRequest { image: spec("x"), auth: Some(auth), ..Default::default() };
    let status = client.image().pull_image(request).await.unwrap_err();
    assert!(status.message().contains("invalid auth config"), "{status:?}");
    let request = RemoveImageRequest { image: spec("pilothouse.local/pilothouse") };
    let status = client.image().remove_image(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let status = client.image().remove_image(RemoveImageRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_person_loads_and_pulls_with_progress() {
    let registry = DockerRegistry::start();
    let pulled = TestImage::simple("pulled");
    registry.push("library/pulled:v1", &pulled).await;
    let dir = tempfile::tempdir().unwrap();
    let client = serve(dir.path(), registry.address());

    let loaded = TestImage::simple(&"loaded ".repeat(300_000));
    let archive = loaded.docker_archive(&["loaded:v1"]);
    let mut sent = 0;
    let images = client.load_images(&archive[..], |bytes| sent = bytes).await.unwrap();
    assert_eq!(sent, archive.len() as u64);
    assert_eq!((images.len(), images[0].names.as_slice()), (1, &["docker.io/library/loaded:v1".to_owned()][..]));
    assert_eq!(images[0].id, loaded.config.digest().to_string());

    let (mut resolved, mut unpacked) = (0, 0);
    let request = PullRequest { image: "pulled:v1".into(), ..PullRequest::default() };
    let id = client.pull_image(request, |step| match step {
        Step::Resolved(_) => resolved += 1,
        Step::Layer(layer) if layer.unpacked => unpacked += 1,
        _ => {}
    });
    assert_eq!(id.await.unwrap(), pulled.config.digest().to_string());
    assert_eq!((resolved, unpacked), (1, 1));
    assert_eq!(list(&client, None).await.len(), 3);

    let request = PullRequest { image: "pulled:none".into(), ..PullRequest::default() };
    let status = client.pull_image(request, |_| {}).await.unwrap_err();
    assert!(status.message().contains("pulled:none"), "{status:?}");
    let nothing = tarball(&[Member::file("x", vec![0; 3 << 20])]);
    let error = client.load_images(&nothing[..], |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("neither manifest.json"), "{error}");
    let failing = tokio::io::AsyncReadExt::chain(&archive[..1000], Failing);
    let error = client.load_images(failing, |_| {}).await.unwrap_err();
    assert!(matches!(error, LoadError::Read(_)), "{error}");
}

/// A file that can't be read.
struct Failing;

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("a bad disk")))
    }
}
