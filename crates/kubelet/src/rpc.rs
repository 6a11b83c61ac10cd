//! Errors of the runtime as upstream prints them.

/// `rpc error: code = NotFound desc = …`.
pub(crate) fn text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// True if the runtime says that what was asked about isn't there.
pub(crate) fn is_not_found(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::NotFound
}
