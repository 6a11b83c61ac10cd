//! Carrying out what was decided: the table in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use network::conntrack::Conntrack;
use network::nft::{Chain, Element, Family, Nft, Rule, Table, Transaction, Verdict, protocol};

use crate::class::{self, Affinity};
use crate::layout::{Layout, SetName};
use crate::plan::{Firewall, PortName};
use crate::ruleset::{Delta, RuleSet, firewall_chain};

/// The name of the tables of a cluster.
pub fn table_name(cluster: &str) -> String {
    format!("{cluster}-services")
}

/// The table of one family in the network namespace in which it was opened. All calls block.
#[derive(Debug)]
pub struct KernelTable {
    layout: Layout,
    nft: Nft,
    conntrack: Conntrack,
}

impl KernelTable {
    /// Opens the sockets; changes nothing yet.
    pub fn open(layout: Layout) -> network::Result<Self> {
        Ok(Self { layout, nft: Nft::open()?, conntrack: Conntrack::open()? })
    }

    /// Makes the table hold all of `rules` and nothing else, in one transaction, without a moment in which
    /// a service does not answer. Of a table that an earlier run left, clients keep their endpoints.
    pub fn replace(&mut self, rules: &mut RuleSet) -> network::Result<()> {
        let delta = rules.full();
        let takeover = self.takeover(&delta)?;
        let result = self.nft.commit(takeover.unwrap_or_else(|| self.fresh(&delta)));
        if let Err(error) = result {
            // The old table may not be as its comment says.
            tracing::warn!(%error, table = self.layout.table.name, "writing the whole table anew");
            let fresh = self.fresh(&delta);
            self.nft.commit(fresh)?;
        }
        self.clean_up(rules, &delta)
    }

    /// Changes what `delta` says. After an error, nothing has changed, and [`KernelTable::replace`] is due.
    pub fn apply(&mut self, rules: &RuleSet, delta: &Delta) -> network::Result<()> {
        let mut t = Transaction::new();
        self.change(&mut t, delta);
        self.nft.commit(t)?;
        self.clean_up(rules, delta)
    }

    /// What the kernel remembers of clients must not outlive what it was made from.
    fn clean_up(&mut self, rules: &RuleSet, delta: &Delta) -> network::Result<()> {
        if delta.affinity_changed {
            self.forget_stale_affinities(rules, delta)?;
        }
        if delta.udp_changed { self.forget_stale_flows(rules, delta) } else { Ok(()) }
    }

    /// After the change nobody gets such an endpoint any more, so one look is enough.
    fn forget_stale_affinities(&mut self, rules: &RuleSet, delta: &Delta) -> network::Result<()> {
        let (table, set) = (&self.layout.table, SetName::Affinity.name());
        let mut elements = self.nft.elements(table, set)?;
        let is_stale = |affinity: Affinity| rules.is_stale_affinity(&affinity, delta);
        elements.retain(|element| Affinity::parse(table.family, element).is_none_or(is_stale));
        self.nft.delete_elements_if_any(table, set, &elements)
    }

    /// Whether the table is there.
    pub fn exists(&mut self) -> network::Result<bool> {
        Ok(self.nft.tables()?.iter().any(|(table, _)| *table == self.layout.table))
    }

    /// Whether the table is there, with its rules: not once somebody deleted or flushed it.
    pub fn is_intact(&mut self) -> network::Result<bool> {
        self.nft.is_intact(&self.layout.table)
    }

    /// Deletes the table, if there is one.
    pub fn remove(&mut self) -> network::Result<()> {
        let mut t = Transaction::new();
        if self.exists()? {
            t.delete_table(&self.layout.table);
        }
        self.nft.commit(t)
    }

    fn fresh(&self, delta: &Delta) -> Transaction {
        let mut t = Transaction::new();
        t.replace_table(&self.layout.table, Some(&Layout::comment()));
        self.write_whole(&mut t, delta);
        t
    }

    /// Empties all of a known table but the affinities, and fills it again; none when there is no such
    /// table.
    fn takeover(&mut self, delta: &Delta) -> network::Result<Option<Transaction>> {
        let known = (self.layout.table.clone(), Layout::comment());
        if !self.nft.tables()?.contains(&known) {
            return Ok(None);
        }
        let table = &self.layout.table;
        let sets = self.nft.sets(table)?;
        if !SetName::ALL.iter().all(|set| sets.iter().any(|name| name == set.name())) {
            return Ok(None);
        }
        let mut t = Transaction::new();
        let fixed = self.layout.fixed_chains();
        let classes = delta.classes.iter().map(|class| class.chain());
        let timeouts = delta.timeouts.iter().map(|seconds| class::remember_chain(*seconds));
        let wanted: BTreeSet<String> =
            classes.chain(timeouts).chain(delta.firewalls.keys().map(firewall_chain)).collect();
        let chains = self.nft.chains(table)?;
        for chain in &chains {
            t.flush_chain(table, chain);
        }
        for set in SetName::ALL.into_iter().filter(|set| *set != SetName::Affinity) {
            t.flush_set(table, set.name());
        }
        for chain in &chains {
            let kept = fixed.iter().any(|(fixed, _)| fixed.name == chain.as_str()) || wanted.contains(chain);
            if !kept {
                t.delete_chain(table, chain);
            }
        }
        self.write_whole(&mut t, delta);
        Ok(Some(t))
    }

    fn write_whole(&self, t: &mut Transaction, delta: &Delta) {
        self.layout.add_sets(t);
        let table = &self.layout.table;
        let chains = self.layout.fixed_chains();
        for (chain, _) in &chains {
            t.add_chain(table, chain);
        }
        for (chain, rules) in &chains {
            for rule in rules {
                t.add_rule(table, &chain.name, rule);
            }
        }
        self.change(t, delta);
    }

    fn change(&self, t: &mut Transaction, delta: &Delta) {
        let table = &self.layout.table;
        for (set, elements) in by_set(delta.deleted()) {
            t.delete_elements(table, set.name(), &elements);
        }
        for class in &delta.classes {
            class.add(&self.layout, t);
        }
        for seconds in &delta.timeouts {
            class::add_remember(&self.layout, t, *seconds);
        }
        for (name, firewall) in &delta.firewalls {
            self.write_firewall(t, name, firewall);
        }
        for (set, elements) in by_set(delta.added()) {
            t.add_elements(table, set.name(), &elements);
        }
        for name in &delta.stale_firewalls {
            // The chain itself stays until everything is written anew: older kernels do not notice at once
            // that nothing leads to it.
            t.add_chain(table, &Chain::regular(firewall_chain(name)));
            t.flush_chain(table, &firewall_chain(name));
        }
    }

    fn write_firewall(&self, t: &mut Transaction, name: &PortName, firewall: &Firewall) {
        let (table, name) = (&self.layout.table, firewall_chain(name));
        t.add_chain(table, &Chain::regular(name.as_str()));
        t.flush_chain(table, &name);
        for range in &firewall.sources {
            t.add_rule(table, &name, &Rule::new().source(*range).verdict(Verdict::Return));
        }
        t.add_rule(table, &name, &Rule::new().drop());
    }

    fn forget_stale_flows(&mut self, rules: &RuleSet, delta: &Delta) -> network::Result<()> {
        let flows = self.conntrack.flows(rules.is_ipv6(), protocol::UDP)?;
        let stale = rules.stale_flows(&flows, delta);
        if stale.is_empty() {
            return Ok(());
        }
        tracing::debug!(flows = stale.len(), "forgetting UDP flows to endpoints that are gone");
        self.conntrack.delete(&stale)
    }
}

/// Deletes the tables of a cluster, if there are any: services stop answering on this node.
pub fn reset(cluster: &str) -> network::Result<()> {
    let mut t = Transaction::new();
    let mut nft = Nft::open()?;
    for (table, _) in nft.tables()? {
        if table.name == table_name(cluster) && matches!(table.family, Family::Ip | Family::Ip6) {
            t.delete_table(&table);
        }
    }
    nft.commit(t)
}

/// The table of a cluster for one family.
pub fn table(cluster: &str, family: Family) -> Table {
    Table::new(family, table_name(cluster))
}

fn by_set(elements: impl Iterator<Item = (SetName, Element)>) -> BTreeMap<SetName, Vec<Element>> {
    let mut by_set = BTreeMap::<_, Vec<_>>::new();
    for (set, element) in elements {
        by_set.entry(set).or_default().push(element);
    }
    by_set
}
