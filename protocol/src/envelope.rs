//! Signed statements: the only way from bytes to a believed value.
//!
//! What is signed is a domain string, the kind of statement, the alliance and the payload, each with its length, so that
//! bytes signed as one thing can never pass as another. The signature is checked over the exact payload bytes before they
//! are decoded; decoding must give those bytes again (one encoding per value); the bytes that were checked are kept.
//! Specified in `specs/01-statements.md`.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, SeqAccess, Visitor},
};

use crate::{
    id::{AllianceId, StatementId},
    key::{PublicKey, SecretKey, Signature},
    limits,
};

/// The body of a statement: says its kind on the wire and its bound.
pub trait Statement: Serialize + DeserializeOwned + fmt::Debug {
    /// The name in the signed domain, for example `offer`.
    const KIND: &'static str;
    /// Bytes of the whole envelope.
    const BYTES_MAX: usize = limits::STATEMENT_BYTES_MAX;
    /// Signatures under it. More are refused before one of them is verified.
    const SIGNATURES_MAX: usize = 1;
}

/// A statement whose signatures have been verified. Whether its signers may say what it says is [`crate::trust`]'s question.
pub struct Signed<T> {
    body: Arc<T>,
    id: StatementId,
    alliance: AllianceId,
    signers: Arc<[PublicKey]>,
    bytes: Arc<[u8]>,
}

/// A statement on its way to its signatures; the ones it has were verified. Made for signing away from the network.
pub struct Draft<T> {
    envelope: Envelope,
    body: PhantomData<T>,
}

/// Why bytes are not a believable statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{bytes} bytes are more than the {limit} that a statement of this kind may have")]
    TooLarge { bytes: usize, limit: usize },
    #[error("not an envelope in canonical DAG-CBOR")]
    Envelope,
    #[error("a `{found}` statement where a `{expected}` statement was expected")]
    Kind { expected: &'static str, found: String },
    #[error("a statement of alliance {found}, not of this one")]
    Alliance { found: AllianceId },
    #[error("no signature")]
    Unsigned,
    #[error("{found} signatures are more than the {limit} that a statement of this kind may have")]
    TooManySignatures { found: usize, limit: usize },
    #[error("the signature of {0} is not after those of smaller keys, or it is there twice")]
    SignatureOrder(PublicKey),
    #[error("the signature of {0} does not verify")]
    Signature(PublicKey),
    #[error("the payload is not a canonical `{kind}`: {reason}")]
    Payload { kind: &'static str, reason: String },
}

/// The wire form. Field order here is the canonical order (by length, then bytes).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    kind: String,
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
    alliance: AllianceId,
    signatures: Vec<By>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct By {
    key: PublicKey,
    signature: Signature,
}

/// Characters of the reason why a payload is refused.
const REASON_CHARS_MAX: usize = 200;

/// Separates Alliance's signatures from every other use of the same key.
const DOMAIN: &[u8] = b"alliance-statement-v1\0";

/// Encodes a value of our own as canonical DAG-CBOR.
///
/// # Panics
/// Never for the types of this crate: they hold no floats, no maps with other keys than strings, and nothing recursive.
#[must_use]
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "writing plain data to memory cannot fail")]
    serde_ipld_dagcbor::to_vec(value).expect("plain data encodes")
}

/// Decodes bytes that must be the one canonical encoding of a value.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| error.to_string())?;
    if encode(&value) == bytes { Ok(value) } else { Err("not the canonical encoding".to_owned()) }
}

impl Envelope {
    fn read<T: Statement>(bytes: &[u8]) -> Result<Self, OpenError> {
        let (kind, limit) = (T::KIND, T::BYTES_MAX);
        if bytes.len() > limit {
            return Err(OpenError::TooLarge { bytes: bytes.len(), limit });
        }
        let envelope: Self = decode(bytes).map_err(|_| OpenError::Envelope)?;
        if envelope.kind != kind {
            return Err(OpenError::Kind { expected: kind, found: envelope.kind.chars().take(32).collect() });
        }
        if envelope.signatures.len() > T::SIGNATURES_MAX {
            return Err(OpenError::TooManySignatures { found: envelope.signatures.len(), limit: T::SIGNATURES_MAX });
        }
        let signed = envelope.preimage();
        let mut last = None;
        for by in &envelope.signatures {
            // One order for one set of signatures, so that a statement has one encoding.
            if last.is_some_and(|last| last >= by.key) {
                return Err(OpenError::SignatureOrder(by.key));
            }
            last = Some(by.key);
            by.key.verify(&signed, &by.signature).map_err(|_| OpenError::Signature(by.key))?;
        }
        Ok(envelope)
    }

    /// The bytes that are signed: `DOMAIN`, then kind (8-bit length), alliance (32 bytes), payload (32-bit length, big endian).
    fn preimage(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DOMAIN.len() + 1 + self.kind.len() + 32 + 4 + self.payload.len());
        out.extend_from_slice(DOMAIN);
        // Kinds are short names of this crate and payloads are bounded far below 4 GiB: neither length saturates.
        out.push(u8::try_from(self.kind.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(&self.alliance.0);
        out.extend_from_slice(&u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    fn body<T: Statement>(&self) -> Result<T, OpenError> {
        decode(&self.payload).map_err(|reason| {
            // It may quote what a stranger wrote.
            let reason = reason.chars().take(REASON_CHARS_MAX).collect();
            OpenError::Payload { kind: T::KIND, reason }
        })
    }

    /// Keeps signatures in the order of their keys, so that the same set gives the same bytes.
    fn sign(&mut self, key: &SecretKey) {
        let by = By { key: key.public(), signature: key.sign(&self.preimage()) };
        self.signatures.retain(|earlier| earlier.key != by.key);
        self.signatures.push(by);
        self.signatures.sort_by_key(|by| by.key);
    }
}

impl<T: Statement> Draft<T> {
    /// A statement without signatures.
    #[must_use]
    pub fn new(body: &T, alliance: AllianceId) -> Self {
        let envelope = Envelope { kind: T::KIND.to_owned(), payload: encode(body), alliance, signatures: Vec::new() };
        Self { envelope, body: PhantomData }
    }

    /// Reads a draft; the signatures it already has must verify.
    ///
    /// # Errors
    /// As [`Signed::open`], but for having no signature.
    pub fn open(bytes: &[u8]) -> Result<Self, OpenError> {
        let envelope = Envelope::read::<T>(bytes)?;
        envelope.body::<T>()?;
        Ok(Self { envelope, body: PhantomData })
    }

    /// Adds a signature, or renews the one that this key has made.
    #[must_use]
    pub fn sign(mut self, key: &SecretKey) -> Self {
        self.envelope.sign(key);
        self
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&self.envelope)
    }

    /// The statement, once it has a signature.
    ///
    /// # Errors
    /// It has none, or the whole is larger than a statement of this kind may be.
    pub fn finish(self) -> Result<Signed<T>, OpenError> {
        let alliance = self.envelope.alliance;
        Signed::open(&self.to_bytes(), alliance)
    }
}

impl<T: Statement> Signed<T> {
    /// Verifies and decodes a statement of this alliance.
    ///
    /// # Errors
    /// The first thing that is wrong with it, from size to payload.
    pub fn open(bytes: &[u8], alliance: AllianceId) -> Result<Self, OpenError> {
        let envelope = Envelope::read::<T>(bytes)?;
        if envelope.alliance != alliance {
            return Err(OpenError::Alliance { found: envelope.alliance });
        }
        if envelope.signatures.is_empty() {
            return Err(OpenError::Unsigned);
        }
        let body = envelope.body()?;
        Ok(Self {
            body: Arc::new(body),
            id: StatementId(*blake3::hash(&envelope.preimage()).as_bytes()),
            alliance,
            signers: envelope.signatures.iter().map(|by| by.key).collect(),
            bytes: bytes.into(),
        })
    }

    /// Signs a body with one key.
    ///
    /// # Errors
    /// The statement would be larger than its kind may be.
    pub fn sign(body: &T, alliance: AllianceId, key: &SecretKey) -> Result<Self, OpenError> {
        Draft::new(body, alliance).sign(key).finish()
    }

    /// The same statement with one more signature under it.
    ///
    /// # Errors
    /// The statement would be larger than its kind may be.
    pub fn countersign(&self, key: &SecretKey) -> Result<Self, OpenError> {
        Draft::open(&self.bytes)?.sign(key).finish()
    }

    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    #[must_use]
    pub fn id(&self) -> StatementId {
        self.id
    }

    #[must_use]
    pub fn alliance(&self) -> AllianceId {
        self.alliance
    }

    /// Who signed, in the order of the keys.
    #[must_use]
    pub fn signers(&self) -> &[PublicKey] {
        &self.signers
    }

    #[must_use]
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        self.signers.contains(key)
    }

    /// Whether this key, and no other, signed.
    #[must_use]
    pub fn signed_only_by(&self, key: &PublicKey) -> bool {
        *self.signers == [*key]
    }

    /// The bytes that were verified.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self {
            body: Arc::clone(&self.body),
            id: self.id,
            alliance: self.alliance,
            signers: Arc::clone(&self.signers),
            bytes: Arc::clone(&self.bytes),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("id", &self.id).field("signers", &self.signers).field("body", &self.body).finish()
    }
}

/// The kind of a statement, read from its envelope before anything is believed; for sorting what arrives.
///
/// # Errors
/// The bytes are not an envelope, or larger than any statement may be.
pub fn kind_of(bytes: &[u8]) -> Result<String, OpenError> {
    if bytes.len() > limits::LAW_PACK_BYTES_MAX {
        return Err(OpenError::TooLarge { bytes: bytes.len(), limit: limits::LAW_PACK_BYTES_MAX });
    }
    let envelope: Envelope = serde_ipld_dagcbor::from_slice(bytes).map_err(|_| OpenError::Envelope)?;
    Ok(envelope.kind.chars().take(32).collect())
}

/// The body of a statement without a look at its signatures: out of this node's own ledger, where it was verified before it
/// was recorded; or to see who a statement claims to be of, before it is verified.
pub(crate) fn recorded_body<T: Statement>(bytes: &[u8]) -> Option<T> {
    let envelope: Envelope = serde_ipld_dagcbor::from_slice(bytes).ok()?;
    decode(&envelope.payload).ok()
}

/// Reads a list that has at most `MAX` members; stops at the first one too many, so that a short text cannot make a long
/// list.
pub(crate) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(member) = members.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::custom(format!("a list of more than {MAX}")));
                }
                list.push(member);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Note {
        text: String,
    }
    impl Statement for Note {
        const KIND: &'static str = "note";
        const SIGNATURES_MAX: usize = 2;
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Other {
        text: String,
    }
    impl Statement for Other {
        const KIND: &'static str = "other";
    }

    const HERE: AllianceId = AllianceId([7; 32]);

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn note() -> Signed<Note> {
        Signed::sign(&Note { text: "free passage".into() }, HERE, &key(1)).expect("signs")
    }

    #[test]
    fn opens_what_was_signed() {
        let again = Signed::<Note>::open(note().bytes(), HERE).expect("opens");
        assert_eq!((again.body(), again.id()), (note().body(), note().id()));
        assert!(again.signed_only_by(&key(1).public()));
    }

    #[test]
    fn another_kind_or_alliance_is_refused() {
        assert!(matches!(Signed::<Other>::open(note().bytes(), HERE), Err(OpenError::Kind { .. })));
        assert!(matches!(Signed::<Note>::open(note().bytes(), AllianceId([8; 32])), Err(OpenError::Alliance { .. })));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = note().bytes().to_vec();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Signed::<Note>::open(&bad, HERE).is_err(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(Signed::<Note>::open(&bytes[..length], HERE).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn the_kind_is_under_the_signature() {
        let mut envelope: Envelope = decode(note().bytes()).expect("an envelope");
        envelope.kind = "other".into();
        let bytes = encode(&envelope);
        assert_eq!(Signed::<Other>::open(&bytes, HERE).err(), Some(OpenError::Signature(key(1).public())));
    }

    #[test]
    fn signatures_are_a_set() {
        let two = note().countersign(&key(2)).expect("countersigns");
        assert_eq!(two.id(), note().id());
        assert_eq!(two.signers().len(), 2);
        assert_eq!(two.countersign(&key(1)).expect("renews").bytes(), two.bytes());

        let mut envelope: Envelope = decode(note().bytes()).expect("an envelope");
        envelope.signatures.push(envelope.signatures[0].clone());
        assert!(matches!(Signed::<Note>::open(&encode(&envelope), HERE), Err(OpenError::SignatureOrder(_))));
        envelope.signatures.clear();
        assert_eq!(Signed::<Note>::open(&encode(&envelope), HERE).err(), Some(OpenError::Unsigned));
    }
}
