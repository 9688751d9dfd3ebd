//! Puts one crossing to one pack. The answer is Cedar's, with one exception: Cedar passes over a rule that it cannot
//! evaluate, a prohibition included, so any such rule makes the answer a failure, which denies.
//!
//! Cedar is asked only about the rules that can speak to the crossing (`slice`), each with the safeguards that it may see
//! (`sight`). How its answers to single rules make a decision is Cedar's way too: a prohibition wins, and something must permit.

use std::{
    collections::{BTreeSet, HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use alliance_protocol::{
    gate::{Action, Facts, Pack, PackOwner, Verdict},
    time::Timestamp,
};
use cedar_policy_core::{ast, entities::Entities, evaluator::Evaluator, extensions::Extensions};

use crate::{
    explain,
    language::{self, Asked, Language, LanguageError},
    pack::{Compiled, Law},
    sight::{self, Sight, Span},
    slice::Look,
};

/// Rules named in one failure. One is enough to deny; the officer mends a few at a time.
const FAILURES_SHOWN_MAX: usize = 8;

/// Answers remembered for one pack; then all are forgotten. An answer has a few KiB.
const ANSWERS_MAX: usize = 4096;

/// A pack could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error(transparent)]
    Language(#[from] LanguageError),
    #[error("rules that could not be evaluated: {0}")]
    Evaluation(String),
}

/// Answers of one pack, by everything that they depend on: the pack whose they are, its epoch, the action, all facts, and the
/// span of time in which no rule of the pack and no safeguard begins or ends.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: Mutex<HashMap<u64, Answer>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Answer {
    facts: Facts,
    span: Span,
    verdict: Arc<Verdict>,
}

impl Answers {
    fn key(&self, epoch: u64, action: Action, facts: &Facts) -> u64 {
        self.hasher.hash_one((epoch, action, facts))
    }

    fn get(&self, key: u64, epoch: u64, action: Action, facts: &Facts, at: Timestamp) -> Option<Arc<Verdict>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = known.get(&key)?;
        let same = answer.verdict.epoch == epoch && answer.verdict.action == action && answer.facts == *facts;
        (same && answer.span.holds(at)).then(|| Arc::clone(&answer.verdict))
    }

    fn put(&self, key: u64, answer: Answer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ANSWERS_MAX {
            known.clear();
        }
        known.insert(key, answer);
    }

    /// Forgets everything.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Asks a pack about a crossing at an instant, or remembers what it said.
pub(crate) fn judge(pack: &Pack, compiled: &Compiled, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict> {
    let at = to_the_second(at);
    let answers = &compiled.answers;
    let key = answers.key(pack.epoch, action, facts);
    if let Some(verdict) = answers.get(key, pack.epoch, action, facts, at) {
        return verdict;
    }
    let mut span = compiled.span(at);
    let verdict = Arc::new(evaluate(pack, compiled, action, facts, at, &mut span));
    answers.put(key, Answer { facts: facts.clone(), span, verdict: Arc::clone(&verdict) });
    verdict
}

/// Cedar is given whole seconds, so everything else that looks at the time is given the same.
fn to_the_second(at: Timestamp) -> Timestamp {
    at.minus_ms(at.0 % 1000)
}

/// Asks without remembering.
pub(crate) fn evaluate(
    pack: &Pack,
    compiled: &Compiled,
    action: Action,
    facts: &Facts,
    at: Timestamp,
    span: &mut Span,
) -> Verdict {
    let at = to_the_second(at);
    match Question::new(compiled, action, facts, at).and_then(|question| question.answer(span)) {
        Ok(Said { denying, satisfied, permitting }) => explain::verdict(pack, action, &denying, &satisfied, &permitting),
        Err(error) => Verdict::failed(pack.owner, pack.epoch, action, error.to_string()),
    }
}

/// Whether a rule that looks at the volume could speak to a crossing, whatever the volume.
pub(crate) fn heeds_volume(compiled: &Compiled, action: Action, facts: &Facts, at: Timestamp) -> bool {
    let look = Look { facts, volume: None, ban: bans(compiled.owner, facts), at: to_the_second(at) };
    compiled.chapter(action).any(|law| law.looks_at_volume && law.can_speak(&look))
}

/// Whether a pack of this owner is told of a ban.
fn bans(owner: PackOwner, facts: &Facts) -> bool {
    match owner {
        PackOwner::Member(member) => facts.bans.contains(&member),
        PackOwner::Alliance | PackOwner::House => !facts.bans.is_empty(),
    }
}

/// What the rules said, as far as it matters.
#[derive(Debug, Default)]
struct Said<'a> {
    denying: Vec<&'a Law>,
    satisfied: Vec<&'a Law>,
    permitting: Vec<&'a Law>,
}

struct Question<'a> {
    language: &'static Language,
    compiled: &'a Compiled,
    action: Action,
    facts: &'a Facts,
    at: Timestamp,
    ban: bool,
}

/// The last instant that Cedar and the calendar both know: the end of the year 9999.
const LAST: Timestamp = Timestamp(253_402_207_200_000);

static NOTHING: LazyLock<Entities> = LazyLock::new(Entities::new);

impl<'a> Question<'a> {
    fn new(compiled: &'a Compiled, action: Action, facts: &'a Facts, at: Timestamp) -> Result<Self, JudgeError> {
        let language = language::language()?;
        let ban = bans(compiled.owner, facts);
        // What cannot be put to a pack at all denies, whether or not a rule would look at it.
        if at > LAST {
            return Err(LanguageError::Time(at).into());
        }
        Ok(Self { language, compiled, action, facts, at, ban })
    }

    fn answer(&self, span: &mut Span) -> Result<Said<'a>, JudgeError> {
        let look = Look { facts: self.facts, volume: Some(self.facts.volume), ban: self.ban, at: self.at };
        let candidates = self.compiled.chapter(self.action).filter(|law| law.can_speak(&look));
        let presented = !self.facts.safeguards.is_empty();
        let mut seeing: Vec<(&Law, Sight)> = Vec::new();
        for law in candidates {
            let sight = match presented && law.looks_at_safeguards {
                true => sight::of(&law.rule, self.compiled.owner, self.facts, self.at, span),
                false => Sight::NONE,
            };
            seeing.push((law, sight));
        }
        let mut said = Said::default();
        let mut failed = BTreeSet::new();
        // A rule that does not look at safeguards may be asked with any; one question for each sight is enough.
        let mut sights: Vec<Sight> = Vec::new();
        for (law, sight) in &seeing {
            if law.looks_at_safeguards && !sights.contains(sight) {
                sights.push(*sight);
            }
        }
        let first = sights.first().copied().unwrap_or(Sight::NONE);
        if sights.is_empty() {
            sights.push(Sight::NONE);
        }
        for sight in sights {
            let evaluator = self.evaluator(sight, seeing.iter().map(|(law, _)| *law))?;
            let asked = seeing.iter().filter(|(law, own)| match law.looks_at_safeguards {
                true => *own == sight,
                false => sight == first,
            });
            for (law, _) in asked {
                match evaluate_one(&evaluator, &law.policy) {
                    Ok(true) if law.rule.forbids => said.denying.push(law),
                    Ok(true) => said.permitting.push(law),
                    Ok(false) => {}
                    Err(error) => drop(failed.insert(format!("`{}`: {error}", law.rule.id))),
                }
            }
        }
        // What safeguards satisfied: the rules that would forbid without them.
        let satisfiable = seeing.iter().filter(|(law, sight)| !law.rule.satisfied_by.is_empty() && !sight.is_none());
        if said.denying.is_empty() && satisfiable.clone().next().is_some() {
            let evaluator = self.evaluator(Sight::NONE, satisfiable.clone().map(|(law, _)| *law))?;
            for (law, _) in satisfiable {
                match evaluate_one(&evaluator, &law.policy) {
                    Ok(true) => said.satisfied.push(law),
                    Ok(false) => {}
                    Err(error) => drop(failed.insert(format!("`{}`: {error}", law.rule.id))),
                }
            }
        }
        if failed.is_empty() {
            return Ok(said);
        }
        Err(JudgeError::Evaluation(failed.into_iter().take(FAILURES_SHOWN_MAX).collect::<Vec<_>>().join("; ")))
    }

    /// Puts the question to some rules.
    fn evaluator<'b>(
        &self,
        sight: Sight,
        laws: impl Iterator<Item = &'b Law>,
    ) -> Result<Evaluator<'static>, LanguageError> {
        let attributes = laws.fold(0, |all, law| all | law.attributes);
        let asked = Asked { action: self.action, ban: self.ban, at: self.at, attributes };
        let question = self.language.question(self.facts, &asked, sight)?;
        Ok(Evaluator::new(question, &NOTHING, Extensions::all_available()))
    }
}

fn evaluate_one(evaluator: &Evaluator<'_>, policy: &ast::Policy) -> Result<bool, String> {
    evaluator.evaluate(policy).map_err(|error| error.to_string())
}
