//! The environment variables by which containers find services.

use std::net::IpAddr;

use crate::services::Service;

/// The variables of `services`, those of one service after the other.
pub(crate) fn variables<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let (Some(first), Some(ip)) = (service.ports.first(), service.ip()) else { continue };
        let prefix = name(&service.name);
        out.push((format!("{prefix}_SERVICE_HOST"), ip.to_owned()));
        out.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in &service.ports {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                out.push((format!("{prefix}_SERVICE_PORT_{}", name(port_name)), port.port.to_string()));
            }
        }
        // The variables that Docker's links used to make.
        for (index, port) in service.ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{}", host_port(ip, port.port));
            if index == 0 {
                out.push((format!("{prefix}_PORT"), url.clone()));
            }
            let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            out.push((port_prefix.clone(), url));
            out.push((format!("{port_prefix}_PROTO"), lower));
            out.push((format!("{port_prefix}_PORT"), port.port.to_string()));
            out.push((format!("{port_prefix}_ADDR"), ip.to_owned()));
        }
    }
    out
}

fn name(text: &str) -> String {
    text.replace('-', "_").to_uppercase()
}

/// `host:port`, with the brackets that a v6 address needs.
pub(crate) fn host_port(host: &str, port: i32) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Port;

    #[test]
    fn the_variables_of_the_api_server() {
        let service = Service {
            namespace: "default".into(),
            name: "kube-api".into(),
            cluster_ip: Some("10.96.0.1".into()),
            ports: vec![Port { name: Some("https".into()), port: 443, protocol: Some("TCP".into()) }],
        };
        let expected = [
            ("KUBE_API_SERVICE_HOST", "10.96.0.1"),
            ("KUBE_API_SERVICE_PORT", "443"),
            ("KUBE_API_SERVICE_PORT_HTTPS", "443"),
            ("KUBE_API_PORT", "tcp://10.96.0.1:443"),
            ("KUBE_API_PORT_443_TCP", "tcp://10.96.0.1:443"),
            ("KUBE_API_PORT_443_TCP_PROTO", "tcp"),
            ("KUBE_API_PORT_443_TCP_PORT", "443"),
            ("KUBE_API_PORT_443_TCP_ADDR", "10.96.0.1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(variables([&service]), expected);
        assert_eq!(host_port("fd00::1", 80), "[fd00::1]:80");
    }
}
