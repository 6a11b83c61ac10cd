//! Resource versions: opaque to clients, a store revision to us.

use crate::status::Status;

/// A revision of the store as clients see it. Zero means "any version will do" where a read allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub u64);

impl ResourceVersion {
    /// Parses the query parameter or field; the empty string is `None` ("the most recent").
    ///
    /// # Errors
    /// 400 when it is neither empty nor a decimal number.
    pub fn parse(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        crate::number::uint(text).map(|n| Some(ResourceVersion(n))).map_err(|_| {
            Status::bad_request(format!("Invalid value: {}: invalid resource version", crate::field::go_quote(text)))
        })
    }
}

impl std::fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
