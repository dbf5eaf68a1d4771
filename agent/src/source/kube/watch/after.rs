//! What follows when a list or a watch has ended, and how it is told.

use kube::Error;

use super::{BY_CHANCE, DEAF, Said, Served, Watch};
use crate::{
    source::kube::{
        appearance::Appearance,
        ask::{is_not_served, is_of_the_version},
        definition::{self, Definition},
        trouble::{Again, End, Trouble, Verb, text},
    },
    state::{Change, Kept},
};

impl Watch {
    /// What an error means, noted if something is wrong.
    pub(super) async fn end_of(&mut self, verb: Verb, error: &Error) -> End {
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
                Verb::Watch | Verb::Get => End::Gone,
            };
        }
        Trouble::note(&mut self.trouble, text(self.resource, verb, error));
        if code == 401 {
            // A rotated token, or a new certificate in the kubeconfig.
            match self.connection.renew(self.current.number).await {
                Ok(now) => {
                    self.appearance = None;
                    self.ask = (self.make)(now.client.clone());
                    self.current = now;
                }
                Err(e) => Trouble::note(&mut self.trouble, format!("{e:#}")),
            }
        }
        if verb == Verb::Watch && is_of_the_version(error) {
            return End::Failed(Again::Anew);
        }
        End::Failed(Again::Same)
    }

    /// Whoever was asked says nothing.
    pub(super) fn unanswered(&mut self, verb: Verb) -> End {
        let why = format!(
            "{} {}: no answer within {:?}",
            verb.as_str(),
            self.resource,
            self.limits.answer
        );
        Trouble::note(&mut self.trouble, why);
        End::Failed(Again::Same)
    }

    /// Once it may be chance; else something between here and the API server lets no watch live.
    pub(super) fn ended_at_once(&mut self) -> End {
        self.short += 1;
        if self.short > BY_CHANCE {
            let why = format!("watch {}: it ends as soon as it has begun", self.resource);
            Trouble::note(&mut self.trouble, why);
        }
        End::Failed(Again::Same)
    }

    /// A watch that does not end at once, or that has something to say, works.
    pub(super) fn lives(&mut self) {
        self.short = 0;
        self.trouble = None;
    }

    /// Of a watch that is given up without a word.
    pub(super) fn heard_nothing(&mut self) -> End {
        self.deaf += 1;
        if self.deaf < DEAF {
            return End::Resume;
        }
        self.deaf = 0;
        End::Gone
    }

    /// Tells what is wrong and waits a while; false when nobody listens.
    pub(super) async fn failed(&mut self) -> bool {
        if self.say(Vec::new()).await.is_err() {
            return false;
        }
        let pause = self.backoff.next().unwrap_or(self.limits.idle);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.out.closed() => false,
        }
    }

    /// There is no such resource, it is said. What it had goes only if its definition is gone, too: a
    /// proxy's 404, or a definition in other versions, opens nothing that a policy closes. False when
    /// nobody listens.
    pub(super) async fn not_served(&mut self) -> bool {
        let looked = definition::look(&self.current.client, self.limits.answer).await;
        self.trouble = self.trouble.take().filter(|_| looked != Definition::Gone);
        match looked {
            Definition::Gone => {}
            // Of this the watch of the definition tells.
            Definition::Forbidden(_) if self.held.is_empty() => self.trouble = None,
            Definition::Others(why) => {
                Trouble::note(&mut self.trouble, why);
                if !self.held.is_empty() {
                    return self.failed().await;
                }
            }
            Definition::Forbidden(why) | Definition::Unknown(why) => {
                Trouble::note(&mut self.trouble, why);
                return self.failed().await;
            }
        }
        let gone = self.held.clear();
        self.listed = true;
        if self.say(gone).await.is_err() {
            return false;
        }
        let client = &self.current.client;
        let appearance = self
            .appearance
            .get_or_insert_with(|| Appearance::new(client.clone()));
        tokio::select! {
            () = appearance.next() => true,
            () = self.out.closed() => false,
        }
    }

    /// Hands on what has changed; the problems if they have.
    pub(super) async fn say(&mut self, changes: Vec<Change<Kept>>) -> Result<(), End> {
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
