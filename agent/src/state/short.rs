//! Shortens JSON of Kubernetes objects, a short text at a time: repeated text becomes a reference to
//! where it stood before, or to text that all such objects hold, and a UUID its 16 bytes.

use std::sync::LazyLock;

/// What these objects are full of, as serialising writes it. Changing it is safe: nothing shortened
/// outlives the process.
const COMMON: &[u8] = concat!(
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"kubernetes.io/config.hash":""},"#,
    r#""creationTimestamp":"2026-11-10T10:00:00Z","deletionTimestamp":"2026-12-"#,
    r#"","labels":{"app":"","app.kubernetes.io/instance":"","app.kubernetes.io/name":"","#,
    r#""pod-template-hash":""},"name":"","namespace":"","uid":""},"spec":{"containers":[{"name":"","#,
    r#""ports":[{"containerPort":8080,"hostPort":80,"name":"http","protocol":"TCP"}]}],"hostNetwork":"#,
    r#"true,"initContainers":[{"name":"","restartPolicy":"Always"}],"nodeName":"node-"},"status":{"#,
    r#""phase":"Succeeded","phase":"Pending","phase":"Running","podIP":"10.244."#,
    r#"","podIPs":[{"ip":"10.244.""},{"ip":"fd44:"}]}}"#,
    r#"{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{"creationTimestamp":"2026-0"#,
    r#"-01T00:00:00Z","labels":{"app":""},"app.kubernetes.io/name":"","name":"","namespace":"#,
    r#""default","resourceVersion":"","uid":""},"spec":{"allocateLoadBalancerNodePorts":true,"#,
    r#""clusterIP":"10.96.","clusterIPs":["],"externalTrafficPolicy":"Cluster","#,
    r#""internalTrafficPolicy":"Cluster","ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"#,
    r#""PreferDualStack","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"#,
    r#""http","nodePort":3,"port":80,"protocol":"UDP","protocol":"TCP","targetPort":8080}],"#,
    r#""selector":{"app":""},"sessionAffinity":"ClientIP","type":"LoadBalancer","type":"NodePort"},"#,
    r#""sessionAffinity":"None","type":"ClusterIP"},"status":{"loadBalancer":{}}}"#,
    r#"{"addressType":"IPv6","endpoints":[{"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","#,
    r#""endpoints":[{"addresses":["10."],"conditions":{"ready":true,"serving":true,"terminating":"#,
    r#"false},"hints":{"forZones":[{"name":""}]},"nodeName":"node-","targetRef":{"kind":"Pod","#,
    r#""name":"","namespace":"","uid":""},"zone":""},{"addresses":["10.}],"kind":"EndpointSlice","#,
    r#""metadata":{"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-"},"#,
    r#""creationTimestamp":"2026-01-01T00:00:00Z","generateName":"","generation":,"labels":{"#,
    r#""endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","#,
    r#""kubernetes.io/service-name":""},"name":"","namespace":"","ownerReferences":[{"apiVersion":"#,
    r#""v1","blockOwnerDeletion":true,"controller":true,"kind":"Service","name":"","uid":""}],"#,
    r#""resourceVersion":"","uid":""},"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#,
)
.as_bytes();

/// What follows is that many bytes of text and one more.
const LONGEST_TEXT: usize = 0x7e;
/// What follows is a UUID.
const UUID: u8 = 0x7f;
/// The lower bits say how much longer than [`LEAST`] text is that stood before; its distance follows
/// (16 bits, little-endian).
const BEFORE: u8 = 0x80;
/// Shorter text takes no more as it is.
const LEAST: usize = 4;
const LONGEST: usize = LEAST + 0x7f;
/// How many earlier places are compared.
const TRIES: usize = 16;

/// Where text stood that begins with the same bytes.
#[derive(Clone)]
struct Places {
    /// The last place, by the hash of [`LEAST`] bytes.
    last: Vec<u32>,
    /// Of each place, the one before it with the same hash.
    before: Vec<u32>,
}

/// Places in [`COMMON`].
static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let mut places = Places {
        last: vec![u32::MAX; 1 << 12],
        before: Vec::new(),
    };
    for at in 0..COMMON.len() {
        places.note(COMMON, at);
    }
    places
});

impl Places {
    /// Notes the next place of a text.
    fn note(&mut self, text: &[u8], at: usize) {
        let place = hash(text, at).and_then(|hash| self.last.get_mut(hash));
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let before = place.map_or(u32::MAX, |place| std::mem::replace(place, at));
        self.before.push(before);
    }

    /// Where the longest text stood that the text goes on with, at least [`LEAST`] bytes: how far back,
    /// and its length. It holds no beginning of a UUID.
    fn find(&self, text: &[u8], at: usize) -> Option<(u16, usize)> {
        let longest = LONGEST.min(text.len() - at);
        let mut before = *self.last.get(hash(text, at)?)?;
        let mut best = None;
        for _ in 0..TRIES {
            let place = before as usize;
            let Some(distance) = at.checked_sub(place).and_then(|d| u16::try_from(d).ok()) else {
                break;
            };
            let goes_on = |len: &usize| text[place + len] == text[at + len];
            let len = (0..longest).take_while(goes_on).count();
            if len >= LEAST && best.is_none_or(|(_, other)| len > other) {
                best = Some((distance, len));
            }
            before = self.before.get(place).copied().unwrap_or(u32::MAX);
        }
        let (distance, len) = best?;
        let uuid = (1..len).find(|len| uuid(text, at + len).is_some());
        Some((distance, uuid.unwrap_or(len))).filter(|(_, len)| *len >= LEAST)
    }
}

fn hash(text: &[u8], at: usize) -> Option<usize> {
    let (word, _) = text.get(at..)?.split_first_chunk::<LEAST>()?;
    Some((u32::from_le_bytes(*word).wrapping_mul(0x9e37_79b1) >> 20) as usize)
}

/// Adds the short form of a text.
pub(super) fn shorten(json: &[u8], out: &mut Vec<u8>) {
    let text = [COMMON, json].concat();
    let mut places = PLACES.clone();
    let mut at = COMMON.len();
    let mut plain = at;
    while at < text.len() {
        let len = if let Some(uuid) = uuid(&text, at) {
            put_plain(&text[plain..at], out);
            out.push(UUID);
            out.extend(uuid);
            UUID_TEXT
        } else if let Some((distance, len)) = places.find(&text, at) {
            put_plain(&text[plain..at], out);
            out.push(BEFORE | (len - LEAST) as u8);
            out.extend(distance.to_le_bytes());
            len
        } else {
            places.note(&text, at);
            at += 1;
            continue;
        };
        for inside in at..at + len {
            places.note(&text, inside);
        }
        at += len;
        plain = at;
    }
    put_plain(&text[plain..], out);
}

fn put_plain(text: &[u8], out: &mut Vec<u8>) {
    for part in text.chunks(LONGEST_TEXT + 1) {
        out.push((part.len() - 1) as u8);
        out.extend(part);
    }
}

/// The text of which [`shorten`] made this; of anything else some text.
pub(super) fn lengthen(mut short: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(COMMON.len() + short.len() * 5);
    text.extend(COMMON);
    while let Some((first, rest)) = short.split_first() {
        short = rest;
        match *first {
            UUID => {
                let Some((uuid, rest)) = short.split_first_chunk() else {
                    break;
                };
                short = rest;
                put_uuid(uuid, &mut text);
            }
            first if first < UUID => {
                let (plain, rest) = short.split_at(short.len().min(usize::from(first) + 1));
                short = rest;
                text.extend(plain);
            }
            first => {
                let Some((distance, rest)) = short.split_first_chunk() else {
                    break;
                };
                short = rest;
                let distance = usize::from(u16::from_le_bytes(*distance));
                let from = text.len().saturating_sub(distance);
                let mut left = LEAST + usize::from(first & !BEFORE);
                // The end of it may be what it makes itself.
                while left > 0 && from < text.len() {
                    let len = left.min(text.len() - from);
                    text.extend_from_within(from..from + len);
                    left -= len;
                }
            }
        }
    }
    text.split_off(COMMON.len())
}

/// Digits and dashes of a UUID.
const UUID_TEXT: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// The UUID in lower case that begins here behind a quote.
fn uuid(text: &[u8], at: usize) -> Option<[u8; 16]> {
    let digits = text.get(at..at + UUID_TEXT)?;
    if digits[DASHES[0]] != b'-' || text[at - 1] != b'"' {
        return None;
    }
    let mut uuid = [0; 16];
    let mut place = 0;
    for (at, digit) in digits.iter().enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'-' if DASHES.contains(&at) => continue,
            _ => return None,
        };
        if DASHES.contains(&at) {
            return None;
        }
        uuid[place / 2] = uuid[place / 2] << 4 | value;
        place += 1;
    }
    Some(uuid)
}

fn put_uuid(uuid: &[u8; 16], out: &mut Vec<u8>) {
    let digits = uuid.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    for (place, digit) in digits.enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(b"0123456789abcdef"[usize::from(digit)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        shorten(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(lengthen(&out)).unwrap(), text);
        out
    }

    #[test]
    fn repeated_text_and_uuids_take_a_few_bytes() {
        assert_eq!(short("").len(), 0);
        assert_eq!(short("~~~~~~~~~~").len(), 2 + 3);
        assert_eq!(short(r#""kind":"EndpointSlice","#).len(), 3);
        let uuid = r#""uid":"0123fedc-0000-4aaa-8000-0123456789ab""#;
        assert_eq!(short(uuid).len(), 3 + 17 + 2);
    }

    #[test]
    fn what_is_nearly_a_uuid_stays_as_it_is() {
        short(r#""0123FEDC-0000-4aaa-8000-0123456789ab""#);
        short(r#""0123fedc-0000-4aaa-80000-123456789ab""#);
        short(r#""0123fedc00000-4aaa-8000-0123456789ab""#);
        short(r#"x0123fedc-0000-4aaa-8000-0123456789ab"#);
        short(r#""0123fedc-0000-4aaa-8000-0123456789a"#);
    }

    #[test]
    fn long_texts_come_back() {
        short(&"a".repeat(100_000));
        let counted: String = (0..30_000).map(|n| format!("{n},")).collect();
        short(&counted);
        short(&format!("begin{counted}begin"));
    }

    proptest! {
        #[test]
        fn every_text_comes_back(
            parts in prop::collection::vec(
                prop_oneof![
                    "[ab\"]{0,20}",
                    ".{0,200}",
                    Just(r#""kind":"Service","uid":"0123fedc-0000-4aaa-8000-0123456789ab""#.to_owned()),
                ],
                0..20,
            ),
        ) {
            short(&parts.concat());
        }

        #[test]
        fn bytes_that_nobody_shortened_are_read_to_an_end(bytes in any::<Vec<u8>>()) {
            prop_assert!(lengthen(&bytes).len() <= bytes.len() * 128);
        }
    }
}
