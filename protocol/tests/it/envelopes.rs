//! Every kind of statement, offered as every other kind.

use std::collections::BTreeSet;

use alliance_protocol::{
    authority::{Accreditation, Approval, LawPack, Safeguard, Status},
    charter::Charter,
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, Receipt, Refusal, RefusalCode},
    envelope::{OpenError, Signed, Statement, kind_of},
    gate::{PackOwner, People, Volume},
    id::{AllianceId, CrossingId, ManifestId, SessionBinding, Sha256},
    key::{PublicKey, SecretKey},
    manifest::Part,
    offer::{CardFacts, ComputeOffer, ModelOffer, NodeRecord, Offer, Offered, Provenance, Terms, Withdrawal},
    rotation::KeyRotation,
    time::Validity,
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label, Purpose, Use},
};

use crate::alliance::{Alliance, DAWN, DAY, accreditation_of, contract_of, country, key, some_id, status_of};

/// Visits one example of each kind of statement.
pub(crate) trait Visitor {
    fn visit<T: Statement>(&mut self, body: &T);
}

fn model(origin: Country, subjects: Country) -> ModelOffer {
    ModelOffer {
        artefact: Artefact::Weights,
        manifest: ManifestId([7; 32]),
        bytes: 1_000,
        files: 1,
        tensors: 3,
        labels: [Label::NonPersonal, Label::Public].into(),
        parts: vec![
            Part { labels: [Label::Public].into(), tensors: 2, bytes: 900 },
            Part { labels: [Label::NonPersonal].into(), tensors: 1, bytes: 100 },
        ],
        origin,
        subjects: [subjects].into(),
        provenance: provenance(),
        licence: "Apache-2.0".into(),
    }
}

/// Bodies that make sense together: one alliance, one crossing. They are what `specs/vectors/statements.json` shows.
pub(crate) fn visit_all(visitor: &mut impl Visitor) {
    let alliance = Alliance::found();
    let (brazil, india) = (country("BR"), country("IN"));
    let (exporter, importer) = (key(100).public(), key(101).public());
    let pack = alliance.law(brazil, 1, "permit (principal, action, resource);");
    let accreditation = accreditation_of(india, importer, "iitb");
    let accredited = alliance.signed(&key(20), &accreditation);
    let validity = Validity::lasting_ms(DAWN, DAY);
    let offer = Offer {
        node: exporter,
        name: "usp/model".into(),
        what: Offered::Model(model(brazil, india)),
        terms: Terms { purposes: [Purpose::Research].into(), to: [india].into(), onward: true },
        root: Some(some_id(7)),
        validity,
    };
    let offered = alliance.signed(&key(100), &offer);
    let request = CrossingRequest {
        crossing: CrossingId([1; 32]),
        importer,
        exporter,
        offer: offered.id(),
        manifest: ManifestId([7; 32]),
        parts: Some([[Label::Public].into(), [Label::NonPersonal, Label::Public].into()].into()),
        purpose: Purpose::Research,
        use_: Use::FineTuning,
        circumstances: [Circumstance::Collection].into(),
        safeguards: vec![vec![1, 2, 3].into()],
        accreditation: accredited.bytes().to_vec(),
        verdicts: some_id(9),
        session: SessionBinding([4; 32]),
        ledger: head(12),
        asked: DAWN,
    };
    let requested = alliance.signed(&key(101), &request);
    let clearance = ClearanceGiven {
        crossing: request.crossing,
        request: requested.id(),
        exporter,
        importer,
        manifest: request.manifest,
        labels: [Label::NonPersonal, Label::Public].into(),
        parts: Some([[Label::NonPersonal, Label::Public].into()].into()),
        purpose: Purpose::Research,
        epochs: vec![(brazil, 1), (india, 4)],
        people: Some(12),
        volume: Volume { people: People::new(12), ..Volume::default() },
        session: request.session,
        ledger: head(40),
        training: None,
        validity: Validity::lasting_ms(DAWN, 60_000),
    };
    let cleared = alliance.signed(&key(100), &clearance);

    visitor.visit::<Charter>(alliance.chartered().charter());
    visitor.visit::<Accreditation>(&accreditation);
    visitor.visit::<Status>(&Status { revoked: BTreeSet::from([key(102).public()]), ..status_of(brazil, 7, &pack) });
    visitor.visit::<LawPack>(pack.body());
    visitor.visit::<Approval>(&approval_of(brazil, (exporter, importer), validity));
    visitor.visit::<Safeguard>(&contract_of(brazil, brazil, india));
    visitor.visit::<NodeRecord>(&NodeRecord {
        model_key: None,
        charter: 1,
        node: importer,
        accreditation: accredited.bytes().to_vec(),
        mesh: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into()],
        bulk: vec!["192.0.2.1:4002".into(), "[2001:db8::1]:4002".into()],
        serial: DAWN.0,
        validity,
    });
    visitor.visit::<Offer>(&offer);
    let compute = ComputeOffer { accelerator: "H200".into(), count: 8, memory_mib: 144_384, hours: 72 };
    let terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false };
    visitor.visit::<Offer>(&Offer { name: "usp/cluster".into(), what: Offered::Compute(compute), terms, ..offer });
    visitor.visit::<Withdrawal>(&Withdrawal { node: exporter, offer: offered.id(), at: DAWN, reason: "superseded".into() });
    visitor.visit::<CrossingRequest>(&request);
    visitor.visit::<ClearanceGiven>(&clearance);
    visitor.visit::<Refusal>(&Refusal {
        crossing: request.crossing,
        request: requested.id(),
        exporter,
        code: RefusalCode::DeniedByLaw,
        at: DAWN,
    });
    visitor.visit::<Receipt>(&Receipt {
        crossing: request.crossing,
        clearance: cleared.id(),
        exporter,
        importer,
        manifest: request.manifest,
        bytes: 600,
        held_bytes: 400,
        ledger: head(14),
        finished: DAWN,
    });
    visitor.visit::<KeyRotation>(&rotation_of(importer, accredited.bytes()));
}

fn rotation_of(old: PublicKey, accreditation: &[u8]) -> KeyRotation {
    KeyRotation {
        old,
        new: key(103).public(),
        at: DAWN,
        reason: "a laptop was stolen".into(),
        ledger: head(15),
        old_accreditation: accreditation.to_vec(),
        new_accreditation: vec![1, 2, 3],
    }
}

/// The head of some ledger.
fn head(size: u64) -> LedgerHead {
    LedgerHead { size, root: Sha256([5; 32]) }
}

const HERE: AllianceId = AllianceId([6; 32]);

/// Every example as signed bytes, by kind.
#[derive(Default)]
pub(crate) struct Collect(pub(crate) Vec<(&'static str, Vec<u8>)>);

impl Visitor for Collect {
    fn visit<T: Statement>(&mut self, body: &T) {
        self.0.push((T::KIND, Signed::sign(body, HERE, &signer()).expect("signs").bytes().to_vec()));
    }
}

fn signer() -> SecretKey {
    key(42)
}

/// Opens every example as the kind of each visited body.
struct OpenAs<'a>(&'a [(&'static str, Vec<u8>)], usize);

impl Visitor for OpenAs<'_> {
    fn visit<T: Statement>(&mut self, body: &T) {
        for (kind, bytes) in self.0 {
            match Signed::<T>::open(bytes, HERE) {
                Ok(_) => assert_eq!(*kind, T::KIND, "a `{kind}` passes as a `{}`", T::KIND),
                Err(OpenError::Kind { expected, found }) => {
                    assert_eq!((expected, found.as_str()), (T::KIND, *kind));
                    assert_ne!(*kind, T::KIND);
                }
                Err(other) => panic!("a `{kind}` as a `{}`: {other}", T::KIND),
            }
            self.1 += 1;
        }
        let opened = Signed::<T>::open(Signed::sign(body, HERE, &signer()).expect("signs").bytes(), HERE).expect("opens");
        assert_eq!(format!("{:?}", opened.body()), format!("{body:?}"), "what is read is what was written");
    }
}

fn provenance() -> Provenance {
    let (circumstances, evidence) = ([Circumstance::PublicAudience].into(), [Evidence::AiLabel].into());
    let card = CardFacts::new(["pt".to_owned()], ["usp/corpus".to_owned()], []).map(Box::new);
    Provenance { people: Some(12), circumstances, evidence, training: None, card }
}

fn approval_of(member: Country, (exporter, importer): (PublicKey, PublicKey), validity: Validity) -> Approval {
    let (on_behalf, manifest, purpose) = (PackOwner::Member(member), ManifestId([7; 32]), Purpose::Research);
    let (importer, reason) = (Some(importer), "for the trial".to_owned());
    Approval { on_behalf, manifest, exporter, importer, purpose, use_: Use::FineTuning, granted: true, reason, validity }
}

#[test]
fn no_kind_of_statement_passes_as_another() {
    let mut all = Collect::default();
    visit_all(&mut all);
    let mut open = OpenAs(&all.0, 0);
    visit_all(&mut open);
    assert_eq!(open.1, 15 * 15);
    let kinds: BTreeSet<_> = all.0.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 14, "two of them are offers");
    for (kind, bytes) in &all.0 {
        assert_eq!(kind_of(bytes).as_deref(), Ok(*kind));
    }
}

#[test]
fn relabelled_statements_do_not_verify() {
    // The kind is changed on the wire without signing again: the signature covers it.
    let mut all = Collect::default();
    visit_all(&mut all);
    let (_, refusal) = all.0.iter().find(|(kind, _)| *kind == Refusal::KIND).expect("a refusal");
    let at = refusal.windows(7).position(|window| window == b"refusal").expect("its kind is on the wire");
    let mut relabelled = refusal.clone();
    relabelled[at..at + 7].copy_from_slice(b"receipt");
    assert_eq!(Signed::<Receipt>::open(&relabelled, HERE).err(), Some(OpenError::Signature(signer().public())));
}
