//! The numbers that the rows of a type graph are written in, shared with the build script that writes the built-in one.

/// What a type row is.
pub(crate) mod code {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const BOOL: u8 = 1;
    pub(crate) const INT32: u8 = 2;
    pub(crate) const INT64: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const QUANTITY: u8 = 5;
    pub(crate) const INT_OR_STRING: u8 = 6;
    pub(crate) const TIME: u8 = 7;
    pub(crate) const MICRO_TIME: u8 = 8;
    pub(crate) const DURATION: u8 = 9;
    pub(crate) const BYTES: u8 = 10;
    pub(crate) const RAW: u8 = 11;
    pub(crate) const JSON: u8 = 12;
    pub(crate) const FIELDS: u8 = 13;
    /// Scalars are the first rows of every arena: the number of a scalar type is its code.
    pub(crate) const SCALARS: u8 = 14;
    pub(crate) const LIST: u8 = 14;
    pub(crate) const MAP: u8 = 15;
    pub(crate) const STRUCT: u8 = 16;
    pub(crate) const OR_BOOL: u8 = 17;
    pub(crate) const OR_LIST: u8 = 18;
    pub(crate) const OR_STRINGS: u8 = 19;
}

/// What Go and OpenAPI know about a field beyond its type, and about a struct.
pub mod flag {
    /// The Go field is a pointer: a zero or empty value that was given stays.
    pub const POINTER: u16 = 1;
    /// `omitempty`: a zero scalar, an empty list or map vanishes (a struct does not, as in Go).
    pub const OMIT_EMPTY: u16 = 2;
    /// `omitzero`: a zero value vanishes, whatever its type.
    pub const OMIT_ZERO: u16 = 4;
    /// Listed in OpenAPI's `required`.
    pub const REQUIRED: u16 = 8;
    /// `null` is a value of its own (custom resources).
    pub const NULLABLE: u16 = 16;
    /// In protobuf the list is a message of its own.
    pub const WRAPPED: u16 = 32;
    /// It is, or has somewhere in it, a quantity.
    pub const QUANTITIES: u16 = 64;

    /// Of a struct: some field is present even when nothing was given.
    pub const ALWAYS: u16 = 1;
    /// Of a struct: `x-kubernetes-map-type: atomic`.
    pub const ATOMIC: u16 = 2;
    /// Of a struct: fields that are not declared are kept (custom resources).
    pub const OPEN: u16 = 4;
    /// Of a struct: the rules of the type of its name in the GA version of its group are its own, too.
    pub const ALIAS: u16 = 8;
}
