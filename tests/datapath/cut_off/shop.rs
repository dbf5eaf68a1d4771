//! A small shop, and every kind of change that can be made to it.

use serde_json::{Value, json};
use weir_policy::{LocalEndpoint, ObjectName, PodRef};
use weir_worlds::World;

fn pod(world: &mut World, namespace: &str, name: &str, node: u8, number: u8, labels: &Value) {
    let addresses = [
        format!("10.{node}.0.{number}"),
        format!("fd00:{node}::{number:x}"),
    ];
    let object = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": labels},
        "spec": {"nodeName": format!("n{node}"), "containers": [
            {"name": "c", "ports": [{"name": "sql", "containerPort": 5432}]},
        ]},
        "status": {"phase": "Running", "podIPs": addresses.clone().map(|ip| json!({"ip": ip}))},
    });
    world.pods.insert((namespace.into(), name.into()), object);
    if node == 1 {
        let endpoint = LocalEndpoint {
            slot: number.into(),
            pod: Some(PodRef {
                name: ObjectName::new(namespace, name),
                uid: Some(name.into()),
            }),
            addresses: addresses.map(|a| a.parse().unwrap()).to_vec(),
        };
        world.endpoints.insert(number.into(), endpoint);
    }
}

fn policy(world: &mut World, namespace: &str, name: &str, spec: Value) {
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    world
        .policies
        .insert((namespace.into(), name.into()), object);
}

fn namespace(world: &mut World, name: &str, team: &str) {
    let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
    world.namespaces.insert(name.into(), object);
}

/// Two databases that share their groups, a web server, and clients near and far.
pub fn shop() -> World {
    let mut world = World::default();
    for i in [1, 2] {
        let object = json!({
            "metadata": {"name": format!("n{i}")},
            "spec": {"podCIDRs": [format!("10.{i}.0.0/24"), format!("fd00:{i}::/64")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.0.{i}")}]},
        });
        world.nodes.insert(format!("n{i}"), object);
    }
    namespace(&mut world, "shop", "a");
    namespace(&mut world, "other", "b");
    pod(&mut world, "shop", "db0", 1, 10, &json!({"app": "db"}));
    pod(&mut world, "shop", "db1", 1, 11, &json!({"app": "db"}));
    pod(&mut world, "shop", "web", 1, 12, &json!({"app": "web"}));
    pod(
        &mut world,
        "shop",
        "api",
        2,
        13,
        &json!({"app": "api", "tier": "back"}),
    );
    pod(
        &mut world,
        "shop",
        "old",
        2,
        14,
        &json!({"app": "api", "tier": "front"}),
    );
    pod(&mut world, "other", "job", 2, 15, &json!({"app": "job"}));
    let db = json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "api"}}}],
             "ports": [{"port": "sql"}, {"port": 6000, "endPort": 6010}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}], "ports": [{"port": 80}]},
        ],
        "egress": [{
            "to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
                   {"ipBlock": {"cidr": "2001:db8::/32"}}],
        }],
    });
    policy(&mut world, "shop", "db", db);
    world
}

/// Every kind of change, made to the shop.
pub fn changes() -> Vec<(&'static str, World)> {
    let mut all = Vec::new();
    let mut add = |name, change: &dyn Fn(&mut World)| {
        let mut world = shop();
        change(&mut world);
        all.push((name, world));
    };
    let key = || ("shop".to_owned(), "db".to_owned());
    let spec = |world: &mut World, path: &str, value: Value| {
        let object = world.policies.get_mut(&key()).unwrap();
        *object["spec"].pointer_mut(path).unwrap() = value;
    };
    add("a policy's ports", &|world| {
        spec(
            world,
            "/ingress/0/ports",
            json!([{"protocol": "UDP", "port": 53}, {"port": 80}]),
        );
    });
    add("a policy's rules, in another order", &|world| {
        let rules = world.policies[&key()]["spec"]["ingress"].clone();
        spec(world, "/ingress", json!([rules[1], rules[0]]));
    });
    add("a selector that splits a class", &|world| {
        let labels = json!({"matchLabels": {"app": "api", "tier": "back"}});
        spec(world, "/ingress/0/from/0/podSelector", labels);
    });
    add("a selector that merges classes", &|world| {
        spec(world, "/ingress/0/from/0", json!({"namespaceSelector": {}}));
    });
    add("a block and its excepts", &|world| {
        let block = json!({"cidr": "192.0.0.0/16", "except": ["192.0.2.0/26", "192.0.2.192/26"]});
        spec(world, "/egress/0/to/0/ipBlock", block);
        spec(
            world,
            "/egress/0/to/1/ipBlock",
            json!({"cidr": "2001:db8::4/126"}),
        );
    });
    add("a peer's label", &|world| {
        pod(world, "shop", "api", 2, 13, &json!({"app": "x"}))
    });
    add("an endpoint's label", &|world| {
        pod(world, "shop", "db1", 1, 11, &json!({"app": "x"}))
    });
    add("an endpoint that joins a group", &|world| {
        pod(world, "shop", "web", 1, 12, &json!({"app": "db"}));
        pod(world, "shop", "api", 2, 13, &json!({"app": "x"}));
    });
    add("a namespace's label", &|world| {
        namespace(world, "other", "c")
    });
    add("a pod that comes", &|world| {
        pod(world, "shop", "new", 2, 16, &json!({"app": "api"}))
    });
    add("a pod that goes", &|world| {
        drop(world.pods.remove(&("shop".into(), "old".into())))
    });
    add("isolation of another pod", &|world| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"tier": "front"}}}]}]});
        policy(world, "shop", "web", spec);
    });
    add("isolation that ends", &|world| {
        drop(world.policies.remove(&key()))
    });
    add("one direction's isolation alone", &|world| {
        spec(world, "/policyTypes", json!(["Ingress"]))
    });
    all
}
