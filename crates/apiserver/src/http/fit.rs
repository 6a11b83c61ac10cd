//! Refusals of shapes that an answer cannot have: metadata of one object of a list, or the other way round.

use crate::scheme::go_type;
use api::{Reason, Status};
use schema::Resource;

/// 406 where one object's metadata is wanted of a list.
pub fn is_a_list(row: &Resource) -> Status {
    refused("PartialObjectMetadata", "a list", &go_type(row, true))
}

/// 406 where the metadata of a list is wanted of one object.
pub fn is_no_list(row: &Resource) -> Status {
    is_no_list_but(&go_type(row, false))
}

/// The same of an object of a Go type.
pub fn is_no_list_but(go_type: &str) -> Status {
    refused("PartialObjectMetadataList", "not a list", go_type)
}

fn refused(wanted: &str, is: &str, go_type: &str) -> Status {
    let why = format!("you requested {wanted}, but the requested object is {is} ({go_type})");
    Status::new(406, Reason::NotAcceptable, why)
}
