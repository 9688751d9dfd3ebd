//! A key encrypted with a passphrase: PKCS#8 in PEM (RFC 5958, RFC 8410), by PBES2 (RFC 8018) with scrypt (RFC 7914) and
//! AES-256-CBC, as OpenSSL and others read it; above the block stands the public half of the key.
//!
//! CBC does not notice a change of what it encrypts: another block of ciphertext would give another key. The public half
//! notices, and whoever changes the block cannot foresee the key, and so not the public half to write above it. It also lets
//! the key be named, and what it signed be verified, without the passphrase. RFC 7468 section 2 lets text stand above a
//! block; tools pass over it.

use alliance_protocol::key::{PublicKey, SecretKey};
use ed25519::pkcs8::KeypairBytes;
use pkcs8::{
    EncodePrivateKey as _, EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument,
    der::pem::PemLabel as _,
    pkcs5::{
        EncryptionScheme as Pbes,
        pbes2::{EncryptionScheme, Kdf, Parameters, ScryptParams},
    },
};
use zeroize::{Zeroize as _, Zeroizing};

use super::Passphrase;

/// The word that a protected key file begins with.
pub(super) const WORD: &str = "alliance-ed25519-public";

/// What scrypt (RFC 7914) takes: memory for 2^`log_n` blocks of 1 KiB, `p` times over in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) log_n: u8,
    pub(super) p: u16,
}

/// What keys are encrypted at: 16 MiB, five times over, one of the settings that OWASP's Password Storage Cheat Sheet holds
/// equal to 128 MiB once. OpenSSL opens nothing that takes more than 32 MiB.
pub(super) const COST: Cost = Cost { log_n: 14, p: 5 };

/// The most that a file may ask for: 128 MiB, eight times over, a few seconds. A file that someone else made, or that a slip
/// made, must not take the memory of the machine; a later release may want more than [`COST`].
const COST_MAX: Cost = Cost { log_n: 17, p: 8 };

/// The block size of scrypt: 8 means 1 KiB. RFC 7914 recommends it, and it is what tools take by themselves.
const BLOCK: u16 = 8;

const _: () = assert!(COST.log_n <= COST_MAX.log_n && COST.p <= COST_MAX.p);

/// What is wrong with a file, or with opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is no key of ours, or not the one that it says it is.
    Corrupt,
    /// It is encrypted in another way.
    Scheme,
    CostTooHigh,
    /// Another passphrase, or a changed byte: CBC does not tell them apart.
    WrongPassphrase,
}

/// The library did not encrypt.
#[derive(Debug)]
pub(super) struct NotSealed;

/// An encrypted key whose cost is within bounds.
pub(super) struct Sealed {
    public: PublicKey,
    parameters: Parameters,
    data: Vec<u8>,
}

impl Sealed {
    pub(super) fn parse(text: &str) -> Result<Self, Damage> {
        let (line, pem) = text.split_once('\n').ok_or(Damage::Corrupt)?;
        let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix(WORD).and_then(|rest| rest.strip_prefix(' '));
        let public = digits.ok_or(Damage::Corrupt)?.parse().map_err(|_| Damage::Corrupt)?;
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| Damage::Corrupt)?;
        if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
            return Err(Damage::Corrupt);
        }
        let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| Damage::Corrupt)?;
        let Pbes::Pbes2(parameters) = info.encryption_algorithm else { return Err(Damage::Scheme) };
        match (&parameters.kdf, &parameters.encryption) {
            (Kdf::Scrypt(scrypt), EncryptionScheme::Aes256Cbc { .. }) => within(scrypt)?,
            _ => return Err(Damage::Scheme),
        }
        Ok(Self { public, parameters, data: info.encrypted_data.as_bytes().to_vec() })
    }

    /// Whose key the file says it is.
    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn open(&self, passphrase: &Passphrase) -> Result<SecretKey, Damage> {
        let mut buffer = Zeroizing::new(self.data.clone());
        let clear = self.parameters.decrypt_in_place(passphrase.as_bytes(), &mut buffer);
        let info = PrivateKeyInfoRef::try_from(clear.map_err(|_| Damage::WrongPassphrase)?);
        let mut pair =
            KeypairBytes::try_from(info.map_err(|_| Damage::WrongPassphrase)?).map_err(|_| Damage::WrongPassphrase)?;
        let key = SecretKey::from_seed(&pair.secret_key);
        pair.secret_key.zeroize();
        if key.public() == self.public { Ok(key) } else { Err(Damage::Corrupt) }
    }
}

/// Checked before the library computes with it: with a cost of 0 it panics, where overflow is checked.
fn within(scrypt: &ScryptParams) -> Result<(), Damage> {
    let n = scrypt.cost_parameter;
    if n < 2 || !n.is_power_of_two() || scrypt.block_size == 0 || scrypt.parallelization == 0 {
        return Err(Damage::Corrupt);
    }
    if n > 1 << COST_MAX.log_n || scrypt.block_size > BLOCK || scrypt.parallelization > COST_MAX.p {
        return Err(Damage::CostTooHigh);
    }
    Ok(())
}

/// The text of a protected key file. Salt and initial vector are to be drawn anew for each.
pub(super) fn seal(
    key: &SecretKey,
    passphrase: &Passphrase,
    cost: Cost,
    salt: [u8; 16],
    iv: [u8; 16],
) -> Result<Zeroizing<String>, NotSealed> {
    let scrypt = ScryptParams {
        salt: salt.as_slice().try_into().map_err(|_| NotSealed)?,
        cost_parameter: 1 << cost.log_n,
        block_size: BLOCK,
        parallelization: cost.p,
        key_length: None,
    };
    let parameters = Parameters { kdf: Kdf::Scrypt(scrypt), encryption: EncryptionScheme::Aes256Cbc { iv } };
    // Without the public half: OpenSSL does not read the second version of the structure, which has it.
    let pair = KeypairBytes { secret_key: *key.to_seed(), public_key: None };
    let clear = pair.to_pkcs8_der().map_err(|_| NotSealed)?;
    let info = PrivateKeyInfoRef::try_from(clear.as_bytes()).map_err(|_| NotSealed)?;
    let sealed = info.encrypt_with_params(parameters, passphrase.as_bytes()).map_err(|_| NotSealed)?;
    let pem = sealed.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|_| NotSealed)?;
    Ok(Zeroizing::new(format!("{WORD} {}\n{}", key.public(), pem.as_str())))
}
