//! Signed envelopes that tools outside the alliance understand: DSSE v1 (`secure-systems-lab/dsse`), in JSON.
//!
//! What is signed begins with `DSSEv1 `, as no other thing does that a node's key signs, and holds the type of the payload
//! and the payload, each with its length: bytes signed as one thing can never pass as another. A payload is given out by
//! [`Envelope::verify`] alone, so that nothing parses one that nobody signed. Only what is signed counts: what an envelope
//! says about keys is a hint, and other signatures under it than the one looked for mean nothing.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    envelope::at_most,
    key::{PublicKey, SecretKey, Signature},
    model_key::{ModelSigningKey, ModelVerifyingKey},
};

/// The type of a payload that is an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Bytes of an envelope in JSON: a statement about as many files as an artefact may have, in base64. A smaller one is
/// bounded by who reads it.
pub const ENVELOPE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Signatures under an envelope: one for each key that vouches for the same text; each may be tried.
pub const SIGNATURES_PER_ENVELOPE_MAX: usize = 8;

/// Characters of a message about bytes that are not what they should be.
const SHAPE_CHARS_MAX: usize = 200;

/// A payload, its type, and signatures that nobody has verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<RawSignature>,
}

/// Who signs.
#[derive(Clone, Copy)]
pub enum Signer<'a> {
    /// A publisher of models: ECDSA with SHA-256, as DER.
    P256(&'a ModelSigningKey),
    /// A node.
    Ed25519(&'a SecretKey),
}

/// Who is believed to have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifier {
    P256(ModelVerifyingKey),
    Ed25519(PublicKey),
}

/// Why bytes are not an envelope, or not one that the expected key signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("{bytes} bytes are more than the {max} that an envelope may have", max = ENVELOPE_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("not a DSSE envelope: {0}")]
    Shape(Shape),
    #[error("the payload is not base64 in its one form")]
    Payload,
    #[error("a signature is not base64 in its one form")]
    Base64,
    #[error("no signature")]
    Unsigned,
    #[error("the payload is not of the type `{expected}`")]
    PayloadType { expected: String },
    #[error("the expected key did not sign it")]
    NotVerified,
}

/// Why an envelope could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the envelope would have {bytes} bytes, more than the {max} that one may have", max = ENVELOPE_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("the key does not sign")]
    Key,
    #[error("the envelope could not be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// What a JSON parser says is wrong, cut to one short line that can be shown on a terminal: its text quotes its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(String);

#[derive(Clone, PartialEq, Eq)]
struct RawSignature {
    key_id: String,
    bytes: Vec<u8>,
}

/// An envelope as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EnvelopeJson {
    payload: String,
    payload_type: String,
    #[serde(deserialize_with = "at_most::<_, _, SIGNATURES_PER_ENVELOPE_MAX>")]
    signatures: Vec<SignatureJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    sig: String,
    /// Absent, empty and `null` mean the same.
    #[serde(default)]
    keyid: Option<String>,
}

impl Envelope {
    /// Puts a payload into an envelope and signs it. The same arguments always give the same envelope.
    ///
    /// # Errors
    /// The envelope would be too large, or the key does not sign.
    pub fn sign(payload_type: &str, payload: &[u8], signer: Signer<'_>) -> Result<Self, SealError> {
        let signature = signer.sign(&signed(payload_type, payload))?;
        let envelope =
            Self { payload_type: payload_type.to_owned(), payload: payload.to_vec(), signatures: vec![signature] };
        let bytes = envelope.to_json()?.len();
        if bytes > ENVELOPE_BYTES_MAX { Err(SealError::TooLarge { bytes }) } else { Ok(envelope) }
    }

    /// Reads an envelope. Nothing in it is believed yet: see [`Self::verify`].
    ///
    /// # Errors
    /// It is too large, or is not an envelope with at least one signature.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes: json.len() });
        }
        let json: EnvelopeJson = serde_json::from_slice(json).map_err(|error| EnvelopeError::Shape(Shape::of(&error)))?;
        json.try_into()
    }

    /// The payload, if it has the expected type and this key signed it. Of several signatures one that verifies is enough.
    ///
    /// # Errors
    /// It has another type, or no signature is one by this key.
    pub fn verify(&self, payload_type: &str, key: &Verifier) -> Result<&[u8], EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType { expected: payload_type.to_owned() });
        }
        let signed = signed(payload_type, &self.payload);
        if self.signatures.iter().any(|signature| key.accepts(&signed, &signature.bytes)) {
            Ok(&self.payload)
        } else {
            Err(EnvelopeError::NotVerified)
        }
    }

    /// What the envelope says of who signed it. Not signed: good for choosing a key to try, and for nothing else.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.key_id.as_str())
    }

    /// The envelope as one line of JSON, without a line end: a line of a `.intoto.jsonl` file.
    ///
    /// # Errors
    /// The library does not write it.
    pub fn to_json(&self) -> Result<String, SealError> {
        serde_json::to_string(self).map_err(SealError::Json)
    }
}

impl Signer<'_> {
    fn sign(self, message: &[u8]) -> Result<RawSignature, SealError> {
        match self {
            // Empty, as `model_signing` writes it; a bundle names the key elsewhere.
            Self::P256(key) => {
                Ok(RawSignature { key_id: String::new(), bytes: key.sign(message).map_err(|_| SealError::Key)? })
            }
            Self::Ed25519(key) => {
                Ok(RawSignature { key_id: key.public().to_string(), bytes: key.sign(message).0.to_vec() })
            }
        }
    }
}

impl Verifier {
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => key.verify(message, signature).is_ok(),
            Self::Ed25519(key) => {
                <[u8; 64]>::try_from(signature).is_ok_and(|signature| key.verify(message, &Signature(signature)).is_ok())
            }
        }
    }
}

/// What is signed: the pre-authentication encoding of DSSE v1.
fn signed(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl TryFrom<EnvelopeJson> for Envelope {
    type Error = EnvelopeError;

    fn try_from(json: EnvelopeJson) -> Result<Self, Self::Error> {
        if json.signatures.is_empty() {
            return Err(EnvelopeError::Unsigned);
        }
        // DSSE also permits the URL-safe alphabet; no tool that we meet writes it, and a value should have one text.
        let payload = BASE64_STANDARD.decode(&json.payload).map_err(|_| EnvelopeError::Payload)?;
        let read = |signature: SignatureJson| {
            let bytes = BASE64_STANDARD.decode(&signature.sig).map_err(|_| EnvelopeError::Base64)?;
            Ok(RawSignature { key_id: signature.keyid.unwrap_or_default(), bytes })
        };
        let signatures = json.signatures.into_iter().map(read).collect::<Result<_, EnvelopeError>>()?;
        Ok(Self { payload_type: json.payload_type, payload, signatures })
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let write = |signature: &RawSignature| SignatureJson {
            sig: BASE64_STANDARD.encode(&signature.bytes),
            keyid: Some(signature.key_id.clone()),
        };
        EnvelopeJson {
            payload: BASE64_STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(write).collect(),
        }
        .serialize(serializer)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({} bytes under {} signatures)", self.payload.len(), self.signatures.len())
    }
}

impl Shape {
    pub(crate) fn of(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        Self(text.chars().map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' }).take(SHAPE_CHARS_MAX).collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn model_key() -> ModelSigningKey {
        ModelSigningKey::from_pem(include_str!("../tests/vectors/model_signing/key.pem")).expect("a key")
    }

    fn node_key() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    /// One envelope for each kind of key, with the key that verifies it.
    fn both() -> [(Envelope, Verifier); 2] {
        let (model, node) = (model_key(), node_key());
        let sign = |signer| Envelope::sign(IN_TOTO, b"{\"a\":1}", signer).expect("signed");
        [
            (sign(Signer::P256(&model)), Verifier::P256(model.public().clone())),
            (sign(Signer::Ed25519(&node)), Verifier::Ed25519(node.public())),
        ]
    }

    fn changed(envelope: &Envelope, change: impl FnOnce(&mut Value)) -> Result<Envelope, EnvelopeError> {
        let mut value = serde_json::to_value(envelope).expect("a value");
        change(&mut value);
        Envelope::parse(value.to_string().as_bytes())
    }

    /// The example in the protocol of DSSE v1.0.
    #[test]
    fn what_is_signed_is_that_of_the_specification() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(signed("http://example.com/HelloWorld", b"hello world"), expected);
        // Lengths are of bytes, and a payload may be of any.
        assert_eq!(signed("\u{444}", b"\0\xff"), b"DSSEv1 2 \xd1\x84 2 \0\xff");
    }

    #[test]
    fn what_was_signed_comes_back() {
        for (envelope, key) in both() {
            let json = envelope.to_json().expect("written");
            let read = Envelope::parse(json.as_bytes()).expect("an envelope");
            assert_eq!((&read, read.verify(IN_TOTO, &key)), (&envelope, Ok(b"{\"a\":1}".as_slice())));
            assert!(!json.contains('\n'));
        }
        let [(model, _), (node, _)] = both();
        assert_eq!(model.key_ids().collect::<Vec<_>>(), [""]);
        assert_eq!(node.key_ids().collect::<Vec<_>>(), [node_key().public().to_string()]);
    }

    /// Made by `tests/vectors/generate.py`, with securesystemslib and none of our code.
    #[test]
    fn an_envelope_of_others_verifies() {
        let [_, (ours, key)] = both();
        let theirs =
            Envelope::parse(include_bytes!("../tests/vectors/model_signing/ed25519.dsse.json")).expect("an envelope");
        assert_eq!(theirs.verify(IN_TOTO, &key), ours.verify(IN_TOTO, &key));
        assert_eq!(theirs.signatures[0].bytes, ours.signatures[0].bytes);
        // They name keys in another way.
        assert_ne!(theirs, ours);
    }

    #[test]
    fn another_key_type_or_text_is_refused() {
        let [(model, model_key), (node, node_key)] = both();
        let stranger = ModelSigningKey::from_scalar(&[7; 32]).expect("encoded").expect("a key");
        for (envelope, wrong) in [
            (&model, &node_key),
            (&node, &model_key),
            (&node, &Verifier::Ed25519(SecretKey::from_seed(&[8; 32]).public())),
            (&node, &Verifier::Ed25519(PublicKey([0xff; 32]))),
            (&model, &Verifier::P256(stranger.public().clone())),
        ] {
            assert_eq!(envelope.verify(IN_TOTO, wrong), Err(EnvelopeError::NotVerified));
        }
        let other = "text/plain";
        for (envelope, key) in both() {
            assert_eq!(envelope.verify(other, &key), Err(EnvelopeError::PayloadType { expected: other.to_owned() }));
            let relabelled = changed(&envelope, |value| value["payloadType"] = json!(other)).expect("an envelope");
            assert_eq!(relabelled.verify(other, &key), Err(EnvelopeError::NotVerified));
            let altered = changed(&envelope, |value| value["payload"] = json!("eyJhIjoyfQ==")).expect("an envelope");
            assert_eq!(altered.verify(IN_TOTO, &key), Err(EnvelopeError::NotVerified));
        }
    }

    /// The key that an envelope names is a hint, so those bits may change.
    #[test]
    fn every_flipped_bit_but_in_a_hint_is_refused() {
        for (envelope, key) in both() {
            let json = envelope.to_json().expect("written");
            let key_id = envelope.key_ids().next().expect("one").to_owned();
            let hint = json.find(&format!("\"{key_id}\"")).expect("there") + 1;
            let hint = if key_id.is_empty() { 0..0 } else { hint..hint + key_id.len() };
            for at in (0..json.len() * 8).filter(|at| !hint.contains(&(at / 8))) {
                let mut bytes = json.clone().into_bytes();
                bytes[at / 8] ^= 1 << (at % 8);
                let read = Envelope::parse(&bytes);
                assert!(read.is_err() || read.is_ok_and(|read| read.verify(IN_TOTO, &key).is_err()), "bit {at}");
            }
            for length in 0..json.len() {
                assert!(Envelope::parse(&json.as_bytes()[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn an_absent_an_empty_and_no_key_id_are_one() {
        let [(envelope, key), _] = both();
        let absent = |value: &mut Value| {
            value["signatures"][0].as_object_mut().expect("an object").remove("keyid");
        };
        let null = |value: &mut Value| value["signatures"][0]["keyid"] = Value::Null;
        for read in [changed(&envelope, absent), changed(&envelope, null)] {
            let read = read.expect("an envelope");
            assert_eq!((&read, read.verify(IN_TOTO, &key).is_ok()), (&envelope, true));
        }
    }

    #[test]
    fn one_good_signature_among_others_is_enough() {
        let [(model, model_key), (node, node_key)] = both();
        let of_node = serde_json::to_value(&node).expect("a value")["signatures"][0].clone();
        let junk = json!({"sig": "AAAA"});
        let several = changed(&model, |value| {
            let list = value["signatures"].as_array_mut().expect("a list");
            list.insert(0, junk.clone());
            list.push(of_node);
        });
        let several = several.expect("an envelope");
        assert!(several.verify(IN_TOTO, &model_key).is_ok() && several.verify(IN_TOTO, &node_key).is_ok());
        let full = |count: usize| {
            changed(&model, |value| value["signatures"] = Value::Array(vec![junk.clone(); count]))
                .map(|envelope| envelope.verify(IN_TOTO, &model_key).map(<[u8]>::len))
        };
        assert_eq!(full(SIGNATURES_PER_ENVELOPE_MAX), Ok(Err(EnvelopeError::NotVerified)));
        assert!(matches!(full(SIGNATURES_PER_ENVELOPE_MAX + 1), Err(EnvelopeError::Shape(_))));
        assert_eq!(full(0), Err(EnvelopeError::Unsigned));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let [(envelope, _), _] = both();
        let is_shape = |read: Result<Envelope, EnvelopeError>| matches!(read, Err(EnvelopeError::Shape(_)));
        for bad in ["", "{}", "[]", "null", "{\"payload\":\"\"}", "\u{feff}{}", "[[[["] {
            assert!(is_shape(Envelope::parse(bad.as_bytes())), "{bad}");
        }
        assert!(is_shape(changed(&envelope, |value| value["more"] = json!(1))));
        assert!(is_shape(changed(&envelope, |value| value["signatures"][0]["cert"] = json!(""))));
        let twice = envelope.to_json().expect("written").replacen('{', "{\"payload\":\"\",", 1);
        assert!(is_shape(Envelope::parse(twice.as_bytes())));
        for bad in ["eyJhIjoxfQ", "eyJhIjoxfR==", "eyJhIjoxfQ==\n", "e-JhIjoxfQ==", "*"] {
            let payload = changed(&envelope, |value| value["payload"] = json!(bad));
            assert_eq!(payload, Err(EnvelopeError::Payload), "{bad}");
            let signature = changed(&envelope, |value| value["signatures"][0]["sig"] = json!(bad));
            assert_eq!(signature, Err(EnvelopeError::Base64), "{bad}");
        }
        let Err(EnvelopeError::Shape(shape)) = changed(&envelope, |value| value["\u{1b}[2J\u{202e}"] = json!(1)) else {
            panic!("refused");
        };
        assert!(shape.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shape}");
    }

    #[test]
    fn large_ones_are_neither_made_nor_read() {
        let key = node_key();
        let large = vec![0; ENVELOPE_BYTES_MAX / 4 * 3];
        assert!(matches!(Envelope::sign(IN_TOTO, &large, Signer::Ed25519(&key)), Err(SealError::TooLarge { .. })));
        let fits = Envelope::sign(IN_TOTO, &large[..large.len() - 1024], Signer::Ed25519(&key)).expect("signed");
        let json = fits.to_json().expect("written");
        assert!(json.len() <= ENVELOPE_BYTES_MAX && Envelope::parse(json.as_bytes()).is_ok());
        let padded = format!("{json}{}", " ".repeat(ENVELOPE_BYTES_MAX));
        assert!(matches!(Envelope::parse(padded.as_bytes()), Err(EnvelopeError::TooLarge { .. })));
    }
}
