//! An exporter that clears honestly and then sends other bytes than it cleared.

use std::time::Duration;

use alliance_node::bulk::Deadlines;
use alliance_protocol::core::admin::CrossingState;

use crate::{
    artefact::{GROUP, Goods},
    raw::{BAD_REQUEST, GAVE_UP, MANIFEST, RECEIPT, WANT},
    scene::Scene,
    world::{EXPORTER, IMPORTER},
};

/// The number of the first group whose description has these words.
fn group(goods: &Goods, words: &str) -> usize {
    let at = goods.manifest.groups().position(|group| goods.manifest.describe_group(&group).contains(words));
    at.unwrap_or_else(|| panic!("no group of {words}"))
}

#[tokio::test]
async fn one_wrong_byte_anywhere_ends_it_and_is_never_kept() {
    wrong_bytes(Scene::new()).await;
}

/// As when the disk is slow from the first group on.
#[tokio::test]
async fn one_wrong_byte_is_not_kept_by_a_thread_that_writes_either() {
    wrong_bytes(Scene::with(Deadlines { write: Duration::ZERO, ..Deadlines::default() })).await;
}

async fn wrong_bytes(mut scene: Scene) {
    let goods = &scene.goods;
    let last = goods.groups.len() - 1;
    let places = [
        ("the first byte", group(goods, "config.json"), 0),
        ("the length of the header", group(goods, "header"), 0),
        ("the header", group(goods, "header"), 100),
        ("a tensor of one byte", group(goods, "layer.00001"), 0),
        ("the end of a small tensor", group(goods, "layer.00002"), 1023),
        ("a whole group", group(goods, "layer.00003"), GROUP / 2),
        ("the middle of a large tensor", group(goods, "layer.00006") + 2, 17),
        ("the last byte", last, goods.groups[last].len() - 1),
    ];
    for (what, at, byte) in places {
        let to = scene.fresh();
        let outcome = scene
            .damaged(what, &to, async |guest, goods| {
                let before: usize = goods.groups.iter().take(at).map(Vec::len).sum();
                let mut bytes = goods.stream(&[]);
                bytes[before + byte] ^= 1;
                guest.send_all(&goods.manifest.encode(), &bytes).await
            })
            .await;
        let manifest = &scene.goods.manifest;
        let group = manifest.group(u64::try_from(at).expect("small")).expect("a group");
        assert!(outcome.problem.contains(&manifest.describe_group(&group)), "{what}: {}", outcome.problem);

        // What came before it is good and kept; it and what came after it is sent again.
        let before: usize = scene.goods.groups.iter().take(at).map(Vec::len).sum();
        let receipt = scene.pull_well(&to).await;
        assert_eq!(receipt.held_bytes, u64::try_from(before).expect("small"), "{what}");
    }
}

#[tokio::test]
async fn groups_in_another_order_are_not_taken() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    scene
        .damaged("two groups of one length changed places", &to, async |guest, goods| {
            let first = group(goods, "layer.00006");
            let mut groups = goods.groups.clone();
            groups.swap(first, first + 1);
            guest.send_all(&goods.manifest.encode(), &groups.concat()).await
        })
        .await;
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn held_groups_are_asked_for_once_and_a_liar_cannot_replace_them() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let half = scene.goods.groups.len() / 2;
    scene
        .damaged("zeros in the second half", &to, async |guest, goods| {
            let sent = goods.groups.iter().enumerate();
            let bytes: Vec<u8> =
                sent.flat_map(|(at, group)| if at < half { group.clone() } else { vec![0; group.len()] }).collect();
            guest.send_all(&goods.manifest.encode(), &bytes).await
        })
        .await;
    // Now the liar sends the whole, from the start, although a part is held.
    let outcome = scene
        .damaged("what is held, again", &to, async |mut guest, goods| {
            let wanted = guest.wire.runs(WANT).await;
            assert_eq!(wanted, [(u64::try_from(half).expect("small"), goods.manifest.group_count())]);
            guest.send_all(&goods.manifest.encode(), &goods.stream(&[])).await
        })
        .await;
    assert!(!outcome.problem.contains("config.json"), "{}", outcome.problem);
    let receipt = scene.pull_well(&to).await;
    let before: usize = scene.goods.groups.iter().take(half).map(Vec::len).sum();
    assert_eq!(receipt.held_bytes, u64::try_from(before).expect("small"));
}

#[tokio::test]
async fn too_few_bytes_are_not_a_model() {
    let mut scene = Scene::new();
    let total = usize::try_from(scene.model.bytes).expect("small");
    for few in [0, 1, total / 2, total - 1] {
        let to = scene.fresh();
        let outcome = scene
            .refuted("the end comes early", &to, async |mut guest, goods| {
                guest.clear().await;
                guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
                guest.wire.groups(&goods.stream(&[])[..few]).await;
                guest.wire.send.finish().expect("open");
                guest.wire.told().await
            })
            .await;
        assert_eq!((outcome.view.refusal, outcome.told), (None, BAD_REQUEST), "{few}: {}", outcome.problem);
        assert!(outcome.problem.contains("before all was said"), "{few}: {}", outcome.problem);
        scene.pull_well(&to).await;
    }
}

#[tokio::test]
async fn a_receipt_in_the_place_of_bytes_is_bytes() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let wanted = usize::try_from(scene.model.bytes).expect("small");
    scene
        .damaged("a receipt instead of the last group", &to, async |mut guest, goods| {
            guest.clear().await;
            guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
            let mut bytes = goods.stream(&[]);
            bytes.truncate(wanted - 300);
            bytes.extend([RECEIPT, 0, 0, 1, 39]);
            bytes.resize(wanted, 0);
            guest.wire.groups(&bytes).await;
            guest.wire.told().await
        })
        .await;
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn bytes_after_the_last_are_not_taken() {
    let mut scene = Scene::new();
    for more in [1, 3 * GROUP] {
        let to = scene.fresh();
        let outcome = scene
            .pull_from_liar(scene.offer, &to, async |mut guest, goods| {
                guest.clear().await;
                guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
                let mut bytes = goods.stream(&[]);
                bytes.resize(bytes.len() + more, 0);
                guest.wire.groups(&bytes).await;
                guest.wire.send.finish().expect("open");
                guest.wire.told().await
            })
            .await;
        // They may come in one packet with the last group or after it. Either way none of them is kept.
        match outcome.view.state {
            CrossingState::Failed => {}
            CrossingState::DoneUnsettled => {
                assert!(crate::artefact::tree(&to) == crate::artefact::tree(&scene.model.path));
            }
            other => panic!("{other:?}: {}", outcome.problem),
        }
        assert_eq!(outcome.told, BAD_REQUEST, "{}", outcome.problem);
        scene.pull_well(&to).await;
    }
}

#[tokio::test]
async fn an_exporter_that_gives_up_is_not_called_a_liar() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let outcome = scene
        .refuted("its disk failed", &to, async |mut guest, goods| {
            guest.clear().await;
            guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
            guest.wire.groups(&goods.groups[0]).await;
            guest.wire.send.reset(quinn::VarInt::from_u32(1)).expect("open");
            guest.wire.told().await
        })
        .await;
    assert_eq!((outcome.view.refusal, outcome.told), (None, GAVE_UP));
    assert!(!scene.world.nodes[IMPORTER].failure(outcome.crossing).2);
    assert_eq!(scene.world.nodes[EXPORTER].sent(), 0, "the honest plane had no part in it");
    scene.pull_well(&to).await;
}
