//! Several agents that all take themselves for the holder, each with an old picture of the cluster,
//! under every schedule of their requests that chance finds: answers get lost, agents die, and requests
//! of the dead arrive late.

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const AGENTS: usize = 3;
/// So few that what one Node leaves is what the next is given.
const CIDRS: usize = 2;

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// One of the waiting requests is performed; its answer may be lost.
    Perform(u8, bool),
    /// An agent begins a round, if it is not in one.
    Round(u8),
    /// An agent's source catches up.
    CatchUp(u8),
    /// An agent dies and comes back, knowing nothing. Its request is still on its way.
    Die(u8),
    /// A Node registers.
    Register(u8),
    /// A Node is deleted.
    Delete(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let agent = 0..AGENTS as u8;
    let node = 0..NAMES.len() as u8;
    prop_oneof![
        16 => (any::<u8>(), prop::bool::weighted(0.9)).prop_map(|(n, a)| Act::Perform(n, a)),
        5 => agent.clone().prop_map(Act::Round),
        4 => agent.clone().prop_map(Act::CatchUp),
        1 => agent.prop_map(Act::Die),
        3 => node.clone().prop_map(Act::Register),
        3 => node.prop_map(Act::Delete),
    ]
}

struct Agent {
    client: usize,
    publisher: Publisher,
    view: Nodes,
    term: Term,
    round: Option<JoinHandle<Term>>,
}

struct World {
    api: FakeApi,
    pools: Pools,
    shared: Shared,
    agents: Vec<Agent>,
}

impl World {
    fn new() -> Self {
        let api = FakeApi::slow();
        let agents = (0..AGENTS).map(|_| Self::agent(&api)).collect();
        Self {
            api,
            pools: pools(&[("10.244.0.0/23", 24)]),
            shared: Shared::new("n"),
            agents,
        }
    }

    fn agent(api: &FakeApi) -> Agent {
        let (client, publisher) = api.client();
        Agent {
            client,
            publisher,
            view: Nodes::new(),
            term: Term::default(),
            round: None,
        }
    }

    /// The Nodes as they are.
    fn truth(&self) -> Nodes {
        let nodes = self.api.below(NODES).into_iter().map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap().to_owned();
            let node = serde_json::from_value(node).unwrap();
            (name, node_cidr::NodeCidrs::of(&node))
        });
        nodes.collect()
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Perform(n, answer) => {
                let waiting = self.api.waiting().len();
                if waiting > 0 {
                    self.api.let_through(usize::from(*n) % waiting, *answer);
                }
            }
            Act::Round(n) => self.begin(usize::from(*n)),
            Act::CatchUp(n) => self.agents[usize::from(*n)].view = self.truth(),
            Act::Die(n) => {
                let agent = &mut self.agents[usize::from(*n)];
                if let Some(round) = agent.round.take() {
                    round.abort();
                }
                *agent = Self::agent(&self.api);
            }
            Act::Register(n) => {
                let name = NAMES[usize::from(*n)];
                if self.api.get(&format!("{NODES}{name}")).is_null() {
                    register(&self.api, name, None);
                }
            }
            Act::Delete(n) => {
                let name = NAMES[usize::from(*n)];
                self.api.delete(&format!("{NODES}{name}"));
            }
        }
        self.settle().await;
    }

    fn begin(&mut self, n: usize) {
        let agent = &mut self.agents[n];
        if agent.round.is_some() {
            return;
        }
        let mut term = std::mem::take(&mut agent.term);
        let (publisher, view) = (agent.publisher.clone(), agent.view.clone());
        let (pools, shared) = (self.pools.clone(), self.shared.clone());
        agent.round = Some(tokio::spawn(async move {
            // A failed round is tried again by another act.
            let _ = term.round(&publisher, &pools, &view, &shared).await;
            term
        }));
    }

    /// Until every agent waits for the server, or has nothing to do.
    async fn settle(&mut self) {
        for _ in 0..10_000 {
            let waiting = self.api.waiting();
            let mut busy = false;
            for agent in &mut self.agents {
                match &mut agent.round {
                    Some(round) if round.is_finished() => {
                        agent.term = agent.round.take().unwrap().await.unwrap();
                    }
                    Some(_) => busy |= !waiting.contains(&agent.client),
                    None => {}
                }
            }
            if !busy {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("an agent neither asks nor ends");
    }

    /// Two Nodes that have the same CIDR; all are of one size.
    fn overlap(&self) -> Option<String> {
        let truth = self.truth();
        let mut seen = BTreeSet::new();
        let all = truth.values().flat_map(|node| &node.cidrs);
        let twice = all
            .map(IpNetwork::to_string)
            .find(|cidr| !seen.insert(cidr.clone()));
        twice.map(|cidr| format!("{cidr} twice: {truth:?}"))
    }

    /// One agent alone, with a fresh picture, brings everything in order.
    async fn recover(&mut self) {
        for _ in 0..100 {
            self.agents[0].view = self.truth();
            self.begin(0);
            self.settle().await;
            while !self.api.waiting().is_empty() {
                self.api.let_through(0, true);
                self.settle().await;
            }
            let truth = self.truth();
            let served = truth.values().filter(|node| node.cidrs.len() == 1);
            if served.count() == truth.len().min(CIDRS) {
                return;
            }
        }
        panic!("Nodes without CIDRs: {:?}", self.truth());
    }

    /// Performs what an agent asks, until it asks this; or, if it never does, until its round is over.
    async fn perform_until(&mut self, n: usize, request: &str) {
        let client = self.agents[n].client;
        self.settle().await;
        while let Some(asked) = self.api.asked(client).filter(|asked| asked != request) {
            let index = self.api.waiting().iter().position(|c| *c == client);
            let Some(index) = index else {
                panic!("{asked}")
            };
            self.api.let_through(index, true);
            self.settle().await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn holders_at_once_never_give_out_overlapping_cidrs(acts in prop::collection::vec(act(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for act in &acts {
                world.act(act).await;
                prop_assert_eq!(world.overlap(), None);
            }
            // There is room for two of the four.
            world.recover().await;
            prop_assert_eq!(world.overlap(), None);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_patch_that_was_held_up_gives_nothing_to_the_next_node_of_that_name() {
    let mut world = World::new();
    let (a, b) = (0, 1);
    for name in ["a", "c"] {
        register(&world.api, name, None);
    }
    // A is about to give `a` the first of two CIDRs, when `a` leaves.
    world.agents[a].view = world.truth();
    world.begin(a);
    world.perform_until(a, "PATCH /api/v1/nodes/a").await;
    world.api.delete(&format!("{NODES}a"));
    register(&world.api, "b", None);
    // B gives it to `b`.
    world.agents[b].view = world.truth();
    world.begin(b);
    world.perform_until(b, "").await;
    let given = |world: &World, name: &str| {
        let cidrs = &world.truth()[name].cidrs;
        cidrs.iter().map(IpNetwork::to_string).collect::<Vec<_>>()
    };
    assert_eq!(given(&world, "b"), ["10.244.0.0/24"]);
    assert_eq!(given(&world, "c"), ["10.244.1.0/24"]);
    // `a` is there again when the patch arrives.
    register(&world.api, "a", None);
    world.perform_until(a, "").await;
    assert_eq!(world.overlap(), None);
    assert_eq!(given(&world, "a"), [""; 0]);
}
