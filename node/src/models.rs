//! Artefacts on disk: how a directory becomes a manifest, how its bytes are read to be sent, and where received bytes lie until
//! they are delivered.
//!
//! Files stay where their owner put them; nothing is copied to be shared. Nothing here decides whether bytes may move: reading
//! serves what the bulk plane was cleared to send, and delivery takes an [`alliance_protocol::border::Inbound`] by value.
//! No function here waits on a network; the callers run them where blocking is allowed.
//!
//! - [`mod@import`]: a directory in, a manifest out; and the same check again later
//! - [`card`]: what the card of a model says, read and written; [`export`]: a model copied out, with its card
//! - [`safetensors`]: the strict reading of headers
//! - [`signed`]: signatures over the files of a model, which other tools verify
//! - [`source`]: the exporter's side, groups out of files; `compared` spares it to hash what it has hashed
//! - [`staging`]: the importer's side, groups into files, then one rename; `reuse` copies what lies here in another artefact

pub mod card;
mod compared;
pub mod delete;
mod digest;
mod durable;
pub mod export;
pub mod import;
mod inspect;
mod labelling;
mod pattern;
mod pickle;
mod reuse;
pub mod safetensors;
pub mod signed;
pub mod source;
pub mod staging;
mod tree;
mod verify;

pub(crate) use self::tree::open_inside;
pub use self::{
    compared::Compared,
    import::{ImportError, ImportRequest, LoadError, import, load_manifest, store_manifest},
    inspect::FormatError,
    labelling::{BadLabelsOf, LabelsOf},
    pattern::{BadPattern, Taking, TensorPattern},
    pickle::Pickle,
    reuse::fill_from,
    source::{Source, SourceError},
    staging::{Staging, StagingError},
    tree::{Found, Survey, TreeError, survey},
    verify::{VerifyProblem, VerifyReport, verify},
};
