use crate::{check_created, check_updated, named, rules};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";

fn request(spec: &str) -> String {
    named("r", &format!(r#""spec":{{"request":"AA==",{spec}}}"#))
}

#[test]
fn requests() {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    let usage = "supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \"signing\", \"timestamping\"";
    check_created(
        GROUP,
        KIND,
        &[
            (&request(r#""signerName":"example.com/s","usages":["client auth"],"expirationSeconds":600"#), &[]),
            (
                &request(r#""signerName":"","usages":[]"#),
                &["spec.usages: Required value", "spec.signerName: Required value"],
            ),
            (
                &request(r#""signerName":"example.com/s","usages":["x","any","any"]"#),
                &[
                    &format!(r#"spec.usages[0]: Unsupported value: "x": {usage}"#),
                    r#"spec.usages[2]: Duplicate value: "any""#,
                ],
            ),
            (
                &request(r#""signerName":"kubernetes.io/legacy-unknown","usages":["any"]"#),
                &[
                    r#"spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version"#,
                ],
            ),
            (
                &request(r#""signerName":"x","usages":["any"]"#),
                &[&format!(r#"spec.signerName: Invalid value: "x": {FORM}"#)],
            ),
            (
                &request(r#""signerName":"a/b/c","usages":["any"]"#),
                &[&format!(r#"spec.signerName: Invalid value: "a/b/c": {FORM}"#)],
            ),
            (
                &request(r#""signerName":"example/s","usages":["any"]"#),
                &[
                    r#"spec.signerName: Invalid value: "example": should be a domain with at least two segments separated by dots"#,
                ],
            ),
            (
                &request(r#""signerName":"e.x/s","usages":["any"],"expirationSeconds":599"#),
                &[
                    "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
                ],
            ),
        ],
    );
}

#[test]
fn decisions() {
    let old = named(
        "r",
        r#""spec":{"request":"AA==","signerName":"e.x/s","usages":["any"]},"status":{"conditions":[{"type":"Approved","status":"True","reason":"r"}],"certificate":"AA=="}"#,
    );
    let condition = r#"{"type":"Approved","status":"True","reason":"r"}"#;
    let unapproved = old.replace(condition, "");
    check_updated(
        GROUP,
        KIND,
        "approval",
        &old,
        &[
            (
                condition,
                "",
                &[r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#],
            ),
            (
                condition,
                &format!(r#"{condition},{{"type":"Denied","status":"True"}}"#),
                &[
                    r#"status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive"#,
                ],
            ),
            (
                r#""status":"True""#,
                r#""status":"False""#,
                &[r#"status.conditions[0].status: Unsupported value: "False": supported values: "True""#],
            ),
            (
                condition,
                &format!("{condition},{condition}"),
                &[r#"status.conditions[1].type: Duplicate value: "Approved""#],
            ),
            ("AA==\"}", "AQ==\"}", &["status.certificate: Forbidden: updates may not set certificate content"]),
        ],
    );
    check_updated(
        GROUP,
        KIND,
        "status",
        &unapproved,
        &[
            (
                r#""conditions":[]"#,
                &format!(r#""conditions":[{condition}]"#),
                &[r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#],
            ),
            (
                r#""conditions":[]"#,
                r#""conditions":[{"type":"Failed","status":"True"},{"type":"","status":""}]"#,
                &["status.conditions[1].type: Required value", "status.conditions[1].status: Required value"],
            ),
            (
                "AA==\"}",
                "AQ==\"}",
                &["status.certificate: Forbidden: updates may not modify existing certificate content"],
            ),
        ],
    );
    check_updated(
        GROUP,
        KIND,
        "status",
        &old,
        &[(
            r#""reason":"r""#,
            r#""reason":"s""#,
            &[r#"status.conditions: Forbidden: updates may not modify a condition of type "Approved""#],
        )],
    );
}

#[test]
fn bundles_are_named_after_their_signers() {
    let bundle =
        |name: &str, signer: &str| named(name, &format!(r#""spec":{{"signerName":"{signer}","trustBundle":"-"}}"#));
    let of = |name: &str, signer: &str| {
        rules::created("certificates.k8s.io", "v1beta1", "ClusterTrustBundle", &bundle(name, signer))
    };
    assert!(of("a.b", "").is_empty() && of("example.com:s:a.b", "example.com/s").is_empty());
    assert_eq!(
        of("a:b", ""),
        [
            r#"metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name"#
        ]
    );
    assert_eq!(
        of("a", "example.com/s"),
        [
            r#"metadata.name: Invalid value: "a": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:"#
        ]
    );
    assert!(of("example.com:s:A", "example.com/s")[0].contains("a lowercase RFC 1123 subdomain"));
    assert!(of("s:a", "s")[0].contains("must be a fully qualified domain and path"));
    let (old, new) = (bundle("a", ""), bundle("a", "x.y/z"));
    let told = rules::updated("certificates.k8s.io", "v1beta1", "ClusterTrustBundle", "", &new, &old);
    assert_eq!(told.last().map(String::as_str), Some(r#"spec.signerName: Invalid value: "x.y/z": field is immutable"#));
}
