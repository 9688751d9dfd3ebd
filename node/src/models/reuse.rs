//! Parts of an artefact that lie at this node already, in another one.
//!
//! A new version of a model has most of its tensors from the one before. What has the same hash is the same, so it is copied
//! from there and does not cross again. Both artefacts were cleared for this node, or made here; the copy leaves nothing.
//! Copied, not linked: whoever changes one of the two models must not change the other.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    id::{ContentId, ManifestId},
    limits,
    manifest::{Manifest, Placed},
};

use super::{
    import::load_manifest,
    source::Source,
    staging::{Staging, StagingError},
};

/// Copies what is missing in a staging place and lies in one of the `local` artefacts: their manifests, of which `manifests`
/// has the files, and their directories. Every group is verified as if it had come from elsewhere. Gives the bytes found.
///
/// # Errors
/// The staging place cannot be written. Where another artefact cannot be read, what it has is fetched instead.
pub fn fill_from(
    staging: &mut Staging,
    wanted: &Manifest,
    manifests: &Path,
    local: &[(ManifestId, PathBuf)],
) -> Result<u64, StagingError> {
    let mut found = 0_u64;
    let mut missing: HashMap<ContentId, Vec<Placed>> = HashMap::new();
    if !local.is_empty() {
        let is_here = |placed: &Placed| {
            let index = |group: u64| usize::try_from(group).unwrap_or(usize::MAX);
            let groups =
                index(placed.first)..index(placed.first.saturating_add(placed.bytes.div_ceil(limits::GROUP_BYTES)));
            staging.flags().get(groups).is_some_and(|here| here.iter().all(|here| *here))
        };
        for placed in wanted.placed().filter(|placed| !is_here(placed)) {
            missing.entry(placed.hash).or_default().push(placed);
        }
    }
    for (id, path) in local {
        let Ok(manifest) = load_manifest(manifests, *id) else { continue };
        let same: Vec<Placed> = manifest.placed().filter(|placed| missing.contains_key(&placed.hash)).collect();
        if same.is_empty() {
            continue;
        }
        let Ok(mut source) = Source::open(path, manifest) else { continue };
        for from in same {
            // What was found is not looked for again, unless it turns out not to be what it was.
            let Some(places) = missing.remove(&from.hash) else { continue };
            let copied = places.iter().map(|to| copy(staging, &mut source, &from, to)).sum::<Result<u64, _>>()?;
            found = found.saturating_add(copied);
            if copied < places.iter().map(|to| to.bytes).sum() {
                missing.insert(from.hash, places);
            }
        }
    }
    Ok(found)
}

/// Copies one segment, group by group; as far as it can be read and is what it was.
fn copy(staging: &mut Staging, source: &mut Source, from: &Placed, to: &Placed) -> Result<u64, StagingError> {
    let (mut copied, mut buffer) = (0_u64, Vec::new());
    for (from, to) in from.groups().zip(to.groups()) {
        buffer.resize(usize::try_from(from.bytes).unwrap_or_default(), 0);
        if source.read(&from, &mut buffer).is_err() {
            break;
        }
        match staging.write(&to, &buffer) {
            Ok(()) => copied = copied.saturating_add(u64::from(to.bytes)),
            Err(StagingError::Tampered { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::models::import::{
        import,
        tests::{request, safetensors},
    };

    #[test]
    fn what_lies_in_another_model_is_copied_and_verified() {
        let (old, new, manifests) = (tempdir(), tempdir(), tempdir());
        let lengths = [300_000, 1000, 700_000, 5];
        let before = safetensors(&lengths);
        // The header and three tensors stay; one changes, and one of those that stay was changed on disk since.
        let mut after = before.clone();
        let changed = after.len() - 700_000;
        after[changed] ^= 1;
        fs::write(old.path().join("model.safetensors"), &before).expect("written");
        fs::write(old.path().join("config.json"), b"{\"a\":1}").expect("written");
        fs::write(new.path().join("model.safetensors"), &after).expect("written");
        fs::write(new.path().join("config.json"), b"{\"a\":2}").expect("written");
        let imported = |dir: &Path| import(dir, request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let (held, wanted) = (imported(old.path()), imported(new.path()));
        let manifest = load_manifest(manifests.path(), wanted.manifest).expect("loaded");
        let local = [(ManifestId([1; 32]), PathBuf::from("/nowhere")), (held.manifest, old.path().to_owned())];

        let place = tempdir();
        let mut staging = Staging::open(&place.path().join("to"), wanted.manifest).expect("opened");
        staging.begin(&manifest).expect("begun");
        let found = fill_from(&mut staging, &manifest, manifests.path(), &local).expect("filled");
        let missing: u64 = manifest
            .groups()
            .zip(staging.flags())
            .filter(|(_, here)| !**here)
            .map(|(group, _)| u64::from(group.bytes))
            .sum();
        assert_eq!(found + missing, manifest.bytes());
        assert!(found >= 301_005 && missing >= 700_000, "{found} found, {missing} missing");

        let mut altered = before;
        let first = altered.len() - lengths.iter().sum::<usize>();
        altered[first + 290_000] ^= 1;
        fs::write(old.path().join("model.safetensors"), &altered).expect("written");
        let mut staging = Staging::open(&place.path().join("other"), wanted.manifest).expect("opened");
        staging.begin(&manifest).expect("begun");
        let less = fill_from(&mut staging, &manifest, manifests.path(), &local).expect("filled");
        assert!(less < found, "{less} of {found}");
    }

    fn tempdir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }
}
