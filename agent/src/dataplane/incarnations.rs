//! `INCARNATIONS`, mapped into memory: what the programs' short way knows of pods.
//!
//! An element is an endpoint of which everything else is in place. It is given to another one only by way of
//! incarnation 0, so that a program that has read an incarnation before and after the rest has read one
//! endpoint's.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use weir_abi::{endpoint::Endpoint, map};
use weir_net::bpf::MappedArray;

use super::{
    Error,
    pins::Pins,
    table::{self, Writes},
};

/// 8-byte words of an element.
const WORDS: usize = size_of::<Endpoint>() / 8;
/// The word that has the incarnation.
const INCARNATION: usize = std::mem::offset_of!(Endpoint, incarnation) / 8;

const _: () = assert!(size_of::<Endpoint>().is_multiple_of(8));

/// The mapped array.
pub struct Incarnations {
    array: MappedArray,
    writes: Writes,
}

impl Incarnations {
    /// Maps the pinned array and removes what is not in `endpoints` as it is: the agent may have ended between
    /// two writes.
    ///
    /// # Errors
    /// It is not pinned, or was not made with `BPF_F_MMAPABLE`.
    pub fn open(
        pins: &Pins,
        writes: &Writes,
        endpoints: &HashMap<u32, Endpoint>,
    ) -> Result<Self, Error> {
        let (data, _) = table::open(pins, map::INCARNATIONS)?;
        let array = MappedArray::new(data.fd().as_fd())
            .map_err(|e| Error::pin(pins.map(map::INCARNATIONS), e))?;
        let mut incarnations = Self {
            array,
            writes: writes.clone(),
        };
        let right: HashMap<u32, [u64; WORDS]> = endpoints
            .values()
            .map(|e| (Endpoint::place(e.incarnation), words(e)))
            .collect();
        for place in 0..incarnations.array.entries() {
            let there = incarnations.get(place);
            if there != [0; WORDS] && right.get(&place) != Some(&there) {
                incarnations.clear(place)?;
            }
        }
        Ok(incarnations)
    }

    /// Lets packets of established flows come from and go to an endpoint: after all else of it.
    ///
    /// # Errors
    /// The array is shorter than the programs' is.
    pub fn add(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let (place, new) = (Endpoint::place(endpoint.incarnation), words(endpoint));
        if self.get(place) == new {
            return Ok(());
        }
        self.clear(place)?;
        let rest = new.iter().enumerate().filter(|(i, _)| *i != INCARNATION);
        for (word, value) in rest {
            self.set(place, word, *value)?;
        }
        self.set(place, INCARNATION, new[INCARNATION])
    }

    /// Ends that: before all else of the endpoint.
    ///
    /// # Errors
    /// As for [`Incarnations::add`].
    pub fn remove(&mut self, incarnation: u32) -> Result<(), Error> {
        let place = Endpoint::place(incarnation);
        if incarnation_of(&self.get(place)) == incarnation {
            self.clear(place)?;
        }
        Ok(())
    }

    fn clear(&mut self, place: u32) -> Result<(), Error> {
        self.set(place, INCARNATION, 0)?;
        (0..WORDS).try_for_each(|word| self.set(place, word, 0))
    }

    /// An element; zeros outside the array.
    fn get(&self, place: u32) -> [u64; WORDS] {
        std::array::from_fn(|word| self.array.get(place, word as u32).unwrap_or(0))
    }

    fn set(&mut self, place: u32, word: usize, value: u64) -> Result<(), Error> {
        self.writes.count();
        if self.array.set(place, word as u32, value) {
            return Ok(());
        }
        Err(Error::Full {
            map: map::INCARNATIONS,
            size: self.array.entries(),
        })
    }
}

/// An endpoint as it stands in the map.
fn words(endpoint: &Endpoint) -> [u64; WORDS] {
    let Endpoint {
        addr4,
        addr6,
        ifindex,
        slot,
        incarnation,
        flags,
        pod_mac,
        host_mac,
        mtu,
    } = *endpoint;
    let pair = |a: u32, b: u32| {
        let ([a, b, c, d], [e, f, g, h]) = (a.to_ne_bytes(), b.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    let [[a, b, c, d], [e, f, g, h]] = [addr4.0, addr6.0];
    let [p, q, r, s, t, u] = pod_mac;
    let [v, w, x, y, z, end] = host_mac;
    [
        pair(a, b),
        pair(c, d),
        pair(e, f),
        pair(g, h),
        pair(ifindex, slot),
        pair(incarnation, flags),
        u64::from_ne_bytes([p, q, r, s, t, u, v, w]),
        pair(u32::from_ne_bytes([x, y, z, end]), mtu),
    ]
}

fn incarnation_of(words: &[u64; WORDS]) -> u32 {
    let [a, b, c, d, ..] = words[INCARNATION].to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
