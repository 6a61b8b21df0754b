//! Every metric: name, help, labels.
