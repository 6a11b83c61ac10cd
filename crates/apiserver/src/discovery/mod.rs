//! Discovery: which groups, versions and resources are served, as legacy documents and aggregated (KEP-3352).
//!
//! Pure: rows in, documents out. A [`Discovery`] is made again when the rows change; documents are made once and kept.

mod aggregated;
mod legacy;

use crate::http::media::{Format, JSON, PROTOBUF, YAML};
use bytes::Bytes;
use schema::{Map, Resource, Value};
use sha2::{Digest, Sha512};
use std::fmt::Write;
use std::sync::OnceLock;

/// A document and how it is told apart from others of its path.
#[derive(Clone, Debug)]
pub struct Document {
    /// Format and media type of the answer, where the path's shape decides them: of aggregated documents.
    pub aggregated: Option<(Format, &'static str)>,
    /// As JSON, whatever format is asked for.
    pub body: Bytes,
    /// Quoted, as in the header.
    pub etag: String,
}

/// One group, its versions in order of preference, each with its rows.
struct Group<'r> {
    name: &'r str,
    versions: Vec<(&'r str, Vec<&'r Resource>)>,
}

/// The documents of one set of rows.
pub struct Discovery {
    rows: Vec<Resource>,
    server_address: String,
    /// Whether resources tell the hash of the version that they are stored in.
    storage_hashes: bool,
    aggregated_core: OnceLock<Document>,
    aggregated_named: OnceLock<Document>,
}

/// The media type that aggregated discovery is answered as, in each format.
const fn aggregated_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Format::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Format::Protobuf => "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    }
}

impl Discovery {
    /// `rows` in the order of discovery; `server_address` is `host:port`, told to clients of `/api`.
    pub fn new(rows: Vec<Resource>, server_address: String, storage_hashes: bool) -> Self {
        Discovery {
            rows,
            server_address,
            storage_hashes,
            aggregated_core: OnceLock::new(),
            aggregated_named: OnceLock::new(),
        }
    }

    /// The document of a path (`/api`, `/api/v1`, `/apis`, `/apis/G`, `/apis/G/V`), as far as the client accepts it.
    /// `None`: nothing is served there.
    pub fn document(&self, path: &str, accept: &str) -> Option<Document> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [root @ ("api" | "apis")] if wants_aggregated(accept).is_some() => {
                let (core, kept) = match *root {
                    "api" => (true, &self.aggregated_core),
                    _ => (false, &self.aggregated_named),
                };
                let mut document = kept.get_or_init(|| document(&aggregated::list(&self.groups(core)))).clone();
                document.aggregated = wants_aggregated(accept).map(|format| (format, aggregated_type(format)));
                Some(document)
            }
            ["api"] => Some(document(&legacy::versions(&self.server_address))),
            ["apis"] => Some(document(&legacy::groups(&self.groups(false)))),
            ["api", version] => self.resources("", version),
            ["apis", group] => {
                let groups = self.groups(false);
                let group = groups.iter().find(|g| g.name == *group)?;
                Some(document(&legacy::group(group, true)))
            }
            ["apis", group, version] if !group.is_empty() => self.resources(group, version),
            _ => None,
        }
    }

    fn resources(&self, group: &str, version: &str) -> Option<Document> {
        let groups = self.groups(group.is_empty());
        let group = groups.iter().find(|g| g.name == group)?;
        let (_, rows) = group.versions.iter().find(|(v, _)| *v == version)?;
        Some(document(&legacy::resources(group.name, version, rows, self.storage_hashes)))
    }

    fn groups(&self, core: bool) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for row in self.rows.iter().filter(|r| r.group.is_empty() == core) {
            let group = match groups.iter_mut().position(|g| g.name == row.group) {
                Some(at) => &mut groups[at],
                None => {
                    groups.push(Group { name: &row.group, versions: Vec::new() });
                    let last = groups.len() - 1;
                    &mut groups[last]
                }
            };
            match group.versions.iter_mut().find(|(v, _)| *v == row.version) {
                Some((_, rows)) => rows.push(row),
                None => group.versions.push((&row.version, vec![row])),
            }
        }
        groups
    }
}

/// The format in which aggregated discovery is asked for, if it is before anything else. Weights are not looked at, as
/// upstream doesn't here.
fn wants_aggregated(accept: &str) -> Option<Format> {
    for media in accept.split(',') {
        let mut parts = media.split(';').map(str::trim);
        let format = match parts.next().unwrap_or("") {
            JSON | "*/*" | "application/*" => Format::Json,
            YAML => Format::Yaml,
            PROTOBUF => Format::Protobuf,
            _ => continue,
        };
        let parameters: Vec<&str> = parts.collect();
        let has = |p: &str| parameters.contains(&p);
        if !has("g=apidiscovery.k8s.io") || !has("as=APIGroupDiscoveryList") {
            return None;
        }
        if has("v=v2") {
            return Some(format);
        }
    }
    None
}

fn document(object: &Map) -> Document {
    let mut body = Vec::new();
    schema::json::encode(object, &mut body);
    let mut etag = String::with_capacity(130);
    etag.push('"');
    for byte in Sha512::digest(&body) {
        // A String takes every write.
        write!(etag, "{byte:02X}").unwrap_or(());
    }
    etag.push('"');
    Document { aggregated: None, body: body.into(), etag }
}

fn strings<'t>(texts: impl IntoIterator<Item = &'t str>) -> Value {
    Value::List(texts.into_iter().map(Value::from).collect())
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, accept: &str) -> Option<String> {
        let discovery = Discovery::new(schema::resource::all().to_vec(), "10.0.0.1:6443".into(), true);
        discovery.document(path, accept).map(|d| String::from_utf8_lossy(&d.body).into_owned())
    }

    #[test]
    fn legacy_documents() {
        let api = get("/api", "application/json").unwrap_or_default();
        assert!(api.contains(r#""versions":["v1"]"#) && api.contains("10.0.0.1:6443"), "{api}");
        let apps = get("/apis/apps/v1", "*/*").unwrap_or_default();
        assert!(apps.contains(r#""groupVersion":"apps/v1""#), "{apps}");
        assert!(apps.contains(r#"{"group":"autoscaling","kind":"Scale","name":"deployments/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"}"#), "{apps}");
        assert!(apps.contains(r#""shortNames":["deploy"]"#), "{apps}");
        let core = get("/api/v1", "").unwrap_or_default();
        assert!(core.contains(r#""singularName":"pod","storageVersionHash":"xPOwRZ+Yhw8=","verbs":"#), "{core}");
        assert!(
            get("/apis/apps", "")
                .unwrap_or_default()
                .contains(r#""preferredVersion":{"groupVersion":"apps/v1","version":"v1"}"#)
        );
        assert!(get("/apis/nope", "").is_none() && get("/apis/apps/v9", "").is_none() && get("/api/v2", "").is_none());
        assert!(!get("/apis", "").unwrap_or_default().contains(r#""name":"""#), "the core group is elsewhere");
    }

    #[test]
    fn aggregated_documents_are_given_to_who_asks_for_them() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let core = get("/api", kubectl).unwrap_or_default();
        assert!(core.contains(r#""kind":"APIGroupDiscoveryList""#), "{core}");
        assert!(core.contains(r#""resource":"pods""#) && core.contains(r#""subresource":"exec""#));
        assert!(!core.contains(r#""resource":"deployments""#));
        assert!(get("/apis", kubectl).unwrap_or_default().contains(r#""resource":"deployments""#));
        let beta_only = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(get("/apis", beta_only).unwrap_or_default().contains(r#""kind":"APIGroupList""#));
    }
}
