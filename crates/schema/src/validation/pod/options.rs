//! What is allowed beyond the rules: what features bring, and what the pod or template before had already. Rules grew
//! stricter with time, and what is stored must stay changeable.

use super::container::of_all_kinds;
use super::{annotations, projected, resources, scheduling, security};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::validation::fields::Values;
use crate::view::core_v1::{Pod, PodSpec, PodTemplateSpec};
use crate::view::meta_v1::ObjectMeta;

/// How a pod or a template is looked at.
#[derive(Clone, Copy)]
pub(in crate::validation) struct Options<'a> {
    features: Features,
    /// A pod, not a template.
    pub(super) is_pod: bool,
    was: Option<PodSpec<'a>>,
    was_metadata: Option<ObjectMeta<'a>>,
}

/// How keys of labels of a spread are held against its selector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelKeys {
    /// They are merged into the selector when a pod is made.
    Merged,
    /// They stay beside it.
    Beside,
}

impl<'a> Options<'a> {
    /// Of a pod; `old` is the one before.
    pub(super) fn of_pod(features: Features, old: Option<Pod<'a>>) -> Self {
        let was = old.and_then(|old| old.spec());
        Options { features, is_pod: true, was, was_metadata: old.and_then(|old| old.metadata()) }
    }

    /// Of a template; `old` is the one before.
    pub(in crate::validation) fn of_template(features: Features, old: Option<PodTemplateSpec<'a>>) -> Self {
        let was = old.and_then(|old| old.spec());
        Options { features, is_pod: false, was, was_metadata: old.and_then(|old| old.metadata()) }
    }

    /// Of the template that objects of a kind have at a path.
    pub(in crate::validation) fn at(features: Features, old: Option<&'a Map>, path: &[&str]) -> Self {
        let template = old.and_then(|old| old.at(path)).and_then(Value::as_map);
        Options::of_template(features, template.map(PodTemplateSpec))
    }

    /// Whether the price of a pod's deletion must be a number.
    pub(super) fn checks_deletion_cost(self) -> bool {
        self.features.deletion_cost
            && self.was_metadata.is_none_or(|metadata| annotations::has_deletion_cost(metadata.annotations()))
    }

    /// Whether tolerations may compare numbers.
    pub(super) fn compares_taints(self) -> bool {
        let compares = |spec: PodSpec<'_>| {
            spec.tolerations().iter().any(|toleration| matches!(toleration.operator(), Some("Lt" | "Gt")))
        };
        self.features.taint_comparisons || self.was.is_some_and(compares)
    }

    /// Whether pods with users of their own may be in the host's network.
    pub(super) fn own_users_on_host_network(self) -> bool {
        self.features.user_namespaces_host_network
            || self.was.is_some_and(|was| was.host_network() == Some(true) && was.host_users() == Some(false))
    }

    /// Whether pods with users of their own may have devices, which does not work.
    pub(super) fn own_users_with_devices(self) -> bool {
        self.was.is_some_and(|was| {
            was.host_users() == Some(false)
                && of_all_kinds(was).any(|(.., container)| !container.volume_devices().is_empty())
        })
    }

    /// Whether parts of huge pages may be asked for.
    pub(super) fn splits_huge_pages(self) -> bool {
        self.was.is_some_and(resources::splits_huge_pages)
    }

    /// Whether pods of the host's namespaces may have sysctls of their own for them.
    pub(super) fn sysctls_of_host(self) -> bool {
        self.was.is_some_and(security::has_sysctls_of_host)
    }

    /// Whether the files of tokens may be outside of their volumes.
    pub(super) fn tokens_anywhere(self) -> bool {
        self.was.is_some_and(projected::has_tokens_outside)
    }

    /// The values of the selectors of affinities to pods.
    pub(super) fn affinity_values(self) -> Values {
        let bad = self.was.and_then(|was| was.affinity()).is_some_and(scheduling::has_bad_selectors);
        if bad { Values::Any } else { Values::Checked }
    }

    /// The values of required affinities to nodes.
    pub(super) fn node_values(self) -> Values {
        let bad = self.was.and_then(|was| was.affinity()).is_some_and(scheduling::has_bad_node_values);
        if bad { Values::Any } else { Values::Checked }
    }

    /// Whether the selectors of spreads are looked at.
    pub(super) fn checks_spread_selectors(self) -> bool {
        !self.was.is_some_and(|was| scheduling::has_bad_spread_selectors(was.topology_spread_constraints()))
    }

    /// How keys of labels of spreads are looked at: as they are now, unless the one before is right the other way only.
    pub(super) fn spread_keys(self) -> LabelKeys {
        let (now, other) = if self.features.merged_spread_keys {
            (LabelKeys::Merged, LabelKeys::Beside)
        } else {
            (LabelKeys::Beside, LabelKeys::Merged)
        };
        let wrong = |was: PodSpec<'_>| scheduling::has_bad_spread_keys(was.topology_spread_constraints(), now);
        if self.features.spread_keys && self.was.is_some_and(wrong) { other } else { now }
    }
}
