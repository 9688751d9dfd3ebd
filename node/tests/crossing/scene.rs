//! An honest importer that is led to an exporter with the right key and the wrong intentions.

use std::path::{Path, PathBuf};

use alliance_node::bulk::Deadlines;
use alliance_protocol::{
    core::admin::{CrossingState, CrossingView, LocalModel},
    crossing::{Receipt, RefusalCode},
    id::{CrossingId, StatementId},
    manifest::{Part, check_parts},
    offer::{ModelOffer, Offer, Offered, Terms},
    time::Validity,
};

use crate::{
    alliance::DAY,
    artefact::{Goods, awkward, tree},
    raw::{Guest, MANIFEST, RawExporter},
    world::{EXPORTER, IMPORTER, World, assert_absent},
};

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) raw: RawExporter,
    pub(crate) offer: StatementId,
    pub(crate) model: LocalModel,
    pub(crate) goods: Goods,
}

/// What came of a lie.
pub(crate) struct Outcome {
    pub(crate) crossing: CrossingId,
    pub(crate) view: CrossingView,
    /// The code with which the importer ended it.
    pub(crate) told: u64,
    /// Why, in the importer's ledger.
    pub(crate) problem: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(Deadlines::default())
    }

    pub(crate) fn with(deadlines: Deadlines) -> Self {
        let mut world = World::with(deadlines);
        let (offer, model) = world.offer(EXPORTER, awkward);
        let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
        let raw = RawExporter::open(&world.nodes[EXPORTER].key, world.alliance.id);
        Self { world, raw, offer, model, goods }
    }

    pub(crate) fn fresh(&mut self) -> PathBuf {
        self.world.fresh(IMPORTER)
    }

    /// The importer pulls from the liar, which follows the script; it gives the code that it was told.
    pub(crate) async fn pull_from_liar(
        &mut self,
        offer: StatementId,
        to: &Path,
        script: impl AsyncFnOnce(Guest, &Goods) -> u64,
    ) -> Outcome {
        let Self { world, raw, goods, .. } = self;
        world.move_to(EXPORTER, raw.address());
        let crossing = world.pull(IMPORTER, offer, to);
        let told = world.during(async { script(raw.accept().await, goods).await }).await;
        let view = world.settle(IMPORTER, crossing).await;
        world.move_home(EXPORTER);
        assert_eq!(world.running(IMPORTER), 0);
        let problem = view.problem.clone().unwrap_or_default();
        Outcome { crossing, view, told, problem }
    }

    /// The lie gets nowhere: nothing is delivered.
    pub(crate) async fn refuted(
        &mut self,
        what: &str,
        to: &Path,
        script: impl AsyncFnOnce(Guest, &Goods) -> u64,
    ) -> Outcome {
        let outcome = self.pull_from_liar(self.offer, to, script).await;
        assert_eq!(outcome.view.state, CrossingState::Failed, "{what}: {:?}", outcome.view);
        assert_undelivered(what, to);
        outcome
    }

    /// As [`Scene::refuted`]; that bytes were wrong is recorded, and the liar hears of it.
    pub(crate) async fn damaged(
        &mut self,
        what: &str,
        to: &Path,
        script: impl AsyncFnOnce(Guest, &Goods) -> u64,
    ) -> Outcome {
        let outcome = self.refuted(what, to, script).await;
        self.assert_damaged(what, &outcome);
        outcome
    }

    #[track_caller]
    pub(crate) fn assert_damaged(&self, what: &str, outcome: &Outcome) {
        let (_, _, tampered) = self.world.nodes[IMPORTER].failure(outcome.crossing);
        assert!(tampered, "{what}: {}", outcome.problem);
        assert_eq!(outcome.view.refusal, Some(RefusalCode::Damaged), "{what}");
        assert_eq!(outcome.told, crate::raw::DAMAGED, "{what}");
    }

    /// The honest exporter is there again, and the pull goes well, to the same place.
    pub(crate) async fn pull_well(&mut self, to: &Path) -> Receipt {
        self.world.pull_well(IMPORTER, self.offer, &self.model, to).await
    }

    /// The exporter offers the model in other words than are true.
    pub(crate) fn offer_falsely(&mut self, change: impl FnOnce(&mut ModelOffer)) -> StatementId {
        let mut what = self.model.offered();
        change(&mut what);
        if check_parts(&what.parts, &what.labels, what.tensors, what.bytes).is_err() {
            // A lie that contradicts itself reaches nobody.
            what.parts = Part::alone(what.labels.clone(), what.tensors, what.bytes);
        }
        let offer = Offer {
            node: self.raw.key.public(),
            name: "usp/false".into(),
            what: Offered::Model(what),
            terms: Terms { purposes: [].into(), to: [].into(), onward: false },
            root: None,
            validity: Validity::lasting_ms(self.world.now, DAY),
        };
        let offer = self.world.alliance.signed(&self.raw.key, &offer);
        self.world.whisper(IMPORTER, offer.bytes().to_vec());
        offer.id()
    }
}

impl Guest {
    /// Clears, sends this manifest and these bytes, and waits to be told what the importer thinks of it.
    pub(crate) async fn send_all(mut self, manifest: &[u8], groups: &[u8]) -> u64 {
        self.clear().await;
        self.wire.frame(MANIFEST, manifest).await;
        self.wire.groups(groups).await;
        self.wire.told().await
    }
}

/// Nothing stands under the final name, and beside it no file that anybody would take for the model.
#[track_caller]
pub(crate) fn assert_undelivered(what: &str, to: &Path) {
    assert_absent(to);
    let beside = tree(to.parent().expect("inside"));
    let visible = beside.keys().filter(|path| !path.to_string_lossy().starts_with(".model."));
    assert_eq!(visible.count(), 0, "{what}: {:?}", beside.keys());
}
