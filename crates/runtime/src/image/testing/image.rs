//! Images made on the spot, and their archives.

use serde_json::{Value, json};

use super::{Member, gzip, tarball};
use crate::{content::Digest, image::Platform};

/// How a layer is packed.
#[derive(Clone, Copy)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Some content and what it is.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Content {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// An image with all its documents.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) manifest: Content,
    pub(crate) config: Content,
    pub(crate) layers: Vec<Content>,
    pub(crate) tars: Vec<Vec<u8>>,
}

impl TestImage {
    /// An image of `layers`, the lowest first, that runs `config`.
    pub(crate) fn new(layers: &[(Packing, Vec<Member>)], config: Value) -> Self {
        let tars: Vec<_> = layers.iter().map(|(_, members)| tarball(members)).collect();
        let (os, arch) = Platform::here();
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let document = json!({"os": os, "architecture": arch, "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let pack = |((packing, _), tar): (&(Packing, Vec<Member>), &Vec<u8>)| match packing {
            Packing::Plain => Content { media_type: "application/vnd.oci.image.layer.v1.tar", bytes: tar.clone() },
            Packing::Gzip => {
                Content { media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip", bytes: gzip(tar) }
            }
            Packing::Zstd => Content {
                media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
                bytes: ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest),
            },
        };
        let packed: Vec<_> = layers.iter().zip(&tars).map(pack).collect();
        Self::assemble(document, packed, tars)
    }

    /// One gzipped layer that holds `content` in `/file`.
    pub(crate) fn simple(content: &str) -> Self {
        let layer = vec![Member::file("file", content)];
        Self::new(&[(Packing::Gzip, layer)], json!({"Cmd": ["/file"]}))
    }

    /// The same documents under another configuration, whether it fits them or not.
    pub(crate) fn assemble(document: Value, layers: Vec<Content>, tars: Vec<Vec<u8>>) -> Self {
        let config = Content {
            media_type: "application/vnd.oci.image.config.v1+json",
            bytes: document.to_string().into_bytes(),
        };
        let manifest = json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": layers.iter().map(Content::descriptor).collect::<Vec<_>>()});
        let manifest = Content {
            media_type: "application/vnd.oci.image.manifest.v1+json",
            bytes: manifest.to_string().into_bytes(),
        };
        Self { manifest, config, layers, tars }
    }

    /// The blobs that a registry has to have before the manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Content> {
        self.layers.iter().chain([&self.config])
    }

    /// An index of images for platforms.
    pub(crate) fn index(images: &[(&Self, &str, &str)]) -> Content {
        let manifests: Vec<_> = images
            .iter()
            .map(|(image, os, architecture)| {
                let mut descriptor = image.manifest.descriptor();
                descriptor["platform"] = json!({"os": os, "architecture": architecture});
                descriptor
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        Content { media_type, bytes: index.to_string().into_bytes() }
    }

    /// What `docker save` makes of it.
    pub(crate) fn docker_archive(&self, names: &[&str]) -> Vec<u8> {
        let config = format!("{}.json", self.config.digest().hex());
        let mut members = vec![Member::file(&config, &self.config.bytes)];
        let mut layers = Vec::new();
        for (number, tar) in self.tars.iter().enumerate() {
            let name = format!("{number}/layer.tar");
            members.push(Member::dir(format!("{number}/")));
            // Old versions wrote a layer that comes again as a link.
            match self.tars[..number].iter().position(|other| other == tar) {
                Some(first) => members.push(Member::symlink(&name, format!("../{first}/layer.tar"))),
                None => members.push(Member::file(&name, tar)),
            }
            layers.push(name);
        }
        let manifest = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
        members.push(Member::file("manifest.json", manifest.to_string()));
        tarball(&members)
    }

    /// An OCI layout of it under `name`.
    pub(crate) fn oci_archive(&self, name: &str) -> Vec<u8> {
        let mut descriptor = self.manifest.descriptor();
        descriptor["annotations"] = json!({"io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": "tag-only"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        let mut members = vec![
            Member::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            Member::file("./index.json", index.to_string()),
        ];
        for content in self.blobs().chain([&self.manifest]) {
            members.push(Member::file(format!("blobs/sha256/{}", content.digest().hex()), &content.bytes));
        }
        tarball(&members)
    }
}
