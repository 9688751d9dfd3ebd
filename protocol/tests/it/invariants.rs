//! What must hold after every step of every test.
//!
//! - I1: bytes are sent, taken or delivered only where the recorded decisions of both sides allow.
//! - I2: the record comes first: `Cleared` before `Serve`, `ClearanceAccepted` before `Receive`, `Received` before `Deliver`.
//! - I4: no crossing is served, received or delivered twice by one node, restarts included.
//! - I5: what is served lies here, or is on its way here under a clearance that was accepted.
//! - I6: a permission admits the parts that its side's recorded decision names, and none that was left out; only what was
//!   pulled whole becomes a model.

use std::{collections::BTreeSet, path::Path};

use alliance_protocol::{
    border::{Cleared, Decision, PartDecided},
    core::{BulkOrder, Effects},
    crossing::{ClearanceGiven, CrossingRequest},
    envelope::Signed,
    id::{AllianceId, CrossingId, ManifestId},
    key::PublicKey,
    ledger::Record,
};

use crate::cluster::Node;

#[derive(Default)]
pub(crate) struct Invariants {
    done: BTreeSet<(usize, &'static str, CrossingId)>,
    alliance: Option<AllianceId>,
}

impl Invariants {
    /// Checks the effects of one node, whose `persist` was appended to its ledger just now.
    pub(crate) fn check(&mut self, nodes: &[Node], at: usize, effects: &Effects) {
        let charter = |node: &Node| match &node.entries.first()?.record {
            Record::Founded { charter } => alliance_protocol::charter::Chartered::found(charter).ok(),
            _ => None,
        };
        if self.alliance.is_none() {
            self.alliance = nodes.iter().find_map(charter).map(|chartered| chartered.alliance());
        }
        for order in &effects.bulk {
            match order {
                BulkOrder::Serve { outbound, clearance, path, arriving, .. } => {
                    self.check_serve(nodes, at, outbound.crossing(), clearance, outbound.cleared());
                    assert!(has(&nodes[at], outbound.manifest(), path, *arriving), "I5: `{}` is not here", path.display());
                }
                BulkOrder::Receive { crossing, inbound } => {
                    self.once(at, "received", *crossing);
                    let accepted = nodes[at].entries.iter().rev().find_map(|entry| match &entry.record {
                        Record::ClearanceAccepted { crossing: of, clearance, decision } if of == crossing => {
                            Some((clearance, decision))
                        }
                        _ => None,
                    });
                    let (accepted, decision) = accepted.expect("I2: a clearance is recorded before anything is taken");
                    check_parts(decision, inbound.cleared());
                    let clearance: Signed<ClearanceGiven> = self.open(accepted);
                    assert_eq!(clearance.id(), inbound.clearance(), "I2: another clearance was recorded");
                    assert_eq!(inbound.crossing(), *crossing);
                    let given = clearance.body();
                    assert!(asked(&nodes[at], *crossing), "I1: the importer's recorded decision does not allow");
                    assert!(cleared(nodes, given.exporter, *crossing), "I1: the exporter's record does not allow");
                }
                BulkOrder::Deliver { crossing, receipt } => {
                    self.once(at, "delivered", *crossing);
                    let recorded = nodes[at].count(|record| {
                        matches!(record, Record::Received { crossing: of, receipt: recorded, .. }
                            if of == crossing && recorded.as_slice() == receipt.as_slice())
                    });
                    assert_eq!(recorded, 1, "I2: the receipt is recorded before anything is delivered");
                    assert!(asked(&nodes[at], *crossing), "I1: the importer's recorded decision does not allow");
                }
                BulkOrder::Refuse { .. }
                | BulkOrder::Countersign { .. }
                | BulkOrder::AbortServe { .. }
                | BulkOrder::Reach { .. }
                | BulkOrder::Ask { .. }
                | BulkOrder::Delete { .. }
                | BulkOrder::Discard { .. }
                | BulkOrder::AbortPull { .. } => {}
            }
        }
        for record in &effects.persist {
            let whole = match record {
                Record::ModelImported { model } => model.crossing.map(|crossing| (crossing, true)),
                Record::PartDelivered { crossing } => Some((*crossing, false)),
                _ => None,
            };
            if let Some((crossing, whole)) = whole {
                let requested = nodes[at].entries.iter().find_map(|entry| match &entry.record {
                    Record::Requested { crossing: of, request, .. } if *of == crossing => Some(request),
                    _ => None,
                });
                let request: Signed<CrossingRequest> = self.open(requested.expect("I2: it was asked for"));
                assert_eq!(request.body().parts.is_none(), whole, "I6: what is delivered is what was asked for");
            }
        }
    }

    fn check_serve(&mut self, nodes: &[Node], at: usize, crossing: CrossingId, clearance: &[u8], cleared: &Cleared) {
        self.once(at, "served", crossing);
        let me = &nodes[at];
        let recorded = me.entries.iter().rev().find_map(|entry| match &entry.record {
            Record::Cleared { crossing: of, request, clearance, decision, .. } if *of == crossing => {
                Some((request, clearance, decision))
            }
            _ => None,
        });
        let (request, recorded, decision) = recorded.expect("I2: a clearance is recorded before it is served");
        assert_eq!(recorded.as_slice(), clearance, "I2: another clearance was recorded");
        assert!(allows(decision), "I1: the exporter's recorded decision does not allow");
        check_parts(decision, cleared);
        let request: Signed<CrossingRequest> = self.open(request);
        let importer = nodes.iter().find(|node| node.public() == request.body().importer);
        let importer = importer.expect("I1: a node that nobody knows is served");
        assert!(importer.lies || asked(importer, crossing), "I1: the importer's recorded decision does not allow");
    }

    fn once(&mut self, at: usize, what: &'static str, crossing: CrossingId) {
        assert!(self.done.insert((at, what, crossing)), "I4: {crossing} is {what} twice by node {at}");
    }

    fn open<T: alliance_protocol::envelope::Statement>(&self, bytes: &[u8]) -> Signed<T> {
        Signed::open(bytes, self.alliance.expect("a ledger begins with the charter")).expect("a recorded statement opens")
    }
}

fn allows(decision: &Decision) -> bool {
    let verdicts = &decision.verdicts;
    decision.denial.is_none() && !verdicts.is_empty() && verdicts.iter().all(|it| it.allowed && it.error.is_none())
}

fn check_parts(decision: &Decision, cleared: &Cleared) {
    let admits = |decided: &PartDecided| cleared.admits(&decided.part.labels);
    assert!(
        !decision.parts.is_empty() && decision.parts.iter().all(admits),
        "I6: a part that was decided on is not let through"
    );
    assert!(!decision.left_out.iter().any(admits), "I6: a part that was left out is let through");
}

/// Whether the ledger says that the artefact lies at this path, or that it was cleared to come there.
fn has(node: &Node, manifest: ManifestId, path: &Path, arriving: bool) -> bool {
    let comes = |crossing: CrossingId| {
        node.count(|record| matches!(record, Record::ClearanceAccepted { crossing: of, .. } if *of == crossing)) > 0
    };
    node.entries.iter().any(|entry| match &entry.record {
        Record::ModelImported { model } => !arriving && model.manifest == manifest && model.path == path,
        Record::Requested { crossing, to, .. } => arriving && to == path && comes(*crossing),
        _ => false,
    })
}

fn asked(node: &Node, crossing: CrossingId) -> bool {
    node.entries.iter().any(|entry| {
        matches!(&entry.record, Record::Requested { crossing: of, decision, .. } if *of == crossing && allows(decision))
    })
}

fn cleared(nodes: &[Node], exporter: PublicKey, crossing: CrossingId) -> bool {
    nodes.iter().any(|node| {
        let yes = |record: &Record| matches!(record, Record::Cleared { crossing: of, decision, .. } if *of == crossing && allows(decision));
        node.public() == exporter && (node.lies || node.count(yes) == 1)
    })
}
