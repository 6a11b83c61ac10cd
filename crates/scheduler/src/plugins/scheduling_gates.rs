//! SchedulingGates: a pod with gates is not tried until the last is removed (KEP-3521).

use crate::framework::{Change, Plugin, Rejection};
use crate::objects::PodInfo;

pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        if pod.gated {
            return Err(Rejection::unresolvable("Scheduling is blocked due to non-empty scheduling gates"));
        }
        Ok(())
    }
    fn helps(&self, _: &PodInfo, change: &Change<'_>) -> bool {
        matches!(change, Change::PodUpdated)
    }
}
