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

const POD_CERTIFICATE: &str = r#"{"metadata":{"name":"r","namespace":"n"},"spec":{"signerName":"example.com/s","podName":"p","podUID":"1",
    "serviceAccountName":"a","serviceAccountUID":"2","nodeName":"m","nodeUID":"3"},"status":{}}"#;

#[test]
fn requests_of_pods_name_who_asks_and_for_how_long() {
    let created = |text: &str| rules::created("certificates.k8s.io", "v1beta1", "PodCertificateRequest", text);
    assert_eq!(created(POD_CERTIFICATE), [""; 0]);
    let with = |from: &str, to: &str| {
        assert!(POD_CERTIFICATE.contains(from), "{from}");
        created(&POD_CERTIFICATE.replace(from, to))
    };
    assert_eq!(with(r#""podUID":"1""#, r#""podUID":"""#), [r#"spec.podUID: Invalid value: "": must not be empty"#]);
    let long = format!(r#""nodeUID":"{}""#, "x".repeat(129));
    assert_eq!(with(r#""nodeUID":"3""#, &long), ["spec.nodeUID: Too long: may not be more than 128 bytes"]);
    let bad = api::names::dns1123_subdomain("A")[0].clone();
    assert_eq!(
        with(r#""serviceAccountName":"a""#, r#""serviceAccountName":"A""#),
        [format!(r#"spec.serviceAccountName: Invalid value: "A": {bad}"#)]
    );
    for (signer, seconds, most) in [
        ("example.com/s", 3599, 7_862_400),
        ("example.com/s", 7_862_401, 7_862_400),
        ("kubernetes.io/kube-apiserver-client-pod", 86_401, 86_400),
        ("a.kubernetes.io/s", 86_401, 86_400),
    ] {
        assert_eq!(
            with(
                r#""signerName":"example.com/s""#,
                &format!(r#""signerName":"{signer}","maxExpirationSeconds":{seconds}"#)
            ),
            [format!("spec.maxExpirationSeconds: Invalid value: {seconds}: must be in the range [3600, {most}]")]
        );
    }
    assert_eq!(
        with(r#""nodeUID":"3""#, r#""nodeUID":"3","unverifiedUserAnnotations":{"Example.com/A":"b","a":"b"}"#),
        [
            r#"spec.unverifiedUserAnnotations: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")"#
        ]
    );
    let updated = |sub: &str, new: &str, old: &str| {
        rules::updated("certificates.k8s.io", "v1beta1", "PodCertificateRequest", sub, new, old)
    };
    let told = updated("", &POD_CERTIFICATE.replace(r#""podName":"p""#, r#""podName":"q""#), POD_CERTIFICATE);
    assert_eq!(
        told,
        [
            r#"spec: Invalid value: {"SignerName":"example.com/s","PodName":"q","PodUID":"1","ServiceAccountName":"a","ServiceAccountUID":"2","NodeName":"m","NodeUID":"3","MaxExpirationSeconds":86400,"PKIXPublicKey":null,"ProofOfPossession":null,"StubPKCS10Request":null,"UnverifiedUserAnnotations":null}: field is immutable"#
        ]
    );
}

#[test]
fn requests_of_pods_end_once_and_in_one_way() {
    let status = |status: &str| POD_CERTIFICATE.replace(r#""status":{}"#, &format!(r#""status":{status}"#));
    let updated = |new: &str, old: &str| {
        let (new, old) = (status(new), status(old));
        rules::updated("certificates.k8s.io", "v1beta1", "PodCertificateRequest", "status", &new, &old)
    };
    let condition = |kind: &str, status: &str| {
        format!(r#"{{"type":"{kind}","status":"{status}","reason":"R","lastTransitionTime":"2026-01-01T00:00:00Z"}}"#)
    };
    let of = |conditions: &[String]| format!(r#"{{"conditions":[{}]}}"#, conditions.join(","));
    let denied = of(&[condition("Denied", "True")]);
    assert_eq!(updated(&denied, "{}"), [""; 0]);
    assert_eq!(
        updated("{}", &denied),
        ["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"]
    );
    assert_eq!(
        updated(r#"{"certificateChain":"x"}"#, "{}"),
        [r#"status: Invalid value: status is immutable unless transitioning to "Issued", "Denied", or "Failed""#]
    );
    assert_eq!(
        updated(&denied.replace("}]}", r#"}],"certificateChain":"x"}"#), "{}"),
        [
            "status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        ]
    );
    assert_eq!(
        updated(&of(&[condition("Other", "True"), condition("Failed", "False"), condition("Denied", "True")]), "{}"),
        [
            r#"status.conditions.[0].type: Unsupported value: "Other": supported values: "Issued", "Denied", "Failed""#,
            r#"status.conditions.[1].status: Unsupported value: "False": supported values: "True""#,
            r#"status.conditions.[2].type: Invalid value: "Denied": There may be at most one condition with type "Issued", "Denied", or "Failed""#,
        ]
    );
}
