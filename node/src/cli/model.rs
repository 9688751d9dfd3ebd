//! `alliance model`: what lies at this node.

use std::{collections::BTreeSet, path::PathBuf};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, Reply},
    offer::Provenance,
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label},
};
use clap::Subcommand;
use serde::Serialize;

use super::{
    Context, Problem, figures,
    problem::unexpected,
    progress,
    screen::{Fields, Table, Tone},
    status,
    words::Name,
};
use crate::{
    api::ApiClient,
    exit::Exit,
    models::{
        LabelsOf,
        import::{self, ImportRequest},
        signed,
    },
};

mod signature;

use self::signature::Demand;

#[derive(Debug, Subcommand)]
pub(super) enum Model {
    /// Hash the files of a directory and register them as a model; the files stay where they are
    ///
    /// Every file is read once and hashed. Labels say what the artefact is about; you are accountable for them. Pickles are
    /// refused by their content.
    #[command(
        after_help = "Example:\n  alliance model import ./amazonia-7b --name usp/amazonia-7b --labels public,non_personal \
        --licence Apache-2.0\n  alliance model import ./lora --name usp/clinic-lora --artefact adapter --labels personal,health \
        --subjects BR\n  \
        alliance model import ./merged --name usp/merged --labels public --labels-of '*lora*=personal,health' --subjects BR"
    )]
    Import {
        /// The directory that holds the files
        dir: PathBuf,
        /// Its name: ORGANISATION/NAME, the organisation being this node's
        #[arg(long, value_name = "ORG/NAME")]
        name: Name,
        /// What it is about, with commas: public, non_personal, personal, health, ...
        #[arg(long, value_delimiter = ',', required = true, value_name = "LABELS")]
        labels: Vec<Label>,
        /// Tensors or files that have other labels: a pattern of their names with * and ?, `=`, labels with commas
        ///
        /// May be given several times; what fits several has the labels of all. FILES::TENSORS=LABELS is for the tensors of
        /// some files only. The law is asked about each set of labels, and about all of it together.
        #[arg(long, value_name = "PATTERN=LABELS")]
        labels_of: Vec<LabelsOf>,
        /// What it is: weights, adapter, dataset, embedding, ...
        #[arg(long, default_value_t = Artefact::Weights, value_name = "KIND")]
        artefact: Artefact,
        /// The country where it was made [default: this node's]
        #[arg(long, value_name = "CC")]
        origin: Option<Country>,
        /// The countries whose people the data behind it is about, with commas
        #[arg(long, value_delimiter = ',', value_name = "CC")]
        subjects: Vec<Country>,
        /// How many people its personal data is about; the law takes unknown for more than any number
        #[arg(long, value_name = "N")]
        people: Option<u64>,
        /// What is true of where it comes from, with commas: collection, outbound_investment, ...
        #[arg(long, value_delimiter = ',', value_name = "WORDS")]
        circumstances: Vec<Circumstance>,
        /// Technical evidence that is at hand, with commas: anonymisation_evidence, ai_label, ...
        #[arg(long, value_delimiter = ',', value_name = "KINDS")]
        evidence: Vec<Evidence>,
        /// The SPDX expression of its licence
        #[arg(long, default_value = "other", value_name = "SPDX")]
        licence: String,
        /// The public key, in PEM, of who signed it (`model.sig` beside the files); refuse it otherwise
        #[arg(long, value_name = "FILE")]
        signature_key: Option<PathBuf>,
        /// Refuse it unless a node that is known here has signed it
        #[arg(long)]
        require_signature: bool,
    },
    /// Sign the files of a directory, so that anybody can verify them (OpenSSF Model Signing); needs no daemon
    ///
    /// Writes `model.sig` beside them. Sign before you import: the signature is then a file of the model and crosses with it.
    #[command(after_help = "Example:
  alliance model signing-key --out usp.pub
  alliance model sign ./amazonia-7b
  model_signing verify key ./amazonia-7b --public_key usp.pub --signature ./amazonia-7b/model.sig")]
    Sign {
        /// The directory that holds the files
        dir: PathBuf,
    },
    /// Make or show the key with which this node signs models, bound to the node's own; needs no daemon
    ///
    /// It is a P-256 key, because other tools know no other. It lies in the home, with mode 0600 and without a passphrase.
    #[command(
        after_help = "Examples:\n  alliance model signing-key --out usp.pub\n  alliance model signing-key --import old.pem"
    )]
    SigningKey {
        /// Take this private key (P-256, PEM) instead of making one
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// Where the public half goes, in PEM, for those who verify
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the models at this node
    #[command(after_help = "Example:\n  alliance model list")]
    List,
    /// Show one model
    #[command(after_help = "Example:\n  alliance model show usp/amazonia-7b")]
    Show { name: Name },
    /// Read a model's files again and compare every byte with its manifest
    #[command(after_help = "Examples:\n  alliance model verify usp/amazonia-7b\n  \
        alliance model verify usp/amazonia-7b --signature-key usp.pub\n\n\
        Exits with 8 if anything differs, and with 6 if a signature is demanded and is not there.")]
    Verify {
        name: Name,
        /// The public key, in PEM, of who must have signed it (`model.sig` beside the files)
        #[arg(long, value_name = "FILE")]
        signature_key: Option<PathBuf>,
        /// Demand the signature of a node that is known here
        #[arg(long)]
        require_signature: bool,
    },
}

#[derive(Debug, Serialize)]
struct Verified {
    name: String,
    intact: bool,
    bytes: u64,
    files_intact: u32,
    problems: Vec<String>,
    /// What the signature beside the files says; none where there is none, or where the files are damaged.
    signature: Option<String>,
}

impl Model {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::Sign { dir } => return signature::sign(context, dir).await,
            Self::SigningKey { import, out } => {
                return signature::signing_key(context, import.as_deref(), out.as_deref());
            }
            Self::Import { .. } | Self::List | Self::Show { .. } | Self::Verify { .. } => {}
        }
        let daemon = context.daemon().await?;
        match self {
            Self::Sign { .. } | Self::SigningKey { .. } => Err(unexpected()),
            Self::Import {
                dir,
                name,
                labels,
                labels_of,
                artefact,
                origin,
                subjects,
                people,
                circumstances,
                evidence,
                licence,
                signature_key,
                require_signature,
            } => {
                let origin = match origin {
                    Some(origin) => origin,
                    None => status::ask(&daemon).await?.country,
                };
                let (labels, subjects) = (labels.into_iter().collect(), subjects.into_iter().collect());
                let provenance = Provenance {
                    people,
                    circumstances: circumstances.into_iter().collect(),
                    evidence: evidence.into_iter().collect(),
                    training: None,
                };
                let name = name.0;
                let request = ImportRequest {
                    name,
                    artefact,
                    labels,
                    labels_of,
                    origin,
                    subjects,
                    provenance,
                    licence,
                    crossing: None,
                };
                let demands = (signature_key, require_signature);
                import_dir(context, &daemon, dir, request, demands).await
            }
            Self::List => {
                let models = list(&daemon).await?;
                Ok(context.screen.list(&models, || table(&models)))
            }
            Self::Show { name } => {
                let model = find(&daemon, &name).await?;
                Ok(context.screen.one(&model, || fields(&model).to_string()))
            }
            Self::Verify { name, signature_key, require_signature } => {
                let model = find(&daemon, &name).await?;
                verify(context, &daemon, model, (signature_key, require_signature)).await
            }
        }
    }
}

async fn import_dir(
    context: &Context,
    daemon: &ApiClient,
    dir: PathBuf,
    request: ImportRequest,
    (signature_key, require_signature): (Option<PathBuf>, bool),
) -> Result<Exit, Problem> {
    let manifests = context.home()?.manifests_path();
    // What can be refused is refused before a hundred gigabytes are hashed.
    let known = signature::known(context, daemon, signature_key.as_deref()).await?;
    let demand = Demand::of(signature_key.as_deref(), require_signature);
    demand.check_there(&dir)?;
    let bar = progress::bytes_bar(&context.screen, "hashing");
    let shown = bar.clone();
    let hashing = tokio::task::spawn_blocking(move || {
        import::read(&dir, request, &mut |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    });
    let read = hashing.await.map_err(|error| Problem::of(Exit::Failed, &error))?;
    bar.finish_and_clear();
    let (model, manifest) = read?;
    let (signed, unverified) = demand.check(signed::check(&model.path, &manifest, &known)?)?;
    import::keep(&manifests, &manifest)?;
    let model = LocalModel { signed: signed.map(Box::new), ..model };
    match daemon.call(&AdminCall::Import(Box::new(model))).await? {
        Reply::Imported(model) => Ok(context.screen.one(&model, || {
            let note =
                unverified.map(|why| format!("\nnote: the signature was not verified: {}", super::screen::plain(&why)));
            format!("imported\n{}{}", fields(&model), note.unwrap_or_default())
        })),
        _ => Err(unexpected()),
    }
}

async fn list(daemon: &ApiClient) -> Result<Vec<LocalModel>, Problem> {
    match daemon.call(&AdminCall::Models).await? {
        Reply::Models(models) => Ok(models),
        _ => Err(unexpected()),
    }
}

async fn find(daemon: &ApiClient, name: &Name) -> Result<LocalModel, Problem> {
    let found = list(daemon).await?.into_iter().find(|model| model.name == name.0);
    found.ok_or_else(|| {
        Problem::new(Exit::NotFound, format!("no model `{name}` lies at this node")).hint("alliance model list")
    })
}

async fn verify(
    context: &Context,
    daemon: &ApiClient,
    model: LocalModel,
    (signature_key, require_signature): (Option<PathBuf>, bool),
) -> Result<Exit, Problem> {
    let manifest = import::load_manifest(&context.home()?.manifests_path(), model.manifest)?;
    let known = signature::known(context, daemon, signature_key.as_deref()).await?;
    let demand = Demand::of(signature_key.as_deref(), require_signature);
    demand.check_there(&model.path)?;
    let (path, compared) = (model.path.clone(), manifest.clone());
    let bar = progress::bytes_bar(&context.screen, "verifying");
    let shown = bar.clone();
    let reading = tokio::task::spawn_blocking(move || {
        import::verify(&path, &compared, &mut |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    });
    let report = reading.await.map_err(|error| Problem::of(Exit::Failed, &error))??;
    bar.finish_and_clear();
    // Damaged files are not those that were signed either; that is said once.
    let signature = match report.is_intact() {
        true => {
            let (signed, unverified) = demand.check(signed::check(&model.path, &manifest, &known)?)?;
            signed.map(|good| signature::shown(&good)).or(unverified.map(|why| format!("not verified: {why}")))
        }
        false => None,
    };
    let verified = Verified {
        signature,
        name: model.name,
        intact: report.is_intact(),
        bytes: report.bytes,
        files_intact: report.files_intact,
        problems: report.problems.iter().map(ToString::to_string).collect(),
    };
    let intact = verified.intact;
    context.screen.one(&verified, || {
        let verdict =
            if intact { context.screen.paint(Tone::Good, "intact") } else { context.screen.paint(Tone::Bad, "damaged") };
        let problems: String =
            verified.problems.iter().map(|problem| format!("\n  {}", super::screen::plain(problem))).collect();
        let (files, size) = (verified.files_intact, figures::size(verified.bytes));
        let signature = verified.signature.as_ref().map(|found| format!("\nsignature: {}", super::screen::plain(found)));
        let signature = signature.unwrap_or_default();
        format!("{}: {verdict}; {files} files intact, {size} compared{problems}{signature}", verified.name)
    });
    Ok(if intact { Exit::Done } else { Exit::Damaged })
}

fn table(models: &[LocalModel]) -> String {
    let mut table = Table::new(["name", "artefact", "size", "files", "tensors", "labels", "origin", "came by"]);
    for model in models {
        table.row([
            model.name.clone(),
            model.artefact.to_string(),
            figures::size(model.bytes),
            model.files.to_string(),
            model.tensors.to_string(),
            figures::words(&model.labels, "none"),
            model.origin.to_string(),
            model.crossing.map_or_else(|| "import".to_owned(), |crossing| format!("crossing {}", crossing.short())),
        ]);
    }
    table.to_string()
}

fn fields(model: &LocalModel) -> Fields {
    let subjects: &BTreeSet<Country> = &model.subjects;
    let mut fields = Fields::default();
    fields.add("name", &model.name);
    fields.add("artefact", model.artefact);
    fields.add("manifest", model.manifest);
    fields.add("size", format!("{} ({} bytes)", figures::size(model.bytes), model.bytes));
    fields.add("files", model.files);
    fields.add("tensors", model.tensors);
    fields.add("labels", figures::words(&model.labels, "none"));
    figures::parts(&mut fields, &model.parts);
    fields.add("origin", model.origin);
    fields.add("subjects", figures::words(subjects, "none"));
    fields.add("licence", &model.licence);
    if let Some(training) = &model.provenance.training {
        fields.add("trained in", format!("{}, attested", figures::words(&training.countries, "none")));
    }
    if let Some(signed) = &model.signed {
        fields.add("signature", signature::shown(signed));
    }
    fields.add("path", model.path.display());
    if let Some(crossing) = model.crossing {
        fields.add("crossing", crossing);
    }
    fields
}
