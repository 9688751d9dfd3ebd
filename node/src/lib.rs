//! A node of an alliance: the only crate that touches the world.
//!
//! Start with [`node::Node::run`], the one loop: wait for an input, let Core decide, make it durable, carry it out.
//!
//! - [`daemon`]: starting on a home; [`home`], [`config`], [`keys`]: what lies there
//! - [`mesh`]: the control plane, libp2p; [`bulk`]: the plane of artefacts, quinn
//! - [`ledger`]: the truth on disk; [`catalogue`]: what can be rebuilt, sled
//! - [`models`]: artefacts on disk
//! - [`gateway`]: the node as a Hugging Face Hub, for who has one of its [`tokens`]
//! - [`api`]: the local API; [`cli`]: the command `alliance`; [`authority`]: what officers do

pub mod api;
pub mod authority;
mod buffers;
pub mod bulk;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod durable;
pub mod exit;
pub mod gateway;
pub mod home;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod mesh;
pub mod models;
pub mod node;
pub mod notes;
pub mod shelf;
pub mod tokens;
pub mod witness;
