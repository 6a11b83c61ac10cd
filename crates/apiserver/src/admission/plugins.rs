//! The plugins by upstream's names and in upstream's order, which of them are on, and the chain they make.

use super::config::Config;
use super::{Admission, Chain};
use super::{
    always, certificates, classes, event_rate, limit_ranger, namespace, node_restriction, owners, placement,
    pod_groups, pod_security, priority, protection, quota, service_account, services, toleration_restriction,
    tolerations, topology,
};
use crate::authz::Authorizer;
use crate::lookup::Lookup;
use api::features::Gates;
use std::sync::Arc;
use thiserror::Error;

/// What plugins work with.
#[derive(Clone)]
pub struct Needs {
    pub objects: Arc<dyn Lookup>,
    pub authorizer: Arc<dyn Authorizer>,
    /// Writes what quotas have been used.
    pub quotas: Arc<dyn quota::QuotaWriter>,
    pub namespaces: Arc<dyn namespace::NamespaceMaker>,
    pub config: Config,
    pub gates: Gates,
}

/// A row: a plugin that upstream has.
pub struct Plugin {
    pub name: &'static str,
    /// Whether it is on unless it is disabled.
    pub on: bool,
    /// The gate that it does nothing without; empty: none.
    gate: &'static str,
    /// Makes it; `None` where it is not part of this server (yet): it may be named, and does nothing.
    make: Option<fn(&Needs) -> Arc<dyn Admission>>,
}

const fn here(name: &'static str, make: fn(&Needs) -> Arc<dyn Admission>) -> Plugin {
    Plugin { name, on: true, gate: "", make: Some(make) }
}

/// Off unless it is enabled.
const fn off(name: &'static str, make: fn(&Needs) -> Arc<dyn Admission>) -> Plugin {
    Plugin { name, on: false, gate: "", make: Some(make) }
}

/// On, where the gate is.
const fn gated(name: &'static str, gate: &'static str, make: fn(&Needs) -> Arc<dyn Admission>) -> Plugin {
    Plugin { name, on: true, gate, make: Some(make) }
}

const fn elsewhere(name: &'static str) -> Plugin {
    Plugin { name, on: false, gate: "", make: None }
}

/// Every plugin of upstream, in the order they run in.
pub const PLUGINS: &[Plugin] = &[
    off("AlwaysAdmit", |_| Arc::new(always::AlwaysAdmit)),
    off("NamespaceAutoProvision", |n| {
        Arc::new(namespace::NamespaceAutoProvision { objects: n.objects.clone(), maker: n.namespaces.clone() })
    }),
    here("NamespaceLifecycle", |n| Arc::new(namespace::NamespaceLifecycle { objects: n.objects.clone() })),
    off("NamespaceExists", |n| Arc::new(namespace::NamespaceExists { objects: n.objects.clone() })),
    off("LimitPodHardAntiAffinityTopology", |_| Arc::new(placement::LimitPodHardAntiAffinityTopology)),
    here("LimitRanger", |n| Arc::new(limit_ranger::LimitRanger { objects: n.objects.clone() })),
    here("ServiceAccount", |n| Arc::new(service_account::ServiceAccount { objects: n.objects.clone() })),
    here("NodeRestriction", |n| {
        Arc::new(node_restriction::NodeRestriction {
            objects: n.objects.clone(),
            authorizer: n.authorizer.clone(),
            gates: n.gates.clone(),
        })
    }),
    here("TaintNodesByCondition", |_| Arc::new(tolerations::TaintNodesByCondition)),
    off("AlwaysPullImages", |_| Arc::new(always::AlwaysPullImages)),
    elsewhere("ImagePolicyWebhook"),
    here("PodSecurity", |n| {
        let configuration = n.config.pod_security.clone();
        let measures = Arc::default();
        Arc::new(pod_security::PodSecurity { objects: n.objects.clone(), configuration, measures })
    }),
    off("PodNodeSelector", |n| {
        let configuration = n.config.node_selectors.clone();
        Arc::new(placement::PodNodeSelector { objects: n.objects.clone(), configuration })
    }),
    here("Priority", |n| {
        let of_groups = n.gates.enabled("WorkloadAwarePreemption");
        Arc::new(priority::Priority { objects: n.objects.clone(), of_groups })
    }),
    here("DefaultTolerationSeconds", |n| {
        let (not_ready, unreachable) = (n.config.not_ready_toleration, n.config.unreachable_toleration);
        Arc::new(tolerations::DefaultTolerationSeconds { not_ready, unreachable })
    }),
    off("PodTolerationRestriction", |n| {
        let configuration = n.config.tolerations.clone();
        Arc::new(toleration_restriction::PodTolerationRestriction { objects: n.objects.clone(), configuration })
    }),
    off("EventRateLimit", |n| Arc::new(event_rate::EventRateLimit::new(&n.config.event_limits))),
    off("ExtendedResourceToleration", |_| Arc::new(tolerations::ExtendedResourceToleration)),
    here("DefaultStorageClass", |n| Arc::new(classes::DefaultStorageClass { objects: n.objects.clone() })),
    here("StorageObjectInUseProtection", |_| Arc::new(protection::StorageObjectInUseProtection)),
    gated("PodGroupProtection", "GenericWorkload", |_| Arc::new(protection::PodGroupProtection)),
    off("OwnerReferencesPermissionEnforcement", |n| {
        Arc::new(owners::OwnerReferencesPermissionEnforcement { authorizer: n.authorizer.clone() })
    }),
    here("PersistentVolumeClaimResize", |n| {
        Arc::new(protection::PersistentVolumeClaimResize { objects: n.objects.clone() })
    }),
    here("RuntimeClass", |n| Arc::new(classes::RuntimeClass { objects: n.objects.clone() })),
    here("CertificateApproval", |n| Arc::new(certificates::CertificateApproval { authorizer: n.authorizer.clone() })),
    here("CertificateSigning", |n| Arc::new(certificates::CertificateSigning { authorizer: n.authorizer.clone() })),
    here("ClusterTrustBundleAttest", |n| {
        Arc::new(certificates::ClusterTrustBundleAttest { authorizer: n.authorizer.clone() })
    }),
    here("CertificateSubjectRestriction", |_| Arc::new(certificates::CertificateSubjectRestriction)),
    here("DefaultIngressClass", |n| Arc::new(classes::DefaultIngressClass { objects: n.objects.clone() })),
    off("DenyServiceExternalIPs", |_| Arc::new(services::DenyServiceExternalIps)),
    gated("PodTopologyLabels", "PodTopologyLabelsAdmission", |n| {
        Arc::new(topology::PodTopologyLabels { objects: n.objects.clone() })
    }),
    gated("PodGroupWorkloadExists", "GenericWorkload", |n| {
        Arc::new(pod_groups::PodGroupWorkloadExists { objects: n.objects.clone() })
    }),
    elsewhere("NodeDeclaredFeatureValidator"),
    elsewhere("JobValidation"),
    elsewhere("PodResizeValidator"),
    elsewhere("MutatingAdmissionPolicy"),
    elsewhere("MutatingAdmissionWebhook"),
    elsewhere("ValidatingAdmissionPolicy"),
    elsewhere("ValidatingAdmissionWebhook"),
    here("ResourceQuota", |n| {
        let limited = n.config.limited_resources.clone();
        Arc::new(quota::ResourceQuota::new(n.objects.clone(), n.quotas.clone(), limited))
    }),
    off("AlwaysDeny", |_| Arc::new(always::AlwaysDeny)),
];

#[derive(Debug, Error, PartialEq, Eq)]
pub enum PluginError {
    #[error("admission plugin {0:?} is unknown: the plugins are {names}", names = names())]
    Unknown(String),
    #[error("admission plugin {0:?} is both enabled and disabled: name it in one of the two flags")]
    Both(String),
}

fn names() -> String {
    PLUGINS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
}

/// The chain of the plugins that are on, given `--enable-admission-plugins` and `--disable-admission-plugins`.
///
/// # Errors
/// A name that upstream does not know, or one in both lists.
pub fn chain(needs: &Needs, enabled: &[String], disabled: &[String]) -> Result<Chain, PluginError> {
    for name in enabled.iter().chain(disabled) {
        if !PLUGINS.iter().any(|p| p.name == name) {
            return Err(PluginError::Unknown(name.clone()));
        }
    }
    if let Some(both) = enabled.iter().find(|name| disabled.contains(name)) {
        return Err(PluginError::Both(both.clone()));
    }
    let named = |list: &[String], plugin: &Plugin| list.iter().any(|name| name == plugin.name);
    let on = PLUGINS.iter().filter(|p| !named(disabled, p) && (p.on || named(enabled, p)));
    let mut chain = Chain::default();
    for plugin in on.filter(|p| p.gate.is_empty() || needs.gates.enabled(p.gate)) {
        match plugin.make {
            Some(make) => chain.0.push(make(needs)),
            None => {
                tracing::warn!(plugin = plugin.name, "this admission plugin is enabled, but is not part of this server")
            }
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Held, MayAll};

    fn made(enabled: &[&str], disabled: &[&str]) -> Result<Vec<&'static str>, PluginError> {
        let needs = Needs {
            objects: Arc::new(Held::default()),
            authorizer: Arc::new(MayAll),
            quotas: Arc::new(Held::default()),
            namespaces: Arc::new(Held::default()),
            config: Config::default(),
            gates: Gates::default(),
        };
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Ok(chain(&needs, &own(enabled), &own(disabled))?.0.iter().map(|p| p.name()).collect())
    }

    #[test]
    fn rows_and_plugins_agree_on_names_and_the_order_stays() {
        let made = made(&[], &[]).expect("a chain");
        let on: Vec<&str> = PLUGINS.iter().filter(|p| p.on && p.gate != "GenericWorkload").map(|p| p.name).collect();
        assert_eq!(made, on);
        assert_eq!(made.last(), Some(&"ResourceQuota"), "quotas count what everybody else has agreed to");
    }

    #[test]
    fn flags_turn_plugins_off_and_unknown_names_are_refused() {
        assert!(!made(&[], &["Priority"]).expect("a chain").contains(&"Priority"));
        assert_eq!(made(&["Nonsense"], &[]), Err(PluginError::Unknown("Nonsense".into())));
        assert_eq!(made(&["Priority"], &["Priority"]), Err(PluginError::Both("Priority".into())));
    }
}
