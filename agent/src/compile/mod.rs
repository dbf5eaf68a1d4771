//! Pure: from objects and facts to what the kernel must hold.

pub mod endpoint;
pub mod policy;
pub mod route;
pub mod service;
