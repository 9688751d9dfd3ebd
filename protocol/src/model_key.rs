//! P-256 keys with which publishers sign models.
//!
//! OpenSSF Model Signing knows P-256, P-384 and P-521 and no Ed25519, so that a node's own key cannot serve. A private key
//! is PKCS#8 (RFC 5958) in PEM without a passphrase, as `model_signing sign key` reads it; where that text is kept, and who
//! may read it, is for the caller to see to. A private key is never printed and is wiped when it is dropped.

use std::fmt;

use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey, VerifyingKey, signature::Signer as _, signature::Verifier as _},
    pkcs8::{DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    envelope::{OpenError, Signed, Statement},
    id::AllianceId,
    key::{PublicKey, SecretKey as NodeKey},
    time::Timestamp,
};

/// Bytes of a key in PEM. One of ours has 241, one of P-521 under 400; the rest is room for text above the block.
pub const KEY_PEM_BYTES_MAX: usize = 2048;

/// What the PEM of a private key with a passphrase has in it: PKCS#8 (RFC 7468 section 11) and the older form (RFC 1421).
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Where a private key begins in PEM: `openssl ecparam -genkey` writes the parameters of the curve before it.
const PRIVATE: [&str; 2] = ["-----BEGIN PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----"];

/// A private P-256 key. Never printed; wiped when dropped. Its public half is always derived from it.
pub struct ModelSigningKey {
    secret: SigningKey,
    public: ModelVerifyingKey,
}

/// The public half of a [`ModelSigningKey`]: a point of P-256 that is not the point at infinity.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelVerifyingKey {
    point: VerifyingKey,
    /// With the point uncompressed, 64 columns and line feeds: what other tools hash to name the key.
    pem: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ModelKeyError {
    #[error("{bytes} bytes are more than the {max} that a key in PEM may have", max = KEY_PEM_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("the private key has a passphrase: take it off first, with `openssl pkey`")]
    Encrypted,
    #[error("not a private key of the curve P-256 in PEM (PKCS#8 or SEC 1)")]
    Private,
    #[error("not a public key of the curve P-256 in PEM")]
    Public,
    #[error("the key could not be encoded")]
    Encode,
}

/// The signature could not be made, or is not one that this key made over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

impl ModelSigningKey {
    /// The key with this secret number, big-endian; none where it is 0 or not below the order of the curve, which of 2^32
    /// random ones is the case for one.
    ///
    /// # Errors
    /// The library does not encode its public half.
    pub fn from_scalar(scalar: &[u8; 32]) -> Result<Option<Self>, ModelKeyError> {
        SecretKey::from_slice(scalar).ok().map(|secret| Self::new(&secret)).transpose()
    }

    /// Reads a private key, as PKCS#8 or as the SEC 1 form (RFC 5915) that `openssl ecparam -genkey -noout` writes.
    ///
    /// # Errors
    /// It is too large, has a passphrase, or is no private key of this curve.
    pub fn from_pem(text: &str) -> Result<Self, ModelKeyError> {
        within_bound(text)?;
        if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
            return Err(ModelKeyError::Encrypted);
        }
        let begin = PRIVATE.iter().find_map(|mark| text.find(mark)).unwrap_or(0);
        Self::new(&SecretKey::from_pem(text.get(begin..).unwrap_or(text)).map_err(|_| ModelKeyError::Private)?)
    }

    /// The key as PKCS#8 in PEM, without a passphrase: whoever reads the text has the key.
    ///
    /// # Errors
    /// The library does not encode it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, ModelKeyError> {
        self.secret.to_pkcs8_pem(LineEnding::LF).map_err(|_| ModelKeyError::Encode)
    }

    #[must_use]
    pub fn public(&self) -> &ModelVerifyingKey {
        &self.public
    }

    /// ECDSA with SHA-256, as DER. The same arguments always give the same bytes (RFC 6979).
    ///
    /// # Errors
    /// The library does not sign, which happens for no input that can be found.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BadSignature> {
        let signature: DerSignature = self.secret.try_sign(message).map_err(|_| BadSignature)?;
        Ok(signature.as_bytes().to_vec())
    }

    fn new(secret: &SecretKey) -> Result<Self, ModelKeyError> {
        let secret = SigningKey::from(secret);
        let public = ModelVerifyingKey::new(*secret.verifying_key())?;
        Ok(Self { secret, public })
    }
}

impl ModelVerifyingKey {
    /// Bytes of a signature: a DER sequence of two integers of at most 33 bytes.
    const SIGNATURE_BYTES_MAX: usize = 72;

    /// Reads a public key (SubjectPublicKeyInfo, RFC 5480).
    ///
    /// # Errors
    /// It is too large, or is no public key of this curve.
    pub fn from_pem(text: &str) -> Result<Self, ModelKeyError> {
        within_bound(text)?;
        Self::new(VerifyingKey::from_public_key_pem(text).map_err(|_| ModelKeyError::Public)?)
    }

    /// The key as other tools write it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The point, compressed (SEC 1, section 2.3.3).
    #[must_use]
    pub fn to_sec1(&self) -> Vec<u8> {
        self.point.to_sec1_point(true).as_bytes().to_vec()
    }

    /// Reads a point, compressed or not.
    ///
    /// # Errors
    /// It is no point of this curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, ModelKeyError> {
        Self::new(VerifyingKey::from_sec1_bytes(bytes).map_err(|_| ModelKeyError::Public)?)
    }

    /// What bundles name the key by: the SHA-256 of its PEM text, in lower-case hexadecimal.
    #[must_use]
    pub fn hint(&self) -> String {
        hex::encode(Sha256::digest(self.pem.as_bytes()))
    }

    /// Checks an ECDSA signature with SHA-256, as DER. Both values of `s` are accepted, because other tools make both: who
    /// has one signature can write down a second one that verifies, and no signature identifies anything.
    ///
    /// # Errors
    /// It does not verify.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        // Before the library copies it to a buffer of fixed size.
        if signature.len() > Self::SIGNATURE_BYTES_MAX {
            return Err(BadSignature);
        }
        let signature = DerSignature::from_bytes(signature).map_err(|_| BadSignature)?;
        self.point.verify(message, &signature).map_err(|_| BadSignature)
    }

    fn new(point: VerifyingKey) -> Result<Self, ModelKeyError> {
        let pem = point.to_public_key_pem(LineEnding::LF).map_err(|_| ModelKeyError::Encode)?;
        Ok(Self { point, pem })
    }
}

impl fmt::Debug for ModelSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelSigningKey(of {:?})", self.public)
    }
}

impl fmt::Debug for ModelVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelVerifyingKey({})", self.hint())
    }
}

fn within_bound(text: &str) -> Result<(), ModelKeyError> {
    if text.len() > KEY_PEM_BYTES_MAX { Err(ModelKeyError::TooLarge { bytes: text.len() }) } else { Ok(()) }
}

/// "Models that this key signs are signed by this node." Signed by the node; the model key has signed as well, so that
/// nobody can take a key that is another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelKeyBinding {
    pub node: PublicKey,
    /// [`ModelVerifyingKey::to_sec1`].
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// A signature of that key over a text of its own, the alliance and the node, as DER (TRAINING-9).
    #[serde(with = "serde_bytes")]
    pub proof: Vec<u8>,
    pub since: Timestamp,
}

/// What the proof of a model key begins with: no statement that such a key signs otherwise does.
const PROOF_DOMAIN: &[u8] = b"alliance/v1/model-key-proof\n";

/// Why a binding binds no key.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("it is not signed by the node that it names")]
    Signer,
    #[error(transparent)]
    Key(#[from] ModelKeyError),
    #[error("the model key has not agreed to it")]
    Proof,
}

impl Statement for ModelKeyBinding {
    const KIND: &'static str = "model-key";
}

impl ModelKeyBinding {
    /// Binds a model key to the node with this key.
    ///
    /// # Errors
    /// One of the keys does not sign.
    pub fn make(
        key: &ModelSigningKey,
        node: &NodeKey,
        alliance: AllianceId,
        now: Timestamp,
    ) -> Result<Signed<Self>, BindingError> {
        let proof = key.sign(&proof_of(alliance, node.public())).map_err(|_| BindingError::Proof)?;
        let binding = Self { node: node.public(), key: key.public().to_sec1(), proof, since: now };
        Ok(Signed::sign(&binding, alliance, node)?)
    }

    /// The key that a statement binds to this node.
    ///
    /// # Errors
    /// It binds none, or to another node.
    pub fn key_of(bytes: &[u8], node: &PublicKey, alliance: AllianceId) -> Result<ModelVerifyingKey, BindingError> {
        let binding = Signed::<Self>::open(bytes, alliance)?;
        let body = binding.body();
        if body.node != *node || !binding.signed_only_by(node) {
            return Err(BindingError::Signer);
        }
        let key = ModelVerifyingKey::from_sec1(&body.key)?;
        // One point has one binding, in one form.
        if key.to_sec1() != body.key || key.verify(&proof_of(alliance, *node), &body.proof).is_err() {
            return Err(BindingError::Proof);
        }
        Ok(key)
    }
}

fn proof_of(alliance: AllianceId, node: PublicKey) -> Vec<u8> {
    [PROOF_DOMAIN, &alliance.0, &node.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `tests/vectors/generate.py`, as OpenSSL writes them.
    const PRIVATE: &str = include_str!("../tests/vectors/model_signing/key.pem");
    const SEC1: &str = include_str!("../tests/vectors/model_signing/key.sec1.pem");
    const PUBLIC: &str = include_str!("../tests/vectors/model_signing/key.pub");
    const COMPRESSED: &str = include_str!("../tests/vectors/model_signing/key.compressed.pub");
    const HINT: &str = include_str!("../tests/vectors/model_signing/key.hint");

    #[test]
    fn keys_are_read_and_written_as_others_do() {
        let key = ModelSigningKey::from_pem(PRIVATE).expect("a key");
        assert_eq!(key.to_pem().expect("encoded").as_str(), PRIVATE);
        assert_eq!(ModelSigningKey::from_pem(SEC1).expect("a key").to_pem().expect("encoded").as_str(), PRIVATE);
        assert_eq!(key.public().pem(), PUBLIC);
        assert_eq!(key.public().hint(), HINT.trim());
        let point = key.public().to_sec1();
        assert_eq!((point.len(), &ModelVerifyingKey::from_sec1(&point).expect("a point")), (33, key.public()));
        assert!(ModelVerifyingKey::from_sec1(&point[1..]).is_err() && ModelVerifyingKey::from_sec1(&[0]).is_err());
        for text in [PUBLIC, COMPRESSED, &PUBLIC.replace('\n', "\r\n")] {
            assert_eq!(&ModelVerifyingKey::from_pem(text).expect("a key"), key.public());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = format!("{PRIVATE}{}", " ".repeat(KEY_PEM_BYTES_MAX));
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(ModelSigningKey::from_pem(&long), Err(ModelKeyError::TooLarge { .. })));
        assert!(matches!(ModelVerifyingKey::from_pem(&long), Err(ModelKeyError::TooLarge { .. })));
        assert!(matches!(ModelSigningKey::from_pem(sealed), Err(ModelKeyError::Encrypted)));
        let older = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n";
        assert!(matches!(ModelSigningKey::from_pem(older), Err(ModelKeyError::Encrypted)));
        // As `openssl ecparam -name prime256v1 -genkey` writes it.
        let with_curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let key = ModelSigningKey::from_pem(&format!("{with_curve}{SEC1}")).expect("a key");
        assert_eq!(key.public().pem(), PUBLIC);
        let other_curve = include_str!("../tests/vectors/model_signing/p384.pem");
        for bad in ["", "x", PUBLIC, other_curve, &PRIVATE.replace("MI", "MJ")] {
            assert!(matches!(ModelSigningKey::from_pem(bad), Err(ModelKeyError::Private)), "{bad}");
        }
        let other_curve = include_str!("../tests/vectors/model_signing/p384.pub");
        let ed25519 = include_str!("../tests/vectors/model_signing/ed25519.pub");
        for bad in ["", "x", PRIVATE, other_curve, ed25519] {
            assert!(matches!(ModelVerifyingKey::from_pem(bad), Err(ModelKeyError::Public)), "{bad}");
        }
        for cut in (0..PUBLIC.len() - 1).filter_map(|length| PUBLIC.get(..length)) {
            assert!(ModelVerifyingKey::from_pem(cut).is_err(), "{cut}");
        }
    }

    /// RFC 6979, appendix A.2.5, the message `sample`.
    #[test]
    fn the_signature_of_rfc_6979() {
        let scalar = hex::decode("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").expect("hex");
        let key = ModelSigningKey::new(&SecretKey::from_slice(&scalar).expect("a scalar")).expect("a key");
        let signature = hex::encode(key.sign(b"sample").expect("signed"));
        let r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
        let s = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
        assert_eq!(signature, format!("3046022100{r}022100{s}"));
    }

    #[test]
    fn numbers_outside_of_the_curve_are_no_keys() {
        for scalar in [[0; 32], [0xff; 32]] {
            assert!(ModelSigningKey::from_scalar(&scalar).expect("encoded").is_none());
        }
    }

    #[test]
    fn new_keys_differ_and_sign() {
        let [one, two] = [7, 8].map(|byte| ModelSigningKey::from_scalar(&[byte; 32]).expect("encoded").expect("a key"));
        assert_ne!(one.public(), two.public());
        let again = ModelSigningKey::from_pem(&one.to_pem().expect("encoded")).expect("a key");
        let signature = again.sign(b"text").expect("signed");
        assert_eq!(one.public().verify(b"text", &signature), Ok(()));
        assert_eq!(one.public().verify(b"texu", &signature), Err(BadSignature));
        assert_eq!(two.public().verify(b"text", &signature), Err(BadSignature));
    }

    /// Among them lengths that DER does not permit, integers that are too long, and what stands behind the end.
    #[test]
    fn changed_signatures_are_refused_and_nothing_panics() {
        let key = ModelSigningKey::from_pem(PRIVATE).expect("a key");
        let signature = key.sign(b"text").expect("signed");
        for at in 0..signature.len() {
            let flipped = (0..8).map(|bit| signature[at] ^ (1 << bit));
            for value in flipped.chain([0, 1, 0x7f, 0x80, 0xff]) {
                let mut changed = signature.clone();
                changed[at] = value;
                assert_eq!(key.public().verify(b"text", &changed).is_ok(), changed == signature, "{at} {value}");
            }
            assert!(key.public().verify(b"text", &signature[..at]).is_err());
        }
        for length in 0..200 {
            let longer = [signature.clone(), vec![0; length]].concat();
            assert_eq!(key.public().verify(b"text", &longer).is_ok(), length == 0, "{length}");
            let body = u8::try_from(length).expect("small");
            for first in [0, 1, 0x7f, 0x80, 0xff] {
                let large = [vec![0x30, body, 0x02, body.saturating_sub(5)], vec![first; length]].concat();
                assert!(key.public().verify(b"text", &large).is_err());
            }
        }
    }

    #[test]
    fn a_key_is_bound_to_a_node_by_both() {
        let (alliance, now) = (AllianceId([3; 32]), Timestamp(5));
        let [node, other] = [1, 2].map(|seed| NodeKey::from_seed(&[seed; 32]));
        let [key, stranger] =
            [7, 8].map(|byte| ModelSigningKey::from_scalar(&[byte; 32]).expect("encoded").expect("a key"));
        let bound = ModelKeyBinding::make(&key, &node, alliance, now).expect("bound");
        let found = |bytes: &[u8], node: &NodeKey, alliance| ModelKeyBinding::key_of(bytes, &node.public(), alliance);
        assert_eq!(found(bound.bytes(), &node, alliance).expect("bound"), *key.public());
        assert!(matches!(found(bound.bytes(), &other, alliance), Err(BindingError::Signer)));
        assert!(matches!(found(bound.bytes(), &node, AllianceId([4; 32])), Err(BindingError::Open(_))));
        type Change<'a> = &'a dyn Fn(&mut ModelKeyBinding);
        let changes: [Change<'_>; 4] = [
            &|binding| binding.key = stranger.public().to_sec1(),
            &|binding| binding.proof = stranger.sign(&proof_of(alliance, node.public())).expect("signed"),
            &|binding| binding.proof = key.sign(&proof_of(alliance, other.public())).expect("signed"),
            &|binding| binding.key = key.public().point.to_sec1_point(false).as_bytes().to_vec(),
        ];
        for change in changes {
            let mut body = bound.body().clone();
            change(&mut body);
            let lie = Signed::sign(&body, alliance, &node).expect("signed");
            assert!(matches!(found(lie.bytes(), &node, alliance), Err(BindingError::Proof)));
        }
        // A node cannot take the binding of another one for itself.
        let stolen = Signed::sign(&ModelKeyBinding { node: other.public(), ..bound.body().clone() }, alliance, &other);
        assert!(found(stolen.expect("signed").bytes(), &other, alliance).is_err());
    }

    #[test]
    fn private_keys_are_not_printed() {
        let key = ModelSigningKey::from_pem(PRIVATE).expect("a key");
        assert_eq!(format!("{key:?}"), format!("ModelSigningKey(of ModelVerifyingKey({}))", HINT.trim()));
    }
}
