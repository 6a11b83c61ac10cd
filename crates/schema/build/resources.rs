//! Reads `tables/resources.txt` (its head says how) and writes the rows of the catalogue.

use crate::model::Model;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

#[derive(Clone)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) kind: String,
    pub(crate) type_name: String,
    pub(crate) namespaced: bool,
    pub(crate) generation: bool,
    pub(crate) is_virtual: bool,
    pub(crate) returns_deleted: bool,
    /// Who does not act on its objects: `Server`, `Cluster`, or `No`body is wanting.
    pub(crate) inert: &'static str,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: BTreeSet<&'static str>,
    pub(crate) key: String,
    /// Group and version.
    pub(crate) stored: (String, String),
    pub(crate) subresources: Vec<Subresource>,
    pub(crate) columns: Vec<Column>,
    /// The version whose types it has, under the name of its own.
    pub(crate) alias_of: Option<String>,
    /// The version whose rules its types have, where that has them with the same fields.
    pub(crate) like: Option<String>,
    pub(crate) gate: String,
    /// Since, removed, replacement.
    pub(crate) deprecation: Option<[String; 3]>,
}

impl Resource {
    /// Whether it is served when nobody asks: upstream serves no alpha and beta versions by itself.
    fn by_default(&self) -> bool {
        self.version.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    }
}

#[derive(Clone)]
pub(crate) struct Subresource {
    name: String,
    kind: String,
    verbs: BTreeSet<&'static str>,
    group: String,
    version: String,
}

#[derive(Clone)]
pub(crate) struct Column {
    name: String,
    ty: String,
    format: String,
    wide: bool,
    description: Description,
}

/// What is said of a column.
#[derive(Clone)]
enum Description {
    Text(String),
    /// What is said of a field of a type.
    Of(String, String),
}

/// Columns that many kinds have, and what is said of them where their row says nothing.
const USUAL: [(&str, &str); 5] = [
    ("Name", "@meta/v1.ObjectMeta.name"),
    ("Age", "@meta/v1.ObjectMeta.creationTimestamp"),
    ("Created At", "@meta/v1.ObjectMeta.creationTimestamp"),
    ("Containers", "Names of each container in the template."),
    ("Images", "Images referenced by each container in the template."),
];

fn usual(name: &str) -> Description {
    let told = USUAL.iter().find(|(usual, _)| *usual == name).map_or("", |(_, told)| *told);
    Description::read(told, "", "", name)
}

impl Description {
    fn read(text: &str, group: &str, version: &str, place: &str) -> Self {
        let Some(field) = text.strip_prefix('@') else { return Self::Text(text.replace("\\n", "\n")) };
        let (ty, field) = field.rsplit_once('.').unwrap_or_else(|| panic!("{place}: {text}?"));
        let (group, version, name) = match ty.rsplit_once('.') {
            Some((of, name)) => {
                let (group, version) = group_version(of, place);
                (group, version, name)
            }
            None => (group.to_owned(), version.to_owned(), ty),
        };
        let package = if group == "meta" { "io.k8s.apimachinery.pkg.apis.meta".to_owned() } else { package(&group) };
        Self::Of(format!("{package}.{version}.{name}"), field.to_owned())
    }

    fn text<'m>(&'m self, model: &'m Model) -> &'m str {
        match self {
            Self::Text(text) => text,
            Self::Of(ty, field) => {
                let of = model
                    .structs
                    .iter()
                    .find(|s| s.name == *ty)
                    .and_then(|s| s.fields.iter().find(|f| f.name == *field));
                &of.unwrap_or_else(|| {
                    panic!("tables/resources.txt: a column is described as {ty}.{field}, which is not there")
                })
                .doc
            }
        }
    }
}

/// In the order of their bits in `Verbs`.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The package of a group's types.
pub(crate) fn package(group: &str) -> String {
    match group {
        "" => "io.k8s.api.core".into(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".into(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".into(),
        "internal.apiserver.k8s.io" => "io.k8s.api.apiserverinternal".into(),
        _ => format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group)),
    }
}

fn verbs(text: &str, place: &str) -> BTreeSet<&'static str> {
    text.split(',')
        .map(|verb| VERBS.into_iter().find(|v| *v == verb).unwrap_or_else(|| panic!("{place}: {verb}?")))
        .collect()
}

fn group_version(text: &str, place: &str) -> (String, String) {
    let (group, version) = text.split_once('/').unwrap_or_else(|| panic!("{place}: {text}?"));
    (if group == "core" { String::new() } else { group.to_owned() }, version.to_owned())
}

pub(crate) fn read(path: &Path) -> Vec<Resource> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut all: Vec<Resource> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), at + 1);
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if !line.starts_with(' ') {
            let made = match line.split_once(" as=") {
                Some((line, rest)) => alias(line, rest, &all, &place),
                None => resource(line, &place),
            };
            all.push(made);
            continue;
        }
        let resource = all.last_mut().unwrap_or_else(|| panic!("{place}: before any resource"));
        if let Some(column) = line.strip_prefix(" | ") {
            let (name, rest) = column.split_once(" | ").unwrap_or_else(|| panic!("{place}: no type"));
            let (rest, description) = match rest.split_once(" | ") {
                Some((rest, told)) => (rest, Description::read(told, &resource.group, &resource.version, &place)),
                None => (rest, usual(name)),
            };
            let mut column =
                Column { name: name.into(), ty: String::new(), format: String::new(), wide: false, description };
            for (n, word) in rest.split_whitespace().enumerate() {
                match word {
                    _ if n == 0 => column.ty = word.into(),
                    "wide" => column.wide = true,
                    _ => column.format = word.into(),
                }
            }
            resource.columns.push(column);
        } else {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (group, version) = match words.get(3) {
                Some(text) => group_version(text, &place),
                None => (resource.group.clone(), resource.version.clone()),
            };
            resource.subresources.push(Subresource {
                name: words[0].strip_prefix('/').unwrap_or_else(|| panic!("{place}: {}?", words[0])).into(),
                kind: words[1].into(),
                verbs: verbs(words[2], &place),
                group,
                version,
            });
        }
    }
    all
}

/// `1.33`, `1.36,1.39`, `1.33;discovery.k8s.io/v1:EndpointSlice`: since, removed, what to use.
fn deprecation(text: &str) -> [String; 3] {
    let (releases, replacement) = text.split_once(';').unwrap_or((text, ""));
    let (since, removed) = releases.split_once(',').unwrap_or((releases, ""));
    [since.to_owned(), removed.to_owned(), replacement.replace(':', " ")]
}

/// A resource in a version whose shape is that of another: it differs in its name, and in when it goes.
fn alias(line: &str, rest: &str, all: &[Resource], place: &str) -> Resource {
    let (of, deprecated) = match rest.split_once(" deprecated=") {
        Some((of, deprecated)) => (of, Some(deprecation(deprecated))),
        None => (rest, None),
    };
    let (place_of, plural) = line.split_once(' ').unwrap_or_else(|| panic!("{place}: too short"));
    let (group, version) = group_version(place_of, place);
    assert_eq!(of, "v1", "{place}: rules are known under v1");
    let base = all.iter().find(|r| r.group == group && r.version == of && r.plural == plural);
    let mut made = base.unwrap_or_else(|| panic!("{place}: no {plural} in {of} before")).clone();
    made.type_name = format!("{}.{version}.{}", package(&group), made.kind);
    for sub in made.subresources.iter_mut().filter(|sub| sub.group == group && sub.version == of) {
        sub.version.clone_from(&version);
    }
    made.version = version;
    made.alias_of = Some(of.to_owned());
    made.deprecation = deprecated;
    made
}

fn resource(line: &str, place: &str) -> Resource {
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("{place}: too short"));
    let (group, version) = group_version(next(), place);
    let (plural, kind) = (next().to_owned(), next().to_owned());
    let mut resource = Resource {
        type_name: format!("{}.{version}.{kind}", package(&group)),
        stored: (group.clone(), version.clone()),
        key: plural.clone(),
        group,
        version,
        plural,
        kind,
        namespaced: false,
        generation: false,
        is_virtual: false,
        returns_deleted: false,
        inert: "No",
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: VERBS.into_iter().collect(),
        subresources: Vec::new(),
        columns: Vec::new(),
        alias_of: None,
        like: None,
        gate: String::new(),
        deprecation: None,
    };
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    for word in words {
        match word.split_once('=') {
            None => match word {
                "namespaced" => resource.namespaced = true,
                "generation" => resource.generation = true,
                "returned" => resource.returns_deleted = true,
                "virtual" => resource.is_virtual = true,
                _ => panic!("{place}: {word}?"),
            },
            Some(("short", names)) => resource.short_names = list(names),
            Some(("categories", names)) => resource.categories = list(names),
            Some(("verbs", names)) => resource.verbs = verbs(names, place),
            Some(("key", key)) => resource.key = key.to_owned(),
            Some(("like", version)) => {
                assert_eq!(version, "v1", "{place}: rules are known under v1");
                resource.like = Some(version.to_owned());
            }
            Some(("inert", "server")) => resource.inert = "Server",
            Some(("inert", "cluster")) => resource.inert = "Cluster",
            Some(("gate", name)) => resource.gate = name.to_owned(),
            Some(("deprecated", text)) => resource.deprecation = Some(deprecation(text)),
            Some(("stored", gv)) => resource.stored = group_version(gv, place),
            Some(_) => panic!("{place}: {word}?"),
        }
    }
    resource
}

fn bits(verbs: &BTreeSet<&'static str>) -> u16 {
    VERBS.iter().enumerate().filter(|(_, verb)| verbs.contains(*verb)).map(|(bit, _)| 1 << bit).sum()
}

fn strings(all: &[String]) -> String {
    let all: Vec<String> = all.iter().map(|s| format!("b({s:?})")).collect();
    format!("Cow::Borrowed(&[{}])", all.join(", "))
}

pub(crate) fn emit(model: &Model, resources: &[Resource]) -> String {
    let (always, others): (Vec<&Resource>, Vec<&Resource>) = resources.iter().partition(|r| r.by_default());
    let usual = [("Name", "name"), ("Created At", "")].map(|(name, format)| Column {
        name: name.into(),
        ty: if format.is_empty() { "date" } else { "string" }.into(),
        format: format.into(),
        wide: false,
        description: usual(name),
    });
    let usual = format!("pub(super) static USUAL_COLUMNS: [Column; 2] = [{}];\n", columns(model, &usual));
    rows(model, "RESOURCES", &always) + &rows(model, "OPTIONAL", &others) + &usual
}

fn columns(model: &Model, columns: &[Column]) -> String {
    let columns = columns.iter().map(|c| {
        format!(
            "Column {{ name: b({:?}), kind: b({:?}), format: b({:?}), description: b({:?}), priority: {} }}",
            c.name,
            c.ty,
            c.format,
            c.description.text(model),
            i32::from(c.wide)
        )
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn rows(model: &Model, name: &str, resources: &[&Resource]) -> String {
    let mut out = format!("pub(super) static {name}: [Resource; {}] = [\n", resources.len());
    for r in resources {
        let list_kind = if r.verbs.contains("list") { format!("{}List", r.kind) } else { String::new() };
        let storage = if r.is_virtual {
            "None".to_owned()
        } else {
            let prefix = format!("/registry/{}/", r.key);
            let (group, version) = &r.stored;
            format!(
                "Some(Storage {{ prefix: b({prefix:?}), group: b({group:?}), version: b({version:?}), kind: b({:?}) }})",
                r.kind
            )
        };
        let subresources: Vec<String> = r
            .subresources
            .iter()
            .map(|s| {
                format!(
                    "Subresource {{ name: b({:?}), group: b({:?}), version: b({:?}), kind: b({:?}), verbs: Verbs({}) }}",
                    s.name, s.group, s.version, s.kind, bits(&s.verbs)
                )
            })
            .collect();
        let deprecation = match &r.deprecation {
            Some([since, removed, replacement]) => format!(
                "Some(Deprecation {{ since: b({since:?}), removed: b({removed:?}), replacement: b({replacement:?}) }})"
            ),
            None => "None".to_owned(),
        };
        let columns = columns(model, &r.columns);
        writeln!(
            out,
            "Resource {{ group: b({:?}), version: b({:?}), kind: b({:?}), list_kind: b({list_kind:?}), plural: b({:?}), \
             singular: b({:?}), short_names: {}, categories: {}, namespaced: {}, verbs: Verbs({}), \
             subresources: Cow::Borrowed(&[{}]), schema: Schema::of_struct({}), columns: Cow::Borrowed(&[{}]), \
             storage: {storage}, flags: Flags {{ status: {}, generation: {}, strategic: true, protobuf: true, \
             returns_deleted: {}, inert: Inert::{} }}, \
             gate: b({:?}), deprecation: {deprecation} }},",
            r.group,
            r.version,
            r.kind,
            r.plural,
            r.kind.to_lowercase(),
            strings(&r.short_names),
            strings(&r.categories),
            r.namespaced,
            bits(&r.verbs),
            subresources.join(", "),
            model.number(&r.type_name),
            columns,
            r.subresources.iter().any(|s| s.name == "status"),
            r.generation,
            r.returns_deleted,
            r.inert,
            r.gate,
        )
        .expect("writing to a string");
    }
    out.push_str("];\n");
    out
}
