//! What is moved: noise, which nothing can compress, as a flat file and as tensors.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

/// Bytes that are made at a time.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// Writes a file of noise.
///
/// # Errors
/// The disk failed or is full.
pub fn write_noise(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    noise(&mut file, bytes, 1)
}

/// Writes a safetensors file of tensors of noise, each `(bytes, count)`.
///
/// # Errors
/// The disk failed or is full.
pub fn write_tensors(path: &Path, tensors: &[(u64, u64)]) -> io::Result<()> {
    let (mut entries, mut offset) = (Vec::new(), 0_u64);
    for (kind, (bytes, count)) in tensors.iter().enumerate() {
        for number in 0..*count {
            let end = offset + bytes;
            entries.push(format!(
                r#""model.layers.{number}.mlp.{kind}.weight":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{offset},{end}]}}"#
            ));
            offset = end;
        }
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path)?;
    file.write_all(&u64::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    noise(&mut file, offset, 2)
}

fn noise(file: &mut File, bytes: u64, seed: u64) -> io::Result<()> {
    let mut source = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    let mut left = bytes;
    let mut chunk = Vec::new();
    while left > 0 {
        let take = left.min(CHUNK_BYTES);
        chunk.resize(usize::try_from(take).map_err(io::Error::other)?, 0);
        source.fill(&mut chunk);
        file.write_all(&chunk)?;
        left -= take;
    }
    Ok(())
}
