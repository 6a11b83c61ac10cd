//! DaemonSets count the changes of their template, in an annotation that the version served has for it.

use super::{Strategy, keep_other_side};
use crate::context::Context;
use schema::{Map, Resource};

#[derive(Debug)]
pub struct DaemonSets;

const GENERATION: [&str; 3] = ["metadata", "annotations", "deprecated.daemonset.template.generation"];

fn generation(object: &Map) -> i64 {
    object.str_at(&GENERATION).parse().unwrap_or(0)
}

impl Strategy for DaemonSets {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        let first = generation(object).max(1);
        object.set_at(&GENERATION, first.to_string());
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        let changed =
            subresource.is_empty() && !schema::semantic::same_at(row.schema.root(), &["spec", "template"], object, old);
        object.set_at(&GENERATION, (generation(old) + i64::from(changed)).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn changes_of_the_template_are_counted() {
        let cx = Context::internal();
        let row = schema::resource::get("apps", "v1", "daemonsets").expect("a row");
        let mut object = map("{spec: {template: {a: 1}}}");
        DaemonSets.prepare_for_create(&cx, row, &mut object);
        assert_eq!(object.str_at(&GENERATION), "1");
        let old = object.clone();
        let mut same = map("{spec: {minReadySeconds: 1, template: {a: 1}}}");
        DaemonSets.prepare_for_update(&cx, row, "", &mut same, &old);
        assert_eq!(same.str_at(&GENERATION), "1");
        let mut other = map("{spec: {template: {a: 2}}}");
        DaemonSets.prepare_for_update(&cx, row, "", &mut other, &old);
        assert_eq!(other.str_at(&GENERATION), "2");
        let template = |cpu: &str| map(&format!("{{spec: {{template: {{spec: {{overhead: {{cpu: '{cpu}'}}}}}}}}}}"));
        let mut otherwise = template("1234m");
        DaemonSets.prepare_for_update(&cx, row, "", &mut otherwise, &template("1.234"));
        assert_eq!(otherwise.str_at(&GENERATION), "0", "it is only written otherwise");
    }
}
