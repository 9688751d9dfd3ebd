//! Key files that come back, and every way in which they must not.

use std::{fmt::Write as _, os::unix::fs::PermissionsExt as _, process::Command};

use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument,
    der::{asn1::OctetStringRef, pem::PemLabel as _},
    pkcs5::{
        EncryptionScheme as Pbes,
        pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params, ScryptParams},
    },
};

use super::*;

const SECRET: &str = "correct horse battery staple";

/// So that a test may open a key many times.
const CHEAP: Cost = Cost { log_n: 2, p: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned()))
}

fn protected(text: &str) -> Protection {
    Protection::Passphrase(NewPassphrase::choose(passphrase(text)).expect("long enough"))
}

fn with(text: &str) -> impl FnMut(&Path) -> Result<Passphrase, PassphraseError> {
    move |_| Ok(passphrase(text))
}

fn unasked(path: &Path) -> Result<Passphrase, PassphraseError> {
    panic!("asked for the passphrase of `{}`", path.display())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

/// A cheap protected key in a new directory.
fn cheap() -> (tempfile::TempDir, PathBuf, SecretKey, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.key");
    let key = generate().expect("drawn");
    let text = encode(&path, &key, &protected(SECRET), CHEAP).expect("encrypted").to_string();
    put(&path, text.as_bytes());
    (dir, path, key, text)
}

fn put(path: &Path, bytes: &[u8]) {
    durable::write(path, bytes, Readers::Owner, Existing::Replace).expect("written");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("listed");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_key_comes_back_and_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, protection, kept) in
        [("plain.key", Protection::Plain, Kept::Plain), ("protected.key", protected(SECRET), Kept::Protected)]
    {
        let path = dir.path().join(name);
        let key = generate().expect("drawn");
        assert_eq!(write_new(&path, &key, &protection).expect("written"), key.public());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(read(&path, &mut with(SECRET)).expect("read").to_seed(), key.to_seed());
        assert_eq!(inspect(&path).expect("read"), KeyFacts { public: key.public(), kept });
        let other = generate().expect("drawn");
        assert!(matches!(write_new(&path, &other, &protection), Err(KeyFileError::Exists(_))));
        assert_eq!(inspect(&path).expect("read").public, key.public());
    }
    assert_eq!(names(dir.path()), ["plain.key", "protected.key"]);
}

#[test]
fn a_passphrase_is_asked_for_only_where_there_is_one() {
    let (dir, path, _, _) = cheap();
    let plain = dir.path().join("plain.key");
    let key = generate().expect("drawn");
    write_new(&plain, &key, &Protection::Plain).expect("written");
    assert_eq!(read(&plain, &mut unasked).expect("read").public(), key.public());
    let mut asked = Vec::new();
    let mut ask = |path: &Path| {
        asked.push(path.to_owned());
        no_passphrase(path)
    };
    let error = read(&path, &mut ask).expect_err("none can be had");
    assert!(matches!(error, KeyFileError::Passphrase(PassphraseError::Nowhere(_))));
    assert!(error.to_string().contains("--passphrase-file"), "{error}");
    assert_eq!(asked, [path]);
}

#[test]
fn a_key_open_to_others_is_refused() {
    let (dir, path, _, _) = cheap();
    let plain = dir.path().join("plain.key");
    write_new(&plain, &generate().expect("drawn"), &Protection::Plain).expect("written");
    for path in [path, plain] {
        for mode in [0o640, 0o604, 0o660, 0o644, 0o620, 0o610] {
            chmod(&path, mode);
            let refused = |error: &KeyFileError| matches!(error, KeyFileError::Open { mode: found, .. } if *found == mode);
            assert!(refused(&read(&path, &mut unasked).expect_err("open")), "{mode:o}");
            assert!(refused(&inspect(&path).expect_err("open")), "{mode:o}");
            assert!(refused(&protect(&path, &mut unasked, &Protection::Plain).expect_err("open")), "{mode:o}");
        }
    }
}

#[test]
fn a_damaged_plain_key_is_refused() {
    let good = format!("{WORD} {}", "0a".repeat(32));
    assert!(plain(&good).is_some());
    assert!(plain(&format!("{good}\n")).is_some());
    assert!(plain(&format!("{good}\r\n")).is_some());
    let bad = [
        String::new(),
        "0a".repeat(32),
        format!("{WORD} {}", "0a".repeat(31)),
        format!("{WORD} {}", "0a".repeat(33)),
        format!("{WORD}  {}", "0a".repeat(32)),
        format!("{WORD} {}", "0g".repeat(32)),
        format!("{good}\n\n"),
    ];
    for text in bad {
        assert!(matches!(parse(text.as_bytes()), Err(Damage::Corrupt)), "{text}");
    }
    assert!(matches!(parse(b"\xff\xfe"), Err(Damage::Corrupt)));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.key");
    put(&path, good.repeat(12).as_bytes());
    assert!(matches!(read(&path, &mut unasked), Err(KeyFileError::Corrupt(_))), "longer than any key");
    assert!(matches!(read(dir.path(), &mut unasked), Err(KeyFileError::Corrupt(_) | KeyFileError::Open { .. })));
    assert!(matches!(read(&dir.path().join("absent"), &mut unasked), Err(KeyFileError::Missing(_))));
}

#[test]
fn another_passphrase_does_not_open_a_key() {
    let (_dir, path, key, _) = cheap();
    // Padding is right by chance once in 256 times: what comes out then must be no key either.
    for n in 0..2000 {
        let refused = read(&path, &mut with(&format!("another passphrase {n}")));
        assert!(matches!(refused, Err(KeyFileError::WrongPassphrase(_))), "{n}");
    }
    for near in ["", "correct horse battery stapl", "correct horse battery staple ", "Correct horse battery staple"] {
        assert!(matches!(read(&path, &mut with(near)), Err(KeyFileError::WrongPassphrase(_))), "{near}");
    }
    assert_eq!(read(&path, &mut with(SECRET)).expect("read").public(), key.public());
}

#[test]
fn no_flipped_bit_makes_another_key() {
    let (_dir, path, key, text) = cheap();
    let (mut same, mut refused) = (Vec::new(), 0);
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            put(&path, &bytes);
            match read(&path, &mut with(SECRET)) {
                Ok(found) => {
                    assert_eq!(found.to_seed(), key.to_seed(), "byte {at}, bit {bit}");
                    same.push((at, bit));
                }
                Err(_) => refused += 1,
            }
        }
    }
    // A digit in the other case, and a line end in another way, say the same.
    let innocent = |at: usize, bit: u32| {
        let byte = text.as_bytes()[at];
        at < text.find('\n').expect("a line") && byte.is_ascii_alphabetic() && bit == 5 || byte == b'\n'
    };
    assert!(same.iter().all(|(at, bit)| innocent(*at, *bit)), "{same:?}");
    assert!(refused > text.len() * 7, "{refused} of {}", text.len() * 8);
}

#[test]
fn a_changed_block_of_the_seed_is_noticed() {
    // CBC alone would give another key here: the second block of the ciphertext is the first half of the seed.
    let (_dir, path, _, text) = cheap();
    let (line, pem) = text.split_once('\n').expect("two parts");
    let (_, document) = SecretDocument::from_pem(pem).expect("PEM");
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).expect("PKCS#8");
    let mut data = info.encrypted_data.as_bytes().to_vec();
    data[16] ^= 1;
    put(&path, file(line, info.encryption_algorithm.clone(), &data).as_bytes());
    assert!(matches!(read(&path, &mut with(SECRET)), Err(KeyFileError::Corrupt(_))));
}

#[test]
fn a_file_cut_off_at_any_byte_is_no_key() {
    let (_dir, path, key, text) = cheap();
    for length in 0..text.len() {
        put(&path, &text.as_bytes()[..length]);
        match read(&path, &mut with(SECRET)) {
            Ok(found) => assert_eq!((found.public(), length), (key.public(), text.len() - 1), "only the last line end"),
            Err(error) => assert!(matches!(error, KeyFileError::Corrupt(_)), "{length}: {error}"),
        }
    }
    let twice = format!("{text}{text}");
    put(&path, twice.as_bytes());
    assert!(matches!(read(&path, &mut unasked), Err(KeyFileError::Corrupt(_))));
}

/// A protected key file of other makings.
fn file(line: &str, encryption_algorithm: Pbes, data: &[u8]) -> String {
    let info =
        EncryptedPrivateKeyInfoRef { encryption_algorithm, encrypted_data: OctetStringRef::new(data).expect("short") };
    let document = SecretDocument::try_from(&info).expect("encoded");
    let pem = document.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).expect("encoded");
    format!("{line}\n{}", pem.as_str())
}

fn scrypt(cost_parameter: u64, block_size: u16, parallelization: u16) -> Kdf {
    let salt = [7; 16].as_slice().try_into().expect("short");
    Kdf::Scrypt(ScryptParams { salt, cost_parameter, block_size, parallelization, key_length: None })
}

#[test]
fn a_file_cannot_ask_for_more_than_a_bound() {
    let line = format!("{} {}", sealed::WORD, "0a".repeat(32));
    let of = |kdf, encryption| file(&line, Pbes::Pbes2(Parameters { kdf, encryption }), &[0; 64]);
    let cbc = || EncryptionScheme::Aes256Cbc { iv: [1; 16] };
    let good = [(1 << 17, 8, 8), (1 << 14, 8, 5), (2, 1, 1)];
    for (n, r, p) in good {
        assert!(parse(of(scrypt(n, r, p), cbc()).as_bytes()).is_ok(), "{n} {r} {p}");
    }
    // With N = 0 the library panics where overflow is checked; nothing of the kind may get that far.
    let bad = [(0, 8, 1), (1, 8, 1), (3, 8, 1), (16_385, 8, 1), (u64::MAX, 8, 1), (1 << 14, 0, 1), (1 << 14, 8, 0)];
    for (n, r, p) in bad {
        assert!(matches!(parse(of(scrypt(n, r, p), cbc()).as_bytes()), Err(Damage::Corrupt)), "{n} {r} {p}");
    }
    let dear =
        [(1 << 18, 8, 1), (1 << 63, 8, 1), (1 << 14, 9, 1), (1 << 14, u16::MAX, 1), (1 << 14, 8, 9), (2, 1, u16::MAX)];
    for (n, r, p) in dear {
        assert!(matches!(parse(of(scrypt(n, r, p), cbc()).as_bytes()), Err(Damage::CostTooHigh)), "{n} {r} {p}");
    }
    let pbkdf2 = Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(100_000_000, &[7; 16]).expect("within bounds"));
    let other = [
        of(pbkdf2, cbc()),
        of(scrypt(1 << 14, 8, 1), EncryptionScheme::Aes128Cbc { iv: [1; 16] }),
        of(scrypt(1 << 14, 8, 1), EncryptionScheme::Aes256Gcm { nonce: [1; 12] }),
    ];
    for text in other {
        assert!(matches!(parse(text.as_bytes()), Err(Damage::Scheme)), "{text}");
    }
    // What is encrypted may have any length, and open to no key.
    for length in [0, 1, 15, 16, 48, 63, 64, 400] {
        let text = file(&line, Pbes::Pbes2(Parameters { kdf: scrypt(4, 8, 1), encryption: cbc() }), &vec![9; length]);
        let Ok(Loaded::Sealed(sealed)) = parse(text.as_bytes()) else { panic!("{length}: {text}") };
        assert!(matches!(sealed.open(&passphrase(SECRET)), Err(Damage::WrongPassphrase)), "{length}");
    }
}

#[test]
fn protection_changes_and_leaves_one_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("officer-1.key");
    let key = generate().expect("drawn");
    write_new(&path, &key, &Protection::Plain).expect("written");
    let seed = hex::encode(key.to_seed().as_slice());
    let holds_seed = || fs::read_to_string(&path).expect("read").contains(&seed);
    assert!(holds_seed());

    assert_eq!(protect(&path, &mut unasked, &protected(SECRET)).expect("protected"), key.public());
    assert!(!holds_seed());
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
    let wrong = protect(&path, &mut with("not this one, though"), &Protection::Plain);
    assert!(matches!(wrong, Err(KeyFileError::WrongPassphrase(_))));
    assert_eq!(inspect(&path).expect("read").kept, Kept::Protected);

    let other = "another passphrase";
    protect(&path, &mut with(SECRET), &protected(other)).expect("changed");
    assert!(matches!(read(&path, &mut with(SECRET)), Err(KeyFileError::WrongPassphrase(_))));
    protect(&path, &mut with(other), &Protection::Plain).expect("plain again");
    assert!(holds_seed());
    assert_eq!(names(dir.path()), ["officer-1.key"]);
    let absent = protect(&dir.path().join("absent"), &mut unasked, &Protection::Plain);
    assert!(matches!(absent, Err(KeyFileError::Missing(_))));
}

#[test]
fn what_a_crash_leaves_is_swept_and_a_second_name_is_not_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.key");
    let key = generate().expect("drawn");
    write_new(&path, &key, &Protection::Plain).expect("written");
    let plain = fs::read(&path).expect("read");
    // Killed while the new file was written: any part of it lies beside the key. (Plain to plain, which costs no time.)
    for length in 0..=plain.len() {
        fs::write(dir.path().join(format!(".node.key.{length:016x}.tmp")), &plain[..length]).expect("written");
        assert_eq!(read(&path, &mut unasked).expect("read").public(), key.public());
        protect(&path, &mut unasked, &Protection::Plain).expect("written");
        assert_eq!(names(dir.path()), ["node.key"]);
    }
    // Killed in `write_new` before the temporary name was gone: the same file under two names.
    fs::hard_link(&path, dir.path().join(".node.key.0123456789abcdef.tmp")).expect("linked");
    protect(&path, &mut unasked, &protected(SECRET)).expect("protected");
    assert_eq!(names(dir.path()), ["node.key"]);
    protect(&path, &mut with(SECRET), &Protection::Plain).expect("plain");
    // What is not ours is left alone, and so is a key that would stay plain under another name.
    let others = [".node.key.0123456789abcde.tmp", ".node.key.0123456789abcdeg.tmp", ".other.key.0123456789abcdef.tmp"];
    for other in others {
        fs::write(dir.path().join(other), "x").expect("written");
    }
    fs::hard_link(&path, dir.path().join("copy.key")).expect("linked");
    let linked = protect(&path, &mut unasked, &Protection::Plain);
    assert!(matches!(linked, Err(KeyFileError::Linked { names: 2, .. })), "{linked:?}");
    assert_eq!(fs::read(&path).expect("read"), plain);
    assert_eq!(names(dir.path()).len(), 2 + others.len());
}

#[test]
fn a_symbolic_link_is_followed_to_the_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let (real, link) = (dir.path().join("real.key"), dir.path().join("node.key"));
    write_new(&real, &generate().expect("drawn"), &Protection::Plain).expect("written");
    std::os::unix::fs::symlink("real.key", &link).expect("linked");
    protect(&link, &mut unasked, &protected(SECRET)).expect("protected");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(inspect(&real).expect("read").kept, Kept::Protected);
}

/// A key as OpenSSL 3.0.19 wrote it (`openssl pkcs8 -topk8 -scrypt -scrypt_N 16384 -scrypt_r 8 -scrypt_p 5 -v2 aes-256-cbc`),
/// with its public half above: TEST 1 of RFC 8032, section 7.1.
const FOREIGN: &str = include_str!("foreign.key");
const FOREIGN_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

#[test]
fn a_key_that_openssl_wrote_is_read() {
    let Ok(Loaded::Sealed(sealed)) = parse(FOREIGN.as_bytes()) else { panic!("not taken") };
    let key = sealed.open(&passphrase(SECRET)).expect("opened");
    assert_eq!(hex::encode(key.to_seed().as_slice()), FOREIGN_SEED);
    // Without the line above it is not known whether it is whole.
    let (_, pem) = FOREIGN.split_once('\n').expect("two parts");
    assert!(matches!(parse(pem.as_bytes()), Err(Damage::Corrupt)));
}

#[test]
fn openssl_reads_what_we_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, pass) = (dir.path().join("node.key"), dir.path().join("pass"));
    let key = generate().expect("drawn");
    for text in
        [SECRET.to_owned(), "\u{441}\u{43b}\u{43e}\u{432}\u{43e} \u{79d8}\u{5bc6} palavra".to_owned(), "x".repeat(1000)]
    {
        write_new(&path, &key, &protected(&text)).expect("written");
        put(&pass, format!("{text}\n").as_bytes());
        let mut openssl = Command::new("openssl");
        openssl.args(["pkey", "-outform", "DER", "-in"]).arg(&path).arg("-passin").arg(format!("file:{}", pass.display()));
        let ran = match openssl.output() {
            Ok(ran) => ran,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return eprintln!("skipped: there is no openssl here");
            }
            Err(error) => panic!("{error}"),
        };
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.stdout.get(16..), Some(key.to_seed().as_slice()));
        fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn nothing_secret_is_ever_printed() {
    let (dir, path, key, text) = cheap();
    let plain = dir.path().join("plain.key");
    write_new(&plain, &key, &Protection::Plain).expect("written");
    let mut shown = String::new();
    let mut show = |thing: &dyn std::fmt::Debug| write!(shown, "{thing:?}\n{thing:#?}\n").expect("written");
    let new = || NewPassphrase::choose(passphrase(SECRET)).expect("good");
    show(&key);
    show(&passphrase(SECRET));
    show(&new());
    show(&protected(SECRET));
    show(&PassphraseFrom::locate(Some(&plain)));
    show(&inspect(&path).expect("read"));
    show(&inspect(&plain).expect("read"));
    show(&(Kept::Plain, COST, sealed::NotSealed, Damage::Corrupt, Damage::WrongPassphrase));

    let seed = hex::encode(key.to_seed().as_slice());
    let mut errors: Vec<KeyFileError> = Vec::new();
    errors.extend(read(&path, &mut with("wrong passphrase")).err());
    errors.extend(read(&path, &mut no_passphrase).err());
    errors.extend(write_new(&plain, &key, &Protection::Plain).err());
    errors.extend(write_new(&path, &key, &protected(SECRET)).err());
    errors.extend(write_new(Path::new("/nowhere/at/all.key"), &key, &protected(SECRET)).err());
    errors.extend(read(Path::new("/nowhere/at/all.key"), &mut unasked).err());
    errors.extend([NewPassphrase::choose(passphrase("short")).expect_err("bad").into(), PassphraseError::Differ.into()]);
    errors.extend(PassphraseFrom::File(plain.clone()).choose(&path).err().map(KeyFileError::from));
    // A slip: the key where the passphrase should be, a seed that is cut off or repeated, a passphrase in the key file.
    let slips =
        [format!("{WORD} {seed}0"), format!("{WORD}{seed}"), SECRET.to_owned(), format!("{text}{seed}\n{SECRET}\n")];
    for slip in slips {
        put(&plain, slip.as_bytes());
        errors.extend(read(&plain, &mut with(SECRET)).err());
        errors.extend(protect(&plain, &mut with(SECRET), &protected(SECRET)).err());
        chmod(&plain, 0o644);
        errors.extend(read(&plain, &mut with(SECRET)).err());
        errors.extend(PassphraseFrom::File(plain.clone()).ask(&path).err().map(KeyFileError::from));
    }
    put(&plain, format!("{SECRET}\n{SECRET}").as_bytes());
    errors.extend(PassphraseFrom::File(plain.clone()).ask(&path).err().map(KeyFileError::from));
    let at = |path: &Path| path.to_owned();
    errors.extend([
        KeyFileError::Scheme(at(&path)),
        KeyFileError::CostTooHigh(at(&path)),
        KeyFileError::Encrypt(at(&path)),
        KeyFileError::Linked { path: at(&path), names: 2 },
        KeyFileError::Owner { path: at(&path), owner: 7 },
        KeyFileError::Random(io::Error::other("none")),
        PassphraseError::NotGiven(at(&path)).into(),
        PassphraseError::Terminal(io::Error::other("gone")).into(),
        PassphraseError::Owner { path: at(&path), owner: 7 }.into(),
    ]);
    assert!(errors.len() > 20, "{errors:#?}");
    for error in &errors {
        write!(shown, "{error}\n{error:?}\n{error:#?}\n").expect("written");
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            write!(shown, "{next}\n{next:?}\n").expect("written");
            cause = next.source();
        }
    }
    let bytes = |bytes: &[u8]| bytes.iter().take(4).map(u8::to_string).collect::<Vec<_>>().join(", ");
    let secrets = [
        seed.clone(),
        seed.to_uppercase(),
        seed.chars().take(16).collect(),
        seed.chars().skip(48).collect(),
        SECRET.to_owned(),
        "correct".to_owned(),
        bytes(key.to_seed().as_slice()),
        bytes(SECRET.as_bytes()),
    ];
    for secret in secrets {
        assert!(!shown.contains(&secret), "`{secret}` is in:\n{shown}");
    }
}
