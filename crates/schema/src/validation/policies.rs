//! admissionregistration.k8s.io: validating and mutating policies, and what binds them.
//!
//! The expressions themselves are checked where they are compiled.

use super::admission::{
    FAILURE_POLICIES, MATCH_POLICIES, OPERATIONS, REINVOCATION_POLICIES, match_conditions, named_rule,
};
use super::conditions::conditions;
use super::fields::{Errors, json, json_list, label_selector, problems, required, required_of, same, supported_of};
use crate::tree::Map;
use crate::view::List;
use crate::view::admissionregistration_v1::{
    AuditAnnotation, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
    MutatingAdmissionPolicyBindingSpec, MutatingAdmissionPolicySpec, Mutation, NamedRuleWithOperations, ParamKind,
    ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;
/// A mutation of what is deleted makes no sense.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Whether nothing changed that could make a condition wrong that was right.
fn conditions_unchanged(new: &Map, old: &Map) -> bool {
    ["paramKind", "matchConditions"].iter().all(|field| same(new.at(&["spec", field]), old.at(&["spec", field])))
}

pub(super) fn validating(object: &Map) -> Errors {
    validating_policy(object, true)
}

pub(super) fn validating_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return validating_status(new);
    }
    validating_policy(new, !conditions_unchanged(new, old))
}

fn validating_policy(object: &Map, with_conditions: bool) -> Errors {
    const NONE: &str = "validations or auditAnnotations must contain at least one item";
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = ValidatingAdmissionPolicy(object).spec().unwrap_or(ValidatingAdmissionPolicySpec(&empty));
    failure_policy(&mut errors, spec.failure_policy());
    param_kind(&mut errors, &SPEC.child("paramKind"), spec.param_kind());
    match_constraints(&mut errors, spec.match_constraints(), &OPERATIONS);
    if with_conditions {
        match_conditions(&mut errors, &SPEC.child("matchConditions"), spec.match_conditions());
    }
    for (i, one) in spec.variables().iter().enumerate() {
        variable(&mut errors, &SPEC.child("variables").index(i), one);
    }
    let annotations = spec.audit_annotations();
    if spec.validations().is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            errors.push(FieldError::required(&SPEC.child(field), NONE));
        }
        return errors;
    }
    for (i, one) in spec.validations().iter().enumerate() {
        validation(&mut errors, &SPEC.child("validations").index(i), one);
    }
    let path = SPEC.child("auditAnnotations");
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let why = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(&path, json(spec.0.get("auditAnnotations")), why));
    }
    let name = object.str_at(&["metadata", "name"]);
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let path = path.index(i);
        audit_annotation(&mut errors, &path, annotation, name);
        let key = annotation.key().unwrap_or("");
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(&path.child("key"), key));
        }
    }
    errors
}

fn failure_policy(errors: &mut Errors, policy: Option<&str>) {
    let path = SPEC.child("failurePolicy");
    match policy {
        None => errors.push(FieldError::required(&path, "")),
        policy => supported_of(errors, &path, policy, &FAILURE_POLICIES),
    }
}

fn param_kind(errors: &mut Errors, path: &Path<'_>, kind: Option<ParamKind<'_>>) {
    let Some(kind) = kind else { return };
    let version_path = path.child("apiVersion");
    let given = kind.api_version().unwrap_or("");
    if required(errors, &version_path, Some(given)) {
        let (group, version) = match given {
            "/" => ("", ""),
            _ => given.split_once('/').unwrap_or(("", given)),
        };
        if version.contains('/') {
            let why = format!("unexpected GroupVersion string: {given}");
            errors.push(FieldError::invalid(&version_path, given, why));
        } else {
            let bad = if group.is_empty() { Vec::new() } else { names::dns1123_subdomain(group) };
            if !bad.is_empty() {
                errors.push(FieldError::invalid(&version_path, group, bad.join(",")));
            }
            let bad = names::dns1035_label(version);
            if version.is_empty() {
                errors.push(FieldError::invalid(&version_path, given, "version must be specified"));
            } else if !bad.is_empty() {
                errors.push(FieldError::invalid(&version_path, version, bad.join(",")));
            }
        }
    }
    let name = kind.kind().unwrap_or("");
    if required(errors, &path.child("kind"), Some(name)) {
        let bad = names::dns1035_label(&name.to_lowercase());
        if !bad.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", bad.join(","));
            errors.push(FieldError::invalid(&path.child("kind"), name, why));
        }
    }
}

fn match_constraints(errors: &mut Errors, constraints: Option<MatchResources<'_>>, operations: &[&str]) {
    let path = SPEC.child("matchConstraints");
    let Some(constraints) = constraints else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    match_resources(errors, &path, constraints);
    let path = path.child("resourceRules");
    if constraints.resource_rules().is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    only_operations(errors, &path.child("operations"), constraints.resource_rules(), operations);
}

/// Operations that a kind of policies knows but can't serve. The unknown ones are told of already.
fn only_operations(
    errors: &mut Errors,
    path: &Path<'_>,
    rules: List<'_, NamedRuleWithOperations<'_>>,
    supported: &[&str],
) {
    if supported == OPERATIONS {
        return;
    }
    for operation in rules.iter().flat_map(|rule| rule.operations().iter()) {
        supported_of(errors, path, Some(operation), supported);
    }
}

fn match_resources(errors: &mut Errors, path: &Path<'_>, resources: MatchResources<'_>) {
    match resources.match_policy() {
        None => errors.push(FieldError::required(&path.child("matchPolicy"), "")),
        policy => supported_of(errors, &path.child("matchPolicy"), policy, &MATCH_POLICIES),
    }
    for (field, selector) in
        [("namespaceSelector", resources.namespace_selector()), ("objectSelector", resources.object_selector())]
    {
        if selector.is_none() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
        label_selector(errors, &path.child(field), selector);
    }
    for (field, rules) in
        [("resourceRules", resources.resource_rules()), ("excludeResourceRules", resources.exclude_resource_rules())]
    {
        for (i, rule) in rules.iter().enumerate() {
            named_rule(errors, &path.child(field).index(i), rule);
        }
    }
}

fn variable(errors: &mut Errors, path: &Path<'_>, variable: Variable<'_>) {
    let name = variable.name().unwrap_or("");
    if name.trim().is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name is not specified"));
    } else if !is_identifier(name) {
        errors.push(FieldError::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
    }
    if variable.expression().unwrap_or("").trim().is_empty() {
        errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
    }
}

fn is_identifier(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && !RESERVED.contains(&name)
}

fn validation(errors: &mut Errors, path: &Path<'_>, validation: Validation<'_>) {
    if validation.expression().unwrap_or("").trim().is_empty() {
        errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
    }
    let expression = validation.message_expression().unwrap_or("");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(&path.child("messageExpression"), expression, why));
    }
    let message = validation.message().unwrap_or("");
    let trimmed = message.trim();
    if !message.is_empty() && trimmed.is_empty() {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(&path.child("message"), message, why));
    } else if trimmed.contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&path.child("message"), message, "must not contain line breaks"));
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    supported_of(errors, &path.child("reason"), validation.reason(), &reasons);
}

fn audit_annotation(errors: &mut Errors, path: &Path<'_>, annotation: AuditAnnotation<'_>, policy: &str) {
    let key = annotation.key().unwrap_or("");
    if policy.is_empty() {
        errors.push(FieldError::invalid(&path.child("key"), key, "requires metadata.name be non-empty"));
    } else {
        let whole = format!("{policy}/{key}");
        problems(errors, &path.child("key"), &whole, names::qualified_name(&whole));
    }
    let expression = annotation.value_expression().unwrap_or("").trim();
    let path = path.child("valueExpression");
    if expression.is_empty() {
        errors.push(FieldError::required(&path, "valueExpression is not specified"));
    } else if expression.len() > MAX_VALUE_EXPRESSION {
        let why = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
        errors.push(FieldError::required(&path, why));
    }
}

fn validating_status(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = ValidatingAdmissionPolicy(object).status() else { return errors };
    let warnings = status.type_checking().map_or(List::new(&[]), |checking| checking.expression_warnings());
    let path = STATUS.child("typeChecking");
    for (i, warning) in warnings.iter().enumerate() {
        let path = path.child("expressionWarnings");
        let path = path.index(i);
        required(&mut errors, &path.child("warning"), warning.warning());
        required(&mut errors, &path.child("fieldRef"), warning.field_ref().map(str::trim));
    }
    conditions(&mut errors, &STATUS.child("conditions"), status.conditions());
    errors
}

pub(super) fn mutating(object: &Map) -> Errors {
    mutating_policy(object, true)
}

pub(super) fn mutating_update(_: &str, new: &Map, old: &Map) -> Errors {
    mutating_policy(new, !conditions_unchanged(new, old))
}

fn mutating_policy(object: &Map, with_conditions: bool) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = MutatingAdmissionPolicy(object).spec().unwrap_or(MutatingAdmissionPolicySpec(&empty));
    failure_policy(&mut errors, spec.failure_policy());
    param_kind(&mut errors, &SPEC.child("paramKind"), spec.param_kind());
    match_constraints(&mut errors, spec.match_constraints(), &MUTATING_OPERATIONS);
    if with_conditions {
        match_conditions(&mut errors, &SPEC.child("matchConditions"), spec.match_conditions());
    }
    for (i, one) in spec.variables().iter().enumerate() {
        variable(&mut errors, &SPEC.child("variables").index(i), one);
    }
    let path = SPEC.child("mutations");
    if spec.mutations().is_empty() {
        errors.push(FieldError::required(&path, "mutations must contain at least one item"));
    }
    for (i, one) in spec.mutations().iter().enumerate() {
        mutation(&mut errors, &path.index(i), one);
    }
    let policy = spec.reinvocation_policy();
    required_of(&mut errors, &SPEC.child("reinvocationPolicy"), policy, &REINVOCATION_POLICIES);
    errors
}

fn mutation(errors: &mut Errors, path: &Path<'_>, mutation: Mutation<'_>) {
    let patch = mutation.json_patch().map(|patch| patch.expression());
    let configuration = mutation.apply_configuration().map(|configuration| configuration.expression());
    let sides = [("jsonPatch", "JSONPatch", patch), ("applyConfiguration", "ApplyConfiguration", configuration)];
    let kind = mutation.patch_type().unwrap_or("");
    required_of(errors, &path.child("patchType"), Some(kind), &["ApplyConfiguration", "JSONPatch"]);
    for (field, _, given) in sides.iter().filter(|(_, of, _)| *of == kind) {
        let path = path.child(field);
        match given {
            None => errors.push(FieldError::required(&path, format!("must be specified when patchType is {kind}"))),
            Some(expression) => {
                required(errors, &path.child("expression"), expression.map(str::trim));
            }
        }
    }
    if sides.iter().any(|(_, of, _)| *of == kind) {
        for (field, ..) in sides.iter().filter(|(_, of, given)| *of != kind && given.is_some()) {
            let why = format!("must not be specified when patchType is {kind}");
            errors.push(FieldError::invalid(&path.child(field), format!("{{{field}}}"), why));
        }
    }
}

pub(super) fn validating_binding(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = ValidatingAdmissionPolicyBinding(object).spec().unwrap_or(ValidatingAdmissionPolicyBindingSpec(&empty));
    bound(&mut errors, spec.policy_name(), spec.param_ref());
    if let Some(resources) = spec.match_resources() {
        match_resources(&mut errors, &SPEC.child("matchResources"), resources);
    }
    let path = SPEC.child("validationActions");
    let actions = spec.validation_actions();
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        supported_of(&mut errors, &path.index(i), Some(action), &["Audit", "Deny", "Warn"]);
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(&path.index(i), action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(&path, json_list(actions), why));
    }
    if seen.is_empty() {
        errors.push(FieldError::required(&path, "at least one validation action is required"));
    }
    errors
}

pub(super) fn mutating_binding(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = MutatingAdmissionPolicyBinding(object).spec().unwrap_or(MutatingAdmissionPolicyBindingSpec(&empty));
    bound(&mut errors, spec.policy_name(), spec.param_ref());
    if let Some(resources) = spec.match_resources() {
        let path = SPEC.child("matchResources");
        match_resources(&mut errors, &path, resources);
        let path = path.child("resourceRules");
        only_operations(&mut errors, &path.child("operations"), resources.resource_rules(), &MUTATING_OPERATIONS);
    }
    errors
}

/// The policy that is bound, and its parameters.
fn bound(errors: &mut Errors, policy: Option<&str>, params: Option<ParamRef<'_>>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let path = SPEC.child("policyName");
    if required(errors, &path, policy) {
        let name = policy.unwrap_or("");
        problems(errors, &path, name, names::dns1123_subdomain(name));
    }
    let Some(params) = params else { return };
    let path = SPEC.child("paramRef");
    let name = params.name().unwrap_or("");
    if !name.is_empty() {
        problems(errors, &path.child("name"), name, names::path_segment(name));
        if params.selector().is_some() {
            errors.push(FieldError::forbidden(&path.child("name"), EXCLUSIVE));
        }
    }
    if params.selector().is_some() {
        label_selector(errors, &path.child("selector"), params.selector());
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&path.child("selector"), EXCLUSIVE));
        }
    }
    if name.is_empty() && params.selector().is_none() {
        errors.push(FieldError::required(&path, "one of name or selector must be specified"));
    }
    let action = params.parameter_not_found_action();
    required_of(errors, &path.child("parameterNotFoundAction"), action, &["Deny", "Allow"]);
}
