//! All objects, by key.

use std::collections::BTreeSet;
use std::ops::Bound;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};

use crate::refill::Refill as _;

use super::{ByKey, Change, Kept, Kind, Named, Object, ObjectKey};

/// All objects, by key.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeSet<ByKey>,
}

impl Store {
    /// Takes a change in; false when it changes nothing.
    pub fn apply<O: Into<Kept>>(&mut self, change: Change<O>) -> bool {
        match change {
            Change::Apply(object) => {
                let object = ByKey(object.into());
                let is_new = self.objects.get(&object).map(|old| &old.0) != Some(&object.0);
                if is_new {
                    self.objects.replace(object);
                }
                is_new
            }
            Change::Delete(key) => self.objects.remove(&key as &dyn Named),
        }
    }

    /// Takes less memory from now on, after many objects were taken in.
    pub fn refill(&mut self) {
        self.objects.refill();
    }

    /// Every object, sorted by kind, namespace, name.
    pub fn iter(&self) -> impl Iterator<Item = Object> {
        self.objects.iter().map(|kept| kept.0.clone().unpack())
    }

    /// Every object of one kind that is not packed (see [`Kept`]), sorted by namespace and name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.range(kind).filter_map(Kept::plain)
    }

    fn range(&self, kind: Kind) -> impl Iterator<Item = &Kept> {
        let first = ObjectKey {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        let first: Bound<&dyn Named> = Bound::Included(&first);
        let from = self
            .objects
            .range::<dyn Named, _>((first, Bound::Unbounded));
        from.map(|object| &object.0)
            .take_while(move |object| object.parts().0 == kind)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects of one kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.range(kind).count()
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        Some(self.find(key)?.clone().unpack())
    }

    fn find(&self, key: &ObjectKey) -> Option<&Kept> {
        Some(&self.objects.get(key as &dyn Named)?.0)
    }

    /// A Pod by name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        let key = ObjectKey {
            kind: Kind::Pod,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match self.find(&key)? {
            Kept::Pod(pod) => Some(pod.unpack()),
            _ => None,
        }
    }

    /// Every Pod, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = Pod> {
        self.range(Kind::Pod).filter_map(|kept| match kept {
            Kept::Pod(pod) => Some(pod.unpack()),
            _ => None,
        })
    }

    /// A Namespace by name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        let key = ObjectKey {
            kind: Kind::Namespace,
            namespace: String::new(),
            name: name.to_owned(),
        };
        match self.find(&key)?.plain()? {
            Object::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }

    /// Every Node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.of(Kind::Node).filter_map(|object| match object {
            Object::Node(node) => Some(&**node),
            _ => None,
        })
    }

    /// All objects as one `kind: List`, as `kubectl get -o json` gives it.
    pub fn to_list(&self) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": self.iter().map(|object| object.to_json()).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn pod(ns: Option<&str>, name: &str, phase: &str) -> Object {
        Object::Pod(object(serde_json::json!({
            "metadata": {"namespace": ns, "name": name}, "status": {"phase": phase},
        })))
    }

    #[test]
    fn an_equal_object_changes_nothing() {
        let mut store = Store::default();
        assert!(store.apply(Change::Apply(pod(None, "a", "Running"))));
        assert!(!store.apply(Change::Apply(pod(None, "a", "Running"))));
        assert!(store.apply(Change::Apply(pod(None, "a", "Failed"))));
        let key = pod(None, "a", "").key();
        assert!(store.apply(Change::<Object>::Delete(key.clone())));
        assert!(!store.apply(Change::<Object>::Delete(key)));
    }

    #[test]
    fn services_are_counted_listed_and_given_as_they_were() {
        let mut store = Store::default();
        let service: k8s_openapi::api::core::v1::Service = object(serde_json::json!({
            "metadata": {"namespace": "shop", "name": "web"}, "spec": {"clusterIP": "10.96.0.1"},
        }));
        let service = Object::Service(Box::new(service));
        assert!(store.apply(Change::Apply(service.clone())));
        assert!(!store.apply(Change::Apply(service.clone())));
        assert_eq!((store.count(Kind::Service), store.len()), (1, 1));
        assert_eq!(store.get(&service.key()), Some(service.clone()));
        assert_eq!(store.to_list()["items"][0], service.to_json());
    }

    #[test]
    fn an_object_without_a_namespace_is_in_default() {
        let mut store = Store::default();
        store.apply(Change::Apply(pod(None, "a", "Running")));
        assert!(store.pod("default", "a").is_some());
    }

    #[test]
    fn kinds_are_told_apart_and_listed_with_their_kind() {
        let mut store = Store::default();
        let namespace: Namespace = object(serde_json::json!({"metadata": {"name": "a"}}));
        store.apply(Change::Apply(Object::Namespace(Box::new(namespace))));
        store.apply(Change::Apply(pod(Some("z"), "a", "Running")));
        assert_eq!(
            (store.count(Kind::Namespace), store.count(Kind::Pod)),
            (1, 1)
        );
        assert_eq!(store.count(Kind::Service), 0);
        let list = store.to_list();
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"][0]["kind"], "Namespace");
        assert_eq!(list["items"][1]["kind"], "Pod");
        assert_eq!(list["items"][1]["apiVersion"], "v1");
    }

    #[test]
    fn a_cluster_policy_has_no_namespace_and_is_listed_with_its_version() {
        let mut store = Store::default();
        let policy = object(serde_json::json!({
            "metadata": {"namespace": "x", "name": "lock"}, "spec": {"tier": "Admin"},
        }));
        let policy = Object::ClusterNetworkPolicy(Box::new(policy));
        assert_eq!(policy.key().to_string(), "ClusterNetworkPolicy lock");
        store.apply(Change::Apply(policy));
        assert_eq!(store.count(Kind::ClusterNetworkPolicy), 1);
        assert_eq!(store.count(Kind::NetworkPolicy), 0);
        let item = &store.to_list()["items"][0];
        assert_eq!(item["apiVersion"], "policy.networking.k8s.io/v1alpha2");
        assert_eq!(item["kind"], "ClusterNetworkPolicy");
        assert_eq!(item["spec"]["tier"], "Admin");
    }
}
