//! Manifests, indexes and image configurations of OCI and Docker, as far as running needs them.

use serde::{Deserialize, Deserializer};

use crate::content::Digest;

/// The largest manifest, index or configuration that is read.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// No engine stacks more layers than overlayfs takes.
const MAX_LAYERS: usize = 500;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What a registry is asked for, the better first.
pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// Where some content is to be had and how to recognise it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// What it runs on, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Further names and notes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// An operating system and processor.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Platform {
    /// As Go calls it.
    #[serde(default)]
    pub os: String,
    /// As Go calls it.
    #[serde(default)]
    pub architecture: String,
    /// The processor's version, as `v8`.
    #[serde(default)]
    pub variant: String,
}

/// An image for one platform.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
}

/// What a manifest's bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An image.
    Manifest(Manifest),
    /// Images for several platforms, or several images.
    Index(Vec<Descriptor>),
}

/// What a container of the image runs, unless told otherwise.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `NAME=VALUE`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The command, to which arguments are added.
    #[serde(default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or a whole command without one.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: String,
    /// Where the command starts.
    #[serde(default, deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// As `80/tcp`.
    #[serde(default, deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// Directories whose content does not belong to the image.
    #[serde(default, deserialize_with = "keys")]
    pub volumes: Vec<String>,
    /// As `SIGQUIT` or `3`; empty for SIGTERM.
    #[serde(default, deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Notes of whoever built it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// An image's configuration document.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ImageDocument {
    /// The processor it is for; older images leave it out.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// The operating system it is for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// The processor's version.
    #[serde(default, deserialize_with = "null_is_default")]
    pub variant: String,
    /// What containers run.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Config,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// It isn't what it says it is.
    #[error("invalid manifest {digest}")]
    Json {
        /// Which one.
        digest: Digest,
        /// What the decoder found.
        source: serde_json::Error,
    },
    /// Docker's first format, which nothing writes any more.
    #[error("media type {0:?} is not supported: push the image again with a current builder")]
    Schema1(String),
    /// Neither an image nor an index.
    #[error("invalid manifest {0}: it has neither \"config\" nor \"manifests\"")]
    Neither(Digest),
    /// Configuration and manifest don't belong together.
    #[error("mismatched image rootfs and manifest layers: {diff_ids} and {layers}")]
    Layers {
        /// Layers of the configuration.
        diff_ids: usize,
        /// Layers of the manifest.
        layers: usize,
    },
    /// More layers than can be mounted.
    #[error("image with {0} layers: at most {MAX_LAYERS} are supported")]
    TooManyLayers(usize),
    /// Nothing in it runs here.
    #[error("no match for platform in manifest {digest}: not found (this is {os}/{arch})")]
    Platform {
        /// The index or manifest.
        digest: Digest,
        /// What this machine is.
        os: &'static str,
        /// What this machine is.
        arch: &'static str,
    },
}

impl Platform {
    /// What this process runs on, in Go's words.
    #[must_use]
    pub fn here() -> (&'static str, &'static str) {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        ("linux", arch)
    }

    /// How well it suits this machine, less being better; `None` if not at all.
    fn rank(&self) -> Option<u8> {
        let (os, arch) = Self::here();
        let same_arch = self.architecture == arch
            || matches!((arch, self.architecture.as_str()), ("amd64", "x86_64") | ("arm64", "aarch64"));
        if self.os != os || !same_arch {
            return None;
        }
        match (arch, self.variant.as_str()) {
            (_, "") | ("amd64", "v1") | ("arm64", "v8") => Some(0),
            // Later levels need a processor that has them; everything has the first.
            ("amd64", _) => None,
            _ => Some(1),
        }
    }
}

impl Document {
    /// Reads a manifest or an index, going by its content before its media type.
    pub fn parse(bytes: &[u8], digest: &Digest, media_type: &str) -> Result<Self, InvalidManifest> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            #[serde(default)]
            media_type: String,
            #[serde(default)]
            schema_version: u32,
            config: Option<Descriptor>,
            #[serde(default, deserialize_with = "null_is_default")]
            layers: Vec<Descriptor>,
            manifests: Option<Vec<Descriptor>>,
        }
        let said = media_type.split(';').next().unwrap_or_default().trim();
        if said.starts_with(DOCKER_SCHEMA_1) {
            return Err(InvalidManifest::Schema1(said.into()));
        }
        let either: Either =
            serde_json::from_slice(bytes).map_err(|source| InvalidManifest::Json { digest: digest.clone(), source })?;
        if either.schema_version == 1 {
            return Err(InvalidManifest::Schema1(format!("{DOCKER_SCHEMA_1}+json")));
        }
        let media_type = if either.media_type.is_empty() { said } else { &either.media_type };
        match (either.config, either.manifests) {
            // One that claims to be both could be read differently by two readers.
            (Some(_), Some(_)) => Err(InvalidManifest::Neither(digest.clone())),
            (Some(config), None) if !matches!(media_type, OCI_INDEX | DOCKER_INDEX) => {
                if either.layers.len() > MAX_LAYERS {
                    return Err(InvalidManifest::TooManyLayers(either.layers.len()));
                }
                Ok(Self::Manifest(Manifest { config, layers: either.layers }))
            }
            (None, Some(list)) if !matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST) => Ok(Self::Index(list)),
            _ => Err(InvalidManifest::Neither(digest.clone())),
        }
    }
}

/// The image of an index that runs here.
pub fn choose<'a>(index: &'a [Descriptor], digest: &Digest) -> Result<&'a Descriptor, InvalidManifest> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.rank(),
        // One image without a platform is all there is to choose from.
        None if index.len() == 1 => Some(2),
        None => None,
    };
    let ranked = index.iter().filter_map(|descriptor| Some((fits(&descriptor)?, descriptor)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor).ok_or_else(|| {
        let (os, arch) = Platform::here();
        InvalidManifest::Platform { digest: digest.clone(), os, arch }
    })
}

impl ImageDocument {
    /// Reads a configuration and checks that it belongs to `layers` layers and runs here.
    pub fn parse(bytes: &[u8], digest: &Digest, layers: usize) -> Result<Self, InvalidManifest> {
        let document = Self::read(bytes, digest)?;
        let diff_ids = document.rootfs.diff_ids.len();
        if diff_ids != layers {
            return Err(InvalidManifest::Layers { diff_ids, layers });
        }
        let platform = Platform {
            os: document.os.clone(),
            architecture: document.architecture.clone(),
            variant: document.variant.clone(),
        };
        if !(platform.os.is_empty() && platform.architecture.is_empty()) && platform.rank().is_none() {
            let (os, arch) = Platform::here();
            return Err(InvalidManifest::Platform { digest: digest.clone(), os, arch });
        }
        Ok(document)
    }

    /// Reads a configuration that was checked before.
    pub(super) fn read(bytes: &[u8], digest: &Digest) -> Result<Self, InvalidManifest> {
        serde_json::from_slice(bytes).map_err(|source| InvalidManifest::Json { digest: digest.clone(), source })
    }

    /// The digests of the uncompressed layers, the lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }

    /// For each layer the identity of it and all below it.
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            });
        }
        chain
    }
}

/// Go writes an absent list or map as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A set in Go's JSON is a map to empty objects.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    type Set = std::collections::BTreeMap<String, serde::de::IgnoredAny>;
    let set: Option<Set> = Option::deserialize(deserializer)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Document, ImageDocument, InvalidManifest, Platform, choose};
    use crate::content::Digest;

    fn parse(value: &serde_json::Value, media_type: &str) -> Result<Document, InvalidManifest> {
        let bytes = serde_json::to_vec(value).unwrap();
        Document::parse(&bytes, &Digest::of(&bytes), media_type)
    }

    fn entry(name: &str, os: &str, arch: &str, variant: &str) -> serde_json::Value {
        json!({"digest": Digest::of(name.as_bytes()), "size": 1, "mediaType": super::OCI_MANIFEST,
            "platform": {"os": os, "architecture": arch, "variant": variant}})
    }

    fn chosen(entries: serde_json::Value) -> Result<Digest, InvalidManifest> {
        let Document::Index(list) = parse(&json!({"schemaVersion": 2, "manifests": entries}), "")? else {
            panic!("an index")
        };
        choose(&list, &Digest::of(b"index")).map(|found| found.digest.clone())
    }

    #[test]
    fn the_image_for_this_machine_is_chosen() {
        let (os, arch) = Platform::here();
        let other = if arch == "amd64" { "arm64" } else { "amd64" };
        let list = json!([
            entry("windows", "windows", arch, ""),
            entry("other", os, other, ""),
            entry("attestation", "unknown", "unknown", ""),
            entry("better", os, arch, "v3"),
            entry("this", os, arch, ""),
            entry("also", os, arch, "")
        ]);
        assert_eq!(chosen(list).unwrap(), Digest::of(b"this"));
        let none = chosen(json!([entry("other", os, other, "")])).unwrap_err().to_string();
        assert!(none.starts_with("no match for platform in manifest sha256:"), "{none}");
        let alone = json!([{"digest": Digest::of(b"alone"), "size": 1}]);
        assert_eq!(chosen(alone).unwrap(), Digest::of(b"alone"));
        assert!(chosen(json!([])).is_err());
    }

    #[test]
    fn a_document_is_one_thing() {
        let config = json!({"digest": Digest::of(b"c"), "size": 7});
        let image = json!({"schemaVersion": 2, "config": config, "layers": null});
        assert!(matches!(parse(&image, "text/plain").unwrap(), Document::Manifest(_)));
        let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []});
        assert!(parse(&both, super::OCI_MANIFEST).is_err());
        assert!(parse(&image, super::OCI_INDEX).is_err());
        assert!(parse(&json!({}), super::OCI_MANIFEST).is_err());
        let old = parse(&json!({"schemaVersion": 1, "fsLayers": []}), "").unwrap_err();
        assert!(matches!(old, InvalidManifest::Schema1(_)));
        let many = json!({"config": config, "layers": vec![config.clone(); 501]});
        assert!(matches!(parse(&many, ""), Err(InvalidManifest::TooManyLayers(501))));
        let negative = json!({"config": {"digest": Digest::of(b"c"), "size": -1}, "layers": []});
        assert!(matches!(parse(&negative, ""), Err(InvalidManifest::Json { .. })));
    }

    #[test]
    fn a_configuration_tells_what_to_run() {
        let (os, arch) = Platform::here();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let bytes = serde_json::to_vec(&json!({"os": os, "architecture": arch,
            "config": {"Env": ["A=b"], "Entrypoint": null, "Cmd": ["sh"], "User": "7:8",
                "ExposedPorts": {"80/tcp": {}}, "Volumes": null, "StopSignal": "SIGQUIT",
                "Labels": {"a": "b"}, "ArgsEscaped": true},
            "rootfs": {"type": "layers", "diff_ids": [one, two]}}))
        .unwrap();
        let document = ImageDocument::parse(&bytes, &one, 2).unwrap();
        assert_eq!((document.config.cmd, document.config.user), (vec!["sh".into()], "7:8".into()));
        assert_eq!(document.config.exposed_ports, ["80/tcp"]);
        assert!(document.config.entrypoint.is_empty() && document.config.volumes.is_empty());
        assert!(matches!(ImageDocument::parse(&bytes, &one, 3), Err(InvalidManifest::Layers { .. })));

        let document = ImageDocument::parse(&bytes, &one, 2).unwrap();
        let chain = document.chain_ids();
        assert_eq!(chain[0], one);
        assert_eq!(chain[1], Digest::of(format!("{one} {two}").as_bytes()));
        let foreign = bytes.clone();
        let foreign = String::from_utf8(foreign).unwrap().replace(os, "plan9");
        assert!(ImageDocument::parse(foreign.as_bytes(), &one, 2).is_err());
        assert!(ImageDocument::parse(b"{}", &one, 0).is_ok(), "old images say nothing");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let digest = Digest::of(&bytes);
            drop(Document::parse(&bytes, &digest, "x"));
            drop(ImageDocument::parse(&bytes, &digest, 0));
        }
    }
}
