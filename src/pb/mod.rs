//! Messages of Feast that are spoken or read, generated from `proto/`.
