//! What is allowed beyond the rules: what features bring, and what the pod or template before had already. Rules grew
//! stricter with time, and what is stored must stay changeable.

use super::container::of_all_kinds;
use super::{annotations, projected, resources, scheduling, security};
use crate::tree::{Map, Value};
use crate::validation::Features;
use crate::validation::fields::Values;
use crate::view::StrMap;
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
    /// The spec is the one before.
    keeps_spec: bool,
    /// The files of tokens may be outside of their volumes.
    tokens_anywhere: bool,
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
        Options::new(features, true, old.and_then(|old| old.spec()), old.and_then(|old| old.metadata()))
    }

    /// Of a template; `old` is the one before.
    pub(in crate::validation) fn of_template(features: Features, old: Option<PodTemplateSpec<'a>>) -> Self {
        Options::new(features, false, old.and_then(|old| old.spec()), old.and_then(|old| old.metadata()))
    }

    fn new(features: Features, is_pod: bool, was: Option<PodSpec<'a>>, was_metadata: Option<ObjectMeta<'a>>) -> Self {
        Options { features, is_pod, was, was_metadata, keeps_spec: false, tokens_anywhere: false }
    }

    /// The same for a look at all of a spec.
    pub(super) fn looking_at(mut self, spec: PodSpec<'_>) -> Self {
        self.keeps_spec = self.was.is_some_and(|was| was.0 == spec.0);
        self.tokens_anywhere = self.was.is_some_and(projected::has_tokens_outside);
        self
    }

    /// Whether the spec is the one before, so that rules that are younger than it, perhaps, leave it alone: who changes
    /// metadata, as finalizers, can't help what is stored.
    pub(super) fn keeps_spec(self) -> bool {
        self.keeps_spec
    }

    /// Whether annotations are those before, and so are the containers by name: the same for rules of them.
    pub(super) fn keeps_annotations(self, annotations: StrMap<'_>, spec: PodSpec<'_>) -> bool {
        fn names<'a>(spec: PodSpec<'a>) -> impl Iterator<Item = Option<&'a str>> {
            of_all_kinds(spec).map(|(.., container)| container.name())
        }
        let before = self.was_metadata.map(|metadata| metadata.annotations());
        before.is_some_and(|before| before.map() == annotations.map())
            && self.was.is_some_and(|was| was.0.is(spec.0) || names(was).eq(names(spec)))
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
        self.tokens_anywhere
    }

    /// The values of the selectors of affinities to pods.
    pub(in crate::validation) fn affinity_values(self) -> Values {
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
