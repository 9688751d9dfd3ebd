//! How many people's data an exporter sends abroad in a year, as the law is asked about it.

use crate::gate::Volume;

/// How many there are this year with what crosses now, as far as this side knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It comes to what was counted before: in the year, or around New Year in either.
    Before(InYear, Option<InYear>),
    /// The exporter says so.
    Said(Volume),
}

/// What was counted in one year before a crossing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InYear {
    /// Of all artefacts.
    pub(crate) total: Volume,
    /// Of the one that crosses, which is in the total.
    pub(crate) of_it: Volume,
}

impl Counted {
    /// Nothing but what crosses now is known of.
    pub(crate) const NOTHING: Self = Self::Before(InYear { total: Volume::NONE, of_it: Volume::NONE }, None);

    /// How many there are if so many cross now.
    pub(crate) fn with(self, own: Volume) -> Volume {
        match self {
            Self::Before(year, other) => other.into_iter().map(|year| year.with(own)).fold(year.with(own), Volume::larger),
            Self::Said(volume) => volume,
        }
    }
}

impl InYear {
    /// How many there are if so many cross now. Of each kind those of one artefact count once; a part of it may have some
    /// of another kind than the part that crossed before.
    pub(crate) fn with(self, own: Volume) -> Volume {
        self.total.and(own.beyond(self.of_it))
    }
}
