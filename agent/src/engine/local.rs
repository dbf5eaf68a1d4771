//! The endpoints of this node and their entries in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
};

use weir_abi::endpoint::Endpoint;

use super::endpoints::{Endpoints, Key, Record};
use crate::{
    compile,
    dataplane::{
        Error,
        attach::{Attacher, Hook, Role, Side},
        endpoints::EndpointMaps,
        netns::NetnsMap,
    },
    node::sysctl,
};

/// Records, and what of them is in the kernel.
pub struct Local {
    /// What is remembered.
    pub records: Endpoints,
    maps: EndpointMaps,
    netns: NetnsMap,
    /// Whose entries and programs are in place, as last seen.
    in_place: BTreeSet<Key>,
    /// To be taken out of the kernel, then forgotten.
    leaving: BTreeSet<Key>,
    /// Entries that no record knows, whose device is there: left alone, and reported.
    orphans: BTreeMap<u32, Endpoint>,
}

impl Local {
    /// Reads the records of this boot.
    ///
    /// # Errors
    /// See [`Endpoints::load`].
    pub fn take_over(
        state_dir: &Path,
        boot_id: &str,
        maps: EndpointMaps,
        netns: NetnsMap,
        slots: u32,
    ) -> io::Result<Self> {
        let reserved = maps.by_ifindex().values().map(|e| e.slot).collect();
        let records = Endpoints::load(
            state_dir,
            boot_id,
            maps.last_incarnation(),
            slots,
            &reserved,
        )?;
        Ok(Self {
            records,
            maps,
            netns,
            in_place: BTreeSet::new(),
            leaving: BTreeSet::new(),
            orphans: BTreeMap::new(),
        })
    }

    /// Paths of the pods' network namespaces, by their cookies.
    pub fn namespaces(&self) -> HashMap<u64, String> {
        let records = self.records.iter();
        let known = records.filter_map(|(_, record)| {
            let attachment = &record.attachment;
            Some((attachment.netns_cookie?, attachment.netns.clone()?))
        });
        known.collect()
    }

    /// Whether the endpoint's entries and programs are in place.
    pub fn is_in_place(&self, key: &Key) -> bool {
        self.in_place.contains(key)
    }

    /// Marks an endpoint to be removed; false if there is none.
    pub fn leave(&mut self, key: &Key) -> bool {
        let known = self.records.get(key).is_some();
        if known {
            self.leaving.insert(key.clone());
            self.in_place.remove(key);
        }
        known
    }

    /// Whether the endpoint is on its way out.
    pub fn is_leaving(&self, key: &Key) -> bool {
        self.leaving.contains(key)
    }

    /// Marks every endpoint whose device is gone.
    pub fn drop_without_device(&mut self, has_device: impl Fn(u32, &str) -> bool) {
        let gone: Vec<Key> = self
            .records
            .iter()
            .filter(|(_, r)| !has_device(r.attachment.host_ifindex, &r.attachment.host_ifname))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if !self.is_leaving(&key) {
                tracing::info!(
                    container = key.0,
                    interface = key.1,
                    "device gone, endpoint goes"
                );
                self.leave(&key);
            }
        }
    }

    /// Takes out of the kernel what leaves; returns the slots that are free now.
    pub fn remove_leaving(&mut self, attacher: &Attacher, problems: &mut Vec<String>) -> Vec<u32> {
        let mut slots = Vec::new();
        for key in self.leaving.clone() {
            let Some(record) = self.records.get(&key).cloned() else {
                self.leaving.remove(&key);
                continue;
            };
            match self.take_out(&record, attacher) {
                Ok(()) => match self.records.forget(&key) {
                    Ok(()) => {
                        self.leaving.remove(&key);
                        slots.push(record.slot);
                    }
                    Err(e) => problems.push(e.to_string()),
                },
                Err(e) => problems.push(e.to_string()),
            }
        }
        slots
    }

    /// In reverse of [`Local::put_in`].
    fn take_out(&mut self, record: &Record, attacher: &Attacher) -> Result<(), Error> {
        if let Ok(entry) = entry(record) {
            self.maps.remove_addresses(&entry)?;
            self.set_netns(record)?;
            for hook in hooks(record) {
                attacher.detach_hook(&hook)?;
            }
            self.maps.remove_device(&entry)?;
        }
        Ok(())
    }

    /// Makes the socket hooks know whose the endpoint's namespace is, among those that stay.
    fn set_netns(&mut self, record: &Record) -> Result<(), Error> {
        let Some(cookie) = record.attachment.netns_cookie else {
            return Ok(());
        };
        let stay = self.records.iter().filter(|(key, _)| !self.is_leaving(key));
        let owner = compile::netns::pod(cookie, stay.map(|(_, r)| &r.attachment));
        self.netns.set(cookie, owner)
    }

    /// Puts an endpoint into the kernel, after its policy: device, programs, namespace, addresses.
    ///
    /// # Errors
    /// The first step that fails; the later ones are not done then.
    pub fn put_in(&mut self, key: &Key, attacher: &Attacher) -> Result<(), String> {
        let Some(record) = self.records.get(key).cloned() else {
            return Ok(());
        };
        let entry = entry(&record)?;
        self.in_place.remove(key);
        self.maps.set_device(&entry).map_err(|e| e.to_string())?;
        let device = &record.attachment.host_ifname;
        sysctl::endpoint_device(&mut sysctl::Kernel, device).map_err(|e| e.to_string())?;
        for hook in hooks(&record) {
            attacher
                .ensure(&hook)
                .and_then(|_| attacher.check(&hook))
                .map_err(|e| e.to_string())?;
        }
        self.set_netns(&record).map_err(|e| e.to_string())?;
        self.maps.set_addresses(&entry).map_err(|e| e.to_string())?;
        self.in_place.insert(key.clone());
        Ok(())
    }

    /// Removes leftovers in the kernel that no record knows, where their device is gone; what has
    /// its device still works as it was last programmed, and is reported.
    pub fn sweep(
        &mut self,
        attacher: &Attacher,
        has_index: impl Fn(u32) -> bool,
        problems: &mut Vec<String>,
    ) {
        let known: BTreeSet<u32> = self.records.iter().map(|(_, r)| r.incarnation).collect();
        self.orphans.clear();
        for stranger in self
            .maps
            .strangers(|incarnation| known.contains(&incarnation))
        {
            if has_index(stranger.ifindex) {
                problems.push(format!(
                    "interface {} ({}): an endpoint that {} does not know: make its pod anew",
                    stranger.ifindex,
                    compile::endpoint::addresses(&stranger)
                        .map(|a| a.to_ip().to_string())
                        .collect::<Vec<_>>()
                        .join(", "),
                    "endpoints.json",
                ));
                self.orphans.insert(stranger.ifindex, stranger);
                continue;
            }
            let removed = self
                .maps
                .remove_addresses(&stranger)
                .and_then(|()| self.maps.remove_device(&stranger));
            problems.extend(removed.err().map(|e| e.to_string()));
        }
        problems.extend(self.sweep_netns().err().map(|e| e.to_string()));
        self.sweep_links(attacher, problems);
    }

    /// Removes the namespaces of neither a record nor a leftover whose device is there.
    fn sweep_netns(&mut self) -> Result<(), Error> {
        let cookies = self.records.iter().map(|(_, r)| r.attachment.netns_cookie);
        let known: BTreeSet<u64> = cookies.flatten().collect();
        let orphans: Vec<Endpoint> = self.orphans.values().copied().collect();
        self.netns.retain(|cookie, owner| {
            let same = |e: &Endpoint| (e.addr4, e.addr6) == (owner.addr4, owner.addr6);
            known.contains(&cookie) || orphans.iter().any(same)
        })
    }

    fn sweep_links(&self, attacher: &Attacher, problems: &mut Vec<String>) {
        let mut wanted: BTreeSet<String> = self
            .records
            .iter()
            .flat_map(|(_, r)| hooks(r))
            .map(|h| h.link())
            .collect();
        for ifindex in self.orphans.keys() {
            wanted.extend(["in", "out"].map(|side| format!("ep-{ifindex}-{side}")));
        }
        for link in attacher.pinned().unwrap_or_default() {
            if link.starts_with("ep-") && !wanted.contains(&link) {
                problems.extend(attacher.detach(&link).err().map(|e| e.to_string()));
            }
        }
    }

    /// Which endpoint has the address, other than `key`.
    pub fn other_owner(&self, key: &Key, address: std::net::IpAddr) -> Option<&Record> {
        let owns = |r: &Record| r.attachment.addresses.contains(&address);
        self.records
            .iter()
            .find(|(other, r)| *other != key && !self.leaving.contains(*other) && owns(r))
            .map(|(_, r)| r)
    }
}

fn entry(record: &Record) -> Result<Endpoint, String> {
    compile::endpoint::entry(&record.attachment, record.slot, record.incarnation)
}

/// The hooks of an endpoint's device.
pub fn hooks(record: &Record) -> [Hook; 2] {
    [Side::In, Side::Out].map(|side| Hook {
        ifindex: record.attachment.host_ifindex,
        ifname: record.attachment.host_ifname.clone(),
        role: Role::Endpoint,
        side,
    })
}
