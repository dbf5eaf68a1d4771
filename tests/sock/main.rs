//! sock tests.
