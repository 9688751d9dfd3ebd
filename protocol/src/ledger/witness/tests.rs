//! The outcomes of the witness protocol, as its specification lists them.

use super::*;
use crate::ledger::{Tiles, leaf_hash};

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn log() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn me() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn tiles(size: u64, salt: u8) -> Tiles {
    (0..size).map(|n| leaf_hash(&[&n.to_be_bytes()[..], &[salt]].concat())).collect()
}

fn checkpoint(key: &SecretKey, tiles: &Tiles, size: u64) -> String {
    Checkpoint::sign(key, &Origin::of(&key.public()), size, tiles.root_at(size).expect("so many"))
}

fn request(tiles: &Tiles, old: u64, size: u64) -> AddCheckpoint {
    let proof = tiles.prove_consistency(old, size).unwrap_or_default();
    AddCheckpoint { old, proof, checkpoint: checkpoint(&log(), tiles, size) }
}

fn known(origin: &Origin) -> Option<PublicKey> {
    origin.node().filter(|node| *node == log().public())
}

fn add(witness: &mut Witness, body: &str) -> Result<Cosigned, NotCosigned> {
    witness.add_checkpoint(body.as_bytes(), known, &me(), NOW)
}

/// A witness that has signed the first five entries.
fn of_five(tiles: &Tiles) -> Witness {
    let mut witness = Witness::default();
    add(&mut witness, &request(tiles, 0, 5).to_body()).expect("signed");
    witness
}

#[test]
fn a_log_that_grows_is_signed_again_and_again() {
    let tiles = tiles(20, 0);
    let mut witness = Witness::default();
    for (old, size) in [(0, 0), (0, 1), (1, 1), (1, 8), (8, 20), (20, 20)] {
        let cosigned = add(&mut witness, &request(&tiles, old, size).to_body()).expect("signed");
        assert_eq!(cosigned.checkpoint.size, size);
        let found = Checkpoint::cosignature(&cosigned.note, &me().public()).expect("a cosignature");
        assert_eq!(found.at, NOW);
        assert!(cosigned.note.ends_with(&cosigned.line) && cosigned.line.starts_with('\u{2014}'));
        let held = witness.held(&Origin::of(&log().public())).expect("held");
        assert_eq!((held.size, held.root, &held.note), (size, tiles.root_at(size).expect("so many"), &cosigned.note));
    }
}

/// Each outcome that the specification lists, and that nothing changes by it.
#[test]
fn every_bad_request_has_its_status() {
    let (all, other) = (tiles(20, 0), tiles(20, 1));
    let stranger = SecretKey::from_seed(&[8; 32]);
    let good = request(&all, 5, 9);
    let with = |change: &dyn Fn(&mut AddCheckpoint)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.to_body()
    };
    let root = |text: &str| text.lines().nth(2).expect("a root").to_owned();
    let of_other = checkpoint(&log(), &other, 9);
    let forged = of_other.replace(&root(&of_other), &root(&checkpoint(&log(), &all, 9)));
    let wrong_proof = other.prove_consistency(5, 9).expect("so many");
    let cases = [
        (404, with(&|it| it.checkpoint = checkpoint(&stranger, &all, 9)), "unknown log"),
        (403, with(&|it| it.checkpoint = forged.clone()), "a signature of another text"),
        (403, with(&|it| it.checkpoint = good.checkpoint.replacen("\u{2014} alliance", "\u{2014} other", 1)), "unsigned"),
        (400, with(&|it| it.old = 10), "old after new"),
        (409, with(&|it| it.old = 4), "another old size"),
        (409, request(&all, 0, 9).to_body(), "as if nothing had been signed"),
        (409, request(&all, 0, 4).to_body(), "an earlier one"),
        (422, with(&|it| it.proof = wrong_proof.clone()), "a wrong proof"),
        (422, with(&|it| it.proof.clear()), "no proof"),
        (422, with(&|it| it.proof.push(Sha256([0; 32]))), "a longer proof"),
        (422, AddCheckpoint { old: 5, proof: vec![], checkpoint: checkpoint(&log(), &other, 5) }.to_body(), "same size"),
        (422, request(&other, 5, 9).to_body(), "a fork"),
        (400, with(&|it| it.proof = vec![Sha256([0; 32]); 64]), "64 lines"),
        (400, good.to_body().replacen("old 5", "old 05", 1), "a leading zero"),
        (400, good.to_body().replacen("old 5", "old +5", 1), "a sign"),
        (400, good.to_body().replacen("old 5", "size 5", 1), "another word"),
        (400, good.to_body().replacen("\n\n", "\nAAAA\n\n", 1), "a short hash"),
        (400, good.checkpoint.clone(), "a checkpoint alone"),
        (400, String::new(), "nothing"),
        (400, with(&|it| it.checkpoint = "no origin\n".to_owned()), "no checkpoint"),
        (400, with(&|it| it.checkpoint.truncate(it.checkpoint.len() - 1)), "cut off"),
    ];
    for (status, body, why) in cases {
        let mut witness = of_five(&all);
        let refused = add(&mut witness, &body).expect_err(why);
        assert_eq!(refused.status(), status, "{why}: {refused}");
        if status == 409 {
            assert_eq!(refused.answer(), ("text/x.tlog.size", "5\n".to_owned()), "{why}");
        }
        let held = witness.held(&Origin::of(&log().public())).expect("held");
        assert_eq!(held.size, 5, "{why}");
        add(&mut witness, &good.to_body()).expect("what is right is signed afterwards");
    }
    let mut witness = Witness::default();
    let empty = AddCheckpoint {
        old: 0,
        proof: vec![],
        checkpoint: Checkpoint::sign(&log(), &Origin::of(&log().public()), 0, Sha256([1; 32])),
    };
    assert_eq!(add(&mut witness, &empty.to_body()).expect_err("no empty tree").status(), 422);
    let first = AddCheckpoint { proof: vec![Sha256([0; 32])], ..request(&all, 0, 3) };
    assert_eq!(add(&mut witness, &first.to_body()).expect_err("a proof from nothing").status(), 422);
}

/// The race of the specification: one request is checked, a longer one is signed, the first must not roll it back.
#[test]
fn a_request_that_was_overtaken_is_refused() {
    let tiles = tiles(20, 0);
    let mut witness = of_five(&tiles);
    let (shorter, longer) = (request(&tiles, 5, 8).to_body(), request(&tiles, 5, 12).to_body());
    add(&mut witness, &longer).expect("signed");
    assert_eq!(add(&mut witness, &shorter).expect_err("overtaken").answer().1, "12\n");
    assert_eq!(witness.held(&Origin::of(&log().public())).expect("held").size, 12);
}

#[test]
fn what_was_signed_is_taken_up_again() {
    let tiles = tiles(20, 0);
    let note = of_five(&tiles).held(&Origin::of(&log().public())).expect("held").note.clone();
    let mut again = Witness::default();
    assert!(again.restore(&note, &me().public()));
    assert_eq!(add(&mut again, &request(&tiles, 0, 9).to_body()).expect_err("known").status(), 409);
    // One that another signed, that nobody signed, or that was changed, is not.
    let mut fresh = Witness::default();
    assert!(!fresh.restore(&note, &log().public()));
    assert!(!fresh.restore(&checkpoint(&log(), &tiles, 5), &me().public()));
    assert!(!fresh.restore(&note.replace("\n5\n", "\n6\n"), &me().public()));
    assert_eq!(fresh.iter().count(), 0);
}

#[test]
fn requests_come_back_as_they_went() {
    let tiles = tiles(20, 0);
    for (old, size) in [(0, 3), (3, 3), (7, 20)] {
        let request = request(&tiles, old, size);
        assert_eq!(AddCheckpoint::parse(request.to_body().as_bytes()), Ok(request));
    }
}
