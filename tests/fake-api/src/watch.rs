//! A watch: lines of JSON, as long as the client listens.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use futures::{Stream, stream};
use serde_json::{Value, json};

use crate::{Shared, rest::Target, state::State};

/// Where a watch is.
struct Place {
    version: u64,
    epoch: u64,
    expired: u64,
    bookmarks: u64,
    ended: bool,
}

/// What a watch says next.
enum Next {
    Lines(String),
    Nothing,
    End,
}

/// The body of a watch that begins after `version`.
pub(crate) fn body(shared: Arc<Shared>, target: Target, version: u64) -> Body {
    let state = shared.lock();
    let place = Place {
        version,
        epoch: state.epoch,
        expired: state.expired,
        bookmarks: state.bookmarks,
        ended: false,
    };
    drop(state);
    Body::from_stream(lines(shared, target, place))
}

fn lines(
    shared: Arc<Shared>,
    target: Target,
    place: Place,
) -> impl Stream<Item = Result<String, Infallible>> {
    let moved = shared.moved.subscribe();
    stream::unfold(
        (shared, target, place, moved),
        |(shared, target, mut place, mut moved)| async move {
            loop {
                moved.mark_unchanged();
                let next = place.next(&shared.lock(), &target);
                match next {
                    Next::Lines(text) => return Some((Ok(text), (shared, target, place, moved))),
                    Next::End => return None,
                    Next::Nothing => moved.changed().await.ok()?,
                }
            }
        },
    )
}

impl Place {
    fn next(&mut self, state: &State, target: &Target) -> Next {
        if self.ended || self.epoch != state.epoch {
            return Next::End;
        }
        if self.expired != state.expired {
            self.ended = true;
            return Next::Lines(format!(
                "{}\n",
                json!({"type": "ERROR", "object": crate::rest::status(410)})
            ));
        }
        if state.held.contains(&target.plural) {
            return Next::Nothing;
        }
        let news = state
            .happened
            .iter()
            .filter(|h| h.version > self.version && target.holds(h));
        let mut text: String = news.map(|h| format!("{}\n", h.event)).collect();
        self.version = self.version.max(state.version);
        if self.bookmarks != state.bookmarks {
            self.bookmarks = state.bookmarks;
            text += &format!("{}\n", bookmark(state.version));
        }
        if text.is_empty() {
            Next::Nothing
        } else {
            Next::Lines(text)
        }
    }
}

fn bookmark(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {
        "apiVersion": "v1", "kind": "Any", "metadata": {"resourceVersion": version.to_string()},
    }})
}
