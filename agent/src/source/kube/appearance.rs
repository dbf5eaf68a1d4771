//! Waits for a custom resource that the API server does not serve yet: its definition is watched, by
//! name and without its content.

use std::time::Duration;

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::watcher::{self, DefaultBackoff, Event, watcher},
};

use super::trouble::{Trouble, Verb, text};

/// Of ClusterNetworkPolicy, the one custom resource.
pub(super) const NAME: &str = "clusternetworkpolicies.policy.networking.k8s.io";
/// What definitions are.
pub(super) const RESOURCE: &str = "customresourcedefinitions";
/// A definition takes a moment from its last change until it is served.
static SOON: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How often the resource is asked for where nothing is heard of its definition.
const LATER: Duration = Duration::from_secs(60);

type Events =
    BoxStream<'static, watcher::Result<Event<PartialObjectMeta<CustomResourceDefinition>>>>;

/// The watch of the definition.
pub(super) struct Appearance {
    client: Client,
    /// Begun anew after each error, so that what is wrong is known to be so still, or not to be.
    events: Option<Events>,
    backoff: DefaultBackoff,
    /// Pauses that are left of [`SOON`].
    soon: &'static [Duration],
    trouble: Option<Trouble>,
}

impl Appearance {
    /// The resource has just been asked for.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            events: None,
            backoff: DefaultBackoff::default(),
            soon: &[],
            trouble: None,
        }
    }

    /// What an administrator has to put right. Of everything else the other watches tell.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Waits until it is worth while to ask for the resource again.
    pub async fn next(&mut self) {
        loop {
            let (pause, soon) = self.soon.split_first().unwrap_or((&LATER, &[]));
            self.soon = soon;
            let client = &self.client;
            let events = self.events.get_or_insert_with(|| events(client.clone()));
            let event = match tokio::time::timeout(*pause, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) | Err(_) => return,
            };
            match event {
                Ok(Event::Apply(_) | Event::InitApply(_)) => self.soon = &SOON,
                // What was wrong is right again: that is told when the resource has been asked for.
                Ok(Event::InitDone) if self.trouble.take().is_some() => return,
                Ok(Event::InitDone) => {}
                Ok(Event::Init | Event::Delete(_)) => {}
                Err(error) => {
                    self.events = None;
                    self.note(&error);
                    tokio::time::sleep(self.backoff.next().unwrap_or(LATER)).await;
                    return;
                }
            }
        }
    }

    fn note(&mut self, error: &watcher::Error) {
        let (verb, error) = match error {
            watcher::Error::InitialListFailed(e) => (Verb::List, e),
            watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
                (Verb::Watch, e)
            }
            watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => return,
        };
        if matches!(error, kube::Error::Api(status) if status.is_forbidden()) {
            Trouble::note(&mut self.trouble, text(RESOURCE, verb, error));
        }
    }
}

fn events(client: Client) -> Events {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    watcher(Api::all(client), config).boxed()
}
