//! larder into pods: what the sidecar is like, and the ways in.
//!
//! [`inject`] is the one description of it: pure, over JSON. It says what to change as a
//! [`Patch`], which a webhook answers with, and which the command line carries out in the text of
//! a manifest.
//!
//! ```text
//!                       pod + settings
//!                             |
//!                       inject -> Patch
//!                       /            \
//!     a webhook's answer              splice: the text of a manifest, else as it was
//! ```

mod block;
mod command;
mod manifest;
pub mod names;
mod patch;
mod pod;
mod quantity;
mod settings;
mod sidecar;
mod splice;
mod stale;
mod text;
#[cfg(feature = "injector")]
pub mod webhook;

pub use command::{Ended, Inject};
pub use manifest::{Manifest, ManifestError, Object, inject_manifest, read_settings};
pub use patch::{Action, Change, NoSuchPlace, Patch, Path, Step, Tree};
pub use pod::Malformed;
pub use quantity::Quantity;
pub use settings::{Key, SettingError, SettingErrors, Settings};
pub use sidecar::{Outcome, Reason, Way, asks, inject};
