//! The tour: a dozen crossings that show what the law decides, each checked against what the law says and against the bytes.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alliance_node::models::{self, ImportRequest};
use alliance_policy::CedarGate;
use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, CrossingView, FailureKind, OfferDraft, PullCall, Reply},
    gate::{Pack, PackOwner},
    id::StatementId,
    offer::{ComputeOffer, Provenance, Terms},
    vocabulary::{Artefact, Country, Label, Purpose, SafeguardKind, Use},
};
use sha2::{Digest as _, Sha256};

use crate::{
    network::{Network, NetworkError, TestNode},
    report::{Outcome, Report, Rule},
    sample,
};

/// Bytes of the built-in sample model, at least.
pub const SAMPLE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How long one crossing may take before the tour gives it up; far beyond any honest one on one machine.
const CROSSING_MAX: Duration = Duration::from_secs(120);

/// How often a running crossing is looked at.
const LOOK: Duration = Duration::from_millis(15);

/// UDP payload that a denied crossing may cost the exporter's bulk socket: handshake, request and refusal. The smallest
/// artefact of the tour is far larger.
const DENIED_SOCKET_BYTES_MAX: u64 = 64 * 1024;

/// Why the tour cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TourError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("cannot {what} `{}`", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot import `{}`: {reason}", path.display())]
    Import { path: PathBuf, reason: String },
    #[error("{0}: {1}")]
    Refused(&'static str, String),
    #[error("the tour needs at least two members")]
    TooFewMembers,
}

/// The tour of one network.
pub struct Tour<'a> {
    network: &'a Network,
    /// The directory with the model that is shared.
    model: PathBuf,
    labels: BTreeSet<Label>,
    number: usize,
}

/// What is to be pulled, and what must come of it.
struct Step<'a> {
    title: String,
    exporter: &'a TestNode,
    importer: &'a TestNode,
    offer: Offered,
    purpose: Purpose,
    safeguards: Vec<(SafeguardKind, Country, Vec<u8>)>,
    expected: Expected,
}

/// An offer of the tour.
#[derive(Clone)]
struct Offered {
    id: StatementId,
    name: String,
    artefact: Artefact,
    labels: BTreeSet<Label>,
    /// Where the exporter has it.
    path: PathBuf,
}

enum Expected {
    Delivered,
    /// Denied, and these rules are among those that deny.
    DeniedBy(&'static [&'static str]),
    /// Denied before law is asked: the offer does not stand, or a node has no standing. The reason contains this.
    NoStanding(&'static str),
    Tampered,
}

impl<'a> Tour<'a> {
    /// Prepares the artefacts. `model` names a directory of the user's to share instead of the built-in sample.
    ///
    /// # Errors
    /// The sample cannot be written.
    pub fn prepare(network: &'a Network, model: Option<&Path>) -> Result<Self, TourError> {
        let model = match model {
            Some(path) => path.to_owned(),
            None => {
                let path = network.root().join("artefacts").join("sample-llama");
                write(&path, |path| sample::write_sample(path, SAMPLE_SEED, SAMPLE_BYTES_MIN))?;
                path
            }
        };
        Ok(Self { network, model, labels: BTreeSet::from([Label::Public, Label::NonPersonal]), number: 0 })
    }

    /// Runs all crossings; `show` gets each report as it comes. Gives whether all went as the law says.
    ///
    /// # Errors
    /// The network broke.
    pub async fn run(mut self, show: &mut dyn FnMut(usize, &Report)) -> Result<bool, TourError> {
        let nodes: Vec<_> = self.network.nodes().collect();
        let (Some(first), Some(last)) = (nodes.first().copied(), self.network.last_member()) else {
            return Err(TourError::TooFewMembers);
        };
        let mut good = true;
        let mut tell = |this: &mut Self, report: Report| {
            this.number += 1;
            good &= report.unexpected.is_none();
            show(this.number, &report);
        };

        let open = self.offer_open(first).await?;
        for importer in nodes.iter().copied().filter(|node| node.country() != first.country()) {
            let report = self.open_crossing(first, importer, &open).await?;
            tell(&mut self, report);
        }
        for report in self.adapter(first, last).await? {
            tell(&mut self, report);
        }
        for report in self.purpose().await? {
            tell(&mut self, report);
        }
        let report = self.never_leaves().await?;
        tell(&mut self, report);
        for report in self.offers_that_ended(first, last).await? {
            tell(&mut self, report);
        }
        let report = self.tampered(first, last).await?;
        tell(&mut self, report);
        let report = self.revoked(first, &open).await?;
        tell(&mut self, report);
        Ok(good)
    }

    /// Publishes offers of compute in the name of two members; they stand in every catalogue.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn offer_compute(&self) -> Result<Vec<String>, TourError> {
        let mut said = Vec::new();
        for (node, accelerator, count, memory_mib) in self
            .network
            .nodes()
            .zip([("H200", 8, 143_771), ("Ascend 910C", 16, 131_072)])
            .map(|(n, (a, c, m))| (n, a, c, m))
        {
            let compute = ComputeOffer { accelerator: accelerator.to_owned(), count, memory_mib, hours: 72 };
            let name = format!("{}/compute", node.organisation());
            let draft = OfferDraft { name: name.clone(), compute: Some(compute), terms: open_terms(), ttl_ms: DAY_MS };
            publish(node, draft).await?;
            said.push(format!("{} offers compute: {count} x {accelerator}, as `{name}`", node.country()));
        }
        Ok(said)
    }

    async fn offer_open(&self, exporter: &TestNode) -> Result<Offered, TourError> {
        let name = format!("{}/{}", exporter.organisation(), model_name(&self.model));
        self.offer(exporter, &name, &self.model, Artefact::Weights, self.labels.clone(), DAY_MS).await
    }

    async fn open_crossing(&self, from: &TestNode, to: &TestNode, open: &Offered) -> Result<Report, TourError> {
        self.cross(Step {
            title: format!("An open model goes from {} to {}", from.country(), to.country()),
            exporter: from,
            importer: to,
            offer: open.clone(),
            purpose: Purpose::Research,
            safeguards: Vec::new(),
            expected: Expected::Delivered,
        })
        .await
    }

    /// The same adapter, denied without its safeguards and allowed with them. Which ones it needs is read off the denial.
    async fn adapter(&self, from: &TestNode, to: &TestNode) -> Result<Vec<Report>, TourError> {
        let path = self.network.root().join("artefacts").join("clinic-adapter");
        write(&path, |path| sample::write_adapter(path, SAMPLE_SEED))?;
        let labels = BTreeSet::from([Label::Personal, Label::Health]);
        let name = format!("{}/clinic-adapter", from.organisation());
        let offer = self.offer(from, &name, &path, Artefact::Adapter, labels.clone(), DAY_MS).await?;
        let step = |title: &str, safeguards, expected| Step {
            title: title.to_owned(),
            exporter: from,
            importer: to,
            offer: offer.clone(),
            purpose: Purpose::Research,
            safeguards,
            expected,
        };
        let rules = personal_health_rules(from.country());
        let denied = self
            .cross(step("An adapter trained on health records, without safeguards", Vec::new(), Expected::DeniedBy(rules)))
            .await?;
        let mut safeguards = Vec::new();
        for rule in denied.rules.iter().filter(|rule| !rule.satisfied_by.is_empty()) {
            let (Ok(issuer), Some(kinds)) = (rule.pack.parse::<Country>(), rule.satisfied_by.first()) else { continue };
            for kind in kinds.iter().filter_map(|kind| kind.parse::<SafeguardKind>().ok()) {
                let known = safeguards.iter().any(|(known, by, _)| (*known, *by) == (kind, issuer));
                // A waiting period is worked out from the filing of the notification.
                if known || kind == SafeguardKind::WaitingPeriodElapsed {
                    continue;
                }
                let token = self.network.safeguard(issuer, kind, from.country(), to.country(), &labels, Some(to.key()))?;
                safeguards.push((kind, issuer, token));
            }
        }
        let allowed = self
            .cross(step("The same adapter, with the safeguards that the denial named", safeguards, Expected::Delivered))
            .await?;
        Ok(vec![denied, allowed])
    }

    /// A purpose that a member does not admit. India's authority has a directive on national security; where India is not
    /// a member, the baseline's own rule is shown.
    async fn purpose(&self) -> Result<Vec<Report>, TourError> {
        let nodes: Vec<_> = self.network.nodes().collect();
        let importer = self.network.node_of("IN").or_else(|| nodes.first().copied());
        let exporter = nodes.iter().rev().copied().find(|node| importer.is_some_and(|to| to.country() != node.country()));
        let (Some(importer), Some(exporter)) = (importer, exporter) else { return Err(TourError::TooFewMembers) };
        let name = format!("{}/open-model", exporter.organisation());
        let offer = self.offer(exporter, &name, &self.model, Artefact::Weights, self.labels.clone(), DAY_MS).await?;
        let rules: &'static [&'static str] =
            if importer.country().as_str() == "IN" { &["IN-D01", "BX-02"] } else { &["BX-02"] };
        let report = self
            .cross(Step {
                title: format!("An open model, for a purpose that {} does not admit", importer.country()),
                exporter,
                importer,
                offer,
                purpose: Purpose::NationalSecurity,
                safeguards: Vec::new(),
                expected: Expected::DeniedBy(rules),
            })
            .await?;
        Ok(vec![report])
    }

    /// A class of data that never leaves, whatever is presented.
    async fn never_leaves(&self) -> Result<Report, TourError> {
        let nodes: Vec<_> = self.network.nodes().collect();
        let cases: [(&str, Label, &'static [&'static str]); 3] = [
            ("IN", Label::AadhaarBiometric, &["IN-07"]),
            ("CN", Label::Core, &["CN-10"]),
            ("RU", Label::StateSecret, &["RU-14"]),
        ];
        let found = cases.iter().find_map(|(country, label, rules)| Some((self.network.node_of(country)?, *label, *rules)));
        let fallback: &'static [&'static str] = &["BX-08"];
        let (exporter, label, rules) = match (found, nodes.first().copied()) {
            (Some(found), _) => found,
            (None, Some(first)) => (first, Label::StateSecret, fallback),
            (None, None) => return Err(TourError::TooFewMembers),
        };
        let Some(importer) = nodes.iter().rev().copied().find(|node| node.country() != exporter.country()) else {
            return Err(TourError::TooFewMembers);
        };
        let path = self.network.root().join("artefacts").join("enrolment-sample");
        write(&path, |path| sample::write_adapter(path, SAMPLE_SEED + 1))?;
        let labels = BTreeSet::from([label]);
        let name = format!("{}/enrolment-sample", exporter.organisation());
        let offer = self.offer(exporter, &name, &path, Artefact::DatasetSample, labels.clone(), DAY_MS).await?;
        let mut safeguards = Vec::new();
        for kind in named_kinds(exporter.country()).into_iter().take(3) {
            let (from, to) = (exporter.country(), importer.country());
            safeguards.push((kind, from, self.network.safeguard(from, kind, from, to, &labels, None)?));
        }
        self.cross(Step {
            title: format!("Data that never leaves {}, whatever is presented", exporter.country()),
            exporter,
            importer,
            offer,
            purpose: Purpose::Research,
            safeguards,
            expected: Expected::DeniedBy(rules),
        })
        .await
    }

    /// An offer that was withdrawn, and one that expired.
    async fn offers_that_ended(&self, from: &TestNode, to: &TestNode) -> Result<Vec<Report>, TourError> {
        let name = format!("{}/withdrawn-model", from.organisation());
        let withdrawn = self.offer(from, &name, &self.model, Artefact::Weights, self.labels.clone(), DAY_MS).await?;
        self.network.until_known(to, withdrawn.id, true).await?;
        let call = AdminCall::Withdraw { offer: withdrawn.id, reason: "superseded".to_owned() };
        expect(from.call(&call).await?, "withdrawing an offer", |reply| matches!(reply, Reply::Withdrawn { .. }))?;
        self.network.until_known(to, withdrawn.id, false).await?;

        let name = format!("{}/brief-model", from.organisation());
        let brief = self.offer(from, &name, &self.model, Artefact::Weights, self.labels.clone(), BRIEF_MS).await?;
        // Its own node knows it at once, so that there it is gone only when its time is over.
        self.network.until_known(from, brief.id, false).await?;
        self.network.until_known(to, brief.id, false).await?;

        let mut reports = Vec::new();
        for (offer, title, why) in [
            (withdrawn, "An offer that its node withdrew", "withdrawn"),
            (brief, "An offer that expired", "does not stand"),
        ] {
            let step = Step {
                title: title.to_owned(),
                exporter: from,
                importer: to,
                offer,
                purpose: Purpose::Research,
                safeguards: Vec::new(),
                expected: Expected::NoStanding(why),
            };
            reports.push(self.cross(step).await?);
        }
        Ok(reports)
    }

    /// One byte of the exporter's files changes after it was offered: the importer finds it and takes nothing.
    async fn tampered(&self, from: &TestNode, to: &TestNode) -> Result<Report, TourError> {
        let path = self.network.root().join("artefacts").join("tampered-model");
        write(&path, |path| sample::write_adapter(path, SAMPLE_SEED + 2))?;
        let name = format!("{}/tampered-model", from.organisation());
        let offer = self.offer(from, &name, &path, Artefact::Adapter, self.labels.clone(), DAY_MS).await?;
        flip_byte(&path.join("adapter_model.safetensors"))?;
        self.cross(Step {
            title: "One byte of the exporter's file is changed after the offer".to_owned(),
            exporter: from,
            importer: to,
            offer,
            purpose: Purpose::Research,
            safeguards: Vec::new(),
            expected: Expected::Tampered,
        })
        .await
    }

    /// A node whose authority revokes it: nobody lets it have anything any more.
    async fn revoked(&self, exporter: &TestNode, open: &Offered) -> Result<Report, TourError> {
        let importer = self.network.revocable().ok_or(TourError::TooFewMembers)?;
        self.network.until_known(importer, open.id, true).await?;
        self.network.revoke(importer).await?;
        self.cross(Step {
            title: format!("A node of {} whose accreditation was revoked asks for the open model", importer.country()),
            exporter,
            importer,
            offer: open.clone(),
            purpose: Purpose::Research,
            safeguards: Vec::new(),
            expected: Expected::NoStanding("has revoked the accreditation"),
        })
        .await
    }

    /// Imports a directory at a node and offers it.
    async fn offer(
        &self,
        node: &TestNode,
        name: &str,
        path: &Path,
        artefact: Artefact,
        labels: BTreeSet<Label>,
        ttl_ms: u64,
    ) -> Result<Offered, TourError> {
        let personal = labels.iter().any(|label| !label.is_open());
        let request = ImportRequest {
            name: name.to_owned(),
            artefact,
            labels: labels.clone(),
            labels_of: Vec::new(),
            origin: node.country(),
            subjects: if personal { BTreeSet::from([node.country()]) } else { BTreeSet::new() },
            provenance: Provenance { people: personal.then_some(ADAPTER_PEOPLE), ..Provenance::default() },
            licence: "Apache-2.0".to_owned(),
            crossing: None,
        };
        let (from, manifests) = (path.to_owned(), node.home().manifests_path());
        let imported = tokio::task::spawn_blocking(move || models::import(&from, request, &manifests, &mut |_, _| {}));
        let fail = |reason: String| TourError::Import { path: path.to_owned(), reason };
        let model = imported.await.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))?;
        expect(node.call(&AdminCall::Import(Box::new(model))).await?, "importing", |reply| {
            matches!(reply, Reply::Imported(_))
        })?;
        let draft = OfferDraft { name: name.to_owned(), compute: None, terms: open_terms(), ttl_ms };
        let id = publish(node, draft).await?;
        Ok(Offered { id, name: name.to_owned(), artefact, labels, path: path.to_owned() })
    }

    /// Carries out one step and checks everything that can be checked from outside.
    async fn cross(&self, step: Step<'_>) -> Result<Report, TourError> {
        if !matches!(step.expected, Expected::NoStanding(_)) {
            self.network.until_known(step.importer, step.offer.id, true).await?;
        }
        let before = step.exporter.status().await?;
        let to = step.importer.home().models_path().join(format!("tour-{}", self.number)).join(&step.offer.name);
        let began = Instant::now();
        let pull = PullCall {
            offer: step.offer.id.to_string(),
            purpose: step.purpose,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: step.safeguards.iter().map(|(_, _, token)| token.clone().into()).collect(),
            to: to.clone(),
            sources: 1,
            onward: false,
            tensors: Vec::new(),
            read_meanwhile: false,
        };
        let (view, problem) = match step.importer.call(&AdminCall::Pull(pull)).await? {
            Reply::Pulling { crossing } => (Some(self.wait_for(step.importer, crossing).await?), None),
            Reply::Failed(failure) if failure.kind == FailureKind::NotFound => (None, Some(failure.message)),
            other => return Err(TourError::Refused("pulling", format!("{other:?}"))),
        };
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let after = step.exporter.status().await?;
        let problem = match (&view, problem) {
            (Some(view), None) => self.problem_of(step.exporter, view).await?,
            (_, problem) => problem,
        };

        let artefact_bytes_sent = after.artefact_bytes_sent.saturating_sub(before.artefact_bytes_sent);
        let outcome = view.as_ref().map_or(Outcome::Denied, Outcome::of);
        let mut report = Report {
            step: step.title,
            crossing: view.as_ref().map(|view| view.crossing),
            from: step.exporter.country(),
            to: step.importer.country(),
            name: step.offer.name.clone(),
            artefact: step.offer.artefact,
            labels: step.offer.labels.clone(),
            purpose: step.purpose,
            safeguards: step.safeguards.iter().map(|(kind, issuer, _)| format!("{kind}@{issuer}")).collect(),
            allowed: matches!(outcome, Outcome::Delivered | Outcome::Tampered),
            outcome,
            rules: view.as_ref().map(Rule::deciding).unwrap_or_default(),
            problem,
            refusal: view.as_ref().and_then(|view| view.refusal),
            bytes: match &view {
                Some(view) if outcome == Outcome::Delivered => view.bytes,
                _ => artefact_bytes_sent,
            },
            artefact_bytes_sent,
            socket_bytes_sent: after.bulk_socket_bytes_sent.saturating_sub(before.bulk_socket_bytes_sent),
            ms,
            unexpected: None,
        };
        report.unexpected = check(&report, &step.expected, &step.offer.path, &to).err();
        Ok(report)
    }

    /// Why a crossing ended as it did. What the exporter refused, its own record explains.
    async fn problem_of(&self, exporter: &TestNode, view: &CrossingView) -> Result<Option<String>, TourError> {
        let refused = view.verdicts.iter().all(|verdict| verdict.allowed).then_some(view.refusal).flatten();
        let (Some(code), CrossingState::Denied) = (refused, view.state) else { return Ok(view.problem.clone()) };
        Ok(match exporter.call(&AdminCall::Crossing(view.crossing)).await? {
            Reply::Crossing(recorded) => {
                let why = recorded.problem.unwrap_or_default();
                Some(format!("refused by the exporter ({code}); its own record says: {why}"))
            }
            _ => view.problem.clone(),
        })
    }

    async fn wait_for(
        &self,
        node: &TestNode,
        crossing: alliance_protocol::id::CrossingId,
    ) -> Result<CrossingView, TourError> {
        let until = Instant::now() + CROSSING_MAX;
        loop {
            match node.call(&AdminCall::Crossing(crossing)).await? {
                Reply::Crossing(view) if view.state.is_final() => return Ok(*view),
                Reply::Crossing(view) if Instant::now() > until => {
                    return Err(TourError::Refused("waiting for a crossing", format!("it is still {:?}", view.state)));
                }
                Reply::Crossing(_) => tokio::time::sleep(LOOK).await,
                other => return Err(TourError::Refused("looking at a crossing", format!("{other:?}"))),
            }
        }
    }
}

/// What must be so after a step; else what is not.
fn check(report: &Report, expected: &Expected, original: &Path, delivered: &Path) -> Result<(), String> {
    let denies = |id: &str| report.rules.iter().any(|rule| rule.id == id);
    match expected {
        Expected::Delivered => {
            if report.outcome != Outcome::Delivered {
                return Err(format!("it was to be delivered, and ended {:?}", report.outcome));
            }
            if report.artefact_bytes_sent != report.bytes {
                return Err(format!("the receipt says {}, the exporter sent {}", report.bytes, report.artefact_bytes_sent));
            }
            same_files(original, delivered)
        }
        Expected::DeniedBy(_) | Expected::NoStanding(_) if report.outcome != Outcome::Denied => {
            Err(format!("it was to be denied, and ended {:?}", report.outcome))
        }
        Expected::DeniedBy(_) | Expected::NoStanding(_) if report.artefact_bytes_sent != 0 => {
            Err(format!("it was denied, and the exporter sent {} bytes of it", report.artefact_bytes_sent))
        }
        Expected::DeniedBy(_) | Expected::NoStanding(_) if report.socket_bytes_sent > DENIED_SOCKET_BYTES_MAX => {
            Err(format!("it was denied, and the exporter's socket sent {} bytes", report.socket_bytes_sent))
        }
        Expected::DeniedBy(_) | Expected::NoStanding(_) | Expected::Tampered if delivered.exists() => {
            Err(format!("something lies at `{}`", delivered.display()))
        }
        Expected::DeniedBy(rules) => match rules.iter().find(|id| !denies(id)) {
            Some(missing) => Err(format!("{missing} is not among the rules that deny")),
            None => Ok(()),
        },
        Expected::NoStanding(why) => {
            let problem = report.problem.as_deref().unwrap_or_default();
            if problem.contains(why) { Ok(()) } else { Err(format!("the reason was to be `{why}`, and is `{problem}`")) }
        }
        Expected::Tampered if report.outcome != Outcome::Tampered => {
            Err(format!("the tampering was to be found, and it ended {:?}", report.outcome))
        }
        Expected::Tampered => Ok(()),
    }
}

/// The rules that hold back an adapter with personal health data, by the exporting country.
fn personal_health_rules(country: Country) -> &'static [&'static str] {
    match country.as_str() {
        "BR" => &["BR-01", "BR-06"],
        "RU" => &["RU-02", "RU-06"],
        "IN" => &["IN-06"],
        "CN" => &["CN-04"],
        "ZA" => &["ZA-01", "ZA-02"],
        _ => &[],
    }
}

/// Compares two trees file by file, by SHA-256.
fn same_files(original: &Path, delivered: &Path) -> Result<(), String> {
    let digests = |root: &Path| -> io::Result<Vec<(PathBuf, [u8; 32])>> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(root) {
                    found.push((name.to_owned(), sha256(&path)?));
                }
            }
        }
        found.sort();
        Ok(found)
    };
    let visible = |files: Vec<(PathBuf, [u8; 32])>| -> Vec<_> {
        files.into_iter().filter(|(path, _)| !path.iter().any(|part| part.to_string_lossy().starts_with('.'))).collect()
    };
    match (digests(original).map(visible), digests(delivered)) {
        (Ok(original), Ok(delivered)) if original == delivered => Ok(()),
        (Ok(original), Ok(delivered)) => {
            Err(format!("{} files left and {} arrived, or they differ", original.len(), delivered.len()))
        }
        (Err(error), _) | (_, Err(error)) => Err(format!("the files cannot be compared: {error}")),
    }
}

fn sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Inverts a byte in the middle of a file, in place.
fn flip_byte(path: &Path) -> Result<(), TourError> {
    use std::os::unix::fs::FileExt as _;
    let flip = || -> io::Result<()> {
        let file = fs::File::options().read(true).write(true).open(path)?;
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        file.write_all_at(&[!byte[0]], middle)
    };
    flip().map_err(|source| TourError::File { what: "change a byte of", path: path.to_owned(), source })
}

fn write(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), TourError> {
    let fail = |source| TourError::File { what: "write", path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(fail)?;
    write(path).map_err(|source| TourError::File { what: "write", path: path.to_owned(), source })
}

fn model_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "model".to_owned() } else { plain.to_owned() }
}

async fn publish(node: &TestNode, draft: OfferDraft) -> Result<StatementId, TourError> {
    match node.call(&AdminCall::Publish(draft)).await? {
        Reply::Published(view) => Ok(view.offer),
        other => Err(TourError::Refused("publishing an offer", format!("{other:?}"))),
    }
}

fn expect(reply: Reply, what: &'static str, good: impl Fn(&Reply) -> bool) -> Result<(), TourError> {
    if good(&reply) { Ok(()) } else { Err(TourError::Refused(what, format!("{reply:?}"))) }
}

fn open_terms() -> Terms {
    Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false }
}

/// The seed of everything that the tour generates.
const SAMPLE_SEED: u64 = 2026;

/// How many people the adapter of the tour is about.
const ADAPTER_PEOPLE: u64 = 1200;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long the offer that expires stands.
const BRIEF_MS: u64 = 700;

/// The kinds of safeguard that the founding pack of a country knows and that can be issued.
fn named_kinds(country: Country) -> Vec<SafeguardKind> {
    let Some((law, directives)) = alliance_policy::founding_pack_text(country) else { return Vec::new() };
    let pack = Pack::new(PackOwner::Member(country), 1, law, directives);
    let words = CedarGate::new().words(&pack).unwrap_or_default();
    let kinds = words.iter().filter(|(of, _)| of == "Safeguard").filter_map(|(_, word)| word.parse().ok());
    kinds.filter(|kind| *kind != SafeguardKind::WaitingPeriodElapsed).collect()
}
