//! The files of what comes here, for those who read it meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use alliance_protocol::{
    core::BulkFailure,
    manifest::{Extent, Manifest, Untrue},
};
use tokio::runtime::Handle;

use super::{Gathering, Phase, Place, gone};
use crate::models::{Source, SourceError};

/// Reads what has come of one artefact. It has the files open by itself, so that neither it nor the thread that writes to them
/// waits for the other.
#[derive(Debug)]
pub(in crate::bulk) struct Files {
    gathering: Arc<Gathering>,
    open: Option<Source>,
}

impl Files {
    pub(in crate::bulk) fn of(gathering: Arc<Gathering>) -> Self {
        Self { gathering, open: None }
    }

    pub(in crate::bulk) fn gathering(&self) -> &Arc<Gathering> {
        &self.gathering
    }

    /// Whether what was opened last has a name yet.
    pub(super) fn has_names(&self) -> bool {
        self.open.as_ref().is_none_or(Source::has_names)
    }

    /// Reads groups, as soon as they are here, and compares them with the manifest once more. Blocks; not for longer than until
    /// the next groups have come where they are not wanted any more.
    pub(in crate::bulk) fn read_true(
        &mut self,
        extent: &Extent,
        buffer: &mut [u8],
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), BulkFailure> {
        let mut changes = self.gathering.changes();
        loop {
            changes.borrow_and_update();
            if !is_wanted() {
                return Err(gone());
            }
            if let Some(manifest) = self.gathering.holds(extent)? {
                self.read(&manifest, extent, buffer)?;
                let changed = |untrue: Untrue| BulkFailure::Tampered(untrue.to_string());
                return manifest.verify_extent(extent, buffer).map_err(changed);
            }
            if Handle::current().block_on(changes.changed()).is_err() {
                return Err(gone());
            }
        }
    }

    /// Reads groups that are here. They were verified before they were written, and are compared once more where this
    /// process cannot vouch for that. Blocks.
    pub(super) fn read(&mut self, manifest: &Manifest, extent: &Extent, buffer: &mut [u8]) -> Result<(), BulkFailure> {
        for is_last in [false, true] {
            match self.attempt(manifest, extent, buffer)? {
                Ok(()) => return Ok(()),
                // A file is not found where the directory was given its name in the meantime.
                Err(SourceError::Tree(_)) if !is_last => self.open = None,
                Err(error) => return Err(error.into()),
            }
        }
        Err(gone())
    }

    fn attempt(
        &mut self,
        manifest: &Manifest,
        extent: &Extent,
        buffer: &mut [u8],
    ) -> Result<Result<(), SourceError>, BulkFailure> {
        if self.open.is_none() {
            match Source::lazy(&self.gathering.lies_at()?, manifest.clone()) {
                Ok(source) => self.open = Some(source),
                Err(error) => return Ok(Err(error)),
            }
        }
        let Some(source) = &mut self.open else { return Err(gone()) };
        let is_exposed = || self.gathering.exposed.load(Ordering::Acquire);
        if !is_exposed() {
            let read = source.read(extent, buffer);
            // It was not before they were read.
            if read.is_err() || !is_exposed() {
                return Ok(read);
            }
        }
        Ok(source.read_true(extent, buffer, &self.gathering.compared))
    }
}

impl Gathering {
    /// The manifest, where these groups are here. Fails where no more will come.
    pub(super) fn holds(&self, extent: &Extent) -> Result<Option<Manifest>, BulkFailure> {
        let progress = self.progress();
        if progress.phase == Phase::Gone {
            return Err(gone());
        }
        let index = |group: u64| usize::try_from(group).unwrap_or(usize::MAX);
        let here = progress.here.get(index(extent.first)..index(extent.end));
        Ok(progress.manifest.clone().filter(|_| here.is_some_and(|here| here.iter().all(|here| *here))))
    }

    /// Where the files are now: in the staging place until they are delivered.
    fn lies_at(&self) -> Result<PathBuf, BulkFailure> {
        match &*self.staging() {
            Place::Staging(staging) => Ok(staging.lies_at()),
            Place::Finishing(files) => Ok(files.clone()),
            Place::Delivered => Ok(self.to.clone()),
            Place::Nowhere => Err(gone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use alliance_protocol::{id::CrossingId, key::PublicKey};

    use super::*;
    use crate::{
        bulk::{gathering::Gatherings, pull::Reach, receive::Usage},
        models::{
            Staging,
            import::{
                import, load_manifest,
                tests::{model, request},
            },
        },
    };

    #[tokio::test]
    async fn what_comes_is_read_before_and_after_it_gets_its_name() {
        let (origin, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local = import(origin.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
        let disk = tempfile::tempdir().expect("a directory");
        let (to, key) = (disk.path().join("model"), PublicKey([1; 32]));
        let usage = Usage { piecewise: true, local: Vec::new() };
        let (crossing, addresses, tensors) = (CrossingId([1; 32]), Vec::new(), Vec::new());
        let reach = Reach { crossing, peer: key, addresses, manifest: manifest.id(), to: to.clone(), tensors, usage };
        let seat = Gatherings::new(key, Arc::default()).join(&reach);
        let gathering = Arc::clone(seat.gathering());
        let mut staging = Staging::open(&to, manifest.id()).expect("opened");
        staging.begin(&manifest).expect("begun");
        gathering.use_staging(staging);

        let mut source = Source::open(origin.path(), manifest.clone()).expect("opened");
        let mut files = Files::of(Arc::clone(&gathering));
        let extents: Vec<Extent> = manifest.extents_in(vec![(0, manifest.group_count())]).collect();
        let mut true_bytes = Vec::new();
        for extent in &extents {
            let mut bytes = vec![0; usize::try_from(extent.bytes).expect("small")];
            source.read(extent, &mut bytes).expect("read");
            assert_eq!(gathering.holds(extent), Ok(None), "it has not come");
            seat.write(extent, &bytes).expect("written");
            true_bytes.push(bytes);
        }
        let check = |files: &mut Files, at: usize| {
            let mut buffer = vec![0; true_bytes[at].len()];
            files.read(&manifest, &extents[at], &mut buffer).map(|()| assert_eq!(buffer, true_bytes[at]))
        };
        let last = extents.len() - 1;
        assert_ne!(extents[0].file, extents[last].file);
        check(&mut files, 0).expect("it is here");

        // It is delivered: a file that was opened before is the same, another is found under the name that it has now.
        gathering.exposed.store(true, Ordering::Release);
        let place = std::mem::replace(&mut *gathering.staging(), Place::Delivered);
        let Place::Staging(staging) = place else { panic!("{place:?}") };
        fs::rename(staging.lies_at(), &to).expect("renamed");
        check(&mut files, 0).expect("it is still here");
        check(&mut files, last).expect("it is here too");

        // Whoever writes to it now is found out.
        let path = to.join(&manifest.files()[usize::try_from(extents[0].file).expect("small")].path);
        let mut content = fs::read(&path).expect("read");
        let at = usize::try_from(extents[0].offset).expect("small");
        content[at] ^= 1;
        fs::write(&path, content).expect("written");
        let error = check(&mut files, 0).expect_err("altered");
        assert!(matches!(error, BulkFailure::Tampered(_)), "{error:?}");
        *gathering.staging() = Place::Nowhere;
        assert_eq!(check(&mut Files::of(Arc::clone(&gathering)), 0), Err(gone()));
    }
}
