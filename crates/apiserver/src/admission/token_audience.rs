//! The audiences that a node may ask tokens for: those that the volumes of the pod are for, and those that it is authorized
//! to ask for.

use super::{Attributes, walk};
use crate::authz::{self, Authorizer};
use crate::lookup::{CLAIMS, CSI_DRIVERS, Lookup, Stored, VOLUMES};
use api::Status;
use api::field::go_quote;
use schema::{Map, Value};
use std::sync::Arc;

const VERB: &str = "request-serviceaccounts-token-audience";

/// Sources of volumes that are CSI drivers' today, and those drivers.
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

/// Refuses a request for a token of another audience; `pod` is the one that it is bound to.
///
/// # Errors
/// 403 with upstream's words, or what went wrong in looking.
pub(super) async fn check(
    objects: &dyn Lookup,
    authorizer: &dyn Authorizer,
    a: &Attributes<'_>,
    pod: &Map,
) -> Result<(), Status> {
    let audience = match a.object.at(&["spec", "audiences"]).and_then(Value::as_list).unwrap_or_default() {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(a.forbidden("node may only request 0 or 1 audiences")),
    };
    let mut missing = Vec::new();
    for volume in walk::items(pod, &["spec", "volumes"]) {
        let mut tokens = walk::items(volume, &["projected", "sources"])
            .filter_map(|source| source.get("serviceAccountToken").and_then(Value::as_map));
        if tokens.any(|token| token.str_at(&["audience"]) == audience) {
            return Ok(());
        }
        match wanted_by_driver(objects, a.namespace, pod, volume, audience).await? {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => missing.push(why),
        }
    }
    let quoted = go_quote(audience);
    match missing.as_slice() {
        [] => {}
        [one] => return Err(a.forbidden(format!("error validating audience {quoted}: {one}"))),
        several => {
            return Err(a.forbidden(format!("error validating audience {quoted}: [{}]", several.join(", "))));
        }
    }
    let asked = authz::Attributes {
        user: &a.cx.user,
        verb: VERB,
        is_resource: true,
        group: "",
        version: "v1",
        resource: audience,
        subresource: "",
        namespace: a.namespace,
        name: a.name,
        path: "",
        label_selector: "",
        field_selector: "",
    };
    if authorizer.authorize(&asked).await.allowed() {
        return Ok(());
    }
    let user = &a.cx.user.name;
    Err(a.forbidden(format!(
        "audience {quoted} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    )))
}

/// Whether the volume is of a driver that wants tokens of the audience; what is missing to tell comes as an error's text.
async fn wanted_by_driver(
    objects: &dyn Lookup,
    namespace: &str,
    pod: &Map,
    volume: &Map,
    audience: &str,
) -> Result<Result<bool, String>, Status> {
    let find = async |kind: Stored, namespace: &str, name: &str, singular: &str| -> Result<_, Status> {
        let found: Option<Arc<Map>> = objects.find(kind, namespace, name).await?;
        Ok(found.ok_or_else(|| format!("{singular} {} not found", go_quote(name))))
    };
    let claim = if volume.at(&["ephemeral", "volumeClaimTemplate"]).is_some() {
        format!("{}-{}", pod.str_at(&["metadata", "name"]), volume.str_at(&["name"]))
    } else {
        volume.str_at(&["persistentVolumeClaim", "claimName"]).to_owned()
    };
    let driver = if claim.is_empty() {
        driver_of(volume)
    } else {
        let claim = match find(CLAIMS, namespace, &claim, "persistentvolumeclaim").await? {
            Ok(claim) => claim,
            Err(why) => return Ok(Err(why)),
        };
        match find(VOLUMES, "", claim.str_at(&["spec", "volumeName"]), "persistentvolume").await? {
            Ok(volume) => volume.get("spec").and_then(Value::as_map).and_then(driver_of),
            Err(why) => return Ok(Err(why)),
        }
    };
    let Some(driver) = driver else { return Ok(Ok(false)) };
    Ok(find(CSI_DRIVERS, "", &driver, "csidriver.storage.k8s.io").await?.map(|driver| {
        walk::items(&driver, &["spec", "tokenRequests"]).any(|request| request.str_at(&["audience"]) == audience)
    }))
}

/// The driver of a source.
fn driver_of(source: &Map) -> Option<String> {
    let own = source.str_at(&["csi", "driver"]);
    if !own.is_empty() {
        return Some(own.to_owned());
    }
    let there = |key: &str| source.get(key).is_some_and(|source| !source.is_null());
    MIGRATED.iter().find(|(key, _)| there(key)).map(|(_, driver)| (*driver).to_owned())
}
