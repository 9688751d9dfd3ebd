//! What this node received under a duty to delete it, and until when it may keep it.
//!
//! Rebuilt from the ledger: the verdicts name the duty, the delivery starts the clock, a record of the deletion ends it. For what
//! came and was never delivered the clock starts at the clearance. Deleting is ordered until it is done; a disk that refuses does not make the duty go away.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{BulkOrder, Core, Effects, admin::CrossingView};
use crate::{
    id::{CrossingId, ManifestId},
    ledger::Record,
    time::Timestamp,
};

/// Artefacts that have to be deleted at some time.
#[derive(Debug, Default)]
pub(super) struct Retention {
    kept: BTreeMap<CrossingId, Kept>,
}

#[derive(Debug)]
struct Kept {
    what: Place,
    manifest: ManifestId,
    path: PathBuf,
    /// When it has to be gone.
    due: Timestamp,
    /// When deleting it is ordered: at first when it is due, then again until it is done.
    order_at: Timestamp,
}

/// Where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// What has come so far, beside the destination.
    Staging,
    /// At the destination.
    Destination,
}

/// Milliseconds in an hour.
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Milliseconds after which a deletion that failed is ordered again.
const RETRY_MS: u64 = 10 * 60 * 1000;

/// When an artefact that was delivered at an instant has to be gone, by the shortest span of the duties that came with it.
fn due(view: &CrossingView, delivered: Timestamp) -> Option<Timestamp> {
    let duties = view.verdicts.iter().flat_map(|verdict| &verdict.obligations);
    let hours = duties.filter_map(|obligation| obligation.duty().kept_hours()).min()?;
    Some(delivered.plus_ms(u64::from(hours).saturating_mul(HOUR_MS)))
}

impl Retention {
    pub(super) fn keep(
        &mut self,
        crossing: CrossingId,
        what: Place,
        view: &CrossingView,
        from: Timestamp,
    ) -> Option<Timestamp> {
        let (due, path) = (due(view, from)?, view.to.clone()?);
        let part = view.part.as_ref().filter(|_| what == Place::Destination);
        let manifest = part.map_or(view.manifest, |part| part.manifest);
        if what == Place::Destination && part.is_none() {
            // What an earlier attempt left in the same place has become part of this one; of a part it is not known whether.
            self.kept.retain(|_, kept| (kept.what, kept.manifest, &kept.path) != (Place::Staging, manifest, &path));
        }
        self.kept.insert(crossing, Kept { what, manifest, path, due, order_at: due });
        Some(due)
    }

    /// Notes that it is gone; gives what was delivered and where, if it was.
    pub(super) fn gone(&mut self, crossing: CrossingId) -> Option<(ManifestId, PathBuf)> {
        let kept = self.kept.remove(&crossing)?;
        (kept.what == Place::Destination).then_some((kept.manifest, kept.path))
    }

    /// When the next deletion is to be ordered.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.kept.values().map(|kept| kept.order_at).min()
    }

    /// When a crossing's artefact has to be gone, where it has to.
    /// What should be gone by now, and where it is if it is not: by whichever of its crossings.
    pub(super) fn overdue(&self, now: Timestamp) -> BTreeSet<(ManifestId, &Path)> {
        let overdue = self.kept.values().filter(|kept| now >= kept.due);
        overdue.map(|kept| (kept.manifest, kept.path.as_path())).collect()
    }

    pub(super) fn due(&self, crossing: CrossingId) -> Option<Timestamp> {
        self.kept.get(&crossing).map(|kept| kept.due)
    }
}

impl Core {
    /// Orders the deletion of what has been kept as long as it may.
    pub(super) fn delete_due(&mut self, now: Timestamp, effects: &mut Effects) {
        for (crossing, kept) in self.retention.kept.iter_mut().filter(|(_, kept)| now >= kept.order_at) {
            kept.order_at = now.plus_ms(RETRY_MS);
            let (crossing, manifest, path) = (*crossing, kept.manifest, kept.path.clone());
            match kept.what {
                Place::Destination => effects.bulk.push(BulkOrder::Delete { crossing, manifest, path }),
                Place::Staging if self.pulls.contains_key(&crossing) => {}
                Place::Staging => effects.bulk.push(BulkOrder::Discard { crossing, manifest, to: path }),
            }
        }
    }

    /// Forgets what was deleted, by whichever of its crossings it came (CROSSING-47).
    pub(super) fn forget_deleted(&mut self, crossing: CrossingId) {
        let place = self.retention.gone(crossing);
        self.models.retain(|_, model| {
            let came = model.crossing.is_some();
            let there = place.as_ref().is_some_and(|(manifest, path)| (model.manifest, &model.path) == (*manifest, path));
            !(model.crossing == Some(crossing) || came && there)
        });
    }

    /// The files are gone, or could not be deleted.
    pub(super) fn deleted(&mut self, crossing: CrossingId, problem: Option<String>, now: Timestamp, effects: &mut Effects) {
        if self.retention.due(crossing).is_none() {
            return;
        }
        match problem {
            None => {
                self.record(Record::Deleted { crossing }, now, effects);
                self.take_back_onward(now, effects);
            }
            Some(problem) => self.history.cannot_delete(crossing, problem),
        }
    }
}
