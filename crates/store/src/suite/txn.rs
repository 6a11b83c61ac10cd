//! Transactions.

use super::*;

pub async fn put_tells_versions(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let before = store.status().await.expect("status").revision;
    let first = put(&*store, "/a", "1").await;
    assert_eq!(first, before + 1);
    let second = put(&*store, "/a", "2").await;
    assert_eq!(second, first + 1);
    let kv = get(&*store, "/a").await.expect("it is there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (first, second, 2, 0));
    assert_eq!(text(&kv.value), "2");
    delete(&*store, "/a").await;
    assert_eq!(get(&*store, "/a").await, None);
    let again = put(&*store, "/a", "3").await;
    let kv = get(&*store, "/a").await.expect("it is there again");
    assert_eq!((kv.create_revision, kv.version), (again, 1), "a new life begins");
}

pub async fn one_revision_for_all(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/c", "old").await;
    let result = apply(&*store, vec![put_op("/a", "1"), put_op("/b", "2"), delete_op("/c")]).await;
    assert_eq!(get(&*store, "/a").await.map(|kv| kv.mod_revision), Some(result.revision));
    assert_eq!(get(&*store, "/b").await.map(|kv| kv.mod_revision), Some(result.revision));
    assert_eq!(get(&*store, "/c").await, None);
    assert_eq!(store.status().await.expect("status").revision, result.revision);
}

pub async fn compares_choose_the_branch(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a", "m").await;
    let value = |text: &str| Target::Value(key(text));
    let cases = [
        (Relation::Equal, Target::ModRevision(revision), true),
        (Relation::NotEqual, Target::ModRevision(revision), false),
        (Relation::Greater, Target::ModRevision(revision - 1), true),
        (Relation::Less, Target::ModRevision(revision), false),
        (Relation::Equal, Target::CreateRevision(revision), true),
        (Relation::Less, Target::CreateRevision(revision + 1), true),
        (Relation::Equal, Target::Version(1), true),
        (Relation::Greater, Target::Version(1), false),
        (Relation::Equal, Target::Lease(0), true),
        (Relation::Equal, value("m"), true),
        (Relation::Less, value("n"), true),
        (Relation::Greater, value("n"), false),
        (Relation::NotEqual, value("m"), false),
    ];
    for (relation, target, expected) in cases {
        let txn = Txn { compares: vec![compare("/a", relation, target.clone())], ..Txn::default() };
        let result = store.txn(txn).await.expect("the transaction is evaluated");
        assert_eq!(result.succeeded, expected, "{relation:?} {target:?}");
    }
    let both = |second| Txn {
        compares: vec![
            compare("/a", Relation::Equal, Target::Version(1)),
            compare("/b", Relation::Equal, Target::Version(second)),
        ],
        success: vec![put_op("/yes", "")],
        failure: vec![put_op("/no", "")],
        previous: false,
    };
    assert!(!store.txn(both(1)).await.expect("evaluated").succeeded, "all must hold");
    assert!(get(&*store, "/no").await.is_some() && get(&*store, "/yes").await.is_none());
    assert!(store.txn(both(0)).await.expect("evaluated").succeeded);
    assert!(get(&*store, "/yes").await.is_some());
}

pub async fn compares_of_absent_keys(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let cases = [
        (Target::ModRevision(0), Relation::Equal, true),
        (Target::CreateRevision(0), Relation::Equal, true),
        (Target::Version(0), Relation::Equal, true),
        (Target::Lease(0), Relation::Equal, true),
        (Target::Version(0), Relation::Greater, false),
        (Target::Value(Bytes::new()), Relation::Equal, false),
        (Target::Value(Bytes::new()), Relation::NotEqual, false),
    ];
    for (target, relation, expected) in cases {
        let txn = Txn { compares: vec![compare("/absent", relation, target.clone())], ..Txn::default() };
        assert_eq!(store.txn(txn).await.expect("evaluated").succeeded, expected, "{relation:?} {target:?}");
    }
}

pub async fn operations_see_those_before(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let before = put(&*store, "/k/a", "1").await;
    let all = || Op::Range(Range::of(KeyRange::prefix(key("/k/"))));
    let past = Op::Range(Range::of(KeyRange::prefix(key("/k/"))).at(before));
    let result = apply(&*store, vec![all(), put_op("/k/b", "2"), all(), delete_op("/k/a"), all(), past]).await;
    let seen = |at: usize| {
        let range = range_result(&result.results[at]);
        range.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(seen(0), [pair("/k/a", "1")]);
    assert_eq!(seen(2), [pair("/k/a", "1"), pair("/k/b", "2")]);
    assert_eq!(seen(4), [pair("/k/b", "2")]);
    assert_eq!(seen(5), [pair("/k/a", "1")], "the past stays as it was");
}

pub async fn no_effect_keeps_the_revision(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a", "1").await;
    assert_eq!(delete(&*store, "/absent").await, revision);
    let failed = Txn {
        compares: vec![compare("/a", Relation::Equal, Target::Version(9))],
        success: vec![put_op("/a", "2")],
        ..Txn::default()
    };
    let result = store.txn(failed).await.expect("evaluated");
    assert_eq!((result.succeeded, result.revision), (false, revision));
    assert_eq!(put(&*store, "/a", "1").await, revision + 1, "the same value is a change");
}

pub async fn the_same_key_twice_is_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let revision = put(&*store, "/a/1", "1").await;
    let prefix = Op::Delete { keys: KeyRange::prefix(key("/a/")) };
    for ops in [
        vec![put_op("/a/1", "2"), put_op("/a/1", "3")],
        vec![prefix.clone(), put_op("/a/1", "2")],
        vec![put_op("/a/2", "2"), prefix],
    ] {
        let refused = store.txn(Txn::of(ops)).await;
        assert!(matches!(refused, Err(Error::DuplicateKey { .. })), "{refused:?}");
    }
    assert_eq!(store.status().await.expect("status").revision, revision, "nothing was applied");
}

pub async fn replaced_values_on_request(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let txn = |op, previous| Txn { previous, ..Txn::of(vec![op]) };
    let result = store.txn(txn(put_op("/a", "2"), true)).await.expect("applied");
    let OpResult::Put { previous: Some(previous) } = &result.results[0] else { panic!("{result:?}") };
    assert_eq!((previous.mod_revision, text(&previous.value)), (first, "1".into()));
    let result = store.txn(txn(delete_op("/a"), true)).await.expect("applied");
    let OpResult::Delete { deleted } = &result.results[0] else { panic!("{result:?}") };
    assert_eq!(deleted.iter().map(|kv| text(&kv.value)).collect::<Vec<_>>(), ["2"]);
    let result = store.txn(txn(put_op("/a", "3"), true)).await.expect("applied");
    assert_eq!(result.results, [OpResult::Put { previous: None }]);
}

pub async fn deletes_of_ranges(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for name in ["/a/1", "/a/2", "/a/3", "/b/1"] {
        put(&*store, name, "x").await;
    }
    let keys = KeyRange::between(key("/a/2"), key("/b/"));
    let result = apply(&*store, vec![Op::Delete { keys }]).await;
    let OpResult::Delete { deleted } = &result.results[0] else { panic!("{result:?}") };
    assert_eq!(deleted.iter().map(|kv| text(&kv.key)).collect::<Vec<_>>(), ["/a/2", "/a/3"]);
    let left = list(&*store, KeyRange::all(), 0).await.expect("listed");
    assert_eq!(left.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["/a/1", "/b/1"]);
    assert_eq!(list(&*store, KeyRange::all(), result.revision - 1).await.expect("listed").len(), 4);
}

pub async fn transactions_within(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let first = put(&*store, "/a", "1").await;
    let within = |version, at: &str| {
        Op::Txn(Txn {
            compares: vec![compare("/a", Relation::Equal, Target::Version(version))],
            success: vec![put_op(&format!("{at}/yes"), "x"), Op::Range(Range::of(KeyRange::key(key("/a"))))],
            failure: vec![put_op(&format!("{at}/no"), "x")],
            previous: false,
        })
    };
    // The compare of the second looks at what was before the first put.
    let result = apply(&*store, vec![put_op("/a", "2"), within(1, "/first"), within(2, "/second")]).await;
    assert_eq!(result.revision, first + 1, "one revision for all");
    let OpResult::Txn { succeeded: true, results } = &result.results[1] else { panic!("{result:?}") };
    assert_eq!(range_result(&results[1]).kvs[0].mod_revision, result.revision, "operations see those before");
    let OpResult::Txn { succeeded: false, results } = &result.results[2] else { panic!("{result:?}") };
    assert_eq!(results.len(), 1);
    let listed = list(&*store, KeyRange::all(), 0).await.expect("listed");
    let names: Vec<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["/a", "/first/yes", "/second/no"]);
    let twice = store.txn(Txn::of(vec![put_op("/first/yes", "y"), within(2, "/first")])).await;
    assert!(matches!(twice, Err(Error::DuplicateKey { .. })), "{twice:?}");
}

pub async fn guarded_writes(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let created = store.txn(Txn::guarded(key("/a"), 0, put_op("/a", "1"))).await.expect("evaluated");
    assert!(created.succeeded);
    let refused = store.txn(Txn::guarded(key("/a"), 0, put_op("/a", "2"))).await.expect("evaluated");
    assert!(!refused.succeeded);
    let held = &range_result(&refused.results[0]).kvs[0];
    assert_eq!((held.mod_revision, text(&held.value)), (created.revision, "1".into()));
    let replaced = store.txn(Txn::guarded(key("/a"), held.mod_revision, put_op("/a", "2"))).await.expect("evaluated");
    assert!(replaced.succeeded);
    let deleted = store.txn(Txn::guarded(key("/a"), replaced.revision, delete_op("/a"))).await.expect("evaluated");
    assert!(deleted.succeeded && get(&*store, "/a").await.is_none());
}
