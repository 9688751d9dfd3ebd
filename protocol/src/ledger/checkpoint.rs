//! Signed heads of the tree: C2SP `tlog-checkpoint` in a C2SP `signed-note`, with an Ed25519 signature (type `0x01`), and
//! what witnesses put under them (C2SP `tlog-cosignature`, type `0x04`).
//!
//! The text starts with the origin, `alliance/...`, and what a witness signs with `cosignature/v1`; no other thing that a
//! node's key signs starts so, so that neither can ever pass as a statement or a certificate. Nothing is read from a note
//! before its signature was verified.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::note::{Note, SignatureKind, signature_line};
use crate::{
    id::Sha256,
    key::{PublicKey, SecretKey, Signature},
    time::Timestamp,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Bytes of a signed checkpoint: room for 16 signatures, the least that a verifier must accept, of 5 kB, the longest that
/// there are.
pub const CHECKPOINT_BYTES_MAX: usize = 128 * 1024;

/// Bytes of an origin. A node's own needs 73.
const ORIGIN_BYTES_MAX: usize = 256;

/// What a witness signs begins with this.
const COSIGNATURE_HEADER: &str = "cosignature/v1";

/// What the origin of a node's ledger starts with, before the node's key.
const ORIGIN_PREFIX: &str = "alliance/";

/// The name of a log, which is also the name of the key that signs its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// The text cannot be the name of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the origin of a log: 1 to 256 bytes without spaces, control characters and `+`")]
pub struct BadOrigin(String);

/// The head of a ledger: how many entries it has, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: Origin,
    /// Entries of the ledger.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Sha256,
}

/// What a witness says by its signature: it has seen this checkpoint, and none that is not consistent with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    pub witness: PublicKey,
    /// When it signed, by its clock, in whole seconds.
    pub at: Timestamp,
}

/// Why a text is not a checkpoint that the expected key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("more than {max} bytes", max = CHECKPOINT_BYTES_MAX)]
    TooLarge,
    #[error("not a signed note")]
    Note,
    #[error("the expected key did not sign it")]
    Unsigned,
    #[error("the signature does not verify")]
    Signature,
    #[error("a checkpoint of another log")]
    Origin,
    #[error("what is signed is not a checkpoint")]
    Body,
}

impl Origin {
    /// The origin of a node's ledger: `alliance/` and the key in hexadecimal.
    #[must_use]
    pub fn of(node: &PublicKey) -> Self {
        Self(format!("{ORIGIN_PREFIX}{node}"))
    }

    /// The node whose ledger this names, if it is a node's.
    #[must_use]
    pub fn node(&self) -> Option<PublicKey> {
        let node = self.0.strip_prefix(ORIGIN_PREFIX)?.parse().ok()?;
        // Hexadecimal has more than one spelling, an origin has one.
        (Self::of(&node) == *self).then_some(node)
    }

    /// The key with which the tools of others verify checkpoints of this node's ledger (*vkey* of C2SP `signed-note`).
    #[must_use]
    pub fn verifier_key(node: &PublicKey) -> String {
        let (name, kind) = (Self::of(node), SignatureKind::Ed25519);
        let id = hex::encode(kind.key_id(&name, node));
        format!("{name}+{id}+{}", BASE64_STANDARD.encode([&[kind.byte()], &node.0[..]].concat()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '+';
        if (1..=ORIGIN_BYTES_MAX).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadOrigin(text.chars().take(ORIGIN_BYTES_MAX).collect()))
        }
    }
}

impl Checkpoint {
    /// The signed note for a head of the log `origin`. The same arguments always give the same text.
    #[must_use]
    pub fn sign(key: &SecretKey, origin: &Origin, size: u64, root: Sha256) -> String {
        let body = format!("{origin}\n{size}\n{root}\n", root = BASE64_STANDARD.encode(root.0));
        let line = signature_line(origin, SignatureKind::Ed25519, &key.public(), &key.sign(body.as_bytes()).0);
        format!("{body}\n{line}")
    }

    /// The signature line of a witness under a checkpoint whose consistency it has verified.
    ///
    /// # Errors
    /// The text is not a signed note.
    pub fn cosign(text: &str, key: &SecretKey, now: Timestamp) -> Result<String, CheckpointError> {
        let note = Note::parse(text).ok_or(CheckpointError::Note)?;
        let (witness, seconds) = (Origin::of(&key.public()), now.0 / 1000);
        let mut signature = seconds.to_be_bytes().to_vec();
        signature.extend_from_slice(&key.sign(cosigned(note.body, seconds).as_bytes()).0);
        Ok(signature_line(&witness, SignatureKind::Cosignature, &key.public(), &signature))
    }

    /// The cosignature of this witness under a checkpoint, if there is one that verifies. Whether the checkpoint itself is
    /// signed is not asked here.
    #[must_use]
    pub fn cosignature(text: &str, witness: &PublicKey) -> Option<Cosignature> {
        let note = Note::parse(text)?;
        let signatures = note.signatures(&Origin::of(witness), SignatureKind::Cosignature, witness);
        signatures.into_iter().find_map(|signature| {
            let (seconds, signature) = signature.split_first_chunk::<8>()?;
            let seconds = u64::from_be_bytes(*seconds);
            let signature = Signature(<[u8; 64]>::try_from(signature).ok()?);
            witness.verify(cosigned(note.body, seconds).as_bytes(), &signature).ok()?;
            let at = Timestamp(seconds.checked_mul(1000).filter(|_| seconds > 0)?);
            Some(Cosignature { witness: *witness, at })
        })
    }

    /// Whether a text is one signature line in the name of this witness, and nothing more.
    #[must_use]
    pub fn is_cosignature_line(text: &str, witness: &PublicKey) -> bool {
        let named = |line: &super::note::Line<'_>| {
            line.name == Origin::of(witness).as_str() && line.is_by(SignatureKind::Cosignature, witness)
        };
        text.matches('\n').count() == 1 && super::note::Line::parse(text).is_some_and(|line| named(&line))
    }

    /// All cosignatures of nodes under a checkpoint that verify. Whether these nodes count as witnesses is not asked here.
    #[must_use]
    pub fn cosignatures(text: &str) -> Vec<Cosignature> {
        let note = Note::parse(text);
        let names = note.iter().flat_map(|note| &note.lines).filter_map(|line| line.name.parse::<Origin>().ok()?.node());
        let nodes: BTreeSet<_> = names.collect();
        nodes.iter().filter_map(|node| Self::cosignature(text, node)).collect()
    }

    /// The checkpoint with the log's own signatures alone, and with these cosignature lines under it.
    ///
    /// # Errors
    /// The text is not a signed note.
    pub fn with_cosignatures<'a>(text: &str, lines: impl IntoIterator<Item = &'a str>) -> Result<String, CheckpointError> {
        let note = Note::parse(text).ok_or(CheckpointError::Note)?;
        let mut all = format!("{}\n", note.body);
        let origin = note.body.lines().next().unwrap_or_default();
        note.lines.iter().filter(|line| line.name == origin).for_each(|line| all.push_str(line.text));
        lines.into_iter().for_each(|line| all.push_str(line));
        Ok(all)
    }

    /// Reads a checkpoint of the log `origin` that `key` signed. Signatures of other keys (witnesses) are passed over.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse_verified(text: &str, key: &PublicKey, origin: &Origin) -> Result<Self, CheckpointError> {
        if text.len() > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::TooLarge);
        }
        let body = open(text, key, origin)?;
        let mut lines = body.lines();
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Body);
        let (named, size, root) = (line()?, line()?, line()?);
        // Extension lines are the log's own business and mean nothing here, but an empty one is malformed.
        if lines.any(str::is_empty) {
            return Err(CheckpointError::Body);
        }
        if named != origin.as_str() {
            return Err(CheckpointError::Origin);
        }
        let size = parse_size(size).ok_or(CheckpointError::Body)?;
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| <[u8; 32]>::try_from(root).ok());
        Ok(Self { origin: origin.clone(), size, root: Sha256(root.ok_or(CheckpointError::Body)?) })
    }

    /// Whether bytes begin as a checkpoint of a node's ledger does, and no other thing that nodes exchange.
    #[must_use]
    pub fn may_be(bytes: &[u8]) -> bool {
        bytes.starts_with(ORIGIN_PREFIX.as_bytes())
    }

    /// Reads a checkpoint of a node's ledger that was signed by the node named in its first line. This shows that the
    /// checkpoint is whole, not that it comes from any node in particular; see [`Origin::node`] of what it returns.
    ///
    /// # Errors
    /// As [`Self::parse_verified`]; [`CheckpointError::Origin`] if the first line names no node.
    pub fn parse_self_named(text: &str) -> Result<Self, CheckpointError> {
        let first = text.split_once('\n').map_or("", |(first, _)| first);
        let origin: Origin = first.parse().map_err(|_| CheckpointError::Origin)?;
        let node = origin.node().ok_or(CheckpointError::Origin)?;
        Self::parse_verified(text, &node, &origin)
    }
}

/// What a witness signs: the body, and when.
fn cosigned(body: &str, seconds: u64) -> String {
    format!("{COSIGNATURE_HEADER}\ntime {seconds}\n{body}")
}

/// The text of a note that `key` signed under `name`, with its last newline.
fn open<'a>(text: &'a str, key: &PublicKey, name: &Origin) -> Result<&'a str, CheckpointError> {
    let note = Note::parse(text).ok_or(CheckpointError::Note)?;
    let signatures = note.signatures(name, SignatureKind::Ed25519, key);
    for signature in &signatures {
        let signature = <[u8; 64]>::try_from(*signature).map_err(|_| CheckpointError::Signature)?;
        key.verify(note.body.as_bytes(), &Signature(signature)).map_err(|_| CheckpointError::Signature)?;
    }
    if signatures.is_empty() { Err(CheckpointError::Unsigned) } else { Ok(note.body) }
}

/// Decimal without sign and without leading zeroes, so that a size has one spelling.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let size: u64 = text.parse().ok()?;
    (size.to_string() == text).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    fn origin() -> Origin {
        Origin::of(&key().public())
    }

    fn root() -> Sha256 {
        Sha256([0xab; 32])
    }

    fn line(key: &SecretKey, name: &Origin, body: &str) -> String {
        signature_line(name, SignatureKind::Ed25519, &key.public(), &key.sign(body.as_bytes()).0)
    }

    /// A note for a body of our choosing.
    fn note(body: &str) -> String {
        format!("{body}\n{}", line(&key(), &origin(), body))
    }

    fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::parse_verified(text, &key().public(), &origin())
    }

    /// The published example of the Go implementation of signed notes.
    #[test]
    fn the_note_of_the_go_implementation() {
        let decode = |text| BASE64_STANDARD.decode(text).expect("base64");
        let skey = decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz");
        let vkey = decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        let key = SecretKey::from_seed(skey[1..].try_into().expect("a seed"));
        assert_eq!((skey[0], &vkey[1..]), (1, &key.public().0[..]));

        let name: Origin = "PeterNeumann".parse().expect("a name");
        assert_eq!(hex::encode(SignatureKind::Ed25519.key_id(&name, &key.public())), "c74f20a3");
        let own = Origin::verifier_key(&key.public());
        assert!(own.ends_with("+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"), "{own}");
        let body = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let expected = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqd\
                    ngotpRZb6KE6RyyBwJnAM=\n";
        assert_eq!(line(&key, &name, body), expected);
        assert_eq!(open(&format!("{body}\n{expected}"), &key.public(), &name), Ok(body));
    }

    #[test]
    fn the_text_of_a_checkpoint() {
        let node = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
        let text = Checkpoint::sign(&key(), &origin(), 20_852_163, root());
        let (body, signature) = text.split_once("\n\n").expect("a body and a signature");
        assert_eq!(body, format!("alliance/{node}\n20852163\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="));
        assert!(signature.starts_with(&format!("\u{2014} alliance/{node} ")), "{signature}");
        let expected = Checkpoint { origin: origin(), size: 20_852_163, root: root() };
        assert_eq!(parse(&text), Ok(expected.clone()));
        assert_eq!(Checkpoint::parse_self_named(&text), Ok(expected));
        assert_eq!(origin().node(), Some(key().public()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let text = Checkpoint::sign(&key(), &origin(), 42, root());
        for at in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            if let Ok(bad) = String::from_utf8(bytes) {
                assert!(parse(&bad).is_err(), "bit {at}: {bad}");
                assert!(Checkpoint::parse_self_named(&bad).is_err(), "bit {at}: {bad}");
            }
        }
        for cut in (0..text.len()).filter_map(|length| text.get(..length)) {
            assert!(parse(cut).is_err(), "{cut}");
        }
    }

    #[test]
    fn another_key_or_log_is_refused() {
        let text = Checkpoint::sign(&key(), &origin(), 42, root());
        let stranger = SecretKey::from_seed(&[8; 32]);
        assert_eq!(Checkpoint::parse_verified(&text, &stranger.public(), &origin()), Err(CheckpointError::Unsigned));
        let other = Origin::of(&stranger.public());
        assert_eq!(Checkpoint::parse_verified(&text, &key().public(), &other), Err(CheckpointError::Unsigned));
        // Signed under our name, but about another log.
        let foreign = note(&format!("{other}\n42\n{}\n", BASE64_STANDARD.encode(root().0)));
        assert_eq!(parse(&foreign), Err(CheckpointError::Origin));
        // Signed by a stranger, in the name of the first line.
        let forged = Checkpoint::sign(&stranger, &origin(), 42, root());
        assert_eq!(Checkpoint::parse_self_named(&forged), Err(CheckpointError::Unsigned));
    }

    #[test]
    fn signatures_of_witnesses_are_passed_over_and_a_bad_one_of_ours_is_not() {
        let text = Checkpoint::sign(&key(), &origin(), 42, root());
        let (body, _) = text.split_once("\n\n").expect("a body");
        let witness = line(&SecretKey::from_seed(&[9; 32]), &"witness.example/w".parse().expect("a name"), body);
        assert!(parse(&format!("{text}{witness}")).is_ok());
        let ours_over_another_text = line(&key(), &origin(), "another text\n");
        assert_eq!(parse(&format!("{text}{ours_over_another_text}")), Err(CheckpointError::Signature));
        for bad in
            ["no signature\n", "\u{2014} name\n", "\u{2014} name AAA=\n", "\u{2014}  AAAA\n", "\u{2014} a+b AAAAAAAA\n"]
        {
            assert_eq!(parse(&format!("{text}{bad}")), Err(CheckpointError::Note), "{bad}");
        }
        assert_eq!(parse(&format!("{text}{}", " ".repeat(CHECKPOINT_BYTES_MAX))), Err(CheckpointError::TooLarge));
    }

    /// The published example of the specification of cosignatures.
    #[test]
    fn the_cosignature_of_the_specification() {
        let body = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(cosigned(body, 1_679_315_147), format!("cosignature/v1\ntime 1679315147\n{body}"));
        let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyi\
                    n1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let note = format!("{body}\n{line}");
        let note = Note::parse(&note).expect("a note");
        let seconds = u64::from_be_bytes(note.lines[0].signature[..8].try_into().expect("eight bytes"));
        assert_eq!((note.lines[0].name, seconds), ("witness.example.com/w1", 1_679_315_147));
    }

    #[test]
    fn a_cosignature_counts_for_its_witness_and_this_text_alone() {
        let text = Checkpoint::sign(&key(), &origin(), 42, root());
        let (witness, at) = (SecretKey::from_seed(&[9; 32]), Timestamp(1_790_000_000_999));
        let line = Checkpoint::cosign(&text, &witness, at).expect("a note");
        let both = Checkpoint::with_cosignatures(&text, [line.as_str()]).expect("a note");
        let found = Cosignature { witness: witness.public(), at: Timestamp(1_790_000_000_000) };
        assert_eq!(both, format!("{text}{line}"));
        assert_eq!(Checkpoint::cosignature(&both, &witness.public()), Some(found));
        assert!(parse(&both).is_ok());
        assert_eq!(Checkpoint::cosignature(&text, &witness.public()), None);
        assert!(Checkpoint::is_cosignature_line(&line, &witness.public()));
        for bad in [format!("{line}{line}"), format!("\n{line}"), line.replace('\n', ""), String::new(), text.clone()] {
            assert!(!Checkpoint::is_cosignature_line(&bad, &witness.public()), "{bad}");
        }
        assert!(!Checkpoint::is_cosignature_line(&line, &key().public()));
        let log = text.lines().last().expect("a signature").to_owned() + "\n";
        assert!(!Checkpoint::is_cosignature_line(&log, &key().public()), "of another kind");
        assert_eq!((Checkpoint::cosignatures(&both), Checkpoint::cosignatures(&text)), (vec![found], vec![]));
        assert_eq!(Checkpoint::cosignature(&both, &key().public()), None);
        // Under another text it says nothing.
        let other = Checkpoint::sign(&key(), &origin(), 43, root());
        let moved = Checkpoint::with_cosignatures(&other, [line.as_str()]).expect("a note");
        assert_eq!(Checkpoint::cosignature(&moved, &witness.public()), None);
        // Older cosignatures make way.
        assert_eq!(Checkpoint::with_cosignatures(&both, []).as_deref(), Ok(text.as_str()));
        let signature = both.len() - line.len()..both.len();
        for at in signature.start * 8..signature.end * 8 {
            let mut bytes = both.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            if let Ok(bad) = String::from_utf8(bytes) {
                assert_eq!(Checkpoint::cosignature(&bad, &witness.public()), None, "bit {at}");
            }
        }
    }

    #[test]
    fn signed_bodies_that_are_no_checkpoints() {
        let (named, hash) = (origin().to_string(), BASE64_STANDARD.encode(root().0));
        assert!(parse(&note(&format!("{named}\n0\n{hash}\nan extension\n"))).is_ok());
        let short = BASE64_STANDARD.encode([1; 31]);
        for bad in [
            format!("{named}\n"),
            format!("{named}\n1\n"),
            format!("{named}\n01\n{hash}\n"),
            format!("{named}\n+1\n{hash}\n"),
            format!("{named}\n-1\n{hash}\n"),
            format!("{named}\n18446744073709551616\n{hash}\n"),
            format!("{named}\n1\n{short}\n"),
            format!("{named}\n1\n{hash}=\n"),
            format!("{named}\n1 \n{hash}\n"),
            format!("{named}\n\n1\n{hash}\n"),
            format!("{named}\n1\n{hash}\n\nafter an empty line\n"),
        ] {
            assert_eq!(parse(&note(&bad)), Err(CheckpointError::Body), "{bad}");
        }
        assert_eq!(parse(&note(&format!("{named}\n1\n{hash}\r\n"))), Err(CheckpointError::Note));
    }

    #[test]
    fn origins_are_names_of_keys() {
        let long = "x".repeat(ORIGIN_BYTES_MAX + 1);
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{2003}b", long.as_str()] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
        let node = origin();
        assert_eq!(
            node.as_str().to_uppercase().replace("ALLIANCE", "alliance").parse::<Origin>().map(|o| o.node()),
            Ok(None)
        );
        assert_eq!("example.com/log".parse::<Origin>().map(|origin| origin.node()), Ok(None));
    }
}
