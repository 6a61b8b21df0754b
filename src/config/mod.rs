//! The files, the environment and the flags.
