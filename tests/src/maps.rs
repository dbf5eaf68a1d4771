//! Everything that Weir's maps hold, byte by byte, to show that something has left no trace.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use weir_abi::conntrack::{CtEntry, CtKey};
use weir_abi::endpoint::Endpoint;
use weir_abi::fragment::{FragmentEntry, FragmentKey};
use weir_abi::map::WORKING_MEMORY;
use weir_abi::node::{NetnsOwner, NodeAddr, NodeCidr, UplinkInfo};
use weir_abi::policy::{ClassId, Decision, DecisionKey, IdKey, Interval, RuleId, RuleInfo};
use weir_abi::service::{Affinity, AffinityKey, Service, ServiceKey};
use weir_abi::sock::{SockAddr, SockConn, SockKey, UdpFlow};
use weir_abi::{Addr, map};
use weir_net::bpf::MappedArray;

/// A map's entries; of arrays those that are not zero.
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// All maps' content, by name.
pub type Snapshot = BTreeMap<String, Content>;

/// What the maps below a folder of pins hold.
///
/// # Errors
/// A map cannot be read, or is of a kind that this does not know.
pub fn pinned(maps: &Path) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for entry in std::fs::read_dir(maps).with_context(|| maps.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let map = Map::from_map_data(MapData::from_pin(&path)?)?;
        if let Some(content) = content(&name, &map)? {
            snapshot.insert(name.into_owned(), content);
        }
    }
    Ok(snapshot)
}

/// What a map holds; nothing for the programs' working memory and their own data.
///
/// # Errors
/// It cannot be read, or nobody has told of what types it is: a map that is new belongs here.
pub fn content(name: &str, map: &Map) -> Result<Option<Content>> {
    if WORKING_MEMORY.contains(&name) || name.starts_with('.') {
        return Ok(None);
    }
    let content = match name {
        map::ENDPOINTS => hash::<u32, Endpoint>(map),
        map::LOCAL_PODS => hash::<Addr, Endpoint>(map),
        map::POLICY_SLOTS | map::INCARNATIONS => mapped(map),
        map::PEERS => hash::<Addr, ClassId>(map),
        map::CIDRS => trie::<20, ClassId>(map),
        map::DECISIONS => hash::<DecisionKey, Decision>(map),
        map::INTERVALS => array::<Interval>(map),
        map::RULES => hash::<RuleId, RuleInfo>(map),
        map::IDS => hash::<IdKey, u32>(map),
        map::NODE_ADDRS => hash::<Addr, NodeAddr>(map),
        map::NODE_CIDRS => trie::<20, NodeCidr>(map),
        map::SERVICES => hash::<ServiceKey, Service>(map),
        map::SLOTS => mapped(map),
        map::BACKENDS => mapped(map),
        map::SOURCE_RANGES => trie::<24, u32>(map),
        map::AFFINITY => hash::<AffinityKey, Affinity>(map),
        map::UPLINKS => hash::<u32, UplinkInfo>(map),
        map::NETNS => hash::<u64, NetnsOwner>(map),
        map::CONFIG => array::<u64>(map),
        map::COUNTERS | map::ANSWERS => per_cpu(map),
        map::SOCK_CONNS => hash::<u64, SockConn>(map),
        map::UDP_FLOWS => hash::<SockKey, UdpFlow>(map),
        map::UDP_REVS => hash::<SockKey, SockAddr>(map),
        map::CT_NEW | map::CT_EST => hash::<CtKey, CtEntry>(map),
        map::FRAGMENTS => hash::<FragmentKey, FragmentEntry>(map),
        other => bail!("{other}: its types are not listed in tests/src/maps.rs"),
    };
    content.with_context(|| format!("map {name}")).map(Some)
}

fn hash<K: Pod, V: Pod>(map: &Map) -> Result<Content> {
    let map: HashMap<_, K, V> = HashMap::try_from(map)?;
    map.iter()
        .map(|entry| entry.map(|(key, value)| (bytes(&key), bytes(&value))))
        .collect::<Result<_, _>>()
        .map_err(Into::into)
}

fn trie<const KEY: usize, V: Pod>(map: &Map) -> Result<Content> {
    let map: LpmTrie<_, [u8; KEY], V> = LpmTrie::try_from(map)?;
    let mut content = Content::new();
    for entry in map.iter() {
        let (key, value) = entry?;
        let mut name = key.prefix_len().to_be_bytes().to_vec();
        name.extend(key.data());
        content.insert(name, bytes(&value));
    }
    Ok(content)
}

fn array<V: Pod>(map: &Map) -> Result<Content> {
    let map: Array<_, V> = Array::try_from(map)?;
    let mut content = Content::new();
    for index in 0..map.len() {
        let value = bytes(&map.get(&index, 0)?);
        if value.iter().any(|byte| *byte != 0) {
            content.insert(index.to_be_bytes().to_vec(), value);
        }
    }
    Ok(content)
}

/// The same of a large array that can be mapped: without a system call for each element.
fn mapped(map: &Map) -> Result<Content> {
    let Map::Array(data) = map else {
        bail!("not an array");
    };
    let words = data.info()?.value_size() / 8;
    let map = MappedArray::new(data.fd().as_fd())?;
    let mut content = Content::new();
    for index in 0u32..map.entries() {
        let value = (0..words).map(|word| map.get(index, word).unwrap_or_default());
        let value: Vec<u8> = value.flat_map(u64::to_ne_bytes).collect();
        if value.iter().any(|byte| *byte != 0) {
            content.insert(index.to_be_bytes().to_vec(), value);
        }
    }
    Ok(content)
}

fn per_cpu(map: &Map) -> Result<Content> {
    let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
    let mut content = Content::new();
    for index in 0..map.len() {
        let values = map.get(&index, 0)?;
        let bytes = values.iter().flat_map(|value| value.to_ne_bytes());
        content.insert(index.to_be_bytes().to_vec(), bytes.collect());
    }
    Ok(content)
}

fn bytes<T: Pod>(value: &T) -> Vec<u8> {
    let from = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: plain old data without padding (the ABI's layout tests), valid for its whole size.
    unsafe { std::slice::from_raw_parts(from, size_of::<T>()) }.to_vec()
}
