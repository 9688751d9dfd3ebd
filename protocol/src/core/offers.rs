//! The standing offers: this node's own and those of others, with quotas, expiry and withdrawal.

use std::collections::BTreeMap;

use crate::{
    envelope::Signed,
    id::StatementId,
    key::PublicKey,
    limits,
    offer::{Offer, Withdrawal},
    time::Timestamp,
    vocabulary::Country,
};

/// Owner of the catalogue. Everything in it was verified by the caller.
#[derive(Debug, Default)]
pub(super) struct Offers {
    standing: BTreeMap<StatementId, (Signed<Offer>, Country)>,
    /// Withdrawals, kept until the offer would have ended, so that it does not come back.
    withdrawn: BTreeMap<StatementId, (Signed<Withdrawal>, Timestamp, Country)>,
}

/// Why an offer does not enter the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OfferRefused {
    #[error("known already")]
    Known,
    #[error("withdrawn by its node")]
    Withdrawn,
    #[error("its node has as many offers, standing or withdrawn before their end, as one node may have")]
    NodeQuota,
    #[error("its member has as many offers as one member may have")]
    MemberQuota,
}

impl Offers {
    /// Whether there is room for an offer of this node.
    pub(super) fn admits(&self, id: StatementId, node: &PublicKey, member: Country) -> Result<(), OfferRefused> {
        if self.standing.contains_key(&id) {
            return Err(OfferRefused::Known);
        }
        if self.withdrawn.contains_key(&id) {
            return Err(OfferRefused::Withdrawn);
        }
        // What was withdrawn is kept until it would have ended, and takes its place until then.
        let withdrawn = |same: &dyn Fn(&Signed<Withdrawal>, Country) -> bool| {
            self.withdrawn.values().filter(|(withdrawal, _, country)| same(withdrawal, *country)).count()
        };
        let of_node = self.iter().filter(|offer| offer.body().node == *node).count();
        if of_node + withdrawn(&|withdrawal, _| withdrawal.body().node == *node) >= limits::OFFERS_PER_NODE_MAX {
            return Err(OfferRefused::NodeQuota);
        }
        let of_member = self.standing.values().filter(|(_, country)| *country == member).count();
        if of_member + withdrawn(&|_, country| country == member) >= limits::OFFERS_PER_MEMBER_MAX {
            return Err(OfferRefused::MemberQuota);
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, offer: Signed<Offer>, member: Country) {
        if !self.withdrawn.contains_key(&offer.id()) {
            self.standing.insert(offer.id(), (offer, member));
        }
    }

    /// Takes an offer back, if its own node says so. Whether anything changed.
    pub(super) fn withdraw(&mut self, withdrawal: Signed<Withdrawal>) -> bool {
        let id = withdrawal.body().offer;
        let own = |(offer, _): &(Signed<Offer>, Country)| offer.body().node == withdrawal.body().node;
        if !self.standing.get(&id).is_some_and(own) {
            return false;
        }
        if let Some((offer, member)) = self.standing.remove(&id) {
            self.withdrawn.insert(id, (withdrawal, offer.body().validity.until, member));
        }
        true
    }

    pub(super) fn get(&self, id: StatementId) -> Option<&Signed<Offer>> {
        self.standing.get(&id).map(|(offer, _)| offer)
    }

    /// The standing offer that one of an artefact got from elsewhere goes back to.
    pub(super) fn root_of(&self, offer: &Offer) -> Option<&Signed<Offer>> {
        offer.root.and_then(|root| self.get(root))
    }

    pub(super) fn is_withdrawn(&self, id: StatementId) -> bool {
        self.withdrawn.contains_key(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Signed<Offer>> {
        self.standing.values().map(|(offer, _)| offer)
    }

    pub(super) fn len(&self) -> usize {
        self.standing.len()
    }

    /// Removes the offers of a node that lost its standing; gives their ids.
    pub(super) fn purge(&mut self, node: &PublicKey) -> Vec<StatementId> {
        let mut gone = self.remove_where(|offer| offer.body().node == *node);
        gone.extend(self.remove_withdrawn(|withdrawal, _| withdrawal.body().node == *node));
        gone
    }

    /// Removes what has ended; gives the ids of what others may still hold in a store.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<StatementId> {
        let mut gone = self.remove_where(|offer| now >= offer.body().validity.until);
        gone.extend(self.remove_withdrawn(|_, until| now >= until));
        gone
    }

    fn remove_withdrawn(&mut self, gone: impl Fn(&Signed<Withdrawal>, Timestamp) -> bool) -> Vec<StatementId> {
        let mut ids = Vec::new();
        self.withdrawn.retain(|_, (withdrawal, until, _)| {
            let keep = !gone(withdrawal, *until);
            if !keep {
                ids.push(withdrawal.id());
            }
            keep
        });
        ids
    }

    fn remove_where(&mut self, gone: impl Fn(&Signed<Offer>) -> bool) -> Vec<StatementId> {
        let ids: Vec<_> = self.iter().filter(|offer| gone(offer)).map(Signed::id).collect();
        for id in &ids {
            self.standing.remove(id);
        }
        ids
    }

    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.iter().map(|offer| offer.body().validity.until).min()
    }

    /// All statements, for synchronisation.
    pub(super) fn statements(&self) -> impl Iterator<Item = (StatementId, &[u8])> {
        let offers = self.iter().map(|offer| (offer.id(), offer.bytes()));
        offers.chain(self.withdrawn.values().map(|(withdrawal, ..)| (withdrawal.id(), withdrawal.bytes())))
    }
}
