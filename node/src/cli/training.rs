//! `alliance training`: what made a model, said by those who did it; and what that proves.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Context, Problem, figures,
    problem::unexpected,
    screen::{Fields, Table, plain},
    words::Name,
};
use crate::{
    api::ApiClient,
    durable::{self, Existing, FileError, Readers},
    exit::Exit,
    models::{
        import::load_manifest,
        signed::{self, SignatureError},
    },
};
use alliance_protocol::{
    charter::Chartered,
    core::admin::{AdminCall, LocalModel, Reply, StepDraft, TrainingView},
    id::Sha256,
    limits,
    manifest::{Manifest, SegmentKind},
    model_signing::{ModelFiles, SIGNATURE_FILE},
    offer::split_name,
    time::Timestamp,
    training::{Attestation, Code, CodeDigest, FILES_NAMED_MAX, Named, STEP_BYTES_MAX, TrainingError},
    trust::Trust,
    vocabulary::Process,
};
use clap::Subcommand;
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub(super) enum Training {
    /// Sign what made a model of this node: when it ran here, with what code, from which weights and on which data
    ///
    /// Everything that is named lies at this node, so that what is signed is known by its hash. The labels of data and weights
    /// must be among those of the model. The step is recorded in the ledger. It is a signed statement that other tools can
    /// read (in-toto, SLSA provenance v1); give it to whoever goes on from the model.
    #[command(
        after_help = "Examples:\n  alliance training record usp/base --process pre_training --data usp/corpus \\\n    \
        --code train.py --started 2026-10-01T08:00:00Z --finished 2026-10-04T02:30:00Z\n  \
        alliance training record usp/clinic --process fine_tuning --from usp/base --data usp/notes \\\n    \
        --commit https://example.org/tune@4f0c... --started 2026-10-05 --finished 2026-10-06 --out clinic.step.json"
    )]
    Record {
        /// The model that was made
        name: Name,
        /// pre_training, fine_tuning, merging, quantisation or conversion
        #[arg(long, value_name = "PROCESS")]
        process: Process,
        /// The models that it began with, with commas
        #[arg(long, value_delimiter = ',', value_name = "ORG/NAME")]
        from: Vec<Name>,
        /// The data it was trained on, with commas
        #[arg(long, value_delimiter = ',', value_name = "ORG/NAME")]
        data: Vec<Name>,
        /// A file of the code that ran; may be given several times
        #[arg(long, value_name = "FILE")]
        code: Vec<PathBuf>,
        /// A commit of the code that ran; may be given several times
        #[arg(long, value_name = "WHERE@COMMIT")]
        commit: Vec<Commit>,
        /// When it began, as 2026-10-01T08:00:00Z
        #[arg(long, value_name = "TIME")]
        started: Timestamp,
        /// When it ended
        #[arg(long, value_name = "TIME")]
        finished: Timestamp,
        /// Where the signed step goes besides, for others
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Roll up all steps behind a model of this node, back to the first weights, so that its offers can prove where it was trained
    ///
    /// Steps of this node, and those behind models that it pulled, are known; others come as files. With each goes the
    /// accreditation of its node at that time. Offers that stand are taken back: publish them again, with the proof.
    #[command(
        after_help = "Example:\n  alliance training attest usp/clinic --step base.step.json --out clinic.intoto.jsonl"
    )]
    Attest {
        /// The model
        name: Name,
        /// A step that another node signed; may be given several times
        #[arg(long, value_name = "FILE")]
        step: Vec<PathBuf>,
        /// The accreditation of a node that this one does not know, or of another time; may be given several times
        #[arg(long, value_name = "FILE")]
        accreditation: Vec<PathBuf>,
        /// Where the attestation goes besides: an in-toto bundle
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show where a model was trained, step by step
    #[command(after_help = "Example:\n  alliance training show usp/clinic --out clinic.intoto.jsonl")]
    Show {
        /// The model
        name: Name,
        /// Where the attestation goes
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check an attestation from files alone; needs no daemon
    ///
    /// Every signature, the chain of steps, and who accredited each node, by the charter. What an authority has revoked since
    /// is in its statuses, which only a daemon knows.
    #[command(after_help = "Example:\n  alliance training verify clinic.intoto.jsonl --charter charter.alliance\n\n\
        Exits with 6 if it does not hold.")]
    Verify {
        file: PathBuf,
        /// The charter of the alliance, or its log
        #[arg(long, value_name = "FILE")]
        charter: PathBuf,
    },
}

/// `WHERE@COMMIT`.
#[derive(Clone, Debug)]
pub(super) struct Commit(Code);

impl std::str::FromStr for Commit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, commit) = text.rsplit_once('@').ok_or("write WHERE@COMMIT, with the whole name of the commit")?;
        let commit = commit.to_ascii_lowercase();
        if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a commit has 40 or 64 hexadecimal digits".to_owned());
        }
        Ok(Self(Code { name: place.to_owned(), digest: CodeDigest::GitCommit(commit) }))
    }
}

/// An attestation, for people and scripts.
#[derive(Debug, Serialize)]
struct Shown {
    model: String,
    manifest: String,
    /// Why it proves nothing now.
    problem: Option<String>,
    trained_in: Vec<String>,
    labels: Vec<String>,
    subjects: Vec<String>,
    steps: Vec<StepShown>,
    /// SHA-256 of the bundle.
    attestation: String,
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct StepShown {
    product: String,
    process: String,
    country: String,
    organisation: String,
    node: String,
    started: Timestamp,
    finished: Timestamp,
    from: Vec<String>,
    data: Vec<String>,
    code: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Recorded {
    model: String,
    file: Option<PathBuf>,
    /// What stands in the way of attesting it.
    note: Option<String>,
}

impl Training {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::Record { name, process, from, data, code, commit, started, finished, out } => {
                let daemon = context.daemon().await?;
                let models = models(&daemon).await?;
                let mut all: Vec<Code> = code.iter().map(|path| hashed(path)).collect::<Result<_, _>>()?;
                all.extend(commit.into_iter().map(|commit| commit.0));
                let (product, files) = rooted(context, &models, &name)?;
                let parents =
                    from.iter().map(|name| Ok(rooted(context, &models, name)?.0)).collect::<Result<_, Problem>>()?;
                let draft = StepDraft {
                    process,
                    product,
                    files,
                    code: all,
                    parents,
                    data: data.into_iter().map(|name| name.0).collect(),
                    started: to_the_second(started),
                    finished: to_the_second(finished),
                };
                let (line, note) = match daemon.call(&AdminCall::RecordStep(Box::new(draft))).await? {
                    Reply::Step { line, note } => (line, note),
                    _ => return Err(unexpected()),
                };
                put(out.as_deref(), &format!("{line}\n"))?;
                let recorded = Recorded { model: name.0, file: out, note };
                Ok(context.screen.one(&recorded, || {
                    let next = "when every step before it is known: alliance training attest";
                    let written = recorded.file.as_ref().map(|file| format!("; the step is `{}`", file.display()));
                    let note = recorded.note.as_ref().map(|note| format!("\nnote: {}", plain(note)));
                    format!(
                        "signed and recorded what made {}{}{}\nnext, {next} {}",
                        recorded.model,
                        written.unwrap_or_default(),
                        note.unwrap_or_default(),
                        recorded.model
                    )
                }))
            }
            Self::Attest { name, step, accreditation, out } => {
                let steps = step.iter().map(|path| durable::read_text(path, STEP_BYTES_MAX)).collect::<Result<_, _>>()?;
                let read = |path: &PathBuf| Ok::<_, FileError>(durable::read(path, limits::STATEMENT_BYTES_MAX)?.into());
                let accreditations = accreditation.iter().map(read).collect::<Result<_, _>>()?;
                let daemon = context.daemon().await?;
                let call = AdminCall::Attest { name: name.0.clone(), steps, accreditations };
                show(context, &daemon, &name, &call, out).await
            }
            Self::Show { name, out } => {
                let daemon = context.daemon().await?;
                show(context, &daemon, &name, &AdminCall::Training { name: name.0.clone() }, out).await
            }
            Self::Verify { file, charter } => verify(context, &file, &charter),
        }
    }
}

async fn show(
    context: &Context,
    daemon: &ApiClient,
    name: &Name,
    call: &AdminCall,
    out: Option<PathBuf>,
) -> Result<Exit, Problem> {
    let TrainingView { attestation, problem } = match daemon.call(call).await? {
        Reply::Training(view) => *view,
        _ => return Err(unexpected()),
    };
    let Some(text) = attestation else {
        return Err(Problem::new(Exit::NotFound, format!("nothing is attested of where `{name}` was trained"))
            .hint(format!("who made it records the steps and attests them: alliance training attest {name}")));
    };
    let alliance = super::status::ask(daemon).await?.alliance;
    let opened = Attestation::open(text.as_bytes(), alliance)?;
    put(out.as_deref(), &text)?;
    let shown = Shown { file: out, problem, ..Shown::of(&opened) };
    // Attesting changes what is offered.
    let next = match call {
        AdminCall::Attest { .. } => {
            format!("\noffers of it that stood are taken back; publish it with the proof: alliance offer publish {name}")
        }
        _ => String::new(),
    };
    Ok(context.screen.one(&shown, || shown.to_text() + &next))
}

fn verify(context: &Context, file: &Path, charter: &Path) -> Result<Exit, Problem> {
    let log = durable::read(charter, limits::CHARTER_LOG_BYTES_MAX)?;
    let charter = Chartered::open(&log).map_err(|error| Problem::of(Exit::Untrusted, &error))?;
    let text = durable::read(file, limits::ATTESTATION_BYTES_MAX)?;
    let opened = Attestation::open(&text, charter.alliance())?;
    let trust = Trust::new(charter);
    let problem = opened.check_nodes(&trust).err().map(|why| why.to_string());
    let shown = Shown { problem, ..Shown::of(&opened) };
    let exit = if shown.problem.is_some() { Exit::Untrusted } else { Exit::Done };
    context.screen.one(&shown, || shown.to_text());
    Ok(exit)
}

impl Shown {
    fn of(attestation: &Attestation) -> Self {
        let findings = attestation.findings();
        let step = |attested: &alliance_protocol::training::Attested| {
            let step = attested.step.step();
            let code = |code: &Code| match &code.digest {
                CodeDigest::Sha256(sha256) => format!("{} sha256:{sha256}", code.name),
                CodeDigest::GitCommit(commit) => format!("{} commit:{commit}", code.name),
            };
            StepShown {
                product: step.product.name.clone(),
                process: step.process.to_string(),
                country: step.country.to_string(),
                organisation: attested.organisation.clone(),
                node: step.node.to_string(),
                started: step.started,
                finished: step.finished,
                from: step.parents.iter().map(|parent| parent.name.clone()).collect(),
                data: step
                    .data
                    .iter()
                    .map(|data| format!("{} ({})", data.name, figures::words(&data.labels, "none")))
                    .collect(),
                code: step.code.iter().map(code).collect(),
            }
        };
        Self {
            model: attestation.product().name.clone(),
            manifest: attestation.product().manifest.to_string(),
            problem: None,
            trained_in: findings.countries.iter().map(ToString::to_string).collect(),
            labels: findings.labels.iter().map(ToString::to_string).collect(),
            subjects: findings.subjects.iter().map(ToString::to_string).collect(),
            steps: attestation.steps().iter().map(step).collect(),
            attestation: attestation.digest().to_string(),
            file: None,
        }
    }

    fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("model", &self.model);
        fields.add("manifest", &self.manifest);
        fields.add("trained in", figures::words(&self.trained_in, "none"));
        fields.add("on data labelled", figures::words(&self.labels, "none"));
        if !self.subjects.is_empty() {
            fields.add("about people of", figures::words(&self.subjects, "none"));
        }
        match &self.problem {
            Some(problem) => fields.add("proves nothing", plain(problem)),
            None => fields.add("proven", "every step was signed by an accredited node, back to the first weights"),
        }
        if let Some(file) = &self.file {
            fields.add("attestation", file.display());
        }
        let mut table = Table::new(["made", "by", "where", "began", "ended", "from", "data"]);
        for step in &self.steps {
            table.row([
                step.product.clone(),
                step.process.clone(),
                format!("{} ({})", step.country, step.organisation),
                step.started.to_string(),
                step.finished.to_string(),
                figures::words(&step.from, "-"),
                figures::words(&step.data, "-"),
            ]);
        }
        format!("{fields}\n{table}")
    }
}

async fn models(daemon: &ApiClient) -> Result<Vec<LocalModel>, Problem> {
    match daemon.call(&AdminCall::Models).await? {
        Reply::Models(models) => Ok(models),
        _ => Err(unexpected()),
    }
}

/// A model that lies here, with the hash that other tools name it by, and its files with tensors, if they are not too many.
fn rooted(context: &Context, models: &[LocalModel], name: &Name) -> Result<(Named, Vec<(String, Sha256)>), Problem> {
    debug_assert!(split_name(&name.0).is_ok());
    let model = models.iter().find(|model| model.name == name.0).ok_or_else(|| {
        Problem::new(Exit::NotFound, format!("no model `{name}` lies at this node")).hint("alliance model list")
    })?;
    let manifest = load_manifest(&context.home()?.manifests_path(), model.manifest)?;
    let files = signed_files(&manifest).map_err(|why| Problem::new(Exit::Usage, format!("`{name}`: {why}")))?;
    let signature = SIGNATURE_FILE.parse().ok();
    let root = files.root_without(signature.as_ref());
    let tensors = manifest
        .files()
        .iter()
        .filter(|file| file.segments.iter().any(|segment| matches!(segment.kind, SegmentKind::Tensor { .. })));
    let mut named: Vec<(String, Sha256)> = tensors.map(|file| (file.path.clone(), file.sha256)).collect();
    if named.len() > FILES_NAMED_MAX {
        named.clear();
    }
    Ok((Named { name: name.0.clone(), manifest: model.manifest, root }, named))
}

fn signed_files(manifest: &Manifest) -> Result<ModelFiles, String> {
    let file = |file: &alliance_protocol::manifest::File| Ok((file.path.parse()?, file.sha256));
    let files: Vec<_> = manifest
        .files()
        .iter()
        .map(file)
        .collect::<Result<_, alliance_protocol::model_signing::BadModelPath>>()
        .map_err(|error| error.to_string())?;
    ModelFiles::new(files).map_err(|error| error.to_string())
}

/// A file of code by its name and hash.
fn hashed(path: &Path) -> Result<Code, Problem> {
    let fail = |source: io::Error| FileError { verb: "read", path: path.to_owned(), source };
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Problem::new(Exit::Usage, format!("`{}` names no file", path.display())))?;
    // Code may be given by a link; what it leads to is read.
    let place = path.canonicalize().map_err(fail)?;
    Ok(Code { name: name.to_owned(), digest: CodeDigest::Sha256(signed::hash(&place).map_err(SignatureError::from)?) })
}

fn put(out: Option<&Path>, text: &str) -> Result<(), Problem> {
    match out {
        Some(out) => Ok(durable::write(out, text.as_bytes(), Readers::All, Existing::Replace)?),
        None => Ok(()),
    }
}

fn to_the_second(at: Timestamp) -> Timestamp {
    at.minus_ms(at.0 % 1000)
}

impl From<TrainingError> for Problem {
    fn from(error: TrainingError) -> Self {
        Self::of(Exit::Untrusted, &error)
    }
}
