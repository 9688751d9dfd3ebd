//! From the text of a pack to what Cedar can be asked: parsed, its annotations read, strictly validated.
//!
//! Anything that is not understood refuses the whole pack. It never loads a part of one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alliance_protocol::{
    gate::{Action, Pack, PackError, PackOwner, RuleCited, RuleRole},
    limits::LAW_PACK_BYTES_MAX,
    time::Timestamp,
    vocabulary::SafeguardKind,
};
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, PolicySet, PolicySetError, ValidationMode, ValidationWarning,
    Validator, ffi::DetailedError,
};

use cedar_policy_core::ast;

use crate::{
    conditions::{self, ConditionError},
    decide::Answers,
    language::{self, Language, LanguageError},
    rule::{Rule, RuleError, Section},
    sight::Span,
    slice::{self, Known, Look, Parts},
};

/// Rules of one pack. A decision costs time linear in them; the longest founding pack has 16.
const RULES_MAX: usize = 512;

/// Bytes of one rule without strings, comments and white space. Bounds how deep a rule can nest, and with it the stack
/// that reading it needs. The longest rule of a founding pack has 936.
const RULE_CODE_BYTES_MAX: usize = 2048;

/// Brackets inside each other in one rule, for the same reason. The deepest rule of a founding pack has four.
const RULE_NESTING_MAX: usize = 32;

/// Signs of `+`, `-` and `*` in one rule. They chain without brackets, and the time of the type checker rises faster than
/// their number. No founding pack has one.
const RULE_SUMS_MAX: usize = 16;

/// `&&` and `||` in one rule, which chain in the same way. The longest rule of a founding pack has eight.
const RULE_CONNECTIVES_MAX: usize = 64;

/// Dots in one rule: calls and attributes chain too. The longest rule of a founding pack has 19.
const RULE_DOTS_MAX: usize = 128;

/// Characters of one message of Cedar. A schema of closed lists makes for long listings of what would have been allowed.
const MESSAGE_CHARS_MAX: usize = 600;

/// A pack that can be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) owner: PackOwner,
    /// In the order of their ids.
    laws: Vec<Law>,
    /// The instants at which a rule begins or ends; `None` where one looks at the time in another way.
    turning_points: Option<BTreeSet<Timestamp>>,
    pub(crate) answers: Answers,
}

/// One rule, as its annotations describe it and as Cedar evaluates it.
#[derive(Debug)]
pub(crate) struct Law {
    pub(crate) rule: Rule,
    /// The rule without what `known` is certain of.
    pub(crate) policy: ast::Policy,
    /// The actions that its scope admits.
    actions: Vec<Action>,
    /// What is certain about its condition without Cedar.
    known: Known,
    /// The attributes of the context that `policy` looks at, a bit each in the order of `language::ATTRIBUTES`.
    pub(crate) attributes: u32,
    pub(crate) looks_at_safeguards: bool,
    pub(crate) looks_at_volume: bool,
    /// Every word that it names, with its type.
    pub(crate) words: BTreeSet<(String, String)>,
}

impl Law {
    /// Whether it looks at a kind of safeguard. The waiting period is worked out from a notification, so a rule that asks for
    /// the one looks at the other.
    pub(crate) fn names(&self, kind: SafeguardKind) -> bool {
        self.words.iter().any(|(of, word)| of == "Safeguard" && word == kind.as_str())
    }

    /// Whether Cedar has to be asked about it.
    pub(crate) fn can_speak(&self, look: &Look<'_>) -> bool {
        self.known.holds(look) != Some(false)
    }
}

/// Why a text is not a pack, in the words of the officer who has to mend it.
#[derive(Debug, thiserror::Error)]
enum CompileError {
    #[error("it has {found} bytes; at most {LAW_PACK_BYTES_MAX} are read")]
    TooLong { found: usize },
    #[error(
        "{section}, line {line}: the rule that begins here has more than {RULE_CODE_BYTES_MAX} bytes of code, \
         {RULE_NESTING_MAX} brackets inside each other, {RULE_SUMS_MAX} of `+ - *`, {RULE_CONNECTIVES_MAX} of `&& ||`, \
         or {RULE_DOTS_MAX} dots"
    )]
    RuleTooLarge { section: Section, line: usize },
    #[error("it has more than {RULES_MAX} rules")]
    TooManyRules,
    #[error("{section}{place}: {message}", place = at(*line))]
    Syntax { section: Section, line: Option<usize>, message: String },
    #[error("{section}: templates with ?principal or ?resource are not rules")]
    Template { section: Section },
    #[error("{section}, line {line}: {error}")]
    Rule { section: Section, line: usize, error: RuleError },
    #[error("{section}, line {line}: rule `{id}`: {error}")]
    Condition { section: Section, line: usize, id: String, error: ConditionError },
    #[error("{section}, line {line}: rule `{id}` is there twice")]
    Duplicate { section: Section, line: usize, id: String },
    #[error("{section}, line {line}: rule `{id}`: the pack has another rule with the status residual, `{other}`")]
    SecondResidual { section: Section, line: usize, id: String, other: String },
    #[error("{section}{place}: rule `{id}`: {message}", place = at(*line))]
    Invalid { section: Section, line: Option<usize>, id: String, message: String },
    #[error("rule `{id}` cannot be read back: {message}")]
    ReadBack { id: String, message: String },
    #[error(transparent)]
    Language(#[from] LanguageError),
    #[error("its rules do not fit together: {0}")]
    Set(Box<PolicySetError>),
}

impl From<PolicySetError> for CompileError {
    fn from(error: PolicySetError) -> Self {
        Self::Set(Box::new(error))
    }
}

/// Where a rule stands in the text.
struct Place {
    section: Section,
    line: usize,
}

/// A pack on its way through the loader.
#[derive(Default)]
struct Draft {
    rules: BTreeMap<String, Rule>,
    places: BTreeMap<String, Place>,
    policies: PolicySet,
}

/// Reads a pack.
///
/// # Errors
/// The first thing that is wrong with its text.
pub(crate) fn compile(pack: &Pack) -> Result<Compiled, PackError> {
    read(pack).map_err(|error| PackError { owner: pack.owner, reason: error.to_string() })
}

fn read(pack: &Pack) -> Result<Compiled, CompileError> {
    let found = pack.law.len().saturating_add(pack.directives.len());
    if found > LAW_PACK_BYTES_MAX {
        return Err(CompileError::TooLong { found });
    }
    let language = language::language()?;
    let mut draft = Draft::default();
    for (section, text) in [(Section::Law, &*pack.law), (Section::Directives, &*pack.directives)] {
        draft.add_section(pack.owner, section, text)?;
    }
    draft.validate(language, pack)?;
    draft.compiled(language, pack.owner)
}

impl Compiled {
    /// The rules that can speak to an action. The others cannot hold, so Cedar need not be shown them.
    pub(crate) fn chapter(&self, action: Action) -> impl Iterator<Item = &Law> {
        self.laws.iter().filter(move |law| law.actions.contains(&action))
    }

    /// Every rule, for people.
    pub(crate) fn summary(&self) -> Vec<Arc<RuleCited>> {
        let role = |rule: &Rule| if rule.forbids { RuleRole::Denies } else { RuleRole::Permits };
        self.laws.iter().map(|law| law.rule.cited(role(&law.rule))).collect()
    }

    pub(crate) fn laws(&self) -> &[Law] {
        &self.laws
    }

    /// The first instant after another at which a rule begins or ends, where that can be told from the text.
    pub(crate) fn next_turn(&self, after: Timestamp) -> Option<Timestamp> {
        self.turning_points.as_ref()?.iter().copied().filter(|point| *point > after).min()
    }

    /// The span of time around an instant in which no rule begins or ends.
    pub(crate) fn span(&self, at: Timestamp) -> Span {
        let Some(points) = &self.turning_points else { return Span { from: at, until: at.plus_ms(1) } };
        let mut span = Span::ALWAYS;
        points.iter().for_each(|point| span.turn(*point, at));
        span
    }
}

impl Draft {
    fn add_section(&mut self, owner: PackOwner, section: Section, text: &str) -> Result<(), CompileError> {
        scan(section, text)?;
        let parsed: PolicySet = text.parse().map_err(|error| {
            let (line, message) = explain(&DetailedError::from(&error), text);
            CompileError::Syntax { section, line, message }
        })?;
        if parsed.templates().next().is_some() {
            return Err(CompileError::Template { section });
        }
        let mut policies: Vec<(usize, &Policy)> = parsed.policies().map(|policy| (line_of(policy, text), policy)).collect();
        policies.sort_by_key(|(line, _)| *line);
        policies.into_iter().try_for_each(|(line, policy)| self.add(owner, Place { section, line }, policy))
    }

    fn add(&mut self, owner: PackOwner, place: Place, policy: &Policy) -> Result<(), CompileError> {
        let Place { section, line } = place;
        let forbids = policy.effect() == Effect::Forbid;
        let rule = Rule::read(owner, section, forbids, policy.annotations()).map_err(|error| CompileError::Rule {
            section,
            line,
            error,
        })?;
        let id = rule.id.clone();
        if self.rules.contains_key(&id) {
            return Err(CompileError::Duplicate { section, line, id });
        }
        if let Some(other) = self.rules.values().find(|other| other.residual && rule.residual) {
            return Err(CompileError::SecondResidual { section, line, id, other: other.id.clone() });
        }
        let json =
            policy.to_json().map_err(|error| CompileError::ReadBack { id: id.clone(), message: error.to_string() })?;
        conditions::check(&rule, &json).map_err(|error| CompileError::Condition {
            section,
            line,
            id: id.clone(),
            error,
        })?;
        let short = conditions::patterns_are_short(&json);
        short.map_err(|error| CompileError::Condition { section, line, id: id.clone(), error })?;
        let named = conditions::names_what_it_looks_at(&json);
        named.map_err(|error| CompileError::Condition { section, line, id: id.clone(), error })?;
        if let PackOwner::Member(_) = owner {
            let own = conditions::looks_only_at_its_own(&json);
            own.map_err(|error| CompileError::Condition { section, line, id: id.clone(), error })?;
        }
        if self.rules.len() >= RULES_MAX {
            return Err(CompileError::TooManyRules);
        }
        self.policies.add(policy.new_id(PolicyId::new(&id)))?;
        self.places.insert(id.clone(), place);
        self.rules.insert(id, rule);
        Ok(())
    }

    /// Types, attributes and words against the schema, in Cedar's strict mode.
    fn validate(&self, language: &Language, pack: &Pack) -> Result<(), CompileError> {
        let result = Validator::new(language.schema.clone()).validate(&self.policies, ValidationMode::Strict);
        let errors = result.validation_errors().map(|error| (error.policy_id(), DetailedError::from(error)));
        let warnings = result.validation_warnings().filter(|warning| !tolerable(warning));
        let warnings = warnings.map(|warning| (warning.policy_id(), DetailedError::from(warning)));
        // In the order of the rules, so that the same text always gives the same answer.
        let order = |(id, error): &(&PolicyId, DetailedError)| (id.to_string(), error.message.clone());
        let Some((id, error)) = errors.min_by_key(order).or_else(|| warnings.min_by_key(order)) else { return Ok(()) };
        let id = id.to_string();
        let place = self.places.get(&id);
        let section = place.map_or(Section::Law, |place| place.section);
        let text = match section {
            Section::Law => &*pack.law,
            Section::Directives => &*pack.directives,
        };
        let (line, message) = explain(&error, text);
        let stripped =
            message.strip_prefix(&format!("for policy `{id}`")).map(|rest| rest.trim_start_matches([',', ':', ' ']));
        let message = stripped.unwrap_or(&message).to_owned();
        Err(CompileError::Invalid { section, line: line.or(place.map(|place| place.line)), id, message })
    }

    fn compiled(self, language: &Language, owner: PackOwner) -> Result<Compiled, CompileError> {
        let uids = [Action::Export, Action::Import, Action::Concern].map(|action| (action, language.action(action)));
        let mut turning_points = Some(BTreeSet::new());
        let mut laws = Vec::new();
        for (id, rule) in self.rules {
            let Some(policy) = self.policies.policy(&PolicyId::new(&id)) else { continue };
            let json =
                policy.to_json().map_err(|error| CompileError::ReadBack { id: id.clone(), message: error.to_string() })?;
            let speaks = |uid: &EntityUid| match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(one) => one == *uid,
                ActionConstraint::In(several) => several.contains(uid),
            };
            turning_points = turning_points.and_then(|mut points| {
                slice::turning_points(json.get("conditions").unwrap_or(&json), &mut points)?;
                Some(points)
            });
            let actions = uids.iter().filter(|(_, uid)| speaks(uid)).map(|(action, _)| *action).collect();
            let Parts { known, rest } = slice::parts(&json);
            let attributes = slice::attributes(&rest, &language::ATTRIBUTES);
            let rest = Policy::from_json(Some(policy.id().clone()), rest)
                .map_err(|error| CompileError::ReadBack { id, message: error.to_string() })?;
            let policy: &ast::Policy = rest.as_ref();
            laws.push(Law {
                actions,
                known,
                attributes,
                looks_at_safeguards: conditions::looks_at_safeguards(&json),
                looks_at_volume: slice::attributes(&json, &language::ATTRIBUTES) & language::VOLUME != 0,
                words: {
                    let mut words = BTreeSet::new();
                    conditions::words(&json, &mut words);
                    words
                },
                policy: policy.clone(),
                rule,
            });
        }
        Ok(Compiled { owner, laws, turning_points, answers: Answers::default() })
    }
}

/// Every word but the name of an organisation or a zone comes from a closed list, and names are written as they are. Any
/// other warning is about a rule that does not say what it seems to.
fn tolerable(warning: &ValidationWarning) -> bool {
    matches!(
        warning,
        ValidationWarning::MixedScriptString(_)
            | ValidationWarning::MixedScriptIdentifier(_)
            | ValidationWarning::ConfusableIdentifier(_)
    )
}

/// The line that an error is about, where Cedar gives one, and what it says.
fn explain(error: &DetailedError, text: &str) -> (Option<usize>, String) {
    let line = error.source_locations.first().map(|label| line_at(text, label.loc.start));
    let mut message = error.message.clone();
    let labels = error.source_locations.iter().filter_map(|label| label.label.as_deref());
    for more in labels.chain(error.help.as_deref()) {
        message.push_str("; ");
        message.push_str(more);
    }
    (line, message.chars().take(MESSAGE_CHARS_MAX).collect())
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

fn line_of(policy: &Policy, text: &str) -> usize {
    text.find(policy.to_string().trim()).map_or(1, |start| line_at(text, start))
}

/// The line, from 1, that holds a byte.
fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count().saturating_add(1)
}

/// Looks at a text before it is parsed, so that no text costs more to read than its length allows for.
fn scan(section: Section, text: &str) -> Result<(), CompileError> {
    let (mut line, mut begins, mut rules) = (1_usize, 1_usize, 0_usize);
    let mut rule = Scanned::default();
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\n' => line = line.saturating_add(1),
            // A string, up to the closing quote; a backslash takes the next byte with it.
            b'"' => {
                while let Some(inner) = bytes.next() {
                    match inner {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        b'\n' => line = line.saturating_add(1),
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => {
                while bytes.next_if(|inner| *inner != b'\n').is_some() {}
                continue;
            }
            _ => {}
        }
        if byte == b';' {
            rule = Scanned::default();
            rules = rules.saturating_add(1);
            if rules > RULES_MAX {
                return Err(CompileError::TooManyRules);
            }
        } else if !byte.is_ascii_whitespace() {
            if rule.code == 0 {
                begins = line;
            }
            rule.take(byte);
        }
        if rule.is_too_large() {
            return Err(CompileError::RuleTooLarge { section, line: begins });
        }
    }
    Ok(())
}

/// What of a rule bounds the depth of its syntax tree, and with it the stack and the time that checking it takes.
#[derive(Default)]
struct Scanned {
    code: usize,
    nesting: usize,
    sums: usize,
    /// Bytes of `&&` and `||`, two for each.
    connectives: usize,
    dots: usize,
}

impl Scanned {
    fn take(&mut self, byte: u8) {
        let one = |count: &mut usize| *count = count.saturating_add(1);
        one(&mut self.code);
        match byte {
            b'(' | b'[' | b'{' => one(&mut self.nesting),
            b')' | b']' | b'}' => self.nesting = self.nesting.saturating_sub(1),
            b'+' | b'-' | b'*' => one(&mut self.sums),
            b'&' | b'|' => one(&mut self.connectives),
            b'.' => one(&mut self.dots),
            _ => {}
        }
    }

    fn is_too_large(&self) -> bool {
        self.code > RULE_CODE_BYTES_MAX
            || self.nesting > RULE_NESTING_MAX
            || self.sums > RULE_SUMS_MAX
            || self.connectives > 2 * RULE_CONNECTIVES_MAX
            || self.dots > RULE_DOTS_MAX
    }
}
