//! What is served, by path. Changed as a whole: whoever holds one sees it as it was.

use super::Served;
use std::collections::HashMap;
use std::sync::Arc;

/// All that is served.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Groups in the order of discovery, versions by priority.
    all: Vec<Arc<Served>>,
    /// Plural → those of the name.
    by_plural: HashMap<String, Vec<Arc<Served>>>,
}

impl Table {
    pub(super) fn new(all: Vec<Arc<Served>>) -> Self {
        let mut by_plural: HashMap<String, Vec<Arc<Served>>> = HashMap::new();
        for served in &all {
            by_plural.entry(served.resource.plural.to_string()).or_default().push(served.clone());
        }
        Table { all, by_plural }
    }

    /// In the order of discovery.
    pub fn all(&self) -> &[Arc<Served>] {
        &self.all
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        let named = self.by_plural.get(plural)?;
        named.iter().find(|s| s.resource.group == group && s.resource.version == version).cloned()
    }

    /// In the version of the highest priority.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        self.by_plural.get(plural)?.iter().find(|s| s.resource.group == group).cloned()
    }

    /// Whether anything of a group and version is served.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.all.iter().any(|s| s.resource.group == group && s.resource.version == version)
    }

    /// Changes all versions of a resource.
    pub(super) fn change(&mut self, group: &str, plural: &str, change: impl Fn(&mut Served)) {
        let mut all = std::mem::take(&mut self.all);
        for served in all.iter_mut().filter(|s| s.resource.group == group && s.resource.plural == plural) {
            change(Arc::make_mut(served));
        }
        *self = Table::new(all);
    }
}
