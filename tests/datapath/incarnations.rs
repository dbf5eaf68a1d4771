//! `INCARNATIONS` as the agent writes it.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use weir_abi::endpoint::Endpoint;
use weir_abi::{Addr, map};
use weir_agent::dataplane::endpoints::EndpointMaps;
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::Writes;

use crate::cut_off::{BPFFS, with_pins};

/// Every field is different from all others.
fn endpoint(incarnation: u32) -> Endpoint {
    Endpoint {
        addr4: Addr::from_v4([10, 0, 0, 1]),
        addr6: Addr::from_v6(std::array::from_fn(|i| i as u8 + 1)),
        ifindex: 0x0102_0304,
        slot: 5,
        incarnation,
        flags: 0,
        pod_mac: [6, 7, 8, 9, 10, 11],
        host_mac: [12, 13, 14, 15, 16, 17],
        mtu: 1450,
    }
}

fn open() -> EndpointMaps {
    EndpointMaps::open(&Pins::new(Path::new(BPFFS)), &Writes::default()).unwrap()
}

/// What is there, by its place.
fn there() -> Vec<(u32, Endpoint)> {
    let pin = Pins::new(Path::new(BPFFS)).map(map::INCARNATIONS);
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let map: Array<_, Endpoint> = Array::try_from(map).unwrap();
    let all = (0..map.len()).map(|place| (place, map.get(&place, 0).unwrap()));
    all.filter(|(_, e)| *e != Endpoint::default()).collect()
}

#[test]
fn an_endpoint_has_a_short_way_from_the_last_step_of_its_coming_to_the_first_of_its_going() {
    with_pins(|| {
        let mut maps = open();
        let pod = endpoint(4096 + 7);
        maps.set_device(&pod).unwrap();
        assert_eq!(there(), []);
        maps.set_addresses(&pod).unwrap();
        assert_eq!(there(), [(7, pod)]);
        maps.remove_addresses(&pod).unwrap();
        assert_eq!(there(), []);
    });
}

#[test]
fn what_takes_an_endpoints_device_or_address_ends_its_short_way() {
    with_pins(|| {
        let mut maps = open();
        let pod = endpoint(7);
        let device = endpoint(8);
        let address = Endpoint {
            ifindex: 9,
            ..endpoint(9)
        };
        for taken in [
            &(|maps: &mut EndpointMaps| maps.set_device(&device))
                as &dyn Fn(&mut EndpointMaps) -> _,
            &|maps| {
                maps.set_device(&address)?;
                maps.set_addresses(&address)
            },
        ] {
            maps.set_device(&pod).unwrap();
            maps.set_addresses(&pod).unwrap();
            assert!(there().contains(&(7, pod)));
            taken(&mut maps).unwrap();
            assert!(!there().contains(&(7, pod)));
        }
    });
}

#[test]
fn an_agent_removes_what_another_one_left_half_done() {
    with_pins(|| {
        let pod = endpoint(7);
        let mut maps = open();
        maps.set_device(&pod).unwrap();
        maps.set_addresses(&pod).unwrap();
        // As it would be if the agent had ended before the last step, and been adopted elsewhere.
        let pin = Pins::new(Path::new(BPFFS)).map(map::INCARNATIONS);
        let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
        let mut map: Array<_, Endpoint> = Array::try_from(map).unwrap();
        map.set(11, endpoint(11), 0).unwrap();
        map.set(7, Endpoint { mtu: 9000, ..pod }, 0).unwrap();
        let mut maps = open();
        assert_eq!(there(), []);
        maps.set_device(&pod).unwrap();
        maps.set_addresses(&pod).unwrap();
        assert_eq!(there(), [(7, pod)]);
    });
}
