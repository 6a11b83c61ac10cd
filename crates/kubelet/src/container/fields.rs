//! The downward API: fields of a pod and resources of its containers as text.

use std::net::IpAddr;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{
    pod::status::sort_ips,
    resources::{self, TextList},
    spec::PodExt,
};

/// What the fields of a pod are read from, beside the pod.
pub(crate) struct Context<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [IpAddr],
    /// What a container without limits may use: the node's allocatable.
    pub(crate) allocatable: &'a TextList,
}

/// The value at `path`, as an environment variable or a file shows it.
///
/// # Errors
/// A message that names the path when it is none that can be shown.
pub(crate) fn field(context: &Context<'_>, path: &str) -> Result<String, String> {
    let pod = context.pod;
    let join = |ips: Vec<String>| ips.join(",");
    let hosts = || context.host_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pod_ips = || {
        if pod.is_host_network() { hosts() } else { sort_ips(context.pod_ips, context.host_ips) }
    };
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.iter().flatten()),
        "metadata.annotations" => format_map(pod.metadata.annotations.iter().flatten()),
        "spec.nodeName" => pod.spec().node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => hosts().into_iter().next().unwrap_or_default(),
        "status.hostIPs" => join(hosts()),
        "status.podIP" => pod_ips().into_iter().next().unwrap_or_default(),
        "status.podIPs" => join(pod_ips()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, the values quoted as Go quotes.
fn format_map<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = map.map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

/// A Go string literal.
pub(crate) fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resource of a container, in units of the divisor, rounded up.
///
/// # Errors
/// A message that names the container or resource that there isn't.
pub(crate) fn resource(
    context: &Context<'_>,
    own: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        None => own.clone(),
        Some(name) => {
            let (_, container) =
                context.pod.find_container(name).ok_or_else(|| format!("container {name} not found"))?;
            container
        }
    };
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let requirements = container.resources.as_ref();
    let quantity = match list {
        "limits" => {
            let limit = resources::get(resources::limits(requirements), name);
            if limit.is_zero() { resources::get(Some(context.allocatable), name) } else { limit }
        }
        "requests" => resources::get(resources::requests(requirements), name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let known = matches!(name, resources::CPU | resources::MEMORY | resources::EPHEMERAL_STORAGE)
        || name.starts_with(resources::HUGE_PAGES);
    if !known {
        return Err(format!("unsupported container resource : {}", selector.resource));
    }
    let divisor = selector
        .divisor
        .as_ref()
        .map(resources::parse)
        .filter(|divisor| !divisor.is_zero())
        .unwrap_or(Quantity::from_milli(1000));
    let value = if name == resources::CPU {
        let divisor = divisor.milli_value().max(1);
        quantity.milli_value().div_euclid(divisor) + i64::from(quantity.milli_value().rem_euclid(divisor) != 0)
    } else {
        let divisor = divisor.value().max(1);
        quantity.value().div_euclid(divisor) + i64::from(quantity.value().rem_euclid(divisor) != 0)
    };
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources_read_as_upstream_writes_them() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                "labels": {"a": "1", "b": "x\"y"}, "annotations": {"k/x": "v"}},
            "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}},
                {"name": "d"}]},
        }))
        .unwrap();
        let allocatable = TextList::from([("cpu".to_owned(), resources::count(8))]);
        let host = ["192.168.0.1".parse().unwrap()];
        let ips = ["10.0.0.5".to_owned()];
        let context = Context { pod: &pod, pod_ips: &ips, host_ips: &host, allocatable: &allocatable };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['k/x']", "v"),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\""),
            ("spec.nodeName", "n"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.0.0.5"),
            ("status.podIPs", "10.0.0.5"),
            ("status.hostIP", "192.168.0.1"),
        ] {
            assert_eq!(field(&context, path).unwrap(), expected, "{path}");
        }
        assert!(field(&context, "spec.containers").is_err());
        let own = &pod.containers()[0];
        let selector = |resource: &str, divisor: &str, container: &str| ResourceFieldSelector {
            resource: resource.into(),
            divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into())),
            container_name: Some(container.into()),
        };
        for (of, divisor, container, expected) in [
            ("limits.cpu", "0", "", "2"),
            ("limits.cpu", "1m", "", "1500"),
            ("limits.memory", "1Mi", "", "64"),
            ("limits.memory", "0", "", "67108864"),
            ("requests.cpu", "1", "", "0"),
            ("limits.cpu", "1", "d", "8"),
        ] {
            assert_eq!(resource(&context, own, &selector(of, divisor, container)).unwrap(), expected);
        }
        assert!(resource(&context, own, &selector("limits.cpu", "1", "nope")).is_err());
    }
}
