//! The agent's one load of the programs for dry runs, made when it is first asked for.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    pub fn new(object: Arc<Cow<'static, [u8]>>, pins: Pins) -> Self {
        Self {
            object,
            pins,
            live: Arc::default(),
        }
    }

    /// See [`Live::ask`]; blocks, at first for as long as the verifier takes.
    ///
    /// # Errors
    /// As [`Live::load`] and [`Live::ask`].
    pub fn ask(&self, request: &LiveRequest) -> Result<LiveAnswer, ApiError> {
        let mut live = self.lock();
        let live = match &mut *live {
            Some(live) => live,
            none => none.insert(Live::load(&self.object, &self.pins)?),
        };
        live.ask(request)
    }

    /// Keeps everybody waiting who asks, and forgets the load: maps and programs are about to be
    /// replaced.
    pub fn suspend(&self) -> Suspended<'_> {
        let mut live = self.lock();
        *live = None;
        Suspended { _live: live }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        // What panicked has changed nothing: a run leaves no state.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as this lives nobody gets an answer.
pub struct Suspended<'a> {
    _live: MutexGuard<'a, Option<Live>>,
}
