//! Who is told of changes. Watchers are found by what they asked for, never by asking each of them.

use super::batch::{Batch, Delivery};
use super::change::Change;
use super::entry::Entry;
use super::fields::Paths;
use super::hooks::{self, Mutant};
use super::state::{Scope, State, Unreadable};
use api::selector::{LabelSelector, Labels as _};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a watcher or list sees of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    pub scope: Scope,
    pub labels: LabelSelector,
    /// Requirements on selectable fields by number: field, whether equal, value.
    pub fields: Vec<(usize, bool, String)>,
    /// Beside the scope: the namespace, where the scope is a field's.
    pub namespace: Option<String>,
    /// Requirements on the name: whether equal, value.
    pub names: Vec<(bool, String)>,
    /// Requirements on the namespace: whether equal, value.
    pub namespaces: Vec<(bool, String)>,
}

impl Filter {
    pub fn everything() -> Self {
        Self::of(Scope::All)
    }
    pub fn of(scope: Scope) -> Self {
        Filter {
            scope,
            labels: LabelSelector::everything(),
            fields: Vec::new(),
            namespace: None,
            names: Vec::new(),
            namespaces: Vec::new(),
        }
    }

    /// Whether it selects beyond its scope.
    pub fn selects(&self) -> bool {
        !self.labels.is_everything()
            || !self.fields.is_empty()
            || self.namespace.is_some()
            || !self.names.is_empty()
            || !self.namespaces.is_empty()
    }

    /// Whether an object of the scope is seen.
    pub fn selected(&self, entry: &Entry, paths: &Paths) -> bool {
        self.labels.matches(entry)
            && self.fields.iter().all(|(number, equal, value)| (entry.field(paths, *number) == value) == *equal)
            && self.named(entry.namespace(), entry.name())
    }

    /// Whether an object of the scope may be seen that has this namespace and name.
    fn named(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| namespace == wanted)
            && self.names.iter().all(|(equal, wanted)| (name == wanted) == *equal)
            && self.namespaces.iter().all(|(equal, wanted)| (namespace == wanted) == *equal)
    }

    /// Whether what is seen of a state is all there is.
    ///
    /// # Errors
    /// The first object that cannot be read and may be seen: of what it has but its name nothing is known.
    pub fn check(&self, state: &State) -> Result<(), Unreadable> {
        state.check_named(&self.scope, |namespace, name| self.named(namespace, name))
    }

    /// Whether an object is seen.
    pub fn sees(&self, entry: &Entry, paths: &Paths) -> bool {
        self.scope.holds(entry, paths) && self.selected(entry, paths)
    }
}

/// Why a watcher gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It read too slowly for the memory it may hold.
    Slow,
    /// The history it follows was lost.
    Expired,
    /// The server stops.
    Closed,
}

/// What a watcher may leave unread, beside what it began with.
pub(super) const MAX_DELIVERIES: usize = hooks::bound(16_384, 10);
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
struct Letters {
    queue: VecDeque<Arc<Batch>>,
    /// How many changes these are, and how large.
    changes: usize,
    bytes: usize,
    waker: Option<Waker>,
    end: Option<End>,
}

impl Letters {
    fn put(&mut self, batch: Arc<Batch>) {
        self.changes += batch.deliveries().len();
        self.bytes += batch.size();
        self.queue.push_back(batch);
    }

    fn take(&mut self) -> Option<Arc<Batch>> {
        let batch = self.queue.pop_front()?;
        self.changes -= batch.deliveries().len();
        self.bytes -= batch.size();
        Some(batch)
    }
}

/// Where changes wait for one watcher.
#[derive(Debug)]
pub struct Mailbox {
    letters: Mutex<Letters>,
    /// How many changes, and how large, may wait.
    room: (usize, usize),
    /// The watcher knows everything up to this revision, which may be ahead of this server.
    after: u64,
}

impl Mailbox {
    /// The changes between `after` and a registration are put here before it, however many.
    pub(super) fn new(after: u64, backlog: Vec<Delivery>) -> Self {
        let mut letters = Letters::default();
        Batch::of(backlog).into_iter().for_each(|batch| letters.put(batch));
        let room = (letters.changes + MAX_DELIVERIES, letters.bytes + MAX_BYTES);
        Mailbox { letters: Mutex::new(letters), room, after }
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts changes in, and says who is to be woken.
    fn push(&self, batch: &Arc<Batch>) -> Option<Waker> {
        let all = hooks::is(Mutant::AheadToldTwice);
        let news = if all { batch.clone() } else { batch.after(self.after)? };
        let mut letters = self.letters();
        if letters.end.is_some() {
            return None;
        }
        if letters.changes >= self.room.0 && hooks::is(Mutant::SlowWatcherSkips) {
            return None;
        }
        letters.put(news);
        if letters.changes > self.room.0 || letters.bytes > self.room.1 {
            letters.end = Some(End::Slow);
            letters.queue = VecDeque::new();
        }
        letters.waker.take()
    }

    pub(super) fn end(&self, end: End) {
        let waker = {
            let mut letters = self.letters();
            letters.end.get_or_insert(end);
            letters.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next changes, or why there are none any more.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Arc<Batch>, End>> {
        let mut letters = self.letters();
        if let Some(batch) = letters.take() {
            return Poll::Ready(Ok(batch));
        }
        if let Some(end) = letters.end {
            return Poll::Ready(Err(end));
        }
        if letters.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            letters.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub fn is_empty(&self) -> bool {
        self.letters().queue.is_empty()
    }
}

/// The watchers who asked for the same.
#[derive(Debug)]
struct Group {
    filter: Filter,
    members: HashMap<u64, Arc<Mailbox>>,
}

/// All watchers of one storage.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    groups: HashMap<u64, Group>,
    by_filter: HashMap<Filter, u64>,
    by_scope: HashMap<Scope, Vec<u64>>,
    /// How many watchers ask by each indexed field, and by each label.
    by_field: Vec<(usize, usize)>,
    by_label: HashMap<String, usize>,
    last: u64,
}

/// What each group is told.
type Told = BTreeMap<u64, Vec<Delivery>>;

/// Names a registration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    group: u64,
    member: u64,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).sum()
    }

    pub(super) fn add(&mut self, filter: Filter, mailbox: Arc<Mailbox>) -> Registration {
        self.last += 1;
        let member = self.last;
        match &filter.scope {
            Scope::Field(field, _) => match self.by_field.iter_mut().find(|(number, _)| number == field) {
                Some((_, count)) => *count += 1,
                None => self.by_field.push((*field, 1)),
            },
            Scope::Label { key, .. } => *self.by_label.entry(key.clone()).or_default() += 1,
            Scope::All | Scope::Namespace(_) | Scope::Key(_) => {}
        }
        let group = match self.by_filter.get(&filter) {
            Some(group) => *group,
            None => {
                self.last += 1;
                let group = self.last;
                self.by_filter.insert(filter.clone(), group);
                self.by_scope.entry(filter.scope.clone()).or_default().push(group);
                self.groups.insert(group, Group { filter, members: HashMap::new() });
                group
            }
        };
        if let Some(group) = self.groups.get_mut(&group) {
            group.members.insert(member, mailbox);
        }
        Registration { group, member }
    }

    pub(super) fn remove(&mut self, registration: Registration) {
        let Some(group) = self.groups.get_mut(&registration.group) else { return };
        if group.members.remove(&registration.member).is_none() {
            return;
        }
        match &group.filter.scope {
            Scope::Field(field, _) => {
                if let Some(at) = self.by_field.iter().position(|(number, _)| number == field) {
                    self.by_field[at].1 -= 1;
                    if self.by_field[at].1 == 0 {
                        self.by_field.swap_remove(at);
                    }
                }
            }
            Scope::Label { key, .. } => {
                if let Some(count) = self.by_label.get_mut(key) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_label.remove(key);
                    }
                }
            }
            Scope::All | Scope::Namespace(_) | Scope::Key(_) => {}
        }
        if group.members.is_empty()
            && let Some(group) = self.groups.remove(&registration.group)
        {
            self.by_filter.remove(&group.filter);
            if let Some(groups) = self.by_scope.get_mut(&group.filter.scope) {
                groups.retain(|id| *id != registration.group);
                if groups.is_empty() {
                    self.by_scope.remove(&group.filter.scope);
                }
            }
        }
    }

    /// Tells changes that came together to all who see them. The wakers are of those who wait, to be woken when all else that
    /// comes with the changes is done.
    pub(super) fn tell(&self, changes: &[Arc<Change>], paths: &Paths) -> Vec<Waker> {
        let mut wake = Vec::new();
        if self.groups.is_empty() {
            return wake;
        }
        let mut told = Told::new();
        for change in changes {
            self.tell_change(change, paths, &mut told);
        }
        for (group, deliveries) in told {
            let members = self.groups.get(&group).map(|group| &group.members);
            for batch in Batch::of(deliveries) {
                wake.extend(members.into_iter().flatten().filter_map(|(_, mailbox)| mailbox.push(&batch)));
            }
        }
        wake
    }

    fn tell_change(&self, change: &Arc<Change>, paths: &Paths, told: &mut Told) {
        self.tell_scope(&Scope::All, change, paths, told);
        let namespace = change.entry.namespace();
        if !namespace.is_empty() {
            self.tell_scope(&Scope::Namespace(namespace.to_owned()), change, paths, told);
        }
        self.tell_scope(&Scope::Key(change.entry.key().to_owned()), change, paths, told);
        for (field, _) in &self.by_field {
            let now = change.entry.field(paths, *field);
            self.tell_scope(&Scope::Field(*field, now.to_owned()), change, paths, told);
            if let Some(previous) = &change.previous {
                let before = previous.field(paths, *field);
                if before != now {
                    self.tell_scope(&Scope::Field(*field, before.to_owned()), change, paths, told);
                }
            }
        }
        if self.by_label.is_empty() {
            return;
        }
        for (key, now) in change.entry.labels().filter(|(key, _)| self.by_label.contains_key(*key)) {
            self.tell_label(key, now, change, paths, told);
        }
        let previous = change.previous.as_deref();
        let labels = previous.into_iter().flat_map(Entry::labels).filter(|(key, _)| self.by_label.contains_key(*key));
        for (key, before) in labels.filter(|(key, before)| change.entry.label(key) != Some(before)) {
            self.tell_label(key, before, change, paths, told);
        }
    }

    fn tell_label(&self, key: &str, value: &str, change: &Arc<Change>, paths: &Paths, told: &mut Told) {
        let mut scope = Scope::Label { key: key.to_owned(), value: value.to_owned(), namespace: None };
        self.tell_scope(&scope, change, paths, told);
        let own = change.entry.namespace();
        if let Scope::Label { namespace, .. } = &mut scope
            && !own.is_empty()
        {
            *namespace = Some(own.to_owned());
            self.tell_scope(&scope, change, paths, told);
        }
    }

    fn tell_scope(&self, scope: &Scope, change: &Arc<Change>, paths: &Paths, told: &mut Told) {
        for id in self.by_scope.get(scope).into_iter().flatten() {
            let Some(group) = self.groups.get(id) else { continue };
            let kind = if scope.is_indexed() || group.filter.selects() {
                change.seen(|entry| group.filter.sees(entry, paths))
            } else {
                Some(change.kind)
            };
            if let Some(kind) = kind {
                told.entry(*id).or_default().push(Delivery { change: change.clone(), kind });
            }
        }
    }

    pub(super) fn end_all(&self, end: End) {
        for mailbox in self.groups.values().flat_map(|group| group.members.values()) {
            mailbox.end(end);
        }
    }
}
