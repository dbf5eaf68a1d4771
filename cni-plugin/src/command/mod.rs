//! One module for each command.

mod add;
mod check;
mod del;
mod gc;
mod status;
mod version;

pub use add::{add, open_netns};
pub use check::check;
pub use del::del;
pub use gc::gc;
pub use status::status;
pub use version::version;
