//! Tests of the pure centre: a whole alliance in memory and scenario tables for every check.
//!
//! - `alliance`, `tabled_gate`: what authorities say, and a gate whose packs are lines of text
//! - `cluster`, `routes`, `invariants`: nodes, the wires between them, and what must hold after every step
//! - `crossings`: a crossing and its end        - `exporter_refuses`, `importer_refuses`: each check of each end
//! - `dated`: law adopted ahead of its date
//! - `deciding`, `trust`, `mesh`, `quotas`: law, standing, what the mesh may bring    - `running`, `restarts`: time and crashes
//! - `sources`: one artefact from several peers    - `offering_on`, `detours`: what got here is given to others
//! - `parts`, `parts_running`, `parts_lies`: what may cross of an artefact, and who says otherwise of it
//! - `places`: where nodes are, and what light says of that
//! - `training`: where models were trained, recorded and proven
//! - `rotation`, `rotation_ledgers`: keys that make way for others, and the ledgers that go on
//! - `duties`: what a node enforces besides the law's yes or no, bans, people over a year
//! - `rotation`: keys of nodes that make way for others
//! - `envelopes`, `charter`, `versions`, `fuzz`: statements, the root of trust and what follows it, arbitrary input

#![cfg(test)]

mod alliance;
mod audit;
mod charter;
mod cluster;
mod crossings;
mod dated;
mod deciding;
mod detours;
mod duties;
mod envelopes;
mod exporter_refuses;
mod freshness;
mod fuzz;
mod importer_refuses;
mod invariants;
mod mesh;
mod offering_on;
mod parts;
mod parts_lies;
mod parts_running;
mod places;
mod quotas;
mod replays;
mod restarts;
mod rotation;
mod rotation_ledgers;
mod routes;
mod running;
mod sources;
mod spread;
mod tabled_gate;
mod training;
mod trust;
mod versions;
mod witnesses;
