//! The agent's one load of the programs for dry runs, made when it is first asked for.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use weir_api::{
    error::ApiError,
    live::{LiveAnswer, LiveRequest},
};

use super::Live;
use crate::dataplane::pins::Pins;

/// Answers from any thread, one question at a time.
#[derive(Clone)]
pub struct Shared {
    object: Arc<Cow<'static, [u8]>>,
    pins: Pins,
    live: Arc<Mutex<Option<Live>>>,
}

impl Shared {
    /// Of the object that the agent has loaded, and its pins.
    pub fn new(object: Cow<'static, [u8]>, pins: Pins) -> Self {
        Self {
            object: Arc::new(object),
            pins,
            live: Arc::default(),
        }
    }

    /// See [`Live::ask`]; blocks, at first for as long as the verifier takes.
    ///
    /// # Errors
    /// As [`Live::load`] and [`Live::ask`].
    pub fn ask(&self, request: &LiveRequest) -> Result<LiveAnswer, ApiError> {
        // What panicked has changed nothing: a run leaves no state.
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live = match &mut *live {
            Some(live) => live,
            none => none.insert(Live::load(&self.object, &self.pins)?),
        };
        live.ask(request)
    }
}
