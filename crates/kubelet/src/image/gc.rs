//! Removing images that nothing uses when the disk fills.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use cri::v1;
use jiff::Timestamp;

use crate::{events::Severity, kubelet::Shared, node::machine::file_system, rpc};

const PERIOD: Duration = Duration::from_secs(300);

/// Looks at the disk every five minutes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut first_seen: HashMap<String, Timestamp> = HashMap::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(status) = collect(&shared, &mut first_seen).await {
            tracing::debug!(status = rpc::text(&status), "images could not be looked at");
        }
    }
}

async fn collect(shared: &Arc<Shared>, first_seen: &mut HashMap<String, Timestamp>) -> Result<(), tonic::Status> {
    let now = Timestamp::now();
    let images = list(shared).await?;
    first_seen.retain(|id, _| images.iter().any(|image| image.id == *id));
    shared.images.forget_gone(&images, now).await;
    for image in &images {
        first_seen.entry(image.id.clone()).or_insert(now);
    }
    let info = shared.cri.image().image_fs_info(v1::ImageFsInfoRequest {}).await?.into_inner();
    let Some(fs) = info
        .image_filesystems
        .first()
        .and_then(|fs| fs.fs_id.as_ref())
        .and_then(|id| file_system(std::path::Path::new(&id.mountpoint)))
    else {
        return Ok(());
    };
    let settings = shared.cfg.image_gc;
    let Some(goal) = to_free(fs.usable, fs.available, settings.high_percent, settings.low_percent) else {
        return Ok(());
    };
    tracing::info!(bytes = goal, "the disk fills; removing unused images");
    let old = |image: &v1::Image| {
        let seen = first_seen.get(&image.id).copied().unwrap_or(now);
        now.duration_since(seen).unsigned_abs() >= settings.min_age
    };
    let mut candidates = unused(shared, images).await?;
    candidates.retain(old);
    candidates.sort_by_key(|image| first_seen.get(&image.id).copied());
    let freed = remove(shared, candidates, Some(goal)).await;
    if freed < goal {
        let name = shared.cfg.node_name.clone();
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {goal} bytes, but only found {freed} bytes eligible to free."
        );
        shared.events.node(&name, Severity::Warning, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

/// How many bytes are to be freed, if the disk is too full.
fn to_free(capacity: u64, available: u64, high: u8, low: u8) -> Option<u64> {
    if capacity == 0 {
        return None;
    }
    let used_percent = 100 - available.min(capacity) * 100 / capacity;
    if used_percent < u64::from(high) {
        return None;
    }
    let wanted = capacity * (100 - u64::from(low)) / 100;
    Some(wanted.saturating_sub(available))
}

async fn list(shared: &Shared) -> Result<Vec<v1::Image>, tonic::Status> {
    Ok(shared.cri.image().list_images(v1::ListImagesRequest::default()).await?.into_inner().images)
}

/// The images that no container uses.
async fn unused(shared: &Shared, images: Vec<v1::Image>) -> Result<Vec<v1::Image>, tonic::Status> {
    let containers = shared.cri.runtime().list_containers(v1::ListContainersRequest::default()).await?;
    let mut used = HashSet::new();
    for container in containers.into_inner().containers {
        used.insert(container.image_ref);
        used.insert(container.image_id);
        used.extend(container.image.map(|spec| spec.image));
    }
    let is_used = |image: &v1::Image| {
        let names = image.repo_tags.iter().chain(&image.repo_digests);
        used.contains(&image.id) || names.into_iter().any(|name| used.contains(name))
    };
    Ok(images.into_iter().filter(|image| !image.pinned && !is_used(image)).collect())
}

async fn remove(shared: &Shared, images: Vec<v1::Image>, goal: Option<u64>) -> u64 {
    let mut freed = 0;
    for image in images {
        if goal.is_some_and(|goal| freed >= goal) {
            break;
        }
        let spec = v1::ImageSpec { image: image.id.clone(), ..v1::ImageSpec::default() };
        let request = v1::RemoveImageRequest { image: Some(spec) };
        match shared.cri.image().remove_image(request).await {
            Ok(_) => freed += image.size,
            Err(status) => {
                tracing::warn!(image = image.id, status = rpc::text(&status), "an image could not be removed")
            }
        }
    }
    if freed > 0 {
        shared.node.recheck();
    }
    freed
}

/// Removes all images that nothing uses; returns the bytes freed.
pub(crate) async fn free_all(shared: &Shared) -> u64 {
    let found = async { unused(shared, list(shared).await?).await };
    match found.await {
        Ok(images) => remove(shared, images, None).await,
        Err(status) => {
            tracing::debug!(status = rpc::text(&status), "images could not be looked at");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_between_the_marks() {
        assert_eq!(to_free(1000, 200, 85, 80), None);
        assert_eq!(to_free(1000, 150, 85, 80), Some(50));
        assert_eq!(to_free(1000, 0, 85, 80), Some(200));
        assert_eq!(to_free(0, 0, 85, 80), None);
    }
}
