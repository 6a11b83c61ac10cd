//! ImageLocality: nodes that have the images already are better, the more so the larger these are.

use crate::framework::{MAX_SCORE, Plugin};
use crate::objects::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

const MIN: i64 = 23 * 1024 * 1024;
const MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality;

/// The name as nodes list it: with a tag.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or("");
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
    fn scores(&self, pod: &PodInfo) -> bool {
        !pod.images.is_empty()
    }
    fn score(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> i64 {
        if snapshot.nodes().len() < 2 || node.images.is_empty() {
            return 0;
        }
        let held: i64 = pod.images.iter().filter_map(|i| node.images.get(normalized(i).as_str())).sum();
        let max = MAX_PER_CONTAINER * i64::try_from(pod.images.len()).unwrap_or(1);
        MAX_SCORE * (held.clamp(MIN, max) - MIN) / (max - MIN)
    }
}
