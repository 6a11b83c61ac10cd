//! The catalogue of kinds, and what is done with objects of any kind: codecs, defaulting, validation, patches, apply, documents.
//!
//! # The map of this crate
//!
//! | module | what |
//! |---|---|
//! | [`tree`] | [`Map`] and [`Value`]: an object, decoded once and worked on in place |
//! | [`types`] | [`TypeRef`], [`Struct`], [`Field`], [`Kind`]: the type graph; built-in ([`types::find`]) or made at run time ([`types::Builder`]) behind the same handles; [`Schema`] owns what a `TypeRef` borrows |
//! | [`resource`] | [`Resource`] rows: `resource::get(group, version, plural)`, `resource::of_kind(group, version, kind)`, `resource::all()`, `resource::optional()` (alpha and beta), `resource::groups()` (upstream's priority order) |
//! | [`decode`] | what every decoder returns: [`Decoded`] (tree and strict [`Problem`]s), [`DecodeError`] |
//! | [`json`] | `json::decode(ty, bytes) -> Result<Decoded, DecodeError>`; `json::parse(bytes) -> Result<Value, DecodeError>` (untyped); `json::encode(&Map, &mut Vec<u8>)`, `json::encode_value(&Value, &mut Vec<u8>)` |
//! | [`yaml`] | `yaml::decode(ty, bytes)`, `yaml::parse(bytes)`: the same from YAML; `yaml::parse_all(bytes)`: every document of a stream |
//! | [`protobuf`] | `protobuf::decode(ty, bytes)`, `protobuf::type_meta(bytes)`, `protobuf::encode(ty, &Map, &mut Vec<u8>)` (with the `k8s\0` envelope); `message`, `list`, `event`, `envelope` for its parts |
//! | [`normal`] | `normal::typed(ty, Value) -> Result<Decoded, DecodeError>`: a tree made by patching, checked against its type; `normal::changed(ty, Value, from)`: the same, but for what it shares with what it was made from; `normal::normalise(ty, &mut Map, from)`: empties dropped and absent ones written as Go would |
//! | [`untyped`] | `untyped::restore(ty, &mut Value)`: what upstream's converter makes of a tree, where that is not what decoding makes of it |
//! | [`patch`] | JSON patch, merge patch, strategic merge patch on untyped trees |
//! | [`apply`] | field ownership and server-side apply: `apply::track`, `apply::apply` |
//! | [`defaults`] | `defaults::apply(ty, &mut Map)`: what the server fills in |
//! | [`openapi`] | OpenAPI v2 and v3 documents: [`openapi::Published`] |
//! | [`encoded`] | [`Encoded`]: an object encoded before its revision is known: `Encoded::new(&map).item(revision)`, `.stored(api_version, kind)`; `encoded::head(api_version, kind)`, `encoded::object(&head, &item)` |
//! | [`semantic`] | whether two objects say the same, however their quantities are written: `semantic::same(ty, &one, &other)`, `semantic::reworded(ty, &old, &new)` |
//! | [`validation`] | what is wrong with an object: `validation::create(group, kind, &map, features)`, `update(group, kind, subresource, new, old, features)`, `warnings(…)` |
//! | [`qos`] | `qos::of(&map)`: a pod's quality of service, from its requests and limits |
//! | [`amounts`] | trees as the rules that count resources see them: `amounts::of_containers(&spec, "requests")` |
//! | [`view`] | typed read accessors over `&Map`: `view::core_v1::Pod(&map).spec()?.node_name()` |
//! | [`types::Docs`] | the documentation of types and fields, unpacked on demand |
//!
//! Every decoder feeds one schema-guided builder, so that JSON, YAML, protobuf and patched trees are checked and normalised alike.

pub mod amounts;
pub mod apply;
mod builder;
pub mod decode;
pub mod defaults;
pub mod encoded;
mod fields;
pub mod json;
pub mod normal;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod qos;
pub mod resource;
mod scalar;
pub mod semantic;
pub mod tree;
pub mod types;
mod unread;
pub mod untyped;
pub mod validation;
pub mod view;
pub mod yaml;

pub use decode::{DecodeError, Decoded, Problem, REPEATED};
pub use encoded::{Encoded, Marks};
pub use resource::Resource;
pub use scalar::time_problem;
pub use tree::{Map, Value};
pub use types::{Field, Kind, Schema, Struct, TypeRef};
