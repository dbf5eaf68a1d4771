//! What counts of the objects, as it is kept: a few bytes for each field, in one piece. A cluster has
//! many objects, and each is looked at only when it or its neighbours change.

use std::marker::PhantomData;
use std::net::IpAddr;

use weir_abi::service::RangeKey;
use weir_abi::{Addr, Proto};

use super::service::ServiceType;
use super::{
    NodeHint, ParsedEndpoint, ParsedService, ParsedSlice, Port, Problem, Readiness, ServiceName,
    ServicePort, TrafficPolicy,
};

/// A value in compact form. Two are equal if their values are.
#[derive(Debug)]
pub(in super::super) struct Compact<T> {
    bytes: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> PartialEq for Compact<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T: Field> Compact<T> {
    /// Packs a value.
    pub fn new(value: &T) -> Self {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        Self {
            bytes: bytes.into(),
            of: PhantomData,
        }
    }

    /// The value.
    pub fn get(&self) -> T {
        T::take(&mut &*self.bytes)
    }
}

/// Something that can be written behind other bytes, and read from there again.
pub(in super::super) trait Field {
    /// Writes it behind.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it, and goes on behind it. `from` begins with what [`Field::put`] has written; of any
    /// other bytes it makes something.
    fn take(from: &mut &[u8]) -> Self;
}

/// The first bytes; zeros where there are none.
fn array<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    match from.split_first_chunk() {
        Some((first, rest)) => {
            *from = rest;
            *first
        }
        None => {
            *from = &[];
            [0; N]
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn take(from: &mut &[u8]) -> Self {
                Self::from_le_bytes(array(from))
            }
        }
    )*};
}

numbers!(u8, u16, u32, i64);

/// All fields of a struct, in this order.
macro_rules! fields {
    ($name:ty { $($field:ident),* }) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(from: &mut &[u8]) -> Self {
                Self { $($field: Field::take(from)),* }
            }
        }
    };
}

/// All values of an enum; each is written as its place among them.
macro_rules! values {
    ($name:ident: $first:ident $(, $value:ident)*) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }
            fn take(from: &mut &[u8]) -> Self {
                match u8::take(from) {
                    $(value if value == Self::$value as u8 => Self::$value,)*
                    _ => Self::$first,
                }
            }
        }
    };
}

values!(ServiceType: ClusterIp, NodePort, LoadBalancer);
values!(TrafficPolicy: Cluster, Local);
values!(NodeHint: None, Others, This);
values!(Readiness: NotReady, Terminating, Ready);

fields!(ParsedService {
    kind,
    created,
    cluster_ips,
    external_ips,
    ingress_ips,
    ports,
    internal,
    external,
    affinity_secs,
    ranges,
    health_port,
    problems
});
fields!(ServicePort {
    port,
    at,
    node_port
});
fields!(Port {
    name,
    number,
    proto
});
fields!(ParsedSlice {
    service,
    ports,
    endpoints,
    problems
});
fields!(ParsedEndpoint {
    addr,
    readiness,
    uid,
    pod,
    node,
    is_local,
    for_node,
    for_zones
});
fields!(Problem {
    object,
    field,
    message
});

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut &[u8]) -> Self {
        u8::take(from) != 0
    }
}

/// Seven bits in a byte, the lowest first; the eighth says that another byte follows.
impl Field for usize {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest > 0x7f {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    fn take(from: &mut &[u8]) -> Self {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = u8::take(from);
            value |= Self::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self);
    }
    fn take(from: &mut &[u8]) -> Self {
        array(from)
    }
}

impl Field for Box<str> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        out.extend(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Self {
        let len = usize::take(from).min(from.len());
        let (text, rest) = from.split_at(len);
        *from = rest;
        String::from_utf8_lossy(text).into()
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        out.extend(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Self {
        Box::<str>::take(from).into()
    }
}

impl Field for ServiceName {
    fn put(&self, out: &mut Vec<u8>) {
        for text in [&self.namespace, &self.name] {
            text.len().put(out);
            out.extend(text.as_bytes());
        }
    }
    fn take(from: &mut &[u8]) -> Self {
        let mut text = || Box::<str>::take(from).into();
        Self {
            namespace: text(),
            name: text(),
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Self {
        bool::take(from).then(|| T::take(from))
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        self.iter().for_each(|element| element.put(out));
    }
    fn take(from: &mut &[u8]) -> Self {
        // Every element has a byte at least.
        let len = usize::take(from).min(from.len());
        (0..len).map(|_| T::take(from)).collect()
    }
}

impl<T: Field> Field for Box<[T]> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        self.iter().for_each(|element| element.put(out));
    }
    fn take(from: &mut &[u8]) -> Self {
        Vec::take(from).into()
    }
}

impl Field for Addr {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_v4().put(out);
        match self.to_ip() {
            IpAddr::V4(v4) => v4.octets().put(out),
            IpAddr::V6(_) => self.octets().put(out),
        }
    }
    fn take(from: &mut &[u8]) -> Self {
        if bool::take(from) {
            Self::from_v4(array(from))
        } else {
            Self::from_v6(array(from))
        }
    }
}

impl Field for Proto {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut &[u8]) -> Self {
        Self(u8::take(from))
    }
}

/// The words of an address are written in this machine's order, and only this machine reads them.
impl Field for RangeKey {
    fn put(&self, out: &mut Vec<u8>) {
        for word in [self.prefix_len, self.ranges, self.family] {
            word.put(out);
        }
        for word in self.addr {
            word.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Self {
        Self {
            prefix_len: Field::take(from),
            ranges: Field::take(from),
            family: Field::take(from),
            addr: std::array::from_fn(|_| Field::take(from)),
        }
    }
}

#[cfg(test)]
mod tests;
