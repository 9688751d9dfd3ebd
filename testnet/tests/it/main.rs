//! The whole system with real daemons, as people use it: the network of the testnet, the command line with its exit codes,
//! crashes, full disks and homes that are not as they should be.
//!
//! Every network has its own directory and takes whatever ports are free. What must come about is waited for, with limits
//! that only end a hang. Each process is ended by whoever started it.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cards;
#[cfg(test)]
mod charter;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dated;
#[cfg(test)]
mod denial;
#[cfg(test)]
mod evidence;
#[cfg(test)]
mod freshness;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod homes;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod long_life;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod places;
#[cfg(test)]
mod provenance;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod supervision;
#[cfg(test)]
mod taken_back;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod up;
#[cfg(test)]
mod wan;
