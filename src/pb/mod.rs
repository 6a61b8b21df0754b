//! Messages of Feast that are spoken or read, generated from `proto/`.
//!
//! `tests/proto.rs` generates them and compares; `UPDATE_PB=1 cargo test --test proto` writes them.
//!
//! In [`serving`], values stay encoded: where Feast declares `repeated feast.types.Value`, it has
//! `repeated bytes`, which is the same on the wire. What a store held goes out untouched, of
//! whatever type it is. [`types::Value`] is for who must look into one.

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "generated: members are named as in proto/")]
pub mod core;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "generated: members are named as in proto/")]
pub mod registry;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "generated: members are named as in proto/")]
pub mod serving;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "generated: members are named as in proto/")]
pub mod types;

/// The services and messages as Feast declares them, imports included: a serialized
/// `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");
