//! How many pods a rollout may have too many and too few.

use crate::objects::{Deployment, ReplicaSet};
use crate::replica_set::Replicas as _;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.type_ != "Recreate"
}

/// A number, or a percentage of a total.
pub fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let value = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(value).unwrap_or(i32::MAX)
        }
    }
}

/// The surge and unavailability in pods: percentages of the wanted number, the surge rounded up, the other down;
/// both zero would never move, so that then one may be unavailable.
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.wanted();
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), wanted, true);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

/// At most as many as are wanted.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || deployment.wanted() == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(deployment.wanted())
}

/// How many replicas the new set is to have next (upstream's `NewRSNewReplicas`).
pub fn new_set_replicas(deployment: &Deployment, sets: &[Arc<ReplicaSet>], new_set_has: i32) -> i32 {
    let wanted = deployment.wanted();
    if !is_rolling(deployment) {
        return wanted;
    }
    let total: i32 = sets.iter().map(|s| s.wanted()).sum();
    let most = wanted + max_surge(deployment);
    if total >= most {
        return new_set_has;
    }
    new_set_has + (most - total).min(wanted - new_set_has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_towards_progress() {
        let percent = |p: &str| Some(IntOrString::String(p.into()));
        assert_eq!(resolve(percent("25%").as_ref(), 3, true), 1);
        assert_eq!(resolve(percent("25%").as_ref(), 3, false), 0);
        assert_eq!(resolve(Some(&IntOrString::Int(2)), 3, false), 2);
    }
}
