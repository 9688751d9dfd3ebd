//! Crossings over the real bulk plane: two or more nodes, each a real Core with the real law, real files and real QUIC on
//! the loopback. The mesh is left out: the test hands statements on. Some ends are played by the test and lie.
//!
//! Time limits are against hanging only, but where a test is about a limit. Law sees a clock that only the test moves.

#[cfg(test)]
mod alliance;
#[cfg(test)]
mod arriving;
#[cfg(test)]
mod artefact;
#[cfg(test)]
mod bad_path;
#[cfg(test)]
mod changed_files;
#[cfg(test)]
mod changed_law;
#[cfg(test)]
mod false_answer;
#[cfg(test)]
mod false_bytes;
#[cfg(test)]
mod false_offer;
#[cfg(test)]
mod false_request;
#[cfg(test)]
mod honest;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod path;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod rude_importer;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod valve;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod world;
