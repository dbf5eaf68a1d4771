//! One kind's objects: list, then watch, again and again.
//!
//! kube-runtime's watcher does the same, but does not tell when a watch that had failed is taken up
//! again (a problem would stay until the next object changes), waits without end for a list that
//! hangs, and five minutes for a connection that is dead.

mod after;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::{
    Api, Client, Error,
    api::WatchEvent,
    runtime::{utils::Backoff as _, watcher::DefaultBackoff},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    answers::Answers,
    appearance::Appearance,
    ask::Ask,
    held::Held,
    item::{Item, Of, Watched},
    trouble::{Again, End, Trouble, Verb},
};
use crate::{
    kube_client::{Connection, Numbered},
    state::{Change, Kept, Kind},
};

/// How long is waited for the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For one page of a list, or for the beginning of a watch.
    pub answer: Duration,
    /// After how long without a word a watch is begun anew, where it was. The API server sends
    /// bookmarks about once a minute, so that it is a dead connection, mostly.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(90),
        }
    }
}

/// After how many silent watches in a row all is listed anew: of an API server whose store is back
/// from a backup, and so has lower versions, a watch hears nothing, and no error either.
const DEAF: u32 = 2;
/// How many events are taken in at once.
const CHUNK: usize = 512;
/// A watch that ends sooner, and without a word, did not work.
const SHORT: Duration = Duration::from_secs(1);
/// So many of these in a row may be chance.
const BY_CHANCE: u32 = 2;

/// What a watch tells.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// In order.
    pub changes: Vec<Change<Kept>>,
    /// Whether all that there is has been told once.
    pub listed: bool,
    /// Everything that is wrong now.
    pub problems: Vec<String>,
}

/// How a kind of objects is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// By every API server.
    Always,
    /// Only if its definition is there.
    ByDefinition,
}

/// The watch of one kind.
pub(super) struct Watch {
    kind: Kind,
    resource: &'static str,
    served: Served,
    connection: Connection,
    /// The client in use.
    current: Numbered,
    limits: Limits,
    make: fn(Client) -> Box<dyn Ask>,
    ask: Box<dyn Ask>,
    held: Held,
    trouble: Option<Trouble>,
    listed: bool,
    /// What was last told: whether all is listed, and problems.
    told: (bool, Vec<String>),
    /// How often in a row the API server said that a watch begins too early.
    gone: u32,
    /// How many watches in a row ended as soon as they had begun.
    short: u32,
    /// How many watches in a row have heard nothing until they were given up.
    deaf: u32,
    /// While the API server has no such resource.
    appearance: Option<Appearance>,
    backoff: DefaultBackoff,
    out: mpsc::Sender<(Kind, Said)>,
    answers: Answers,
}

impl Watch {
    pub fn new<K: Watched>(
        connection: Connection,
        limits: Limits,
        served: Served,
        out: mpsc::Sender<(Kind, Said)>,
    ) -> Self {
        let current = connection.current();
        let make = |client| Box::new(Api::<Of<K>>::all(client)) as Box<dyn Ask>;
        Self {
            kind: K::KIND,
            resource: K::PLURAL,
            served,
            ask: make(current.client.clone()),
            connection,
            current,
            limits,
            make,
            held: Held::default(),
            trouble: None,
            listed: false,
            told: (false, Vec::new()),
            gone: 0,
            short: 0,
            deaf: 0,
            appearance: None,
            backoff: DefaultBackoff::default(),
            out,
            answers: Answers::default(),
        }
    }

    /// The same, with objects that were asked for one by one.
    pub fn answered_by(mut self, answers: mpsc::Receiver<Item>) -> Self {
        self.answers = Answers::from(answers);
        self
    }

    /// Runs until nobody listens.
    pub async fn run(mut self) {
        let mut version = None;
        loop {
            let end = match version.take() {
                None => match self.list().await {
                    Ok(listed) => {
                        version = Some(listed);
                        continue;
                    }
                    Err(end) => end,
                },
                Some(mut at) => {
                    let end = self.watch(&mut at).await;
                    if matches!(end, End::Resume | End::Failed(Again::Same)) {
                        version = Some(at);
                    }
                    end
                }
            };
            let goes_on = match end {
                End::Resume | End::Gone => true,
                End::NotServed => self.not_served().await,
                End::Failed(_) => self.failed().await,
                End::Closed => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// One complete list: its version.
    async fn list(&mut self) -> Result<String, End> {
        self.held.begin_list();
        let mut next = None;
        loop {
            let page = match timeout(self.limits.answer, self.ask.page(next)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(self.end_of(Verb::List, &error).await),
                Err(_) => return Err(self.unanswered(Verb::List)),
            };
            let items = page.items.into_iter();
            let changes = items.filter_map(|item| self.held.apply(item)).collect();
            self.say(changes).await?;
            match (page.next, page.version) {
                (Some(more), _) => next = Some(more),
                (None, Some(version)) => {
                    // What was found after the list was made is missing in it.
                    self.answers.forget_until(&version);
                    self.held.keep(self.answers.keys());
                    let gone = self.held.end_list();
                    self.trouble = None;
                    self.appearance = None;
                    self.listed = true;
                    self.say(gone).await?;
                    return Ok(version);
                }
                (None, None) => {
                    let why = format!("list {}: the answer has no resourceVersion", self.resource);
                    Trouble::note(&mut self.trouble, why);
                    return Err(End::Failed(Again::Same));
                }
            }
        }
    }

    /// One watch, from `version` on, which it moves.
    async fn watch(&mut self, version: &mut String) -> End {
        let started = Instant::now();
        let events = match timeout(self.limits.answer, self.ask.events(version)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return self.end_of(Verb::Watch, &error).await,
            Err(_) => return self.unanswered(Verb::Watch),
        };
        if self.short <= BY_CHANCE {
            self.trouble = None;
        }
        if let Err(end) = self.say(Vec::new()).await {
            return end;
        }
        let mut events = events.ready_chunks(CHUNK);
        let mut silent = true;
        loop {
            // What is wrong is over once a watch lives.
            let wait = match self.trouble {
                Some(_) => SHORT,
                None => self.limits.idle,
            };
            let chunk = tokio::select! {
                chunk = timeout(wait, events.next()) => chunk,
                item = self.answers.next() => {
                    let news = self.answers.is_news(&item, version);
                    let change = if news { self.held.apply(item) } else { None };
                    let changes = change.into_iter().collect();
                    match self.say(changes).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
            };
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) if silent && started.elapsed() < SHORT => return self.ended_at_once(),
                Ok(None) => return End::Resume,
                Err(_) if self.trouble.is_some() => {
                    self.lives();
                    match self.say(Vec::new()).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                Err(_) if silent => return self.heard_nothing(),
                Err(_) => return End::Resume,
            };
            let mut changes = Vec::new();
            let mut failed = None;
            for event in chunk {
                match self.take_in(event, version, &mut changes) {
                    Ok(()) => silent = false,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if !silent {
                self.gone = 0;
                self.deaf = 0;
                self.backoff.reset();
                self.lives();
            }
            if let Err(end) = self.say(changes).await {
                return end;
            }
            if let Some(error) = failed {
                return self.end_of(Verb::Watch, &error).await;
            }
        }
    }

    fn take_in(
        &mut self,
        event: Result<WatchEvent<Item>, Error>,
        version: &mut String,
        changes: &mut Vec<Change<Kept>>,
    ) -> Result<(), Error> {
        let newer = match event? {
            WatchEvent::Added(mut item) | WatchEvent::Modified(mut item) => {
                let newer = item.version.take();
                if !self.answers.knows_later(&item.key, newer.as_deref()) {
                    changes.extend(self.held.apply(item));
                }
                newer
            }
            WatchEvent::Deleted(item) => {
                if !self.answers.knows_later(&item.key, item.version.as_deref()) {
                    changes.extend(self.held.delete(&item.key));
                }
                item.version
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(Error::Api(status)),
        };
        if let Some(newer) = newer.filter(|newer| !newer.is_empty()) {
            self.answers.forget_until(&newer);
            *version = newer;
        }
        Ok(())
    }
}
