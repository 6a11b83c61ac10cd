//! An object as it came.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// An object as it came: its text, and what is asked of it before anybody reads that.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Holds what a watcher reads, the resource version, and what the object is called.
    pub(super) metadata: ObjectMeta,
    pub(super) text: Arc<RawValue>,
}

impl<'de> Deserialize<'de> for Raw {
    /// Only from JSON's text, and not from what serde has put aside: the `type` of a watch's event comes before its `object`,
    /// as all servers write it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            namespace: Option<String>,
            name: Option<String>,
            resource_version: Option<String>,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Head { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let Metadata { namespace, name, resource_version } = metadata;
        Ok(Raw {
            metadata: ObjectMeta { namespace, name, resource_version, ..ObjectMeta::default() },
            text: text.into(),
        })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn object_ref(&self, resource: &ApiResource) -> ObjectReference {
        ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            resource_version: self.metadata.resource_version.clone(),
            ..ObjectReference::default()
        }
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
