//! Who may call: keys, kept as digests and compared in constant time.

use std::io::Read as _;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::settings::{ApiKey, Role, Secret};
use crate::store::words;

/// A shorter key can be guessed by somebody with time.
const SHORT_KEY: usize = 16;
/// The longest key, bytes.
const MAX_KEY: u64 = 4096;

/// A key that was shown and is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// What logs and the history call it.
    pub id: String,
    /// What it may do.
    pub role: Role,
}

/// The keys of the settings.
pub(super) struct Keys(Vec<(Holder, [u8; 32])>);

impl Keys {
    /// Reads the files of keys that are in files. Also gives what is odd about them, one sentence each.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no key.
    pub fn load(keys: &[ApiKey]) -> Result<(Self, Vec<String>), String> {
        let (mut known, mut odd) = (Vec::new(), Vec::new());
        for key in keys {
            let secret = match &key.secret {
                Secret::Here(text) => text.clone(),
                Secret::InFile(path) => {
                    let mut text = String::new();
                    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_KEY).read_to_string(&mut text));
                    read.map_err(|error| {
                        format!("cannot read the key {} in {}: {}", key.id, path.display(), words(&error))
                    })?;
                    if open_to_others(path) {
                        odd.push(format!("everybody can read the key {} in {}: chmod 600 it", key.id, path.display()));
                    }
                    text.trim_ascii().to_owned()
                }
            };
            if secret.is_empty() {
                return Err(format!("the key {} is empty; make one with: openssl rand -hex 32", key.id));
            }
            if secret.len() < SHORT_KEY {
                odd.push(format!(
                    "the key {} is short and can be guessed; make one with: openssl rand -hex 32",
                    key.id
                ));
            }
            let digest = Sha256::digest(secret.as_bytes()).into();
            if known.iter().any(|(_, other)| *other == digest) {
                return Err(format!("the key {} is that of another id as well; give each its own", key.id));
            }
            known.push((Holder { id: key.id.clone(), role: key.role }, digest));
        }
        Ok((Self(known), odd))
    }

    /// Whose key this is. Takes as long for a wrong one as for a right one.
    pub fn holder(&self, shown: &str) -> Option<&Holder> {
        let shown: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        // Every key is compared, whichever fits.
        self.0.iter().fold(None, |found, (holder, digest)| {
            let same = bool::from(digest.ct_eq(&shown));
            if same { Some(holder) } else { found }
        })
    }
}

fn open_to_others(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, secret: Secret) -> ApiKey {
        ApiKey { id: id.into(), secret, role: Role::Read }
    }

    #[test]
    fn a_key_is_known_by_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef0123\n").unwrap();
        let keys = [key("a", Secret::Here("short".into())), key("b", Secret::InFile(file))];
        let (known, odd) = Keys::load(&keys).unwrap();
        assert_eq!(known.holder("short").unwrap().id, "a");
        assert_eq!(known.holder("0123456789abcdef0123").unwrap().id, "b");
        for wrong in ["", "shor", "shorter", "Short", "0123456789abcdef0123\n"] {
            assert_eq!(known.holder(wrong), None, "{wrong:?}");
        }
        assert!(odd.iter().any(|sentence| sentence.contains("the key a is short")), "{odd:?}");
        assert!(odd.iter().any(|sentence| sentence.contains("chmod 600")), "{odd:?}");
    }

    #[test]
    fn keys_that_cannot_be_told_apart_or_read_are_refused() {
        let twice = [key("a", Secret::Here("same".into())), key("b", Secret::Here("same".into()))];
        assert!(Keys::load(&twice).err().unwrap().contains("another id"));
        let absent = Keys::load(&[key("a", Secret::InFile("/nowhere".into()))]).err().unwrap();
        assert!(absent.contains("/nowhere: there is no such file"), "{absent}");
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("key");
        std::fs::write(&empty, "\n").unwrap();
        assert!(Keys::load(&[key("a", Secret::InFile(empty))]).err().unwrap().contains("is empty"));
    }
}
