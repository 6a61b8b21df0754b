//! Puts the parts together, runs them, stops them.
