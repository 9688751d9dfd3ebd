//! Tests of the export: what is copied, what is refused, and what an import makes of the copy.

use alliance_protocol::{core::admin::LocalModel, vocabulary::Label};

use super::*;
use crate::models::{
    ImportRequest,
    card::Card,
    import::{
        self,
        tests::{model, request},
    },
    load_manifest, verify,
};

/// An artefact with this card, what the node keeps of it, and its manifest.
fn imported(card: Option<&str>) -> (tempfile::TempDir, LocalModel, Manifest) {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    if let Some(card) = card {
        fs::write(dir.path().join(CARD_FILE), card).expect("written");
    }
    let labels = [Label::Personal, Label::Health].into();
    let request = ImportRequest { labels, subjects: ["NO".parse().expect("a country")].into(), ..request() };
    let local = import::import(dir.path(), request, manifests.path(), &mut |_, _| {}).expect("imported");
    let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
    (dir, local, manifest)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn exported(local: &LocalModel, manifest: &Manifest, to: &Path) -> Result<PathBuf, ExportError> {
    let mut export = Export::copy(&local.path, manifest, to, &mut |_, _| {})?;
    let original_card = export.original_card().map(str::to_owned);
    export.write_card(&Passport { model: local, original_card: original_card.as_deref(), came: None })?;
    export.finish()
}

#[test]
fn a_copy_says_to_an_import_what_the_model_is() {
    for card in
        [None, Some("# Text\n"), Some("---\nlicense: mit\nlanguage: pt\n---\n# Text\n"), Some("---\nlabels: [\n---\n")]
    {
        let (_dir, local, manifest) = imported(card);
        let out = tempfile::tempdir().expect("a directory");
        let to = exported(&local, &manifest, &out.path().join("copy")).expect("exported");
        assert_eq!(names(out.path()), ["copy"], "nothing else is left");
        let report = verify(&to, &manifest, &mut |_, _| {}).expect("read");
        assert_eq!(report.problems.len(), usize::from(card.is_some()), "all but the card is as it was");
        if let Some(card) = card {
            assert_eq!(fs::read_to_string(to.join("README.original.md")).expect("there"), card);
            let text = fs::read_to_string(to.join(CARD_FILE)).expect("there");
            assert_eq!(text.ends_with("# Text\n"), card.ends_with("# Text\n"), "{text}");
        }

        let found = Card::read(&to).expect("a card").expect("there");
        let again = found.request(local.name.clone(), "ZA".parse().expect("a country")).expect("with labels");
        let manifests = tempfile::tempdir().expect("a directory");
        let again = import::import(&to, again, manifests.path(), &mut |_, _| {}).expect("imported");
        let facts = |model: &LocalModel| {
            let model = model.clone();
            (model.labels, model.origin, model.subjects, model.artefact, model.licence, model.tensors)
        };
        assert_eq!(facts(&again), facts(&local));

        // Once more, from there: no name is taken twice.
        let manifest = load_manifest(manifests.path(), again.manifest).expect("loaded");
        let to = exported(&again, &manifest, &out.path().join("again")).expect("exported");
        assert_eq!(to.join("README.original.2.md").exists(), card.is_some());
    }
}

#[test]
fn a_destination_that_holds_something_is_left_alone() {
    let (_dir, local, manifest) = imported(None);
    let out = tempfile::tempdir().expect("a directory");
    let (full, empty, file) = (out.path().join("full"), out.path().join("empty"), out.path().join("file"));
    fs::create_dir(&full).expect("made");
    fs::write(full.join("mine"), b"x").expect("written");
    fs::create_dir(&empty).expect("made");
    fs::write(&file, b"x").expect("written");
    assert!(matches!(exported(&local, &manifest, &full), Err(ExportError::Occupied(_))));
    assert!(matches!(exported(&local, &manifest, &file), Err(ExportError::Occupied(_))));
    assert!(matches!(exported(&local, &manifest, &out.path().join("none/x")), Err(ExportError::Name(_))));
    assert!(matches!(exported(&local, &manifest, Path::new("/")), Err(ExportError::Name(_))));
    assert!(matches!(exported(&local, &manifest, &local.path.join("x")), Err(ExportError::Inside(_))));
    // Filled while the files were copied.
    let export = Export::copy(&local.path, &manifest, &empty, &mut |_, _| {}).expect("copied");
    fs::write(empty.join("mine"), b"x").expect("written");
    assert!(matches!(export.finish(), Err(ExportError::Occupied(_))));
    fs::remove_file(empty.join("mine")).expect("removed");
    exported(&local, &manifest, &empty).expect("an empty one will do");
    assert_eq!(names(out.path()), ["empty", "file", "full"], "nothing else is left");
    assert_eq!(names(&full), ["mine"]);
}

#[test]
fn what_was_altered_is_not_exported() {
    let (dir, local, manifest) = imported(None);
    let out = tempfile::tempdir().expect("a directory");
    let to = out.path().join("copy");
    let weights = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).expect("written");
    let error = exported(&local, &manifest, &to).expect_err("altered");
    assert!(matches!(error, ExportError::Source(SourceError::Changed { .. })), "{error}");
    fs::remove_file(&weights).expect("removed");
    assert!(matches!(exported(&local, &manifest, &to), Err(ExportError::Source(SourceError::Tree(_)))));
    assert_eq!(names(out.path()), Vec::<String>::new(), "nothing is left behind");
}
