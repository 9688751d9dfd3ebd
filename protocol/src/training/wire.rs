//! The JSON of steps and attestations: in-toto statements v1, of which each value has one form. Whoever reads one writes it again and compares.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Attested, Code, CodeDigest, Data, FILES_NAMED_MAX, Findings, MATERIALS_MAX, Named, STEPS_MAX, Step, TrainingError,
};
use crate::{
    dsse::Shape,
    envelope::at_most,
    id::{AllianceId, ManifestId, Sha256},
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Country, Label, Process},
};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "alliance:training-step/v1";
const TRAINING: &str = "alliance:training/v1";
const BUILDER: &str = "alliance:node/";

/// All code, parents and data of a step.
const DEPENDENCIES_MAX: usize = 3 * MATERIALS_MAX;

/// The product and its files.
const SUBJECTS_MAX: usize = 1 + FILES_NAMED_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(deserialize_with = "at_most::<_, _, SUBJECTS_MAX>")]
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: P,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Digests,
}

/// Lower-case hexadecimal.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Digests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Of the encoding of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git_commit: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Provenance {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BuildDefinition {
    build_type: String,
    external_parameters: External,
    internal_parameters: Internal,
    #[serde(deserialize_with = "at_most::<_, _, DEPENDENCIES_MAX>")]
    resolved_dependencies: Vec<Dependency>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    process: Process,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Internal {
    alliance: String,
    country: Country,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    name: String,
    digest: Digests,
    annotations: Annotations,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    role: Role,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    labels: BTreeSet<Label>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    subjects: BTreeSet<Country>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Code,
    Parent,
    Data,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunDetails {
    builder: Builder,
    metadata: Metadata,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Builder {
    id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Metadata {
    started_on: String,
    finished_on: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Training {
    alliance: String,
    made_on: String,
    trained_in: BTreeSet<Country>,
    labels: BTreeSet<Label>,
    subjects: BTreeSet<Country>,
    #[serde(deserialize_with = "at_most::<_, _, STEPS_MAX>")]
    steps: Vec<StepOf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepOf {
    digest: Digests,
    node: String,
    organisation: String,
    /// Base64 of the signed statement.
    accreditation: String,
}

/// What an attestation says, before its steps are looked at.
pub(super) struct Found {
    pub(super) product: Named,
    pub(super) made: Timestamp,
    pub(super) findings: Findings,
    pub(super) steps: Vec<StepNamed>,
}

pub(super) struct StepNamed {
    pub(super) payload: Sha256,
    pub(super) node: PublicKey,
    pub(super) organisation: String,
    pub(super) accreditation: Vec<u8>,
}

/// The statement of a step, as it is signed.
pub(super) fn step(step: &Step, alliance: AllianceId) -> Result<Vec<u8>, TrainingError> {
    let file = |(path, sha256): &(crate::model_signing::ModelPath, Sha256)| Subject {
        name: path.to_string(),
        digest: Digests { sha256: Some(sha256.to_string()), ..Digests::default() },
    };
    let plain = |role| Annotations { role, labels: BTreeSet::new(), subjects: BTreeSet::new() };
    let code = step.code.iter().map(|code| Dependency {
        name: code.name.clone(),
        digest: match &code.digest {
            CodeDigest::Sha256(sha256) => Digests { sha256: Some(sha256.to_string()), ..Digests::default() },
            CodeDigest::GitCommit(commit) => Digests { git_commit: Some(commit.clone()), ..Digests::default() },
        },
        annotations: plain(Role::Code),
    });
    let parents = step.parents.iter().map(|parent| {
        let Subject { name, digest } = subject(parent);
        Dependency { name, digest, annotations: plain(Role::Parent) }
    });
    let data = step.data.iter().map(|data| Dependency {
        name: data.name.clone(),
        digest: Digests { blake3: Some(data.manifest.to_string()), ..Digests::default() },
        annotations: Annotations { role: Role::Data, labels: data.labels.clone(), subjects: data.subjects.clone() },
    });
    write(&Statement {
        kind: STATEMENT.to_owned(),
        subject: std::iter::once(subject(&step.product)).chain(step.files.iter().map(file)).collect(),
        predicate_type: PROVENANCE.to_owned(),
        predicate: Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: External { process: step.process },
                internal_parameters: Internal { alliance: alliance.to_string(), country: step.country },
                resolved_dependencies: code.chain(parents).chain(data).collect(),
            },
            run_details: RunDetails {
                builder: Builder { id: format!("{BUILDER}{}", step.node) },
                metadata: Metadata { started_on: step.started.to_string(), finished_on: step.finished.to_string() },
            },
        },
    })
}

pub(super) fn read_step(payload: &[u8], alliance: AllianceId) -> Result<Step, TrainingError> {
    let Statement { kind, subject, predicate_type, predicate } = read::<Statement<Provenance>>(payload)?;
    let Provenance { build_definition: definition, run_details: run } = predicate;
    if (kind.as_str(), predicate_type.as_str(), definition.build_type.as_str()) != (STATEMENT, PROVENANCE, BUILD_TYPE) {
        return Err(TrainingError::Form);
    }
    if definition.internal_parameters.alliance != alliance.to_string() {
        return Err(TrainingError::Alliance);
    }
    let mut subjects = subject.into_iter();
    let product = named(subjects.next().ok_or(TrainingError::Form)?)?;
    let file = |file: Subject| {
        let path = file.name.parse().map_err(|_| TrainingError::Form)?;
        Ok::<_, TrainingError>((path, parsed(file.digest.sha256)?))
    };
    let files = subjects.map(file).collect::<Result<_, _>>()?;
    let (mut code, mut parents, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for Dependency { name, digest, annotations } in definition.resolved_dependencies {
        match annotations.role {
            Role::Code => {
                let digest = match digest.git_commit {
                    Some(commit) => CodeDigest::GitCommit(commit),
                    None => CodeDigest::Sha256(parsed(digest.sha256)?),
                };
                code.push(Code { name, digest });
            }
            Role::Parent => parents.push(named(Subject { name, digest })?),
            Role::Data => {
                let Annotations { labels, subjects, .. } = annotations;
                data.push(Data { name, manifest: parsed(digest.blake3)?, labels, subjects });
            }
        }
    }
    Ok(Step {
        node: run.builder.id.strip_prefix(BUILDER).and_then(|key| key.parse().ok()).ok_or(TrainingError::Form)?,
        country: definition.internal_parameters.country,
        process: definition.external_parameters.process,
        product,
        files,
        code,
        parents,
        data,
        started: instant(&run.metadata.started_on)?,
        finished: instant(&run.metadata.finished_on)?,
    })
}

/// The statement of an attestation, as it is signed.
pub(super) fn attestation(
    product: &Named,
    steps: &[Attested],
    findings: &Findings,
    alliance: AllianceId,
    made: Timestamp,
) -> Result<Vec<u8>, TrainingError> {
    let step = |attested: &Attested| StepOf {
        digest: Digests { sha256: Some(attested.step.payload.to_string()), ..Digests::default() },
        node: attested.step.step.node.to_string(),
        organisation: attested.organisation.clone(),
        accreditation: BASE64_STANDARD.encode(&attested.accreditation),
    };
    write(&Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![subject(product)],
        predicate_type: TRAINING.to_owned(),
        predicate: Training {
            alliance: alliance.to_string(),
            made_on: made.to_string(),
            trained_in: findings.countries.clone(),
            labels: findings.labels.clone(),
            subjects: findings.subjects.clone(),
            steps: steps.iter().map(step).collect(),
        },
    })
}

pub(super) fn read_attestation(payload: &[u8], alliance: AllianceId) -> Result<Found, TrainingError> {
    let Statement { kind, subject, predicate_type, predicate } = read::<Statement<Training>>(payload)?;
    if (kind.as_str(), predicate_type.as_str()) != (STATEMENT, TRAINING) {
        return Err(TrainingError::Form);
    }
    if predicate.alliance != alliance.to_string() {
        return Err(TrainingError::Alliance);
    }
    let [product] = <[Subject; 1]>::try_from(subject).map_err(|_| TrainingError::Form)?;
    let step = |step: StepOf| {
        Ok::<_, TrainingError>(StepNamed {
            payload: parsed(step.digest.sha256)?,
            node: step.node.parse().map_err(|_| TrainingError::Form)?,
            organisation: step.organisation,
            accreditation: BASE64_STANDARD.decode(step.accreditation).map_err(|_| TrainingError::Form)?,
        })
    };
    Ok(Found {
        product: named(product)?,
        made: instant(&predicate.made_on)?,
        findings: Findings { countries: predicate.trained_in, labels: predicate.labels, subjects: predicate.subjects },
        steps: predicate.steps.into_iter().map(step).collect::<Result<_, _>>()?,
    })
}

fn subject(named: &Named) -> Subject {
    let digest =
        Digests { sha256: Some(named.root.to_string()), blake3: Some(named.manifest.to_string()), git_commit: None };
    Subject { name: named.name.clone(), digest }
}

fn named(Subject { name, digest }: Subject) -> Result<Named, TrainingError> {
    let manifest: ManifestId = parsed(digest.blake3)?;
    Ok(Named { name, manifest, root: parsed(digest.sha256)? })
}

fn parsed<T: std::str::FromStr>(text: Option<String>) -> Result<T, TrainingError> {
    text.and_then(|text| text.parse().ok()).ok_or(TrainingError::Form)
}

fn instant(text: &str) -> Result<Timestamp, TrainingError> {
    text.parse().map_err(|_| TrainingError::Form)
}

fn write<P: Serialize>(statement: &Statement<P>) -> Result<Vec<u8>, TrainingError> {
    serde_json::to_vec(statement).map_err(|error| TrainingError::Shape(Shape::of(&error)))
}

fn read<S: DeserializeOwned>(payload: &[u8]) -> Result<S, TrainingError> {
    serde_json::from_slice(payload).map_err(|error| TrainingError::Shape(Shape::of(&error)))
}
