//! Rows in memory.

pub mod policy;
