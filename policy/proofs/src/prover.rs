//! Proofs about law packs: the symbolic compiler of Cedar writes a question for cvc5, and cvc5 answers it.
//!
//! Nothing but an answer of `unsat` counts as proven. No solver, a timeout, `unknown`, a model that cannot be read and a
//! counterexample the authorizer does not confirm are all `NotProven`, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, EvalResult, Policy, PolicyId, PolicySet, Request, RequestEnv,
    Schema,
};
use cedar_policy_symcc::err::{Error as SymError, SolverError};
use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{
    CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env, WellFormedAsserts, always_denies_asserts, disjoint_asserts,
    equivalent_asserts, implies_asserts, never_errors_asserts,
};
use serde_json::Value;
use thiserror::Error;

/// Why a property is neither proven nor refuted.
#[derive(Debug, Error)]
pub(crate) enum Reason {
    #[error("no solver could be started; install cvc5, or let CVC5 name its binary: {0}")]
    NoSolver(#[source] SolverError),
    #[error("the solver gave no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the solver answered `unknown`: its own limit of time, or a question it cannot decide")]
    Unknown,
    #[error("the solver failed: {0}")]
    SolverFailed(#[source] Box<SymError>),
    #[error("the policies cannot be compiled: {0}")]
    NotCompiled(#[source] Box<SymError>),
    #[error("the counterexample cannot be read: {0}")]
    Unreadable(#[source] Box<SymError>),
    #[error("the authorizer does not confirm the counterexample: {0}")]
    Unconfirmed(Box<Facts>),
    #[error("the claim matches no request, so nothing would be shown by it")]
    EmptyClaim,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Proven,
    Refuted(Box<Counterexample>),
    NotProven(Reason),
}

/// A request that breaks the property, confirmed by the authorizer.
#[derive(Debug)]
pub(crate) struct Counterexample {
    pub request: Request,
    pub entities: Entities,
    pub facts: Facts,
}

/// A request in words. Paths are dotted: `from.country`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub action: String,
    pub resource: String,
    pub context: BTreeMap<String, Fact>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    One(String),
    Many(BTreeSet<String>),
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.action, self.resource)?;
        for (path, fact) in &self.context {
            match fact {
                Fact::One(value) => write!(f, "; {path} {value}")?,
                Fact::Many(values) if values.is_empty() => {}
                Fact::Many(values) => write!(f, "; {path} {}", values.iter().cloned().collect::<Vec<_>>().join("+"))?,
            }
        }
        Ok(())
    }
}

/// One solver process, asked one question after another; a new one after every failure.
pub(crate) struct Prover {
    schema: Schema,
    environments: Vec<RequestEnv>,
    limit: Duration,
    solver: Option<CedarSymCompiler<LocalSolver>>,
}

impl Prover {
    pub(crate) fn new(schema: Schema, limit: Duration) -> Self {
        let environments = schema.request_envs().collect();
        Self { schema, environments, limit, solver: None }
    }

    /// For each rule: can its condition fail to evaluate? A rule that fails is skipped, a forbid among them.
    pub(crate) async fn never_errors(&mut self, pack: &PolicySet) -> Vec<(PolicyId, Verdict)> {
        let mut outcomes = Vec::new();
        for policy in pack.policies() {
            outcomes.push((policy.id().clone(), self.policy_never_errors(policy).await));
        }
        outcomes
    }

    async fn policy_never_errors(&mut self, policy: &Policy) -> Verdict {
        for environment in self.environments.clone() {
            let compiled = match CompiledPolicy::compile(policy, &environment, &self.schema) {
                Ok(compiled) => compiled,
                Err(error) => return Verdict::NotProven(Reason::NotCompiled(Box::new(error))),
            };
            let single = PolicySet::from_policies([policy.clone()]);
            match self.ask(&never_errors_asserts(&compiled)).await {
                Ok(None) => {}
                Ok(Some(env)) => {
                    return confirmed(env, |request, entities| {
                        single.as_ref().is_ok_and(|set| {
                            let answer = Authorizer::new().is_authorized(request, set, entities);
                            answer.diagnostics().errors().next().is_some()
                        })
                    });
                }
                Err(reason) => return Verdict::NotProven(reason),
            }
        }
        Verdict::Proven
    }

    /// The pack allows nothing that the claim names. Refuted: a request that both allow.
    pub(crate) async fn disjoint(&mut self, pack: &PolicySet, claim: &PolicySet) -> Verdict {
        match self.always_denies(claim).await {
            Verdict::Proven => return Verdict::NotProven(Reason::EmptyClaim),
            Verdict::NotProven(reason) => return Verdict::NotProven(reason),
            Verdict::Refuted(_) => {}
        }
        self.pair(pack, claim, disjoint_asserts, |pack, claim| pack && claim).await
    }

    /// Proven: the new pack allows nothing that the old one denies. Refuted: a request that only the new one allows.
    pub(crate) async fn newly_allowed(&mut self, old: &PolicySet, new: &PolicySet) -> Verdict {
        self.implies(new, old).await
    }

    pub(crate) async fn implies(&mut self, narrow: &PolicySet, wide: &PolicySet) -> Verdict {
        self.pair(narrow, wide, implies_asserts, |narrow, wide| narrow && !wide).await
    }

    pub(crate) async fn equivalent(&mut self, left: &PolicySet, right: &PolicySet) -> Verdict {
        self.pair(left, right, equivalent_asserts, |left, right| left != right).await
    }

    pub(crate) async fn always_denies(&mut self, pack: &PolicySet) -> Verdict {
        for environment in self.environments.clone() {
            let compiled = match CompiledPolicySet::compile(pack, &environment, &self.schema) {
                Ok(compiled) => compiled,
                Err(error) => return Verdict::NotProven(Reason::NotCompiled(Box::new(error))),
            };
            match self.ask(&always_denies_asserts(&compiled)).await {
                Ok(None) => {}
                Ok(Some(env)) => return confirmed(env, |request, entities| allows(pack, request, entities)),
                Err(reason) => return Verdict::NotProven(reason),
            }
        }
        Verdict::Proven
    }

    async fn pair<Q>(
        &mut self,
        left: &PolicySet,
        right: &PolicySet,
        question: Q,
        broken: impl Fn(bool, bool) -> bool,
    ) -> Verdict
    where
        Q: for<'a> Fn(&'a CompiledPolicySet, &'a CompiledPolicySet) -> WellFormedAsserts<'a>,
    {
        // Both sides are compiled for the same environment: the library panics on two different ones.
        for environment in self.environments.clone() {
            let compile = |policies| CompiledPolicySet::compile(policies, &environment, &self.schema).map_err(Box::new);
            let (compiled_left, compiled_right) = match (compile(left), compile(right)) {
                (Ok(left), Ok(right)) => (left, right),
                (Err(error), _) | (_, Err(error)) => return Verdict::NotProven(Reason::NotCompiled(error)),
            };
            match self.ask(&question(&compiled_left, &compiled_right)).await {
                Ok(None) => {}
                Ok(Some(env)) => {
                    let breaks = |request: &Request, entities: &Entities| {
                        broken(allows(left, request, entities), allows(right, request, entities))
                    };
                    return match confirmed(env, breaks) {
                        Verdict::Refuted(found) => Verdict::Refuted(Box::new(shrink(&self.schema, *found, breaks))),
                        other => other,
                    };
                }
                Err(reason) => return Verdict::NotProven(reason),
            }
        }
        Verdict::Proven
    }

    /// None: no request satisfies the asserts. Every other answer but a model is an error.
    pub(crate) async fn ask(&mut self, asserts: &WellFormedAsserts<'_>) -> Result<Option<Env>, Reason> {
        let mut solver = match self.solver.take() {
            Some(solver) => solver,
            None => self.start()?,
        };
        // cvc5 keeps its own limit; ours is for a solver that does not.
        let limit = self.limit + Duration::from_secs(2);
        match tokio::time::timeout(limit, solver.check_sat(asserts)).await {
            Ok(Ok(answer)) => {
                self.solver = Some(solver);
                Ok(answer)
            }
            // The solver is dropped, and killed with it: what it still has to say would be taken for the next answer.
            Ok(Err(error)) => Err(reason(error)),
            Err(_) => Err(Reason::TimedOut(limit)),
        }
    }

    fn start(&self) -> Result<CedarSymCompiler<LocalSolver>, Reason> {
        let path = std::env::var_os("CVC5").unwrap_or_else(|| "cvc5".into());
        let mut command = tokio::process::Command::new(path);
        // `--tlimit` would count from the start of the process, over all questions.
        command.args(["--lang", "smt"]).arg(format!("--tlimit-per={}", self.limit.as_millis())).kill_on_drop(true);
        let solver = LocalSolver::from_command(&mut command).map_err(Reason::NoSolver)?;
        CedarSymCompiler::new(solver).map_err(|error| Reason::SolverFailed(Box::new(error)))
    }
}

fn reason(error: SymError) -> Reason {
    match error {
        SymError::SolverUnknown => Reason::Unknown,
        SymError::SolverError(_) | SymError::EncodeError(_) => Reason::SolverFailed(Box::new(error)),
        SymError::DecodeModel(_) | SymError::ConcretizeError(_) | SymError::ModelInvalid { .. } => {
            Reason::Unreadable(Box::new(error))
        }
        _ => Reason::NotCompiled(Box::new(error)),
    }
}

fn allows(policies: &PolicySet, request: &Request, entities: &Entities) -> bool {
    Authorizer::new().is_authorized(request, policies, entities).decision() == Decision::Allow
}

fn confirmed(env: Env, breaks: impl Fn(&Request, &Entities) -> bool) -> Verdict {
    let facts = facts(&env.request);
    if breaks(&env.request, &env.entities) {
        Verdict::Refuted(Box::new(Counterexample { request: env.request, entities: env.entities, facts }))
    } else {
        Verdict::NotProven(Reason::Unconfirmed(Box::new(facts)))
    }
}

fn facts(request: &Request) -> Facts {
    let id = |uid: Option<&EntityUid>| uid.map_or_else(String::new, |uid| uid.id().unescaped().to_owned());
    let mut context = BTreeMap::new();
    if let Some(found) = request.context() {
        for (name, _) in found.clone() {
            if let Some(value) = found.get(&name) {
                flatten(&name, &value, &mut context);
            }
        }
    }
    Facts { action: id(request.action()), resource: id(request.resource()), context }
}

fn flatten(path: &str, value: &EvalResult, facts: &mut BTreeMap<String, Fact>) {
    match value {
        EvalResult::Record(record) => {
            for (name, value) in record.iter() {
                flatten(&format!("{path}.{name}"), value, facts);
            }
        }
        EvalResult::Set(set) => {
            facts.insert(path.to_owned(), Fact::Many(set.iter().map(word).collect()));
        }
        other => {
            facts.insert(path.to_owned(), Fact::One(word(other)));
        }
    }
}

fn word(value: &EvalResult) -> String {
    match value {
        EvalResult::EntityUid(uid) => uid.id().unescaped().to_owned(),
        EvalResult::ExtensionValue(text) | EvalResult::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Fewer labels, safeguards and roles, an ordinary purpose and date, as long as the request still breaks the property.
/// No solver is asked: the authorizer decides.
fn shrink(schema: &Schema, found: Counterexample, breaks: impl Fn(&Request, &Entities) -> bool) -> Counterexample {
    let (Some(principal), Some(action), Some(resource), Some(context)) =
        (found.request.principal(), found.request.action(), found.request.resource(), found.request.context())
    else {
        return found;
    };
    let Ok(mut best) = context.to_json_value() else { return found };
    let mut smallest = None;
    for path in paths(&best) {
        for candidate in simpler(&best, &path) {
            let mut changed = best.clone();
            let Some(place) = changed.pointer_mut(&path) else { continue };
            *place = candidate;
            let request = Context::from_json_value(changed.clone(), Some((schema, action))).ok().and_then(|context| {
                Request::new(principal.clone(), action.clone(), resource.clone(), context, Some(schema)).ok()
            });
            if let Some(request) = request
                && breaks(&request, &found.entities)
            {
                best = changed;
                smallest = Some(request);
                break;
            }
        }
    }
    match smallest {
        Some(request) => Counterexample { facts: facts(&request), request, entities: found.entities },
        None => found,
    }
}

/// JSON pointers of everything in the context that can be simplified.
fn paths(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !fields.contains_key("__entity") && !fields.contains_key("__extn") => {
                for (name, value) in fields {
                    walk(value, &format!("{path}/{name}"), found);
                }
            }
            Value::Array(values) => found.extend(values.iter().map(|_| path.to_owned())),
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

fn simpler(context: &Value, path: &str) -> Vec<Value> {
    let entity = |kind: &str, id: &str| serde_json::json!({ "__entity": { "type": kind, "id": id } });
    match context.pointer(path) {
        Some(Value::Array(values)) => (0..values.len())
            .map(|without| {
                let mut fewer = values.clone();
                fewer.remove(without);
                Value::Array(fewer)
            })
            .collect(),
        Some(Value::Bool(true)) => vec![Value::Bool(false)],
        Some(Value::Number(_)) => vec![0.into()],
        Some(Value::Object(fields)) if fields.contains_key("__extn") => {
            vec![serde_json::json!({ "__extn": { "fn": "datetime", "arg": "2026-01-01" } })]
        }
        Some(Value::Object(_)) => match path {
            "/purpose" => vec![entity("Purpose", "research")],
            "/use" => vec![entity("Use", "training")],
            "/origin" | "/from/controlled_by" => context.pointer("/from/country").cloned().into_iter().collect(),
            "/to/controlled_by" => context.pointer("/to/country").cloned().into_iter().collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
