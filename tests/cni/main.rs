//! cni tests.
