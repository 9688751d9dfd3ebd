//! Puts one crossing to one pack. The answer is Cedar's, with one exception: Cedar passes over a rule that it cannot
//! evaluate, a prohibition included, so any such rule makes the answer a failure, which denies.

use std::{collections::BTreeSet, string::ToString};

use alliance_protocol::{
    gate::{Action, Facts, RuleCited},
    time::Timestamp,
};
use cedar_policy::{Authorizer, Decision, Entities, PolicySet, Request, Response};

use crate::{
    explain,
    language::{self, LanguageError, Shown},
    pack::Compiled,
};

/// Rules named in one failure. One is enough to deny; the officer mends a few at a time.
const FAILURES_SHOWN_MAX: usize = 8;

/// What a pack says, with the rules that decided.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) allowed: bool,
    pub(crate) rules: Vec<RuleCited>,
    pub(crate) obligations: BTreeSet<String>,
}

/// A pack could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error(transparent)]
    Language(#[from] LanguageError),
    #[error("rules that could not be evaluated: {0}")]
    Evaluation(String),
}

/// Asks a pack about a crossing at an instant.
pub(crate) fn judge(compiled: &Compiled, action: Action, facts: &Facts, at: Timestamp) -> Result<Judgement, JudgeError> {
    let language = language::language()?;
    let chapter = compiled.chapter(action);
    let question = |shown| language.question(compiled.owner, action, facts, at, shown);
    let (decision, reasons) = ask(&question(Shown::Safeguards)?, &chapter.all)?;
    match decision {
        Decision::Deny => Ok(explain::denial(compiled, &reasons)),
        Decision::Allow => {
            // A rule that safeguards satisfied is one that forbids without them.
            let satisfied = if chapter.satisfiable.is_empty() || !language::shows_safeguards(compiled.owner, facts) {
                BTreeSet::new()
            } else {
                ask(&question(Shown::None)?, &chapter.satisfiable)?.1
            };
            Ok(explain::permission(compiled, &reasons, &satisfied))
        }
    }
}

/// Cedar's decision and the rules behind it.
fn ask(question: &Request, policies: &PolicySet) -> Result<(Decision, BTreeSet<String>), JudgeError> {
    let response: Response = Authorizer::new().is_authorized(question, policies, &Entities::empty());
    let failed: BTreeSet<String> = response.diagnostics().errors().map(ToString::to_string).collect();
    if !failed.is_empty() {
        return Err(JudgeError::Evaluation(failed.into_iter().take(FAILURES_SHOWN_MAX).collect::<Vec<_>>().join("; ")));
    }
    Ok((response.decision(), response.diagnostics().reason().map(ToString::to_string).collect()))
}
