//! Who reaches whom, by what, in either family, in either mode, with and without policies: one table,
//! every cell observed. `table.rs` says what must come of each; what has no meaning, or is otherwise than one might
//! think, is printed with its reason.

mod ask;
mod table;
mod world;

use std::time::Instant;

use weir_lab::spawn::run_in;

use ask::Round;
use table::{Mode, Policy};
use world::World;

/// How many packets the fabric's router has found too big, IPv4 and IPv6.
fn too_big(world: &World) -> [u64; 2] {
    let files = run_in(&world.lab.fabric().net_only(), || {
        Ok(["snmp", "snmp6"]
            .map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))))
    });
    let [v4, v6] = files.unwrap().map(Result::unwrap);
    // IPv4: a line of names and a line of values.
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let v4 = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "FragFails");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Icmp6OutPktTooBigs"));
    [v4.unwrap().1, v6.unwrap().trim()].map(|count| count.parse().unwrap())
}

fn every_cell(mode: Mode) {
    let world = World::new(mode);
    let mut failures = Vec::new();
    for (policy, number) in [(Policy::Off, 0), (Policy::On, 2), (Policy::Deny, 4)] {
        let started = Instant::now();
        let outside = world.outside(number);
        world.judge_by(policy);
        let before = too_big(&world);
        let round = Round {
            world: &world,
            policy,
            outside: &outside,
        };
        let report = round.run();
        println!("{}", report.text);
        let [answered, silent] = report.right;
        println!(
            "{answered} answered, {silent} silent, as they must; {:?}",
            started.elapsed()
        );
        failures.extend(report.failures);
        let after = too_big(&world);
        for (family, (before, after)) in before.iter().zip(after).enumerate() {
            if after <= *before {
                failures.push(format!(
                    "{policy:?}: no path was too narrow for IPv{}",
                    [4, 6][family]
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn matrix_of_who_reaches_whom_over_vxlan() {
    every_cell(Mode::Vxlan);
}

#[test]
fn matrix_of_who_reaches_whom_over_native_routes() {
    every_cell(Mode::Native);
}
