//! Compiled packs, kept by the digest of their text. Bounded: the one that was asked longest ago makes room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use alliance_protocol::gate::{Pack, PackError};

use crate::pack::{self, Compiled};

/// Compiled packs kept at a time. While new epochs spread, an alliance of eleven members needs 26: two packs of each, of
/// the baseline and of the house. A larger alliance reads some packs again, which costs milliseconds and no memory.
const COMPILED_PACKS_MAX: usize = 64;

type Outcome = Arc<Result<Compiled, PackError>>;

/// What was compiled. A text that cannot be used is remembered too, so that it costs its reading once.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    outcomes: HashMap<[u8; 32], (u64, Outcome)>,
    /// Counts askings; orders the places by when they were asked last.
    turn: u64,
}

impl Shelf {
    /// The compiled form of a pack, or why there is none.
    pub(crate) fn compiled(&self, pack: &Pack) -> Outcome {
        if let Some(known) = self.with(|places| places.take_turn(pack.digest())) {
            return known;
        }
        // Outside the lock: a slow pack must not hold up questions to others. Two threads may do it twice, to one end.
        let outcome = Arc::new(pack::compile(pack));
        self.with(|places| places.put(pack.digest(), Arc::clone(&outcome)));
        outcome
    }

    fn with<T>(&self, work: impl FnOnce(&mut Places) -> T) -> T {
        // A panic elsewhere leaves whole places behind, each insertion being one step.
        work(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Places {
    fn take_turn(&mut self, digest: [u8; 32]) -> Option<Outcome> {
        self.turn = self.turn.wrapping_add(1);
        let (asked, outcome) = self.outcomes.get_mut(&digest)?;
        *asked = self.turn;
        Some(Arc::clone(outcome))
    }

    fn put(&mut self, digest: [u8; 32], outcome: Outcome) {
        if self.outcomes.len() >= COMPILED_PACKS_MAX {
            let oldest = self.outcomes.iter().min_by_key(|(_, (asked, _))| *asked).map(|(digest, _)| *digest);
            if let Some(oldest) = oldest {
                self.outcomes.remove(&oldest);
            }
        }
        // A new epoch of a pack: nothing that was said under another one is of use any more.
        if let Ok(new) = &*outcome {
            let others = self.outcomes.values().filter_map(|(_, other)| other.as_ref().as_ref().ok());
            others.filter(|other| other.owner == new.owner).for_each(|other| other.answers.forget());
        }
        self.outcomes.insert(digest, (self.turn, outcome));
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::gate::PackOwner;

    use super::*;

    #[test]
    fn the_shelf_is_bounded_and_keeps_what_is_asked() {
        let shelf = Shelf::default();
        let law = |n: usize| Pack::new(PackOwner::House, 1, &format!("// {n}"), "");
        let kept = shelf.compiled(&law(0));
        for n in 1..COMPILED_PACKS_MAX * 2 {
            shelf.compiled(&law(n));
            assert!(Arc::ptr_eq(&kept, &shelf.compiled(&law(0))), "asked every time, so never the oldest");
        }
        assert_eq!(shelf.with(|places| places.outcomes.len()), COMPILED_PACKS_MAX);
        assert!(shelf.with(|places| places.take_turn(law(1).digest())).is_none());
    }
}
