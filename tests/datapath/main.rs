//! datapath tests.
