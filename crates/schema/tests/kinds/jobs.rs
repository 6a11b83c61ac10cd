//! Jobs and CronJobs.

use crate::{check_created, check_updated, named, rules};
use schema::validation;

const TEMPLATE: &str = r#""template":{"metadata":{"labels":{"controller-uid":"1","job-name":"x","batch.kubernetes.io/controller-uid":"1","batch.kubernetes.io/job-name":"x"}},"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}"#;
const SELECTOR: &str = r#""selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"1"}}"#;

fn with(rest: &str, status: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"x","namespace":"default","uid":"1"}},"spec":{{{SELECTOR},{TEMPLATE}{rest}}}{status}}}"#
    )
}

fn job(rest: &str) -> String {
    with(rest, "")
}

fn check(cases: &[(&str, &[&str])]) {
    for (rest, expected) in cases {
        check_created("batch", "Job", &[(&job(rest), expected)]);
    }
}

#[test]
fn counts_and_indexes() {
    check(&[
        ("", &[]),
        (r#","parallelism":-1"#, &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"]),
        (
            r#","completionMode":"x""#,
            &[r#"spec.completionMode: Unsupported value: "x": supported values: "NonIndexed", "Indexed""#],
        ),
        (
            r#","completionMode":"Indexed","parallelism":100001"#,
            &[
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ],
        ),
        (
            r#","backoffLimitPerIndex":1"#,
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            r#","completionMode":"Indexed","completions":2,"maxFailedIndexes":3"#,
            &[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
            ],
        ),
        (
            r#","completionMode":"Indexed","completions":100001,"parallelism":10001,"backoffLimitPerIndex":1"#,
            &[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
            ],
        ),
        (
            r#","managedBy":"x""#,
            &[r#"spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")"#],
        ),
        (r#","managedBy":"example.com/x""#, &[]),
        (
            r#","podReplacementPolicy":"x""#,
            &[
                r#"spec.podReplacementPolicy: Unsupported value: "x": supported values: "Failed", "TerminatingOrFailed""#,
            ],
        ),
    ]);
    let restarts = |policy: &str| job("").replace(r#""restartPolicy":"Never""#, policy);
    check_created(
        "batch",
        "Job",
        &[
            (
                &restarts(r#""restartPolicy":"Always""#),
                &[r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#],
            ),
            (&restarts(r#""restartPolicy":"OnFailure""#), &[]),
        ],
    );
    let long = "x".repeat(62);
    let named = job(r#","completionMode":"Indexed","completions":11"#).replace(r#":"x""#, &format!(r#":"{long}""#));
    let why = format!(
        r#"metadata.name: Invalid value: "{long}": will not able to create pod with invalid DNS label: {long}-10"#
    );
    check_created("batch", "Job", &[(&named, &[&why])]);
}

#[test]
fn selectors_are_the_servers() {
    let other = job("").replace(r#""controller-uid":"1","job-name""#, r#""controller-uid":"2","job-name""#);
    let labels = r#"{"batch.kubernetes.io/controller-uid":"1","batch.kubernetes.io/job-name":"x","controller-uid":"2","job-name":"x"}"#;
    let why = format!("spec.template.metadata.labels[controller-uid]: Invalid value: {labels}: must be '1'");
    check_created("batch", "Job", &[(&other, &[&why])]);
    let own = job(r#","manualSelector":true"#).replace(SELECTOR, r#""selector":{"matchLabels":{"a":"b"}}"#);
    let found = rules::created("batch", "v1", "Job", &own);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("`selector` does not match template `labels`"), "{found:?}");
}

#[test]
fn selectors_of_before_may_stay() {
    let bad = r#""selector":{"matchExpressions":[{"key":"a","operator":"In","values":["-"]}]}"#;
    let own = |rest: &str| job(&format!(r#","manualSelector":true{rest}"#)).replace(SELECTOR, bad);
    assert_eq!(rules::created("batch", "v1", "Job", &own("")).len(), 1);
    assert_eq!(rules::updated("batch", "v1", "Job", "", &own(r#","suspend":true"#), &own("")), [""; 0]);
}

#[test]
fn failure_policies() {
    let rule = |rule: &str| format!(r#","podFailurePolicy":{{"rules":[{{{rule}}}]}}"#);
    for (text, expected) in [
        (r#""action":"FailJob","onExitCodes":{"operator":"In","values":[1,2]}"#, &[][..]),
        (
            r#""onPodConditions":[{"type":"DisruptionTarget","status":"True"}]"#,
            &[
                r#"spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#,
            ],
        ),
        (
            r#""action":"FailIndex","onPodConditions":[{"type":"a","status":"True"}]"#,
            &[
                r#"spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set"#,
            ],
        ),
        (
            r#""action":"Ignore""#,
            &[
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        ),
        (
            r#""action":"Ignore","onExitCodes":{"operator":"In","containerName":"z","values":[2,0,2]}"#,
            &[
                r#"spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "z": must be one of the container or initContainer names in the pod template"#,
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
            ],
        ),
        (
            r#""action":"Count","onExitCodes":{"operator":"x"},"onPodConditions":[{"type":"a","status":"x"}]"#,
            &[
                r#"spec.podFailurePolicy.rules[0].onExitCodes.operator: Unsupported value: "x": supported values: "In", "NotIn""#,
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: null: at least one value is required",
                r#"spec.podFailurePolicy.rules[0].onPodConditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown""#,
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            ],
        ),
    ] {
        check(&[(&rule(text), expected)]);
    }
    let replaces = rule(r#""action":"Count","onExitCodes":{"operator":"In","values":[1]}"#)
        + r#","podReplacementPolicy":"TerminatingOrFailed""#;
    check(&[(
        &replaces,
        &[r#"spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed""#],
    )]);
}

#[test]
fn success_policies() {
    let rule =
        |rule: &str| format!(r#","completionMode":"Indexed","completions":5,"successPolicy":{{"rules":[{rule}]}}"#);
    for (text, expected) in [
        (r#"{"succeededIndexes":"0,2-4","succeededCount":2}"#, &[][..]),
        (
            "",
            &[
                "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
            ],
        ),
        (
            "{}",
            &[
                "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ],
        ),
        (
            r#"{"succeededCount":6}"#,
            &[
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
            ],
        ),
        (
            r#"{"succeededIndexes":"0-1","succeededCount":3}"#,
            &[
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
            ],
        ),
        (
            r#"{"succeededIndexes":"5"}"#,
            &[
                r#"spec.successPolicy.rules[0].succeededIndexes: Invalid value: "5": error parsing succeededIndexes: too large index: "5""#,
            ],
        ),
    ] {
        check(&[(&rule(text), expected)]);
    }
    check(&[(
        r#","successPolicy":{"rules":[{"succeededCount":1}]}"#,
        &[
            r#"spec.successPolicy: Invalid value: {"Rules":[{"SucceededIndexes":null,"SucceededCount":1}]}: requires indexed completion mode"#,
        ],
    )]);
}

#[test]
fn little_of_a_job_changes() {
    let old = job(r#","completionMode":"Indexed","completions":2,"parallelism":2,"suspend":false"#);
    check_updated(
        "batch",
        "Job",
        "",
        &old,
        &[
            (r#""suspend":false"#, r#""suspend":true,"backoffLimit":9,"activeDeadlineSeconds":5"#, &[]),
            (r#""completions":2,"parallelism":2"#, r#""completions":3,"parallelism":3"#, &[]),
            (
                r#""completions":2"#,
                r#""completions":3"#,
                &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"],
            ),
            (
                r#""suspend":false"#,
                r#""managedBy":"a.b/c""#,
                &[r#"spec.managedBy: Invalid value: "a.b/c": field is immutable"#],
            ),
        ],
    );
    let immutable = |new: &str, old: &str| {
        let found = rules::updated("batch", "v1", "Job", "", new, old);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("spec.template: Invalid value: {"), "{found:?}");
        assert!(found[0].ends_with(": field is immutable"), "{found:?}");
    };
    let placed = |old: &str| {
        old.replace(r#""restartPolicy""#, r#""nodeSelector":{"a":"b"},"tolerations":[{"operator":"Exists"}],"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]}}},"restartPolicy""#)
    };
    immutable(&placed(&old), &old);
    // Who is suspended and has no pods may be told where to run, and how much to ask for.
    let resting = with(r#","suspend":true"#, r#","status":{}"#);
    assert_eq!(rules::updated("batch", "v1", "Job", "", &placed(&resting), &resting), Vec::<String>::new());
    let asks = resting.replace(r#""image":"i""#, r#""image":"i","resources":{"requests":{"cpu":"1"}}"#);
    assert_eq!(rules::updated("batch", "v1", "Job", "", &asks, &resting), Vec::<String>::new());
    immutable(&resting.replace(r#""image":"i""#, r#""image":"j""#), &resting);
    let busy = with(r#","suspend":true"#, r#","status":{"active":1}"#);
    immutable(&placed(&busy), &busy);
    let started = with(r#","suspend":true"#, r#","status":{"startTime":"2026-01-01T00:00:00Z"}"#);
    immutable(&placed(&started), &started);
    // One that ran before may be told so by a feature, and how much to ask for by another.
    let rested = with(
        r#","suspend":true"#,
        r#","status":{"startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"Suspended","status":"True"}]}"#,
    );
    let greedy = rested.replace(r#""image":"i""#, r#""image":"i","resources":{"requests":{"cpu":"1"}}"#);
    let with = |gates: &str, new: &str, old: &str| rules::updated_with(gates, "batch", "v1", "Job", "", new, old).len();
    let (directives, resources) =
        ("MutableSchedulingDirectivesForSuspendedJobs=false", "MutablePodResourcesForSuspendedJobs=false");
    for (gates, placed_again, resized) in [("", 0, 0), (directives, 1, 0), (resources, 0, 1)] {
        assert_eq!(with(gates, &placed(&rested), &rested), placed_again, "{gates}");
        assert_eq!(with(gates, &greedy, &rested), resized, "{gates}");
    }
    assert_eq!(with(directives, &placed(&resting), &resting), 0);
}

#[test]
fn statuses_of_jobs() {
    const START: &str = r#""startTime":"2026-01-01T00:00:00Z""#;
    const END: &str = r#""completionTime":"2026-01-01T01:00:00Z""#;
    let true_of = |kinds: &[&str]| {
        let list: Vec<String> = kinds.iter().map(|kind| format!(r#"{{"type":"{kind}","status":"True"}}"#)).collect();
        format!(r#""conditions":[{}]"#, list.join(","))
    };
    let check = |rest: &str, new: &str, old: &str, expected: &[&str]| {
        let of = |status: &str| with(rest, &format!(r#","status":{{{status}}}"#));
        assert_eq!(rules::updated("batch", "v1", "Job", "status", &of(new), &of(old)), expected, "{new} ← {old}");
    };
    let complete = true_of(&["SuccessCriteriaMet", "Complete"]);
    check("", &format!("{START},{END},{complete}"), START, &[]);
    check(
        "",
        &format!("{START},{complete}"),
        START,
        &["status.completionTime: Required value: completionTime is required for Complete jobs"],
    );
    check(
        "",
        &format!("{START},{END},{},\"active\":1", true_of(&["Complete"])),
        START,
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        ],
    );
    check(
        "",
        &true_of(&["Failed"]),
        "",
        &[
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    check(
        "",
        START,
        &format!("{START},{}", true_of(&["FailureTarget"])),
        &["status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition"],
    );
    check(
        "",
        &format!("{START},{END}"),
        START,
        &[
            r#"status.completionTime: Invalid value: "2026-01-01T01:00:00Z": cannot set completionTime when there is no Complete=True condition"#,
        ],
    );
    check(
        "",
        r#""failed":1,"succeeded":1"#,
        r#""failed":2,"succeeded":2"#,
        &[
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
        ],
    );
    check(
        "",
        r#""ready":2,"active":1"#,
        r#""active":1"#,
        &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
    );
    check(
        "",
        r#""uncountedTerminatedPods":{"succeeded":["a","a"],"failed":[""]}"#,
        "",
        &[
            r#"status.uncountedTerminatedPods.succeeded[1]: Duplicate value: "a""#,
            r#"status.uncountedTerminatedPods.failed[0]: Invalid value: "": must not be empty"#,
        ],
    );
    check("", "", START, &["status.startTime: Required value: startTime cannot be removed for unsuspended job"]);
    check(
        "",
        r#""completedIndexes":"0""#,
        "",
        &[
            r#"status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode"#,
        ],
    );
    check(
        r#","completionMode":"Indexed","completions":3,"backoffLimitPerIndex":1"#,
        r#""completedIndexes":"0-1","failedIndexes":"1,7""#,
        "",
        &[
            r#"status.failedIndexes: Invalid value: "1,7": error parsing failedIndexes: too large index: "7""#,
            r#"status.failedIndexes: Invalid value: "1,7": failedIndexes and completedIndexes overlap at index: 1"#,
        ],
    );
}

fn cron(spec: &str) -> String {
    named(
        "c",
        &format!(
            r#""spec":{{{spec},"jobTemplate":{{"spec":{{"template":{{"spec":{{"restartPolicy":"Never","containers":[{{"name":"c","image":"i"}}]}}}}}}}}}}"#
        ),
    )
}

#[test]
fn cron_jobs() {
    for (spec, expected) in [
        (r#""schedule":"*/5 * * * *","timeZone":"Europe/Berlin""#, &[][..]),
        (r#""schedule":"@daily""#, &[]),
        (r#""schedule":"""#, &["spec.schedule: Required value"]),
        (
            r#""schedule":"61 * * * *""#,
            &[r#"spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61"#],
        ),
        (
            r#""schedule":"TZ=UTC 0 * * * *""#,
            &[
                r#"spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
            ],
        ),
        (
            r#""schedule":"@daily","timeZone":"""#,
            &[r#"spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string"#],
        ),
        (
            r#""schedule":"@daily","timeZone":"Amerika/New_York""#,
            &[r#"spec.timeZone: Invalid value: "Amerika/New_York": unknown time zone Amerika/New_York"#],
        ),
        (
            r#""schedule":"@daily","timeZone":"Local""#,
            &[
                r#"spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"#,
            ],
        ),
        (
            r#""schedule":"@daily","timeZone":"../etc""#,
            &[r#"spec.timeZone: Invalid value: "../etc": unknown time zone ../etc"#],
        ),
        (
            r#""schedule":"@daily","concurrencyPolicy":"x""#,
            &[r#"spec.concurrencyPolicy: Unsupported value: "x": supported values: "Allow", "Forbid", "Replace""#],
        ),
        (
            r#""schedule":"@daily","startingDeadlineSeconds":-1,"failedJobsHistoryLimit":-1"#,
            &[
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
    ] {
        check_created("batch", "CronJob", &[(&cron(spec), expected)]);
    }
    let selects = cron(r#""schedule":"@daily""#).replace(
        r#"{"spec":{"template""#,
        r#"{"spec":{"manualSelector":true,"selector":{"matchLabels":{"a":"b"}},"template""#,
    );
    check_created(
        "batch",
        "CronJob",
        &[(
            &selects,
            &[
                r#"spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` will be auto-generated"#,
                r#"spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#,
            ],
        )],
    );
    let long = cron(r#""schedule":"@daily""#).replace(r#""name":"c"},"#, &format!(r#""name":"{}"}},"#, "c".repeat(53)));
    let found = rules::created("batch", "v1", "CronJob", &long);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("must be no more than 52 characters"), "{found:?}");
    assert_eq!(rules::updated("batch", "v1", "CronJob", "", &long, &long), Vec::<String>::new());
    // A zone in the schedule may stay where it was.
    let zoned = cron(r#""schedule":"TZ=UTC 0 * * * *""#);
    check_updated(
        "batch",
        "CronJob",
        "",
        &zoned,
        &[
            ("TZ=UTC 0", "TZ=UTC 1", &[]),
            (
                r#""schedule""#,
                r#""timeZone":"UTC","schedule""#,
                &[
                    r#"spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule"#,
                ],
            ),
        ],
    );
    let object = rules::object("batch", "v1", "CronJob", &zoned);
    assert_eq!(
        validation::warnings("batch", "CronJob", "", &object, Some(&object), Default::default()),
        [
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        ]
    );
}
