//! What a commit says: one operation on each line, as they come.

use std::time::Duration;

use alliance_protocol::{id::Sha256, limits};
use axum::body::{Body, BodyDataStream};
use base64::Engine as _;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Desk,
        hub::Refusal,
        routes::{BODY_WITHIN, drain},
    },
    INLINE_BYTES_MAX, blocking,
};
use crate::{shelf::Draft, tokens::Token};

/// Bytes of a line of a commit: such a file, its path, and what is around them.
const LINE_BYTES: u64 = INLINE_BYTES_MAX / 3 * 4 + 64 * 1024;

/// Lines of a commit: one for each file that an artefact may have, and as many for what is taken away.
const OPERATIONS_MAX: usize = 2 * limits::FILES_PER_MANIFEST_MAX;

/// How long the lines of a commit may take to come, all of them.
const COMMIT_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What a line of a commit says.
#[derive(Debug, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Operation {
    #[serde(rename_all = "camelCase")]
    Header {
        #[serde(default)]
        parent_commit: Option<String>,
    },
    File {
        path: String,
        content: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    LfsFile {
        path: String,
        oid: Sha256,
        size: u64,
    },
    DeletedFile {
        path: String,
    },
    DeletedFolder {
        path: String,
    },
}

impl Desk {
    /// Reads a commit line by line, and does what it says to the draft. Gives that, and the version that the client thinks is the
    /// newest, if it says one.
    pub(super) async fn apply(
        &self,
        mut draft: Draft,
        lines: &mut Lines,
        token: &Token,
    ) -> Result<(Draft, Option<String>), Refusal> {
        let (mut count, mut parent) = (0_usize, None);
        while let Some(line) = lines.next().await? {
            count = count.saturating_add(1);
            if count > OPERATIONS_MAX {
                return Err(Refusal::TooLong);
            }
            if !self.still(token) {
                return Err(Refusal::Token);
            }
            // Each line is held several times over from here. INVARIANT: nobody closes the semaphore.
            let _place = self.taking.acquire().await;
            let operation: Operation = serde_json::from_slice(&line)
                .map_err(|error| Refusal::Rejected(format!("a line of the commit is none that is known here: {error}")))?;
            if let Operation::Header { parent_commit } = operation {
                parent = parent.or(parent_commit);
                continue;
            }
            draft = blocking(move || {
                change(&mut draft, operation)?;
                Ok::<_, Refusal>(draft)
            })
            .await?;
        }
        Ok((draft, parent))
    }
}

/// Does to the draft what a line says.
fn change(draft: &mut Draft, operation: Operation) -> Result<(), Refusal> {
    match operation {
        Operation::Header { .. } => {}
        Operation::File { path, content, encoding } => {
            let content = match encoding.as_deref() {
                None | Some("utf-8") => content.into_bytes(),
                Some("base64") => base64::engine::general_purpose::STANDARD
                    .decode(content)
                    .map_err(|error| Refusal::Rejected(format!("`{path}` is no base64: {error}")))?,
                Some(other) => return Err(Refusal::Rejected(format!("`{path}` has the unknown encoding `{other}`"))),
            };
            draft.put(&path, &content)?;
        }
        Operation::LfsFile { path, oid, size } => draft.put_blob(&path, oid, size)?,
        Operation::DeletedFile { path } | Operation::DeletedFolder { path } => draft.remove(&path)?,
    }
    Ok(())
}

/// The lines of a body, as they come.
pub(super) struct Lines {
    stream: BodyDataStream,
    buffer: BytesMut,
    /// Bytes in which there is no end of a line.
    searched: usize,
    until: Instant,
}

impl Lines {
    pub(super) fn of(body: Body) -> Self {
        Self {
            stream: body.into_data_stream(),
            buffer: BytesMut::new(),
            searched: 0,
            until: Instant::now() + COMMIT_WITHIN,
        }
    }

    /// Takes what still comes, of no use, so that the client comes to read why.
    pub(super) async fn drain(&mut self) {
        drain(&mut self.stream).await;
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched.saturating_add(at)).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if u64::try_from(self.searched).unwrap_or(u64::MAX) > LINE_BYTES {
                return Err(Refusal::TooLong);
            }
            let next = timeout_at(self.until.min(Instant::now() + BODY_WITHIN), self.stream.next()).await;
            match next.map_err(|_| Refusal::Request("the commit did not come to its end in time".to_owned()))? {
                Some(part) => {
                    self.buffer.extend_from_slice(&part.map_err(|_| Refusal::Request("the commit broke off".to_owned()))?);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}
