//! Claims on persistent volumes, as far as those are directories of this node.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client};

use super::host_path;
use crate::spec::PodExt;

/// The directory behind a claim, and whether the volume may only be read.
///
/// # Errors
/// Why the claim cannot be mounted here (yet).
pub(crate) async fn resolve(client: &Client, pod: &Pod, name: &str) -> Result<(PathBuf, bool), String> {
    let text = |error: kube::Error| match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    let full = format!("{}/{name}", pod.namespace());
    let failed = |why: String| format!("error processing PVC {full}: {why}");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod.namespace());
    let claim = claims
        .get(name)
        .await
        .map_err(|error| failed(format!("failed to fetch PVC from API server: {}", text(error))))?;
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if !bound || volume.is_empty() {
        return Err(failed("PVC is not bound".to_owned()));
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes
        .get(volume)
        .await
        .map_err(|error| failed(format!("failed to fetch PV {volume} from API server: {}", text(error))))?;
    let spec = found.spec.unwrap_or_default();
    if spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_ref()) != claim.metadata.uid.as_ref() {
        return Err(failed(format!("PV {volume} spec.claimRef.uid does not match the PVC's uid")));
    }
    let read_only = spec.access_modes.as_deref() == Some(&["ReadOnlyMany".to_owned()]);
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(failed("volumes of mode Block are not supported by this kubelet".to_owned()));
    }
    if let Some(source) = spec.host_path {
        let path = PathBuf::from(source.path);
        host_path::check(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok((path, read_only));
    }
    if let Some(source) = spec.local {
        let path = PathBuf::from(source.path);
        if !path.exists() {
            return Err(format!("path {:?} does not exist", path.display().to_string()));
        }
        return Ok((path, read_only));
    }
    let kind =
        if let Some(csi) = spec.csi { format!("CSI driver {}", csi.driver) } else { "this type of volume".to_owned() };
    Err(failed(format!("PV {volume}: {kind} is not supported by this kubelet")))
}
