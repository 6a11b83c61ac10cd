//! Files of a volume that are in each other's place: of two of a name one is lost, and a file can't be a directory.

use crate::validation::warnings::Warnings;
use crate::view::List;
use crate::view::core_v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};
use api::field::go_quote;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// Of what a file is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    /// All that the volume is made of, of which nothing need be said.
    Whole,
    /// What there is one of.
    Kind(&'static str),
    /// An object of a kind, by name.
    Named(&'static str, &'a str),
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Whole => Ok(()),
            Source::Kind(kind) => f.write_str(kind),
            Source::Named(kind, name) => write!(f, "{kind} {}", go_quote(name)),
        }
    }
}

/// Where a file is to be, and of what it is made.
#[derive(Clone, Copy, PartialEq, Eq)]
struct File<'a> {
    path: &'a str,
    source: Source<'a>,
}

impl<'a> File<'a> {
    fn new(path: Option<&'a str>, source: Source<'a>) -> Self {
        File { path: path.unwrap_or("").trim_end_matches('/'), source }
    }

    fn shown(self) -> String {
        match self.source {
            Source::Whole => go_quote(self.path),
            source => format!("{} ({source})", go_quote(self.path)),
        }
    }
}

/// Whether a path is another, or a directory that it is in.
fn overlaps(one: &str, other: &str) -> bool {
    let (outer, inner) = if one.len() < other.len() { (one, other) } else { (other, one) };
    let rest = inner.strip_prefix(outer).filter(|_| !outer.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Paths in such an order that what is in a directory follows it at once.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ordered<'a>(&'a str);

impl Ord for Ordered<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |b: u8| if b == b'/' { 0 } else { u16::from(b) + 1 };
        self.0.bytes().map(rank).cmp(other.0.bytes().map(rank))
    }
}

impl PartialOrd for Ordered<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn keys<'a>(items: List<'a, KeyToPath<'a>>, source: Source<'a>) -> impl Iterator<Item = File<'a>> {
    items.iter().map(move |item| File::new(item.path(), source))
}

fn fields<'a>(items: List<'a, DownwardAPIVolumeFile<'a>>, source: Source<'a>) -> impl Iterator<Item = File<'a>> {
    items.iter().map(move |item| File::new(item.path(), source))
}

/// The files that overlap, told of the volume, by what it is. Only of a file that overlaps with one before it all of those
/// are looked at, and that is told: so it happens until no more is told. Of others their neighbours say that they do not.
fn check(out: &mut Warnings, volume: &str, what: Source<'_>, files: &[File<'_>]) {
    if files.len() < 2 {
        return;
    }
    let mut apart = BTreeSet::new();
    let mut overlapping: Vec<&str> = Vec::new();
    for (i, file) in files.iter().enumerate().filter(|(_, file)| !file.path.is_empty()) {
        if out.is_full() {
            return;
        }
        let place = Ordered(file.path);
        let near = apart.range(..=place).next_back().into_iter().chain(apart.range(place..).next());
        let mut near = near.map(|near: &Ordered<'_>| near.0).chain(overlapping.iter().copied());
        if !near.any(|near| overlaps(file.path, near)) {
            apart.insert(place);
            continue;
        }
        // What was there before has been told all of what was before it.
        let before = files.get(..i).unwrap_or_default();
        let same = before.iter().rposition(|other| other == file);
        let since = before.get(same.unwrap_or(0)..).unwrap_or_default();
        for other in since.iter().filter(|other| overlaps(file.path, other.path)) {
            if out.is_full() {
                return;
            }
            out.push(format!(
                "volume {} ({what}): overlapping paths: {} with {}",
                go_quote(volume),
                file.shown(),
                other.shown()
            ));
        }
        if same.is_none() {
            overlapping.push(file.path);
        }
    }
}

/// The files that volumes are made of, each volume for itself.
pub(super) fn of(out: &mut Warnings, volumes: List<'_, Volume<'_>>) {
    let mut files = Vec::new();
    for volume in volumes.iter() {
        let name = volume.name().unwrap_or("");
        let mut one = |what: Source<'_>, files: &[File<'_>]| check(out, name, what, files);
        if let Some(source) = volume.config_map() {
            files.clear();
            files.extend(keys(source.items(), Source::Whole));
            one(Source::Named("ConfigMap", source.name().unwrap_or("")), &files);
        }
        if let Some(source) = volume.secret() {
            files.clear();
            files.extend(keys(source.items(), Source::Whole));
            one(Source::Named("Secret", source.secret_name().unwrap_or("")), &files);
        }
        if let Some(source) = volume.downward_api() {
            files.clear();
            files.extend(fields(source.items(), Source::Whole));
            one(Source::Kind("DownwardAPI"), &files);
        }
        let Some(projected) = volume.projected() else { continue };
        files.clear();
        for source in projected.sources().iter() {
            if source.0.is_empty() {
                out.push(format!("volume {} (Projected) has no sources provided", go_quote(name)));
            }
            of_source(&mut files, source);
        }
        check(out, name, Source::Kind("Projected"), &files);
    }
}

fn of_source<'a>(files: &mut Vec<File<'a>>, source: VolumeProjection<'a>) {
    if let Some(map) = source.config_map().filter(|map| !map.items().is_empty()) {
        files.extend(keys(map.items(), Source::Named("ConfigMap", map.name().unwrap_or(""))));
    } else if let Some(secret) = source.secret().filter(|secret| !secret.items().is_empty()) {
        files.extend(keys(secret.items(), Source::Named("Secret", secret.name().unwrap_or(""))));
    } else if let Some(downward) = source.downward_api().filter(|downward| !downward.items().is_empty()) {
        files.extend(fields(downward.items(), Source::Kind("DownwardAPI")));
    } else if let Some(token) = source.service_account_token() {
        files.push(File::new(token.path(), Source::Kind("ServiceAccountToken")));
    } else if let Some(bundle) = source.cluster_trust_bundle() {
        let name = bundle.name().or(bundle.signer_name()).unwrap_or("");
        files.push(File::new(bundle.path(), Source::Named("ClusterTrustBundle", name)));
    } else if let Some(certificate) = source.pod_certificate() {
        let all = [
            (certificate.certificate_chain_path(), "PodCertificate chain"),
            (certificate.key_path(), "PodCertificate key"),
            (certificate.credential_bundle_path(), "PodCertificate credential bundle"),
        ];
        let all = all.into_iter().filter(|(path, _)| path.is_some_and(|path| !path.is_empty()));
        files.extend(all.map(|(path, source)| File::new(path, Source::Kind(source))));
    }
}
