//! Ingresses.

use super::{SPEC, segment};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::validation::fields::{Errors, ip, json, parse_ip, port_num, problems, required};
use crate::view::List;
use crate::view::networking_v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
};
use api::{FieldError, Path, names};

const CLASS: &str = "kubernetes.io/ingress.class";
const FORBIDDEN_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const FORBIDDEN_ENDS: [&str; 2] = ["/..", "/."];
static EMPTY: Map = Map::new();

/// What is let pass because the object had such before.
#[derive(Clone, Copy, Default)]
struct Known {
    secret_names: bool,
    wildcard_rules: bool,
    /// Names of services that begin with a digit; where the feature is on, they always pass.
    service_names: bool,
}

fn spec_of(object: &Map) -> IngressSpec<'_> {
    Ingress(object).spec().unwrap_or(IngressSpec(&EMPTY))
}

pub(in crate::validation) fn ingress(object: &Map, features: Features) -> Errors {
    let known = Known { service_names: features.relaxed_service_names, ..Known::default() };
    let mut errors = checked(object, known);
    let annotation = object.at(&["metadata", "annotations", CLASS]).and_then(Value::as_str);
    if let (Some(annotation), Some(class)) = (annotation, spec_of(object).ingress_class_name())
        && annotation != class
    {
        let path = Path::root("annotations");
        let why = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(&path.child(CLASS), annotation, why));
    }
    errors
}

pub(in crate::validation) fn ingress_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return status(new, old);
    }
    let mut known = known(spec_of(old));
    known.service_names |= features.relaxed_service_names;
    checked(new, known)
}

pub(in crate::validation) fn ingress_warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let annotated = new.at(&["metadata", "annotations", CLASS]).is_some();
    if old.is_none() && annotated && spec_of(new).ingress_class_name().is_none() {
        return vec![format!("annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")];
    }
    Vec::new()
}

fn known(old: IngressSpec<'_>) -> Known {
    let secret =
        |name: Option<&str>| name.is_some_and(|name| !name.is_empty() && !names::dns1123_subdomain(name).is_empty());
    let wildcard = |rule: IngressRule<'_>| {
        let mut errors = Errors::new();
        if let Some(http) = rule.http().filter(|_| rule.host().unwrap_or("").contains('*')) {
            http_rules(&mut errors, &SPEC, http, Known::default());
        }
        !errors.is_empty()
    };
    let named = |backend: IngressBackend<'_>| {
        let name = backend.service().and_then(|service| service.name()).unwrap_or("");
        !names::dns1035_label(name).is_empty() && names::dns1123_label(name).is_empty()
    };
    let paths = old.rules().iter().filter_map(|rule| rule.http()).flat_map(|http| http.paths().iter());
    Known {
        secret_names: old.tls().iter().any(|tls| secret(tls.secret_name())),
        wildcard_rules: old.rules().iter().any(wildcard),
        service_names: paths.filter_map(|one| one.backend()).chain(old.default_backend()).any(named),
    }
}

fn checked(object: &Map, known: Known) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(object);
    if spec.rules().is_empty() && spec.default_backend().is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&SPEC, json(spec.0.get("rules")), why));
    }
    if let Some(default) = spec.default_backend() {
        backend(&mut errors, &SPEC.child("defaultBackend"), default, known);
    }
    for (i, rule) in spec.rules().iter().enumerate() {
        let rules = SPEC.child("rules");
        rule_rules(&mut errors, &rules.index(i), rule, known);
    }
    for (i, tls) in spec.tls().iter().enumerate() {
        let list = SPEC.child("tls");
        let path = list.index(i);
        for (i, host) in tls.hosts().iter().enumerate() {
            host_name(&mut errors, &path.child("hosts").index(i), host);
        }
        let secret = tls.secret_name().unwrap_or("");
        if !secret.is_empty() && !known.secret_names {
            problems(&mut errors, &path.child("secretName"), secret, names::dns1123_subdomain(secret));
        }
    }
    if let Some(class) = spec.ingress_class_name() {
        problems(&mut errors, &SPEC.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
    errors
}

fn host_name(errors: &mut Errors, path: &Path<'_>, host: &str) {
    let rule = if host.contains('*') { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
    problems(errors, path, host, rule(host));
}

fn rule_rules(errors: &mut Errors, path: &Path<'_>, rule: IngressRule<'_>, known: Known) {
    let host = rule.host().unwrap_or("");
    if !host.is_empty() {
        let path = path.child("host");
        if parse_ip(host).is_some() {
            errors.push(FieldError::invalid(&path, host, "must be a DNS name, not an IP address"));
        }
        host_name(errors, &path, host);
    }
    if let Some(http) = rule.http().filter(|_| !host.contains('*') || !known.wildcard_rules) {
        http_rules(errors, &path.child("http"), http, known);
    }
}

fn http_rules(errors: &mut Errors, path: &Path<'_>, http: HTTPIngressRuleValue<'_>, known: Known) {
    let path = path.child("paths");
    if http.paths().is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    for (i, one) in http.paths().iter().enumerate() {
        path_rules(errors, &path.index(i), one, known);
    }
}

fn path_rules(errors: &mut Errors, path: &Path<'_>, one: HTTPIngressPath<'_>, known: Known) {
    let Some(kind) = one.path_type() else {
        errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified"));
        return;
    };
    let text = one.path().unwrap_or("");
    let here = path.child("path");
    let mut refuse = |why: String| errors.push(FieldError::invalid(&here, text, why));
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                refuse("must be an absolute path".to_owned());
            }
            for part in FORBIDDEN_PARTS.iter().filter(|part| text.contains(**part)) {
                refuse(format!("must not contain '{part}'"));
            }
            for end in FORBIDDEN_ENDS.iter().filter(|end| text.ends_with(**end)) {
                refuse(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                refuse("must be an absolute path".to_owned());
            }
        }
        other => {
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&path.child("pathType"), other, &supported));
        }
    }
    backend(errors, &path.child("backend"), one.backend().unwrap_or(IngressBackend(&EMPTY)), known);
}

fn backend(errors: &mut Errors, path: &Path<'_>, backend: IngressBackend<'_>, known: Known) {
    match (backend.resource(), backend.service()) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(resource), None) => {
            let path = path.child("resource");
            if let Some(group) = resource.api_group() {
                problems(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
            }
            segment(errors, &path.child("kind"), resource.kind());
            segment(errors, &path.child("name"), resource.name());
        }
        (None, Some(service)) => service_rules(errors, path, service, known),
    }
}

fn service_rules(errors: &mut Errors, path: &Path<'_>, service: IngressServiceBackend<'_>, known: Known) {
    let here = path.child("service");
    let name = service.name().unwrap_or("");
    let rule = if known.service_names { names::dns1123_label } else { names::dns1035_label };
    if required(errors, &here.child("name"), Some(name)) {
        problems(errors, &here.child("name"), name, rule(name));
    }
    let port = service.port();
    let number = port.and_then(|port| port.number()).filter(|number| *number != 0);
    let name = port.and_then(|port| port.name()).filter(|name| !name.is_empty());
    let here = here.child("port");
    match (name, number) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
        }
        (Some(name), None) => problems(errors, &here.child("name"), name, names::port_name(name)),
        (None, Some(number)) => port_num(errors, &here.child("number"), number),
        (None, None) => errors.push(FieldError::required(path, "port name or number is required")),
    }
}

fn status(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let balancers = |map| Ingress(map).status().and_then(|s| s.load_balancer()).map(|balancer| balancer.ingress());
    let known: Vec<&str> = balancers(old).into_iter().flat_map(List::iter).filter_map(|one| one.ip()).collect();
    let path = Path::root("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    for (i, one) in balancers(new).into_iter().flat_map(List::iter).enumerate() {
        let path = path.index(i);
        if let Some(address) = one.ip().filter(|address| !address.is_empty() && !known.contains(address)) {
            ip(&mut errors, &path.child("ip"), address);
        }
        if let Some(host) = one.hostname().filter(|host| !host.is_empty()) {
            let path = path.child("hostname");
            problems(&mut errors, &path, host, names::dns1123_subdomain(host));
            if parse_ip(host).is_some() {
                errors.push(FieldError::invalid(&path, host, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
