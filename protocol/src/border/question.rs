//! What is asked of whom: the facts of a crossing, as far as they are verified or declared by someone accountable, and the packs
//! that they are put to. Nothing is decided here.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{Attempt, Border, Denial, Root, training::trained_in};
use crate::{
    authority::{Accreditation, Safeguard},
    envelope::Signed,
    gate::{Action, Facts, Grant, Pack, Party, Verdict, Volume},
    limits,
    offer::ModelOffer,
    trust::{Course, Scope},
    vocabulary::{Country, Label, SafeguardKind, Tier},
};

/// One pack, asked in one capacity about one movement of the whole artefact.
pub(super) struct Question<'a> {
    pub(super) pack: &'a Pack,
    pub(super) action: Action,
    pub(super) facts: Arc<Facts>,
}

/// Characters of the reason why a safeguard is ignored.
pub(super) const IGNORED_CHARS_MAX: usize = 400;

impl Border<'_> {
    /// What is asked of whom, the law of the first exporter included.
    pub(super) fn all_questions(
        &self,
        attempt: &Attempt<'_>,
        model: &ModelOffer,
        facts: &Facts,
    ) -> Result<Vec<Question<'_>>, Denial> {
        let mut questions = self.questions(facts, attempt.course)?;
        if let Some(root) = attempt.root {
            questions.extend(self.question_of_root(root, attempt, model)?);
        }
        Ok(questions)
    }

    /// Which packs are asked, and in which capacity.
    pub(super) fn questions(&self, facts: &Facts, course: Course) -> Result<Vec<Question<'_>>, Denial> {
        // The law of both ends must be in force even where it is not asked, because no border is crossed.
        self.laws(facts.from.country, course)?;
        self.laws(facts.to.country, course)?;
        let mut questions = vec![(self.baseline, Action::Export), (self.baseline, Action::Import)];
        let members = &self.trust.chartered().charter().members;
        for (member, action) in facts.questions(|country| members.contains_key(&country)) {
            questions.extend(self.laws(member, course)?.into_iter().map(|law| (law, action)));
        }
        if let Some(house) = self.house {
            questions.push((house, Action::Export));
            questions.push((house, Action::Import));
        }
        let facts = Arc::new(facts.clone());
        Ok(questions.into_iter().map(|(pack, action)| Question { pack, action, facts: Arc::clone(&facts) }).collect())
    }

    /// Where an artefact is offered on, the law of its first exporter is asked as if it went from there to the importer, with
    /// the bans of that member and the safeguards for that way, so that no way around a prohibition leads over a third country.
    fn question_of_root(
        &self,
        root: Root<'_>,
        attempt: &Attempt<'_>,
        model: &ModelOffer,
    ) -> Result<Vec<Question<'_>>, Denial> {
        // What does not count for one of both ways is noted where it does not count for the crossing itself.
        let direct = self.facts(&Attempt { exporter: root.exporter, ..*attempt }, model, &mut Vec::new());
        let members = &self.trust.chartered().charter().members;
        let laws = self.laws(direct.from.country, attempt.course)?;
        let exports = direct.questions(|country| members.contains_key(&country));
        let is_asked =
            exports.into_iter().any(|(country, action)| (country, action) == (direct.from.country, Action::Export));
        if !is_asked {
            return Ok(Vec::new());
        }
        let facts = Arc::new(direct);
        let asked = |pack| Question { pack, action: Action::Export, facts: Arc::clone(&facts) };
        Ok(laws.into_iter().map(asked).collect())
    }

    /// The member's law, at both ends of the interval in which the true time lies and in between.
    pub(super) fn laws(&self, member: Country, course: Course) -> Result<Vec<&Pack>, Denial> {
        let stale = |why: crate::trust::Stale| Denial { code: why.code(), problem: why.to_string() };
        match self.outlook {
            Some(at) => self.trust.law_on(member, at).map(|law| vec![law]).map_err(stale),
            None => self.trust.laws(member, course, self.now).map_err(stale),
        }
    }

    /// Asks one pack at both ends of the interval in which the true time lies; a denial at either end is the answer.
    pub(super) fn judge(&self, pack: &Pack, action: Action, facts: &Facts) -> Arc<Verdict> {
        if let Some(at) = self.outlook {
            return self.gate.judge(pack, action, facts, at);
        }
        let early = self.gate.judge(pack, action, facts, self.now.minus_ms(limits::CLOCK_SKEW_MS_MAX));
        if !early.permits() {
            return early;
        }
        self.gate.judge(pack, action, facts, self.now.plus_ms(limits::CLOCK_SKEW_MS_MAX))
    }

    /// Whether the answer to a question, asked of what has these labels, could be another with another volume.
    pub(super) fn heeds_volume(&self, question: &Question<'_>, labels: &BTreeSet<Label>) -> bool {
        let facts = Facts { labels: labels.clone(), ..Facts::clone(&question.facts) };
        let skew = limits::CLOCK_SKEW_MS_MAX;
        let ends = [self.now.minus_ms(skew), self.now.plus_ms(skew)];
        ends.into_iter().any(|at| self.gate.heeds_volume(question.pack, question.action, &facts, at))
    }

    pub(super) fn facts(&self, attempt: &Attempt<'_>, model: &ModelOffer, ignored: &mut Vec<String>) -> Facts {
        let (exporter, importer) = (attempt.exporter.body(), attempt.importer.body());
        let scope = scope(attempt, &model.labels);
        let mut safeguards = BTreeMap::<Country, BTreeMap<SafeguardKind, Grant>>::new();
        for bytes in attempt.safeguards.iter().take(limits::SAFEGUARDS_PER_REQUEST_MAX) {
            match self.trust.safeguard(bytes, &scope, self.now) {
                Ok(safeguard) => {
                    let body = safeguard.body();
                    let grant = Grant { rules: body.rules.clone(), since: body.validity.from, filed: body.filed };
                    match safeguards.entry(body.issuer).or_default().entry(body.kind) {
                        Entry::Vacant(place) => drop(place.insert(grant)),
                        Entry::Occupied(mut place) => place.get_mut().join(grant),
                    }
                }
                Err(why) => ignored.push(
                    match Signed::<Safeguard>::open(bytes, self.trust.alliance()) {
                        Ok(statement) => format!("`{}` of {}: {why}", statement.body().kind, statement.body().issuer),
                        Err(_) => why.to_string(),
                    }
                    .chars()
                    .take(IGNORED_CHARS_MAX)
                    .collect(),
                ),
            }
        }
        let concerned = [exporter.member, importer.member].into_iter().chain(model.subjects.iter().copied());
        Facts {
            circumstances: attempt.circumstances | &model.provenance.circumstances,
            volume: attempt.counted.with(Volume::of(&model.labels, model.provenance.people)),
            bans: self.trust.bans(concerned, importer),
            from: self.party(exporter),
            to: self.party(importer),
            artefact: model.artefact,
            labels: model.labels.clone(),
            origin: model.origin,
            trained_in: trained_in(self.trust, attempt, ignored),
            subjects: model.subjects.clone(),
            purpose: attempt.purpose,
            use_: attempt.use_,
            safeguards,
        }
    }

    /// One end, as its authority accredited it. What was measured takes away from that, and never adds to it.
    fn party(&self, accreditation: &Accreditation) -> Party {
        let organisation = &accreditation.organisation;
        let (known, place) = (self.misplaced.get(&accreditation.node), accreditation.place.as_ref());
        let misplaced = known.zip(place).is_some_and(|(known, place)| known.excludes(place));
        Party {
            country: accreditation.member,
            zone: accreditation.zone,
            organisation: organisation.name.clone(),
            roles: organisation.roles.clone(),
            controlled_by: organisation.controlled_by.unwrap_or(accreditation.member),
            state_controlled: organisation.state_controlled,
            tier: if misplaced { Tier::Declared } else { accreditation.tier },
        }
    }
}

pub(super) fn scope<'a>(attempt: &Attempt<'_>, labels: &'a BTreeSet<Label>) -> Scope<'a> {
    let (exporter, importer) = (attempt.exporter.body(), attempt.importer.body());
    Scope { from: exporter.member, to: importer.member, recipient: importer.node, labels }
}
