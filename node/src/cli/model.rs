//! `alliance model`: what lies at this node.

use std::{collections::BTreeSet, path::PathBuf};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, Reply},
    vocabulary::Country,
};
use clap::Subcommand;
use serde::Serialize;

use super::{
    Context, Problem, figures,
    problem::unexpected,
    progress,
    screen::{Fields, Table, Tone},
    words::Name,
};
use crate::{
    api::ApiClient,
    exit::Exit,
    models::{load_manifest, signed, verify as compare},
};

mod export;
mod import;
mod signature;

pub(super) use self::import::{Import, Of, Said};
use self::signature::Demand;

#[derive(Debug, Subcommand)]
pub(super) enum Model {
    /// Hash the files of a directory and register them as a model; the files stay where they are
    ///
    /// Every file is read once and hashed. Labels say what the artefact is about; you are accountable for them. Pickles are
    /// refused by their content. Where the directory has a model card (`README.md` with front matter, as on the Hugging Face
    /// Hub), what it says stands in for what is not given; labels it has only under `alliance:`.
    #[command(
        after_help = "Example:\n  alliance model import ./amazonia-7b --name usp/amazonia-7b --labels public,non_personal \
        --licence Apache-2.0\n  alliance model import ./lora --name usp/clinic-lora --artefact adapter --labels personal,health \
        --subjects BR\n  \
        alliance model import ./merged --name usp/merged --labels public --labels-of '*lora*=personal,health' --subjects BR\n  \
        alliance model import ./from-the-hub --name usp/copy\n\n\
        A card with labels:\n  ---\n  license: apache-2.0\n  language: pt\n  alliance:\n    labels: [public, non_personal]\n    \
        origin: BR\n  ---"
    )]
    Import(Box<Import>),
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
    /// Copy a model out, with a card that says where it comes from and what was cleared
    ///
    /// Every byte is compared on the way. The card keeps what it said, and has origin, labels, clearance and receipt under
    /// `alliance:`; what both sides signed of the crossing lies beside it. What should be deleted by now is not copied.
    #[command(after_help = "Example:\n  alliance model export usp/amazonia-7b --to ./amazonia-7b")]
    Export {
        name: Name,
        /// The directory for the copy, which is not there yet or is empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
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
            Self::Import(_) | Self::Export { .. } | Self::List | Self::Show { .. } | Self::Verify { .. } => {}
        }
        let daemon = context.daemon().await?;
        match self {
            Self::Sign { .. } | Self::SigningKey { .. } => Err(unexpected()),
            Self::Import(import) => import.run(context, &daemon).await,
            Self::Export { name, to } => export::run(context, &daemon, &name, &to).await,
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

pub(super) async fn list(daemon: &ApiClient) -> Result<Vec<LocalModel>, Problem> {
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
    let manifest = load_manifest(&context.home()?.manifests_path(), model.manifest)?;
    let known = signature::known(context, daemon, signature_key.as_deref()).await?;
    let demand = Demand::of(signature_key.as_deref(), require_signature);
    demand.check_there(&model.path)?;
    let (path, compared) = (model.path.clone(), manifest.clone());
    let bar = progress::bytes_bar(&context.screen, "verifying");
    let shown = bar.clone();
    let reading = tokio::task::spawn_blocking(move || {
        compare(&path, &compared, &mut |done, total| {
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

pub(super) fn fields(model: &LocalModel) -> Fields {
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
    figures::card(&mut fields, model.provenance.card.as_deref());
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
