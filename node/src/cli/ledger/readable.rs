//! Makes the bytes in a record readable: statements are opened, other bytes become hexadecimal digits.
//!
//! Works on the JSON of a record, whatever its kind. Signatures are verified while opening; what does not open is shown as
//! bytes and never as if it were believed.

use alliance_protocol::{
    authority::{Accreditation, Approval, LawPack, Safeguard, Status},
    charter::Charter,
    crossing::{ClearanceGiven, CrossingRequest, Receipt, Refusal},
    dsse::{Envelope, IN_TOTO, Verifier},
    envelope::{Signed, Statement, kind_of},
    id::{AllianceId, CrossingId},
    offer::{NodeRecord, Offer, Withdrawal},
    rotation::KeyRotation,
    training::{Attestation, SignedStep},
};
use serde_json::{Value, json};

/// Statements inside statements: a request holds an accreditation and safeguards, which hold none.
const DEPTH_MAX: u32 = 3;

/// Bytes shown of what is no statement.
const HEX_BYTES_MAX: usize = 64;

/// The record with its statements opened.
pub(super) fn opened(record: Value, alliance: Option<AllianceId>) -> Value {
    open_within(record, alliance, DEPTH_MAX)
}

/// The crossing that a record is about: its own field, or that of a model or a statement in it.
pub(super) fn crossing(record: &Value) -> Option<CrossingId> {
    let id = |value: &Value| value.get("crossing").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let mut inner = record.as_object().into_iter().flat_map(|fields| fields.values());
    id(record).or_else(|| inner.find_map(|value| id(value.get("body").unwrap_or(value))))
}

/// A few words for a list: the name, the problem or whose statement it is.
pub(super) fn about(record: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut words: Vec<String> = ["name", "code", "problem"].iter().filter_map(|key| text(record, key)).collect();
    for value in record.as_object().into_iter().flat_map(|fields| fields.values()) {
        let inner = value.get("body").unwrap_or(value);
        let keys = ["member", "name", "code", "old", "new"];
        let found = keys.iter().filter_map(|key| text(inner, key).or_else(|| text(value, key)));
        words.extend(found.filter(|word| !words.contains(word)).collect::<Vec<_>>());
    }
    words.join(", ")
}

fn open_within(value: Value, alliance: Option<AllianceId>, depth: u32) -> Value {
    match value {
        Value::Array(items) => match bytes(&items) {
            Some(bytes) => statement(&bytes, alliance, depth)
                .or_else(|| training(&bytes, alliance?))
                .unwrap_or_else(|| hexadecimal(&bytes)),
            None => Value::Array(items.into_iter().map(|item| open_within(item, alliance, depth)).collect()),
        },
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, field)| (key, open_within(field, alliance, depth))).collect())
        }
        other => other,
    }
}

/// Byte strings stand in JSON as lists of numbers. No other list of a record has only small numbers and this length.
fn bytes(items: &[Value]) -> Option<Vec<u8>> {
    if items.len() < 32 {
        return None;
    }
    items.iter().map(|item| item.as_u64().and_then(|number| u8::try_from(number).ok())).collect()
}

fn hexadecimal(bytes: &[u8]) -> Value {
    let shown = hex::encode(bytes.get(..HEX_BYTES_MAX).unwrap_or(bytes));
    json!({ "bytes": bytes.len(), "begins": shown })
}

fn statement(bytes: &[u8], alliance: Option<AllianceId>, depth: u32) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let kind = kind_of(bytes).ok()?;
    let here = alliance?;
    let opened = match kind.as_str() {
        // The charter founds the alliance and so cannot name it.
        Charter::KIND => body::<Charter>(bytes, AllianceId::NONE),
        Accreditation::KIND => body::<Accreditation>(bytes, here),
        Approval::KIND => body::<Approval>(bytes, here),
        Status::KIND => body::<Status>(bytes, here),
        LawPack::KIND => body::<LawPack>(bytes, here),
        Safeguard::KIND => body::<Safeguard>(bytes, here),
        NodeRecord::KIND => body::<NodeRecord>(bytes, here),
        Offer::KIND => body::<Offer>(bytes, here),
        Withdrawal::KIND => body::<Withdrawal>(bytes, here),
        CrossingRequest::KIND => body::<CrossingRequest>(bytes, here),
        ClearanceGiven::KIND => body::<ClearanceGiven>(bytes, here),
        Refusal::KIND => body::<Refusal>(bytes, here),
        Receipt::KIND => body::<Receipt>(bytes, here),
        KeyRotation::KIND => body::<KeyRotation>(bytes, here),
        _ => None,
    };
    Some(open_within(opened?, alliance, depth))
}

/// A step of training, or an attestation: what is signed on its first line.
fn training(bytes: &[u8], alliance: AllianceId) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (statement, signer) = match Attestation::open(bytes, alliance) {
        Ok(attestation) => ("training", attestation.by()),
        Err(_) => ("training-step", SignedStep::open(text, alliance).ok()?.step().node),
    };
    let envelope = Envelope::parse(text.lines().next()?.as_bytes()).ok()?;
    let body: Value = serde_json::from_slice(envelope.verify(IN_TOTO, &Verifier::Ed25519(signer)).ok()?).ok()?;
    let name = body.pointer("/subject/0/name").cloned();
    Some(json!({ "statement": statement, "signers": [signer], "name": name, "body": body }))
}

fn body<T: Statement>(bytes: &[u8], alliance: AllianceId) -> Option<Value> {
    let signed = Signed::<T>::open(bytes, alliance).ok()?;
    let body = serde_json::to_value(signed.body()).ok()?;
    Some(json!({ "statement": T::KIND, "id": signed.id(), "signers": signed.signers(), "body": body }))
}

#[cfg(test)]
mod tests {
    use alliance_protocol::{crossing::RefusalCode, id::StatementId, key::SecretKey, time::Timestamp};

    use super::*;

    const HERE: AllianceId = AllianceId([7; 32]);

    fn record() -> Value {
        let key = SecretKey::from_seed(&[1; 32]);
        let refusal = Refusal {
            crossing: CrossingId([0xab; 32]),
            request: StatementId([1; 32]),
            exporter: key.public(),
            code: RefusalCode::Busy,
            at: Timestamp(1),
        };
        let signed = Signed::sign(&refusal, HERE, &key).expect("signed");
        json!({ "refusal": signed.bytes(), "request": vec![255_u8; 100], "held": [[1, 2]] })
    }

    #[test]
    fn statements_are_opened_and_other_bytes_are_not() {
        let opened = opened(record(), Some(HERE));
        assert_eq!(opened["refusal"]["body"]["code"], "busy");
        assert_eq!(opened["refusal"]["statement"], "refusal");
        assert_eq!(opened["request"]["bytes"], 100);
        assert_eq!(opened["held"], json!([[1, 2]]));
        assert_eq!(crossing(&opened), Some(CrossingId([0xab; 32])));
        assert_eq!(about(&opened), "busy");
    }

    #[test]
    fn steps_of_training_are_opened() {
        let vectors: Value = serde_json::from_str(include_str!("../../../../specs/vectors/training.json")).expect("JSON");
        let alliance = vectors["alliance"].as_str().and_then(|id| id.parse().ok()).expect("an alliance");
        for (text, statement) in
            [(&vectors["steps"][0]["line"], "training-step"), (&vectors["valid"][0]["text"], "training")]
        {
            let record = json!({ "bytes": text.as_str().expect("text").as_bytes() });
            let opened = opened(record.clone(), Some(alliance));
            assert_eq!((&opened["bytes"]["statement"], about(&opened).as_str()), (&json!(statement), "usp/model-3"));
            assert!(opened["bytes"]["body"]["predicate"].is_object());
            assert!(super::opened(record, Some(HERE))["bytes"].get("body").is_none());
        }
    }

    #[test]
    fn a_model_names_the_crossing_it_came_by() {
        let record = json!({ "model": { "name": "usp/x", "crossing": CrossingId([3; 32]) } });
        assert_eq!((crossing(&record), about(&record).as_str()), (Some(CrossingId([3; 32])), "usp/x"));
        assert_eq!(crossing(&json!({ "model": { "name": "usp/x", "crossing": null } })), None);
    }

    #[test]
    fn a_statement_of_another_alliance_is_shown_as_bytes() {
        for alliance in [None, Some(AllianceId([8; 32]))] {
            assert!(opened(record(), alliance)["refusal"].get("body").is_none());
        }
    }
}
