//! Registries that are read from real databases, object stores and registry servers.
//!
//! Needs PostgreSQL and MariaDB (apt), and versitygw, which `scripts/test` installs and names in
//! the variable `VERSITYGW`.

#![cfg(all(
    feature = "object-store",
    feature = "sql-registry",
    feature = "remote-registry",
    feature = "sqlite"
))]

mod object;
mod remote;
mod services;
mod sql;
mod world;
