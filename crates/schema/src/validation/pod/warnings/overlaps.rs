//! Files of a volume that are in each other's place: of two of a name one is lost, and a file can't be a directory.

use crate::view::List;
use crate::view::core_v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};
use api::field::go_quote;

/// Where a file is to be, and of what it is made.
#[derive(Clone)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn new(path: Option<&str>, source: &str) -> Self {
        File { path: path.unwrap_or("").trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        if self.source.is_empty() {
            go_quote(&self.path)
        } else {
            format!("{} ({})", go_quote(&self.path), self.source)
        }
    }

    /// Whether one is the other, or a directory that it is in.
    fn overlaps(&self, other: &File) -> bool {
        let below = |inner: &str, outer: &str| format!("{inner}/").starts_with(&format!("{outer}/"));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (below(&self.path, &other.path) || below(&other.path, &self.path))
    }
}

fn keys(items: List<'_, KeyToPath<'_>>, source: &str) -> Vec<File> {
    items.iter().map(|item| File::new(item.path(), source)).collect()
}

fn fields(items: List<'_, DownwardAPIVolumeFile<'_>>, source: &str) -> Vec<File> {
    items.iter().map(|item| File::new(item.path(), source)).collect()
}

/// The files that overlap, told of the volume, by what it is.
fn check(out: &mut Vec<String>, volume: &str, what: &str, files: Vec<File>) {
    let mut known: Vec<File> = Vec::new();
    for file in files {
        for other in known.iter().filter(|other| file.overlaps(other)) {
            out.push(format!(
                "volume {} ({what}): overlapping paths: {} with {}",
                go_quote(volume),
                file.shown(),
                other.shown()
            ));
        }
        known.push(file);
    }
}

/// The files that volumes are made of, each volume for itself.
pub(super) fn of(out: &mut Vec<String>, volumes: List<'_, Volume<'_>>) {
    for volume in volumes.iter() {
        let name = volume.name().unwrap_or("");
        if let Some(source) = volume.config_map() {
            let what = format!("ConfigMap {}", go_quote(source.name().unwrap_or("")));
            check(out, name, &what, keys(source.items(), ""));
        }
        if let Some(source) = volume.secret() {
            let what = format!("Secret {}", go_quote(source.secret_name().unwrap_or("")));
            check(out, name, &what, keys(source.items(), ""));
        }
        if let Some(source) = volume.downward_api() {
            check(out, name, "DownwardAPI", fields(source.items(), ""));
        }
        let Some(projected) = volume.projected() else { continue };
        let mut files = Vec::new();
        for source in projected.sources().iter() {
            if source.0.is_empty() {
                out.push(format!("volume {} (Projected) has no sources provided", go_quote(name)));
            }
            files.extend(of_source(source));
        }
        check(out, name, "Projected", files);
    }
}

fn of_source(source: VolumeProjection<'_>) -> Vec<File> {
    if let Some(map) = source.config_map().filter(|map| !map.items().is_empty()) {
        return keys(map.items(), &format!("ConfigMap {}", go_quote(map.name().unwrap_or(""))));
    }
    if let Some(secret) = source.secret().filter(|secret| !secret.items().is_empty()) {
        return keys(secret.items(), &format!("Secret {}", go_quote(secret.name().unwrap_or(""))));
    }
    if let Some(downward) = source.downward_api().filter(|downward| !downward.items().is_empty()) {
        return fields(downward.items(), "DownwardAPI");
    }
    if let Some(token) = source.service_account_token() {
        return vec![File::new(token.path(), "ServiceAccountToken")];
    }
    if let Some(bundle) = source.cluster_trust_bundle() {
        let name = bundle.name().or(bundle.signer_name()).unwrap_or("");
        return vec![File::new(bundle.path(), &format!("ClusterTrustBundle {}", go_quote(name)))];
    }
    let Some(certificate) = source.pod_certificate() else { return Vec::new() };
    let files = [
        (certificate.certificate_chain_path(), "PodCertificate chain"),
        (certificate.key_path(), "PodCertificate key"),
        (certificate.credential_bundle_path(), "PodCertificate credential bundle"),
    ];
    let files = files.into_iter().filter(|(path, _)| path.is_some_and(|path| !path.is_empty()));
    files.map(|(path, source)| File::new(path, source)).collect()
}
