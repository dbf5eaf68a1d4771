//! What the store holds, and the choice of addresses: pure, no I/O.

use std::{collections::HashSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::range::Pool;
use crate::error::{CniError, Code, Result};

/// An address that was freed comes back only after all others of its pool, or after this many
/// others, were freed since. (Without the limit a pool of 2^64 addresses would be remembered one by
/// one for ever.)
const REMEMBERED: usize = 1024;

/// Names an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The network's `name`.
    pub network: String,
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// An attachment and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Whose.
    #[serde(flatten)]
    pub key: Key,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The host side of the veth pair, which is made after this record and removed before it.
    pub host_ifname: String,
    /// The boot it was made in: after another one, nothing of the attachment is left.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// Tells a record from a later one of the same key.
    pub serial: u64,
    /// `namespace/name` of the Pod, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The whole store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Layout of the file.
    pub version: u32,
    /// The last record's.
    pub serial: u64,
    /// Attachments, sorted by key.
    pub records: Vec<Record>,
    /// Addresses that were freed and not given out since, the longest free first.
    pub freed: Vec<IpAddr>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            serial: 0,
            records: Vec::new(),
            freed: Vec::new(),
        }
    }
}

/// An attachment that wants addresses.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose.
    pub key: Key,
    /// One address of each of these.
    pub pools: &'a [Pool],
    /// Addresses that were asked for by value.
    pub wanted: &'a [IpAddr],
    /// See [`Record::host_ifname`].
    pub host_ifname: String,
    /// See [`Record::boot_id`].
    pub boot_id: String,
    /// See [`Record::pod`].
    pub pod: Option<String>,
}

impl State {
    /// Layout of the file that this release writes.
    pub const VERSION: u32 = 1;

    /// The record of an attachment.
    pub fn find(&self, key: &Key) -> Option<&Record> {
        self.records.iter().find(|record| record.key == *key)
    }

    /// Gives an attachment an address of each pool. Records of other boots are dropped first.
    pub fn allocate(&mut self, request: &Request<'_>) -> Result<Record> {
        self.drop_other_boots(&request.boot_id);
        if let Some(record) = self.find(&request.key) {
            let Key {
                network,
                container_id,
                ifname,
            } = &record.key;
            let msg = format!(
                "{container_id}/{ifname} is attached to network {network} already; DEL it first"
            );
            return Err(CniError::new(Code::AlreadyAttached, msg));
        }
        let used: HashSet<IpAddr> = self
            .records
            .iter()
            .flat_map(|record| record.addresses.iter().copied())
            .collect();
        check_wanted(request.wanted, request.pools, &used)?;
        let mut addresses = Vec::with_capacity(request.pools.len());
        for pool in request.pools {
            let wanted = request
                .wanted
                .iter()
                .copied()
                .find(|address| pool.contains(*address));
            let address = wanted.or_else(|| self.choose(pool, &used));
            addresses.push(address.ok_or_else(|| exhausted(pool, &used))?);
        }
        self.freed.retain(|address| !addresses.contains(address));
        self.serial += 1;
        let record = Record {
            key: request.key.clone(),
            addresses,
            host_ifname: request.host_ifname.clone(),
            boot_id: request.boot_id.clone(),
            serial: self.serial,
            pod: request.pod.clone(),
        };
        self.records.push(record.clone());
        self.records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(record)
    }

    /// The longest free address: one that was never used, else the one that was freed first.
    fn choose(&self, pool: &Pool, used: &HashSet<IpAddr>) -> Option<IpAddr> {
        let usable = |address: &&IpAddr| pool.contains(**address) && !used.contains(address);
        let freed: HashSet<IpAddr> = self.freed.iter().filter(usable).copied().collect();
        let fresh = || {
            pool.iter()
                .find(|address| !used.contains(address) && !freed.contains(address))
        };
        let oldest = || self.freed.iter().find(usable).copied();
        if freed.len() >= REMEMBERED {
            oldest()
        } else {
            fresh().or_else(oldest)
        }
    }

    /// Frees an attachment's addresses; none if there is no record.
    pub fn release(&mut self, key: &Key) -> Option<Record> {
        let at = self.records.iter().position(|record| record.key == *key)?;
        let record = self.records.remove(at);
        self.freed
            .retain(|address| !record.addresses.contains(address));
        self.freed.extend(&record.addresses);
        Some(record)
    }

    /// Drops the records of other boots: namespaces and links do not outlive the kernel.
    fn drop_other_boots(&mut self, boot_id: &str) {
        let stale: Vec<Key> = self
            .records
            .iter()
            .filter(|record| record.boot_id != boot_id)
            .map(|record| record.key.clone())
            .collect();
        for key in stale {
            self.release(&key);
        }
    }

    /// The first pool without a free address, and the error that says so. Records of other boots
    /// do not count.
    pub fn check_room(&self, pools: &[Pool], boot_id: &str) -> Result<()> {
        let live = self
            .records
            .iter()
            .filter(|record| record.boot_id == boot_id);
        let used: HashSet<IpAddr> = live.flat_map(|r| r.addresses.iter().copied()).collect();
        for pool in pools {
            if used_of(pool, &used) >= pool.len() {
                return Err(exhausted(pool, &used));
            }
        }
        Ok(())
    }

    /// Whether it is what only this program writes: no key and no address twice.
    pub fn validate(&self) -> Result<(), String> {
        if self.version != Self::VERSION {
            let (own, theirs) = (Self::VERSION, self.version);
            return Err(format!(
                "its version is {theirs}, and this release reads {own}"
            ));
        }
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        for record in &self.records {
            if !keys.insert(&record.key) {
                return Err(format!("two records of {:?}", record.key));
            }
            if let Some(twice) = record
                .addresses
                .iter()
                .find(|address| !addresses.insert(**address))
            {
                return Err(format!("address {twice} stands in two records"));
            }
        }
        Ok(())
    }
}

fn check_wanted(wanted: &[IpAddr], pools: &[Pool], used: &HashSet<IpAddr>) -> Result<()> {
    for (at, address) in wanted.iter().enumerate() {
        if !pools.iter().any(|pool| pool.contains(*address)) {
            let pools = pools
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let msg = format!("the address asked for, {address}, is not in {pools}");
            return Err(CniError::new(Code::InvalidConfig, msg));
        }
        if let Some(other) = wanted[..at]
            .iter()
            .find(|o| o.is_ipv4() == address.is_ipv4())
        {
            let msg =
                format!("{other} and {address} are asked for, and a pod gets one of a family");
            return Err(CniError::new(Code::InvalidConfig, msg));
        }
        if used.contains(address) {
            let msg = format!("the address asked for, {address}, is in use");
            return Err(CniError::new(Code::AddressInUse, msg));
        }
    }
    Ok(())
}

fn used_of(pool: &Pool, used: &HashSet<IpAddr>) -> u128 {
    used.iter()
        .filter(|address| pool.contains(**address))
        .count() as u128
}

fn exhausted(pool: &Pool, used: &HashSet<IpAddr>) -> CniError {
    let (family, size, in_use) = (pool.family(), pool.len(), used_of(pool, used));
    let msg = format!("no free {family} address: {in_use} of {size} in use in {pool}");
    CniError::new(Code::Exhausted, msg)
        .details("delete pods, run GC if the runtime lost track of some, or enlarge the range")
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
