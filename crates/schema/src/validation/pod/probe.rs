//! Probes, lifecycle hooks and what both may do.

use super::super::fields::{Errors, inclusive, non_negative, port_num, port_or_name, required, required_of};
use crate::openapi::enums;
use crate::view::core_v1::{ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, TCPSocketAction};
use api::{FieldError, Path};

/// What a probe or a hook does; at most one is set.
struct Handler<'a> {
    exec: Option<ExecAction<'a>>,
    http_get: Option<HTTPGetAction<'a>>,
    tcp_socket: Option<TCPSocketAction<'a>>,
    grpc_port: Option<i64>,
    sleep: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Liveness,
    Readiness,
    Startup,
}

pub(super) fn probe(errors: &mut Errors, path: &Path<'_>, probe: Option<Probe<'_>>, role: Role) {
    let Some(probe) = probe else { return };
    let handler = Handler {
        exec: probe.exec(),
        http_get: probe.http_get(),
        tcp_socket: probe.tcp_socket(),
        grpc_port: probe.grpc().map(|grpc| grpc.port().unwrap_or(0)),
        sleep: None,
    };
    handle(errors, path, &handler, None);
    let fields = [
        ("initialDelaySeconds", probe.initial_delay_seconds()),
        ("timeoutSeconds", probe.timeout_seconds()),
        ("periodSeconds", probe.period_seconds()),
        ("successThreshold", probe.success_threshold()),
        ("failureThreshold", probe.failure_threshold()),
    ];
    for (field, value) in fields {
        non_negative(errors, &path.child(field), value);
    }
    let grace = probe.termination_grace_period_seconds();
    if let Some(grace) = grace.filter(|grace| *grace <= 0) {
        errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), grace, "must be greater than 0"));
    }
    if role == Role::Readiness {
        if let Some(grace) = grace {
            let why = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), grace, why));
        }
    } else if probe.success_threshold().unwrap_or(0) != 1 {
        let value = probe.success_threshold().unwrap_or(0);
        errors.push(FieldError::invalid(&path.child("successThreshold"), value, "must be 1"));
    }
}

pub(super) fn lifecycle(
    errors: &mut Errors,
    path: &Path<'_>,
    lifecycle: Option<Lifecycle<'_>>,
    grace: Option<i64>,
    os: &str,
) {
    let Some(lifecycle) = lifecycle else { return };
    for (field, handler) in [("postStart", lifecycle.post_start()), ("preStop", lifecycle.pre_stop())] {
        if let Some(handler) = handler {
            handle(errors, &path.child(field), &of_hook(handler), grace);
        }
    }
    if let Some(signal) = lifecycle.stop_signal() {
        let path = path.child("stopSignal");
        // Windows knows two of them.
        let supported: Vec<&str> = match os {
            "" => Vec::new(),
            "windows" => vec!["SIGKILL", "SIGTERM"],
            _ => enums::values("core.v1.Lifecycle.stopSignal").collect(),
        };
        if os.is_empty() {
            errors.push(FieldError::forbidden(&path, "may not be set for containers with empty `spec.os.name`"));
        } else if !supported.contains(&signal) {
            errors.push(FieldError::not_supported(&path, signal, &supported));
        }
    }
}

fn of_hook(handler: LifecycleHandler<'_>) -> Handler<'_> {
    Handler {
        exec: handler.exec(),
        http_get: handler.http_get(),
        tcp_socket: handler.tcp_socket(),
        grpc_port: None,
        sleep: handler.sleep().map(|sleep| sleep.seconds().unwrap_or(0)),
    }
}

fn handle(errors: &mut Errors, path: &Path<'_>, handler: &Handler<'_>, grace: Option<i64>) {
    let mut count = 0;
    let mut first = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 {
            errors.push(FieldError::forbidden(&path.child(field), "may not specify more than 1 handler type"));
        }
        count == 1
    };
    if let Some(exec) = handler.exec
        && first(errors, "exec")
        && exec.command().is_empty()
    {
        errors.push(FieldError::required(&path.child("exec").child("command"), ""));
    }
    if let Some(http) = handler.http_get
        && first(errors, "httpGet")
    {
        http_get(errors, &path.child("httpGet"), http);
    }
    if let Some(tcp) = handler.tcp_socket
        && first(errors, "tcpSocket")
    {
        port_or_name(errors, &path.child("tcpSocket").child("port"), tcp.port());
    }
    if let Some(port) = handler.grpc_port
        && first(errors, "grpc")
    {
        port_num(errors, &path.child("grpc").child("port"), port);
    }
    if let Some(seconds) = handler.sleep
        && first(errors, "sleep")
    {
        let grace = grace.unwrap_or(30);
        if seconds < 0 || seconds > grace {
            errors.push(FieldError::invalid(
                &path.child("sleep"),
                seconds,
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
            ));
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, path: &Path<'_>, http: HTTPGetAction<'_>) {
    required(errors, &path.child("path"), http.path());
    port_or_name(errors, &path.child("port"), http.port());
    match http.scheme().unwrap_or("") {
        "HTTP" | "HTTPS" => {}
        "" => errors.push(FieldError::not_supported(&path.child("scheme"), "", &["HTTP", "HTTPS"])),
        _ => required_of(errors, &path.child("scheme"), http.scheme(), &["HTTP", "HTTPS"]),
    }
    for header in http.http_headers().iter() {
        let name = header.name().unwrap_or("");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            errors.push(FieldError::invalid(
                &path.child("httpHeaders"),
                name,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ));
        }
    }
}

/// The deadline of a pod: a positive 32 bit number.
pub(super) fn deadline(errors: &mut Errors, path: &Path<'_>, value: Option<i64>, least: i64) {
    if let Some(value) = value.filter(|value| *value < least || *value > super::super::fields::MAX_INT32) {
        errors.push(FieldError::invalid(path, value, inclusive(least, super::super::fields::MAX_INT32)));
    }
}
