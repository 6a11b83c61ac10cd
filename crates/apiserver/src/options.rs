//! What the query and the body of a request ask of an operation, beside the object.

use crate::registry::token::Token;
use crate::request;
use api::field::printable;
use api::{FieldError, GroupKind, Status};
use schema::{Map, Value};
use std::fmt::Display;

/// Options of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// All checks, no change.
    pub dry_run: bool,
    /// Who owns the fields that the write sets; empty: named by the user agent.
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Apply: takes fields over from their owners.
    pub force: bool,
    /// Of a delete or deletecollection.
    pub delete: DeleteOptions,
}

/// What becomes of fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// `metav1.DeleteOptions`, but for `dryRun`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub propagation: Option<Propagation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Propagation {
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Orphan" => Propagation::Orphan,
            "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            _ => return None,
        })
    }
}

/// `metav1.ListOptions`, read and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// 0: all.
    pub limit: usize,
    pub token: Option<Token>,
    /// `None`: the most recent.
    pub version: Option<u64>,
    pub version_match: Match,
    pub watch: bool,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    #[default]
    Unset,
    NotOlderThan,
    Exact,
}

fn number(text: &str) -> Result<i64, Status> {
    api::number::int(text).map_err(Status::bad_request)
}

/// The version of a list, which upstream refuses in other words than that of a watch.
fn list_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |why| {
        let error = FieldError::invalid(&"resourceVersion", text, why);
        Status::bad_request(format!("invalid resource version: {error}"))
    };
    api::number::uint(text).map(Some).map_err(refused)
}

impl ListOptions {
    /// Reads the query of a list, watch or deletecollection.
    ///
    /// # Errors
    /// 400 for a parameter that can't be read, 422 for a combination that makes no sense.
    pub fn of_query(query: &str, watch: bool) -> Result<Self, Status> {
        let mut options = ListOptions { watch, ..ListOptions::default() };
        let mut version_match = String::new();
        let mut version = String::new();
        let mut token = String::new();
        for (key, value) in request::parameters(query) {
            match key.as_str() {
                "labelSelector" => options.label_selector = value,
                "fieldSelector" => options.field_selector = value,
                "limit" if !value.is_empty() => options.limit = usize::try_from(number(&value)?).unwrap_or(0),
                "timeoutSeconds" if !value.is_empty() => {
                    options.timeout_seconds = u64::try_from(number(&value)?).ok().filter(|seconds| *seconds > 0);
                }
                "continue" => token = value,
                "resourceVersion" => version = value,
                "resourceVersionMatch" => version_match = value,
                "allowWatchBookmarks" => options.bookmarks = request::is_true(Some(&value)),
                "sendInitialEvents" => options.send_initial_events = Some(request::is_true(Some(&value))),
                _ => {}
            }
        }
        options.check(&version_match, &version, &token)?;
        options.version = if watch {
            api::ResourceVersion::parse(&version)?.map(|version| version.0)
        } else {
            list_version(&version)?
        };
        if !token.is_empty() && !watch {
            if options.version.is_some_and(|version| version != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            options.token = Some(Token::decode(&token)?);
        }
        Ok(options)
    }

    fn check(&mut self, version_match: &str, version: &str, token: &str) -> Result<(), Status> {
        let mut errors = Vec::new();
        let field = "resourceVersionMatch";
        let forbidden = |why: &str| FieldError::forbidden(&field, why);
        if self.watch && self.send_initial_events.is_some() && version_match != "NotOlderThan" {
            errors.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        if !version_match.is_empty() {
            if self.watch && self.send_initial_events.is_none() {
                errors.push(forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if !self.watch && version.is_empty() {
                errors.push(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            if !self.watch && !token.is_empty() {
                errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
            }
            match version_match {
                "NotOlderThan" => self.version_match = Match::NotOlderThan,
                other if self.watch => errors.push(FieldError::not_supported(&field, other, &["NotOlderThan"])),
                "Exact" => self.version_match = Match::Exact,
                other => errors.push(FieldError::not_supported(&field, other, &["Exact", "NotOlderThan", ""])),
            }
            if self.watch && !token.is_empty() {
                errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
            }
            if !self.watch && version_match == "Exact" && version == "0" {
                errors.push(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
        }
        if !self.watch && self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(&"sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", &errors))
        }
    }
}

/// Bytes of the name of a manager of fields, at most.
pub const FIELD_MANAGER_MAX: usize = 128;
const VALIDATIONS: [&str; 4] = ["", "Ignore", "Strict", "Warn"];

/// The kind of options that a request takes, which its errors name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsKind {
    Create,
    Update,
    Patch,
    Apply,
    Delete,
}

impl OptionsKind {
    fn group_kind(self) -> GroupKind {
        let kind = match self {
            OptionsKind::Create => "CreateOptions",
            OptionsKind::Update => "UpdateOptions",
            OptionsKind::Patch | OptionsKind::Apply => "PatchOptions",
            OptionsKind::Delete => "DeleteOptions",
        };
        GroupKind::new("meta.k8s.io", kind)
    }
}

impl Options {
    /// Reads the query of a write.
    ///
    /// # Errors
    /// 400 for a parameter that can't be read, 422 for a bad value.
    pub fn of_query(query: &str, kind: OptionsKind) -> Result<Self, Status> {
        let mut options = Options::default();
        let mut errors = Vec::new();
        let mut dry_run = Vec::new();
        for (key, value) in request::parameters(query) {
            match key.as_str() {
                "dryRun" => dry_run.push(value),
                "fieldManager" if kind != OptionsKind::Delete => options.field_manager = value,
                "fieldValidation" if kind != OptionsKind::Delete => match value.as_str() {
                    "" => {}
                    "Ignore" => options.field_validation = FieldValidation::Ignore,
                    "Warn" => options.field_validation = FieldValidation::Warn,
                    "Strict" => options.field_validation = FieldValidation::Strict,
                    _ => errors.push(FieldError::not_supported(&"fieldValidation", value.as_str(), &VALIDATIONS)),
                },
                "force" if matches!(kind, OptionsKind::Patch | OptionsKind::Apply) => {
                    options.force = request::is_true(Some(&value));
                    if kind == OptionsKind::Patch {
                        errors.push(FieldError::forbidden(&"force", "may not be specified for non-apply patch"));
                    }
                }
                "gracePeriodSeconds" if kind == OptionsKind::Delete && !value.is_empty() => {
                    options.delete.grace_period_seconds = Some(number(&value)?);
                }
                "orphanDependents" if kind == OptionsKind::Delete => {
                    options.delete.orphan_dependents = Some(request::is_true(Some(&value)));
                }
                "propagationPolicy" if kind == OptionsKind::Delete && !value.is_empty() => {
                    options.delete.propagation = propagation(&value, &mut errors);
                }
                _ => {}
            }
        }
        options.dry_run = check_dry_run(dry_run.iter().map(String::as_str), &mut errors);
        if kind == OptionsKind::Apply && options.field_manager.is_empty() {
            errors.push(FieldError::required(&"fieldManager", "is required for apply patch"));
        }
        check_field_manager(&"fieldManager", &options.field_manager, &mut errors);
        options.delete.check(&mut errors);
        if errors.is_empty() { Ok(options) } else { Err(Status::invalid(&kind.group_kind(), "", &errors)) }
    }

    /// Reads the body of a delete: it replaces what the query says.
    ///
    /// # Errors
    /// 422 for a bad value.
    pub fn of_delete_body(body: &Map) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let text = |path: &[&str]| body.at(path).and_then(Value::as_str).map(str::to_owned);
        let delete = DeleteOptions {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            orphan_dependents: body.get("orphanDependents").and_then(Value::as_bool),
            propagation: match body.str_at(&["propagationPolicy"]) {
                "" => None,
                value => propagation(value, &mut errors),
            },
        };
        let values = body.get("dryRun").and_then(Value::as_list).unwrap_or_default();
        let dry_run = check_dry_run(values.iter().filter_map(Value::as_str), &mut errors);
        delete.check(&mut errors);
        if errors.is_empty() {
            Ok(Options { dry_run, delete, ..Options::default() })
        } else {
            Err(Status::invalid(&OptionsKind::Delete.group_kind(), "", &errors))
        }
    }
}

impl DeleteOptions {
    fn check(&self, errors: &mut Vec<FieldError>) {
        if self.propagation.is_some() && self.orphan_dependents.is_some() {
            errors.push(FieldError::invalid(
                &"propagationPolicy",
                self.propagation.map_or("", Propagation::as_str),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
    }
}

fn propagation(value: &str, errors: &mut Vec<FieldError>) -> Option<Propagation> {
    let parsed = Propagation::parse(value);
    if parsed.is_none() {
        errors.push(FieldError::not_supported(
            &"propagationPolicy",
            value,
            &["Foreground", "Background", "Orphan", "nil"],
        ));
    }
    parsed
}

fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        // The value shown is the whole list.
        let shown: Vec<String> = values.iter().map(|value| api::field::go_quote(value)).collect();
        let shown = api::field::Raw(format!("[{}]", shown.join(",")));
        errors.push(FieldError::not_supported(&"dryRun", shown, &["All"]));
    }
    !values.is_empty()
}

/// What is wrong with the name of a manager of fields, which is at a path.
pub fn check_field_manager(path: &dyn Display, name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > FIELD_MANAGER_MAX {
        errors.push(FieldError::too_long(path, FIELD_MANAGER_MAX));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(path, name, why));
    }
}
