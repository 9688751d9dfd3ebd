//! The key with which a node signs models: a P-256 key as PKCS#8 in PEM of mode 0600, so that other tools can use it too, and
//! the statement that binds it to the node's own.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use alliance_protocol::{
    charter::Chartered,
    key::{PublicKey, SecretKey},
    limits,
    model_key::{BindingError, KEY_PEM_BYTES_MAX, ModelKeyBinding, ModelKeyError, ModelSigningKey, ModelVerifyingKey},
    time::Timestamp,
};
use zeroize::Zeroizing;

use super::{Home, HomeError, at};
use crate::{
    durable::{self, Existing, Readers},
    keys::KeyFileError,
};

/// Times that random bytes are drawn for a key. One draw in 2^32 is no number below the order of the curve.
const DRAWS_MAX: u32 = 8;

impl Home {
    /// The key with which this node signs models.
    ///
    /// # Errors
    /// There is none, it is damaged, or others can read it.
    pub fn model_key(&self) -> Result<ModelSigningKey, HomeError> {
        let path = self.model_key_path();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(HomeError::NoModelKey),
            Err(error) => return Err(at("open", &path)(error).into()),
        };
        if durable::open_to_others(&metadata) != 0 {
            return Err(KeyFileError::Open { path, mode: metadata.mode() & 0o7777 }.into());
        }
        let text = Zeroizing::new(durable::read_text(&path, KEY_PEM_BYTES_MAX)?);
        ModelSigningKey::from_pem(&text).map_err(|source| HomeError::ModelKey { path, source })
    }

    /// Binds the key with which this node signs models to the node's own; makes it first, or takes the one that is given,
    /// where there is none.
    ///
    /// # Errors
    /// There is another one, a file cannot be read or written, or a key does not sign.
    pub fn bind_model_key(
        &self,
        given: Option<ModelSigningKey>,
        charter: &Chartered,
        now: Timestamp,
    ) -> Result<ModelVerifyingKey, HomeError> {
        let path = self.model_key_path();
        let key = match (self.model_key(), given) {
            (Ok(key), None) => key,
            (Ok(key), Some(given)) if key.public() == given.public() => key,
            (Ok(_), Some(_)) => return Err(KeyFileError::Exists(path).into()),
            (Err(HomeError::NoModelKey), given) => {
                let key = match given {
                    Some(given) => given,
                    None => generate()?,
                };
                let text = key.to_pem().map_err(|source| HomeError::ModelKey { path: path.clone(), source })?;
                durable::write(&path, text.as_bytes(), Readers::Owner, Existing::Keep)?;
                key
            }
            (Err(error), _) => return Err(error),
        };
        let node = self.key()?;
        if !self.is_bound(&key, &node.public(), charter)? {
            self.bind(&key, &node, charter, now)?;
        }
        Ok(key.public().clone())
    }

    /// Makes the statement that binds a key to the node's, and keeps it in the place of the one before.
    fn bind(
        &self,
        key: &ModelSigningKey,
        node: &SecretKey,
        charter: &Chartered,
        now: Timestamp,
    ) -> Result<Vec<u8>, HomeError> {
        let binding = ModelKeyBinding::make(key, node, charter.alliance(), now).map_err(HomeError::Binding)?;
        durable::write(&self.model_binding_path(), binding.bytes(), Readers::Owner, Existing::Replace)?;
        Ok(binding.bytes().to_vec())
    }

    /// Whether the statement is there that binds this key to the node's.
    ///
    /// # Errors
    /// The disk.
    pub fn is_bound(&self, key: &ModelSigningKey, node: &PublicKey, charter: &Chartered) -> Result<bool, HomeError> {
        let bytes = durable::read_if_there(&self.model_binding_path(), limits::STATEMENT_BYTES_MAX)?;
        let bound = bytes.and_then(|bytes| ModelKeyBinding::key_of(&bytes, node, charter.alliance()).ok());
        Ok(bound.is_some_and(|bound| bound == *key.public()))
    }

    /// The statement that binds it, where there is one. Where it is of a key that the node had before, the model key is bound
    /// to that of now.
    pub(super) fn model_binding(
        &self,
        node: &SecretKey,
        charter: &Chartered,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, HomeError> {
        let Some(bytes) = durable::read_if_there(&self.model_binding_path(), limits::STATEMENT_BYTES_MAX)? else {
            return Ok(None);
        };
        match ModelKeyBinding::key_of(&bytes, &node.public(), charter.alliance()) {
            Ok(_) => Ok(Some(bytes)),
            Err(BindingError::Signer) => {
                let key = match self.model_key() {
                    Ok(key) => key,
                    Err(HomeError::NoModelKey) => {
                        tracing::warn!(
                            "the key with which this node signed models is gone; make one: alliance model signing-key"
                        );
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                tracing::info!("the key with which this node signs models is bound to the key that the node has now");
                Ok(Some(self.bind(&key, node, charter, now)?))
            }
            Err(error) => Err(HomeError::Binding(error)),
        }
    }
}

fn generate() -> Result<ModelSigningKey, HomeError> {
    let random = |error: getrandom::Error| HomeError::Key(KeyFileError::Random(io::Error::other(error.to_string())));
    for _ in 0..DRAWS_MAX {
        let mut scalar = Zeroizing::new([0; 32]);
        getrandom::fill(scalar.as_mut_slice()).map_err(random)?;
        let key = ModelSigningKey::from_scalar(&scalar)
            .map_err(|source: ModelKeyError| HomeError::Binding(BindingError::Key(source)))?;
        if let Some(key) = key {
            return Ok(key);
        }
    }
    Err(HomeError::Key(KeyFileError::Random(io::Error::other("none of the numbers is a key"))))
}
