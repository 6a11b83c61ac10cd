//! Who may approve and sign certificate requests: CertificateApproval, CertificateSigning, CertificateSubjectRestriction;
//! and who may say whom a signer's certificates are checked against: ClusterTrustBundleAttest.

use super::{Admission, Attributes, Operation, Sides};
use crate::authz::{self, Authorizer};
use crate::strategy::read_request;
use crate::user::MASTERS;
use api::{FieldError, GroupKind, Path, Status};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::Map;
use std::sync::Arc;
use x509_parser::x509::X509Name;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const POD_REQUESTS: &str = "podcertificaterequests";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signers of what kubelets show: to the API server, and to those who connect to them.
pub(super) const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];

/// Whether the writer may do `verb` for a signer, named itself or by its domain (`example.com/*`).
async fn may(authorizer: &dyn Authorizer, a: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    for name in [Some(signer.to_owned()), domain].into_iter().flatten() {
        let attributes = authz::Attributes {
            user: &a.cx.user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name: &name,
            path: "",
            label_selector: "",
            field_selector: "",
        };
        if authorizer.authorize(&attributes).await.allowed() {
            return true;
        }
    }
    false
}

fn signer(request: &Map) -> &str {
    request.str_at(&["spec", "signerName"])
}

pub struct CertificateApproval {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(old) = a.old.filter(|_| a.is_subresource(GROUP, REQUESTS, "approval")) else { return Ok(()) };
        if may(&*self.authorizer, a, "approve", signer(old)).await {
            return Ok(());
        }
        Err(a.forbidden(format!("user not permitted to approve requests with signerName {:?}", signer(old))))
    }
}

pub struct CertificateSigning {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(old) = a.old.filter(|_| a.is_subresource(GROUP, REQUESTS, "status")) else { return Ok(()) };
        let signed = |request: &Map| ["certificate", "conditions"].map(|key| request.at(&["status", key]).cloned());
        if signed(old) == signed(a.object) || may(&*self.authorizer, a, "sign", signer(old)).await {
            return Ok(());
        }
        Err(a.forbidden(format!("user not permitted to sign requests with signerName {:?}", signer(old))))
    }
}

/// Who may decide requests for certificates of pods, by issuing, denying or failing: whoever may sign for the signer. Upstream asks this in the strategy of the kind, after
/// its validation; it has no name to be disabled by.
pub struct PodCertificateSigning {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for PodCertificateSigning {
    fn name(&self) -> &'static str {
        "PodCertificateSigning"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn is_a_plugin(&self) -> bool {
        false
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(old) = a.old.filter(|_| a.is_subresource(GROUP, POD_REQUESTS, "status")) else { return Ok(()) };
        if old.get("status") == a.object.get("status") || may(&*self.authorizer, a, "sign", signer(old)).await {
            return Ok(());
        }
        let why = format!("User {:?} is not permitted to \"sign\" for signer {:?}", a.cx.user.name, signer(old));
        let kind = GroupKind::new(GROUP, a.resource.kind.clone());
        let error = FieldError::forbidden(&Path::root("spec").child("signerName"), why);
        Err(Status::invalid(&kind, a.object.str_at(&["metadata", "name"]), &[error]))
    }
}

pub struct ClusterTrustBundleAttest {
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is(GROUP, "clustertrustbundles") {
            return Ok(());
        }
        let of = |bundle: &Map| bundle.str_at(&["spec", "signerName"]).to_owned();
        let signer = of(a.object);
        let unchanged = a.old.is_some_and(|old| old.get("spec") == a.object.get("spec"));
        if signer.is_empty() || unchanged || may(&*self.authorizer, a, "attest", &signer).await {
            return Ok(());
        }
        Err(a.forbidden(format!("user not permitted to attest for signerName {signer:?}")))
    }
}

pub struct CertificateSubjectRestriction;

/// The organizations that a PEM request asks to be certified.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    subject(request, |subject| subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

/// The name that a PEM request asks to be certified: upstream reads the last of several. Empty: none that is text.
pub(super) fn common_name(request: &str) -> Result<String, String> {
    subject(request, |subject| {
        subject.iter_common_name().last().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
    })
}

fn subject<T>(request: &str, read: impl FnOnce(&X509Name<'_>) -> T) -> Result<T, String> {
    let pem = STANDARD.decode(request).map_err(|e| e.to_string())?;
    Ok(read_request(&pem, |request| read(&request.certification_request_info.subject))?)
}

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.is(GROUP, REQUESTS) || signer(a.object) != API_CLIENT {
            return Ok(());
        }
        let groups = organizations(a.object.str_at(&["spec", "request"]))
            .map_err(|why| a.forbidden(format!("failed to parse CSR: {why}")))?;
        if groups.iter().any(|g| g == MASTERS) {
            return Err(a.forbidden(format!("use of {API_CLIENT} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Chain;
    use crate::authz::{Decision, Rules};
    use crate::context::Context;
    use crate::options::Options;
    use crate::registry::{Hooks, Place, Registry, mutation};
    use crate::user::UserInfo;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use schema::Value;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{OnceLock, Weak};

    /// Lets everybody approve for the first signer alone; while it is asked for the first time, somebody puts a request to
    /// another signer in the place of the one that is judged.
    #[derive(Default)]
    struct Replaced {
        registry: OnceLock<Weak<Registry>>,
        asked: AtomicUsize,
    }

    fn request(signer: &str) -> Map {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned()]).expect("parameters");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let mut object = Map::new();
        object.set_at(&["metadata", "name"], "r");
        object.set_at(&["spec", "request"], STANDARD.encode(pem));
        object.set_at(&["spec", "signerName"], signer);
        object.set_at(&["spec", "usages"], vec![Value::from("client auth")]);
        object
    }

    async fn make(registry: &Registry, signer: &str) {
        let served = registry.preferred(GROUP, REQUESTS).expect("served");
        let made = registry.create(&Context::internal(), &served, "", request(signer), &Options::default()).await;
        made.expect("made");
    }

    #[async_trait]
    impl Authorizer for Replaced {
        async fn authorize(&self, attributes: &authz::Attributes<'_>) -> Decision {
            if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
                let registry = self.registry.get().and_then(Weak::upgrade).expect("a registry");
                let served = registry.preferred(GROUP, REQUESTS).expect("served");
                let gone = registry.delete(&Context::internal(), &served, "", "r", &Options::default()).await;
                assert!(gone.expect("deleted").gone);
                make(&registry, "b.example/signer").await;
            }
            match attributes.name {
                "a.example/signer" => Decision::Allow(String::new()),
                _ => Decision::NoOpinion(String::new()),
            }
        }
        async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
            Rules::default()
        }
    }

    #[tokio::test]
    async fn who_may_approve_is_asked_again_when_the_request_is_another_by_then() {
        let approve = |object: &mut Map| {
            let mut approved = Map::new();
            approved.insert("type", "Approved");
            approved.insert("status", "True");
            object.set_at(&["status", "conditions"], vec![Value::Map(approved)]);
            Ok(())
        };
        let mut whole = request("a.example/signer");
        approve(&mut whole).expect("approved");
        // A patch and a replacement that name no version are tried again with whatever is there.
        let mutations: [Box<dyn mutation::Mutation>; 2] =
            [Box::new(mutation::Change(approve)), Box::new(mutation::Replace(whole))];
        for mutation in mutations {
            let directory = tempfile::tempdir().expect("a directory");
            let store = store::Embedded::open(directory.path(), store::embedded::Options::default()).expect("a store");
            let registry = Registry::open(store).await.expect("a registry");
            let authorizer = Arc::new(Replaced::default());
            authorizer.registry.get_or_init(|| Arc::downgrade(&registry));
            let admission = Chain(vec![Arc::new(CertificateApproval { authorizer: authorizer.clone() })]);
            registry.install(Hooks { admission, ..Hooks::default() });
            make(&registry, "a.example/signer").await;
            let served = registry.preferred(GROUP, REQUESTS).expect("served");
            let place = Place { namespace: "", name: "r", subresource: "approval" };
            let cx = Context::new(Arc::new(UserInfo::new("jane", ["g"])), "", jiff::Timestamp::now());
            let refused = registry.update(&cx, &served, place, &*mutation, &Options::default()).await;
            let refused = refused.expect_err("it is not the first signer's any more");
            let why = "user not permitted to approve requests with signerName \"b.example/signer\"";
            assert!(refused.code == 403 && refused.message.ends_with(why), "{}", refused.message);
            assert!(authorizer.asked.load(Ordering::Relaxed) > 1);
            let cacher = served.cacher.as_ref().expect("stored");
            let stored = cacher.get("r").expect("readable").expect("there");
            let stored = cacher.decode(&stored).expect("a request");
            assert_eq!(stored.str_at(&["spec", "signerName"]), "b.example/signer");
            assert!(stored.at(&["status", "conditions"]).is_none(), "nobody approved it");
        }
    }

    #[test]
    fn the_organizations_of_a_request_are_read() {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::OrganizationName, MASTERS);
        let key = KeyPair::generate().expect("a key");
        let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        assert_eq!(organizations(&STANDARD.encode(request)), Ok(vec![MASTERS.to_owned()]));
        assert!(organizations("").is_err());
    }
}
