//! The status of a claim: what it was given, who uses it, and what drivers tell of its devices.

use super::claim::{MAX_CONFIG, Requests, devices};
use super::{at_most, binding_conditions, names, opaque, raw, request_ref, request_refs, tolerations};
use crate::tree::{Map, Value};
use crate::validation::conditions::conditions;
use crate::validation::fields::{Errors, immutable, problems, required, required_of};
use crate::validation::pod::scheduling;
use crate::view::List;
use crate::view::resource_v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, NetworkDeviceData, ResourceClaim,
    ResourceClaimConsumerReference, ResourceClaimStatus,
};
use api::{FieldError, Path, names as words};
use std::collections::BTreeSet;

const STATUS: Path<'static> = Path::root("status");
const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_IPS: usize = 16;

/// A device, or a share of one, as upstream prints it.
fn identity(driver: &str, pool: &str, device: &str, share: Option<&str>) -> String {
    let base = format!("{driver}/{pool}/{device}");
    share.map_or_else(|| base.clone(), |share| format!("{base}/{share}"))
}

pub(super) fn update(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let of = |object| ResourceClaim(object).status();
    let status = of(new).unwrap_or(ResourceClaimStatus(&empty));
    let was = of(old).unwrap_or(ResourceClaimStatus(&empty));
    let requests = Requests::of(devices(new));
    let path = STATUS.child("reservedFor");
    let reserved = status.reserved_for();
    if at_most(&mut errors, &path, reserved.len(), MAX_RESERVED) {
        for (i, consumer) in reserved.iter().enumerate() {
            let path = path.index(i);
            for (field, given) in
                [("resource", consumer.resource()), ("name", consumer.name()), ("uid", consumer.uid())]
            {
                required(&mut errors, &path.child(field), given);
            }
        }
        super::unique(&mut errors, &path, reserved.iter().map(|consumer| consumer.uid().unwrap_or("")));
    }
    let results =
        status.allocation().and_then(|allocation| allocation.devices()).map_or(List::new(&[]), |d| d.results());
    let text = |value: Option<&'_ str>| value.unwrap_or("").to_owned();
    let allocated: BTreeSet<String> =
        results.iter().map(|r| identity(&text(r.driver()), &text(r.pool()), &text(r.device()), r.share_id())).collect();
    device_statuses(&mut errors, status.devices(), &allocated);
    if !reserved.is_empty() {
        if status.allocation().is_none() {
            errors.push(FieldError::forbidden(&path, "may not be specified when `allocated` is not set"));
        } else if !new.str_at(&["metadata", "deletionTimestamp"]).is_empty() && adds(reserved, was.reserved_for()) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    let path = STATUS.child("allocation");
    match (was.allocation(), status.allocation()) {
        (Some(_), Some(_)) => {
            immutable(&mut errors, &path, status.0.get("allocation"), was.0.get("allocation"));
        }
        (None, Some(allocation)) => result(&mut errors, &path, allocation, &requests),
        _ => {}
    }
    errors
}

fn adds(now: List<'_, ResourceClaimConsumerReference<'_>>, was: List<'_, ResourceClaimConsumerReference<'_>>) -> bool {
    now.values().iter().any(|consumer| !was.values().contains(consumer))
}

fn device_statuses(errors: &mut Errors, list: List<'_, AllocatedDeviceStatus<'_>>, allocated: &BTreeSet<String>) {
    let root = STATUS.child("devices");
    let mut ids = Vec::with_capacity(list.len());
    for (i, device) in list.iter().enumerate() {
        let path = root.index(i);
        let (driver, pool) = (device.driver().unwrap_or(""), device.pool().unwrap_or(""));
        let name = device.device().unwrap_or("");
        names::driver(errors, &path.child("driver"), driver);
        names::pool(errors, &path.child("pool"), pool);
        problems(errors, &path.child("device"), name, words::dns1123_label(name));
        if let Some(share) = device.share_id() {
            names::uid(errors, &path.child("shareID"), share);
        }
        let id = identity(driver, pool, name, device.share_id());
        if !allocated.contains(&id) {
            errors.push(FieldError::invalid(&path, id.as_str(), "must be an allocated device in the claim"));
        }
        at_most(errors, &path.child("conditions"), device.conditions().len(), MAX_CONDITIONS);
        conditions(errors, &path.child("conditions"), device.conditions());
        if let Some(data) = device.0.get("data").filter(|data| !matches!(data, Value::Null)) {
            raw(errors, &path.child("data"), Some(data), false);
        }
        if let Some(data) = device.network_data() {
            network(errors, &path.child("networkData"), data);
        }
        ids.push(id);
    }
    super::unique(errors, &root, ids.iter().map(String::as_str));
}

fn network(errors: &mut Errors, path: &Path<'_>, data: NetworkDeviceData<'_>) {
    for (field, given, max) in [
        ("interfaceName", data.interface_name(), MAX_INTERFACE),
        ("hardwareAddress", data.hardware_address(), MAX_HARDWARE_ADDRESS),
    ] {
        if given.unwrap_or("").len() > max {
            errors.push(FieldError::too_long(&path.child(field), max));
        }
    }
    let path = path.child("ips");
    if !at_most(errors, &path, data.ips().len(), MAX_IPS) {
        return;
    }
    for (i, address) in data.ips().iter().enumerate() {
        interface_address(errors, &path.index(i), address);
    }
    super::unique(errors, &path, data.ips().iter());
}

/// An address of an interface with the length of its network, written as short as it can be.
fn interface_address(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let ip: std::net::IpAddr = ip.parse().ok()?;
        let size: u8 = bits.parse().ok()?;
        (size <= if ip.is_ipv4() { 32 } else { 128 }).then(|| format!("{ip}/{size}"))
    });
    match parsed {
        None => {
            let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(FieldError::invalid(path, text, why));
        }
        Some(canonical) if canonical != text => {
            let why = format!("must be in canonical form (\"{canonical}\")");
            errors.push(FieldError::invalid(path, text, why));
        }
        Some(_) => {}
    }
}

fn result(errors: &mut Errors, path: &Path<'_>, allocation: AllocationResult<'_>, requests: &Requests<'_>) {
    if let Some(given) = allocation.devices() {
        let path = path.child("devices");
        let here = path.child("results");
        if at_most(errors, &here, given.results().len(), MAX_RESULTS) {
            for (i, one) in given.results().iter().enumerate() {
                allocated(errors, &here.index(i), one, requests);
            }
        }
        let here = path.child("config");
        // Those of the class and those of the claim.
        if at_most(errors, &here, given.config().len(), 2 * MAX_CONFIG) {
            for (i, config) in given.config().iter().enumerate() {
                let path = here.index(i);
                required_of(errors, &path.child("source"), config.source(), &["FromClaim", "FromClass"]);
                request_refs(errors, &path, config.requests(), requests);
                opaque(errors, &path, config.opaque(), false);
            }
        }
    }
    if let Some(selector) = allocation.node_selector() {
        scheduling::node_selector(errors, &path.child("nodeSelector"), selector);
    }
}

fn allocated(errors: &mut Errors, path: &Path<'_>, result: DeviceRequestAllocationResult<'_>, requests: &Requests<'_>) {
    request_ref(errors, &path.child("request"), result.request().unwrap_or(""), requests);
    names::driver(errors, &path.child("driver"), result.driver().unwrap_or(""));
    names::pool(errors, &path.child("pool"), result.pool().unwrap_or(""));
    let device = result.device().unwrap_or("");
    problems(errors, &path.child("device"), device, words::dns1123_label(device));
    binding_conditions(errors, path, result.binding_conditions(), result.binding_failure_conditions());
    tolerations(errors, path, result.tolerations());
    if let Some(share) = result.share_id() {
        names::uid(errors, &path.child("shareID"), share);
    }
}
