//! A real registry: Debian's `docker-registry`, on a free port, with its files in a temporary
//! directory.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{Content, TestImage};

pub(crate) struct DockerRegistry {
    address: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the package docker-registry has to be installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .by_ref()
            .find_map(|line| Some(line.split_once("listening on ")?.1.split('"').next()?.to_owned()))
            .expect("docker-registry did not start");
        // It stops when nobody reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address, child, _dir: dir }
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops it for good.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Pushes an image under `REPOSITORY:TAG`.
    pub(crate) async fn push(&self, name: &str, image: &TestImage) {
        let (repository, tag) = name.split_once(':').unwrap();
        for blob in image.blobs() {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, image.manifest.digest().as_str(), &image.manifest).await;
        self.push_manifest(repository, tag, &image.manifest).await;
    }

    pub(crate) async fn push_manifest(&self, repository: &str, version: &str, content: &Content) {
        let url = format!("http://{}/v2/{repository}/manifests/{version}", self.address);
        let (status, _) = send(Method::PUT, &url, content.media_type, &content.bytes).await;
        assert_eq!(status, StatusCode::CREATED);
    }

    async fn push_blob(&self, repository: &str, content: &Content) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let (status, location) = send(Method::POST, &url, "", b"").await;
        assert_eq!(status, StatusCode::ACCEPTED);
        let url = format!("{}&digest={}", location.unwrap(), content.digest());
        let (status, _) = send(Method::PUT, &url, "application/octet-stream", &content.bytes).await;
        assert_eq!(status, StatusCode::CREATED);
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn send(method: Method, url: &str, kind: &str, body: &[u8]) -> (StatusCode, Option<String>) {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let location = response.headers().get(header::LOCATION);
    let location = location.map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    response.into_body().collect().await.unwrap();
    (status, location)
}
