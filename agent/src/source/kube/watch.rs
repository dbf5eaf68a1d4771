//! One kind's objects: list, then watch, again and again.
//!
//! kube-runtime's watcher does the same, but does not tell when a watch that had failed is taken up
//! again (a problem would stay until the next object changes), waits without end for a list that
//! hangs, and five minutes for a connection that is dead.

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
    ask::{Ask, is_not_served},
    held::Held,
    item::{Item, Of, Watched},
    trouble::{Again, End, Trouble, Verb, text},
};
use crate::{
    kube_client::Access,
    state::{Change, Kept, Kind},
};

/// Longest wait for one page of a list.
const LIST: Duration = Duration::from_secs(60);
/// After how long without a word a watch is begun anew, where it was. The API server sends bookmarks
/// about once a minute, so that it is a dead connection, mostly.
const IDLE: Duration = Duration::from_secs(90);
/// How many events are taken in at once.
const CHUNK: usize = 512;
/// A watch that ends sooner, and without a word, did not work.
const SHORT: Duration = Duration::from_secs(1);

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
    access: Access,
    client: Client,
    make: fn(Client) -> Box<dyn Ask>,
    ask: Box<dyn Ask>,
    held: Held,
    trouble: Option<Trouble>,
    listed: bool,
    /// What was last told: whether all is listed, and problems.
    told: (bool, Vec<String>),
    /// How often in a row the API server said that a watch begins too early, or that it has no such
    /// resource.
    gone: u32,
    missing: u32,
    /// How many watches in a row ended as soon as they had begun.
    short: u32,
    /// While the API server has no such resource.
    appearance: Option<Appearance>,
    backoff: DefaultBackoff,
    out: mpsc::Sender<(Kind, Said)>,
    answers: Answers,
}

impl Watch {
    pub fn new<K: Watched>(
        access: Access,
        client: Client,
        served: Served,
        out: mpsc::Sender<(Kind, Said)>,
    ) -> Self {
        let make = |client| Box::new(Api::<Of<K>>::all(client)) as Box<dyn Ask>;
        Self {
            kind: K::KIND,
            resource: K::PLURAL,
            served,
            ask: make(client.clone()),
            access,
            client,
            make,
            held: Held::default(),
            trouble: None,
            listed: false,
            told: (false, Vec::new()),
            gone: 0,
            missing: 0,
            short: 0,
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
            let page = match timeout(LIST, self.ask.page(next)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(self.end_of(Verb::List, &error).await),
                Err(_) => {
                    let why = format!(
                        "list {}: no answer within {} s",
                        self.resource,
                        LIST.as_secs()
                    );
                    Trouble::note(&mut self.trouble, why);
                    return Err(End::Failed(Again::Same));
                }
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
                    self.missing = 0;
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
        let events = match timeout(LIST, self.ask.events(version)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return self.end_of(Verb::Watch, &error).await,
            Err(_) => {
                let why = format!(
                    "watch {}: no answer within {} s",
                    self.resource,
                    LIST.as_secs()
                );
                Trouble::note(&mut self.trouble, why);
                return End::Failed(Again::Same);
            }
        };
        self.trouble = None;
        if let Err(end) = self.say(Vec::new()).await {
            return end;
        }
        let mut events = events.ready_chunks(CHUNK);
        let mut silent = true;
        loop {
            let chunk = tokio::select! {
                chunk = timeout(IDLE, events.next()) => chunk,
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
                Ok(None) | Err(_) => return End::Resume,
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
                self.short = 0;
                self.backoff.reset();
            }
            if let Err(end) = self.say(changes).await {
                return end;
            }
            if let Some(error) = failed {
                return self.end_of(Verb::Watch, &error).await;
            }
        }
    }

    /// Once it may be chance; else something between here and the API server lets no watch live.
    fn ended_at_once(&mut self) -> End {
        self.short += 1;
        if self.short > 2 {
            let why = format!("watch {}: it ends as soon as it has begun", self.resource);
            Trouble::note(&mut self.trouble, why);
        }
        End::Failed(Again::Same)
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

    /// What an error means, noted if something is wrong.
    async fn end_of(&mut self, verb: Verb, error: &Error) -> End {
        let code = match error {
            Error::Api(status) => status.code,
            _ => 0,
        };
        if code == 410 {
            // What a list or a watch goes on from is too old by now.
            self.gone += 1;
            return match verb {
                Verb::Watch if self.gone == 1 => End::Gone,
                _ => End::Failed(Again::Anew),
            };
        }
        if self.served == Served::ByDefinition && is_not_served(error) {
            return match verb {
                Verb::List => End::NotServed,
                // The list tells for certain.
                Verb::Watch => End::Gone,
            };
        }
        Trouble::note(&mut self.trouble, text(self.resource, verb, error));
        if code == 401 {
            // A rotated token, or a new certificate in the kubeconfig.
            match self.access.client().await {
                Ok(client) => {
                    self.client = client.clone();
                    self.appearance = None;
                    self.ask = (self.make)(client);
                }
                Err(e) => Trouble::note(&mut self.trouble, format!("{e:#}")),
            }
        }
        End::Failed(Again::Same)
    }

    /// Tells what is wrong and waits a while; false when nobody listens.
    async fn failed(&mut self) -> bool {
        if self.say(Vec::new()).await.is_err() {
            return false;
        }
        let pause = self.backoff.next().unwrap_or(IDLE);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.out.closed() => false,
        }
    }

    /// There is no such resource: what was there is gone, and it may come. False when nobody listens.
    async fn not_served(&mut self) -> bool {
        self.missing += 1;
        if self.missing == 1 && !self.held.is_empty() {
            // Policies are not dropped for one answer.
            return self.failed().await;
        }
        let gone = self.held.clear();
        self.trouble = None;
        self.listed = true;
        if self.say(gone).await.is_err() {
            return false;
        }
        let client = &self.client;
        let appearance = self
            .appearance
            .get_or_insert_with(|| Appearance::new(client.clone()));
        tokio::select! {
            () = appearance.next() => true,
            () = self.out.closed() => false,
        }
    }

    /// Hands on what has changed; the problems if they have.
    async fn say(&mut self, changes: Vec<Change<Kept>>) -> Result<(), End> {
        let appearance = self.appearance.as_ref().and_then(Appearance::trouble);
        let troubles = self.trouble.iter().chain(appearance).map(Trouble::say);
        let told = (self.listed, troubles.chain(self.held.problems()).collect());
        if changes.is_empty() && told == self.told {
            return Ok(());
        }
        self.told.clone_from(&told);
        let (listed, problems) = told;
        let said = Said {
            changes,
            listed,
            problems,
        };
        let sent = self.out.send((self.kind, said)).await;
        sent.map_err(|_| End::Closed)
    }
}
