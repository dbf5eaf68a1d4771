//! The requests of one kind, in types that do not know the kind.

use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use kube::{
    Api, Error,
    api::{ListParams, WatchEvent, WatchParams},
};

use super::item::{Item, Of, Watched};

/// How many objects a page of a list has: what is read at once is bounded so.
const PAGE: u32 = 500;

/// A page of a list.
pub(super) struct Page {
    pub items: Vec<Item>,
    pub next: Option<String>,
    pub version: Option<String>,
}

pub(super) type Events = BoxStream<'static, Result<WatchEvent<Item>, Error>>;

/// The requests, for whatever kind.
pub(super) trait Ask: Send + Sync {
    fn page(&self, next: Option<String>) -> BoxFuture<'_, Result<Page, Error>>;
    fn events<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Events, Error>>;
}

impl<K: Watched> Ask for Api<Of<K>> {
    fn page(&self, next: Option<String>) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            let mut params = ListParams::default().limit(PAGE);
            params.continue_token = next;
            let list = Self::list(self, &params).await?;
            let text = |text: Option<String>| text.filter(|text| !text.is_empty());
            Ok(Page {
                items: list.items.into_iter().map(|of| of.item).collect(),
                next: text(list.metadata.continue_),
                version: text(list.metadata.resource_version),
            })
        })
    }

    fn events<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Events, Error>> {
        Box::pin(async move {
            let events = Self::watch(self, &WatchParams::default(), version).await?;
            Ok(events.map(|event| event.map(plain)).boxed())
        })
    }
}

fn plain<K>(event: WatchEvent<Of<K>>) -> WatchEvent<Item> {
    match event {
        WatchEvent::Added(of) => WatchEvent::Added(of.item),
        WatchEvent::Modified(of) => WatchEvent::Modified(of.item),
        WatchEvent::Deleted(of) => WatchEvent::Deleted(of.item),
        WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    }
}

/// Whether the API server says for certain that it has no such resource: it answers a path that it does
/// not know in plain text, and a proxy's 404 is something else.
pub(super) fn is_not_served(error: &Error) -> bool {
    let Error::Api(status) = error else {
        return false;
    };
    status.code == 404
        && (status.reason == "NotFound" || status.message.contains("404 page not found"))
}

/// Whether a watch cannot begin where it is to, and would fail so for ever: the version is no version
/// to this API server (400), or one that is still to come (504), as after its store came back from a
/// backup. With 404 the list tells for certain.
pub(super) fn is_of_the_version(error: &Error) -> bool {
    let Error::Api(status) = error else {
        return false;
    };
    match status.code {
        400 | 404 => true,
        504 => status.message.contains("Too large resource version"),
        _ => false,
    }
}
