//! What Windows is told of a pod and its containers.

use super::container::of_all_kinds;
use crate::validation::fields::{Errors, problems};
use crate::view::core_v1::{PodSpec, WindowsSecurityContextOptions};
use api::{FieldError, Path, names};

const CREDENTIAL_SPEC_KIB: usize = 64;
const DOMAIN: usize = 256;
const USER: usize = 104;
/// The longest name of a domain of old.
const NETBIOS: usize = 15;
const DNS_LABEL: usize = 63;

pub(super) fn options(errors: &mut Errors, path: &Path<'_>, options: Option<WindowsSecurityContextOptions<'_>>) {
    let Some(options) = options else { return };
    if let Some(name) = options.gmsa_credential_spec_name() {
        problems(errors, &path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = options.gmsa_credential_spec() {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > CREDENTIAL_SPEC_KIB * 1024 {
            let why = format!("gmsaCredentialSpec size must be under {CREDENTIAL_SPEC_KIB} KiB");
            errors.push(FieldError::invalid(&path, spec, why));
        }
    }
    if let Some(user) = options.run_as_user_name() {
        let path = path.child("runAsUserName");
        errors.extend(user_problems(user).into_iter().map(|why| FieldError::invalid(&path, user, why)));
    }
}

/// What is wrong with the name of a user, which may have a domain: `DOMAIN\user`.
fn user_problems(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if text.bytes().any(|b| b.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match text.split_once('\\') {
        Some((_, rest)) if rest.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash".to_owned()];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, text),
    };
    let mut out = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN) {
        out.push(format!("runAsUserName's Domain length must be under {DOMAIN} characters"));
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_dns(domain)) {
        out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER {
        out.push(format!("runAsUserName's User length must not be longer than {USER} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        out.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        out.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
    out
}

fn is_netbios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=NETBIOS).contains(&count)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=DNS_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Containers that are processes of the host: all of a pod or none, and in the host's network.
pub(super) fn host_processes(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let of_pod = spec
        .security_context()
        .and_then(|context| context.windows_options())
        .and_then(|options| options.host_process());
    let (mut all, mut of_host) = (0, 0);
    for (field, i, container) in of_all_kinds(spec) {
        all += 1;
        let own = container
            .security_context()
            .and_then(|context| context.windows_options())
            .and_then(|options| options.host_process());
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let list = path.child(field);
            let container = list.index(i);
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            let place = container.child("securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(&place, own, why));
        }
        if own.or(of_pod) == Some(true) {
            of_host += 1;
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", why));
    }
    if spec.host_network() != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&path.child("hostNetwork"), false, why));
    }
}
