//! Signatures on messages between name servers (TSIG, RFC 8945). The hashes are ring's, which the TLS of the upstreams
//! brings along; here is only what they are over.

use data_encoding::BASE64;
use ring::hmac;

use super::request::{ANY, HEADER, Signature, TSIG, wire_name};

/// Seconds by which clocks may differ (RFC 8945 section 10: 300 is recommended).
const FUDGE: u16 = 300;
/// The shortest secret, octets: a shorter one can be guessed.
const MIN_SECRET: usize = 16;

pub(super) const NO_ERROR: u16 = 0;
pub(super) const BAD_SIGNATURE: u16 = 16;
pub(super) const BAD_KEY: u16 = 17;
pub(super) const BAD_TIME: u16 = 18;
pub(super) const BAD_TRUNCATION: u16 = 22;

/// A hash for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256
    Sha256,
    /// HMAC-SHA-384
    Sha384,
    /// HMAC-SHA-512
    Sha512,
}

impl Algorithm {
    /// Its name (RFC 8945 section 6).
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    fn hash(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A secret that two name servers share, with its name. Its `Debug` form does not show it.
#[derive(Clone, Debug)]
pub struct Key {
    name: Vec<u8>,
    algorithm: Vec<u8>,
    secret: hmac::Key,
}

impl Key {
    /// A key of this name with a secret in base 64, as `tsig-keygen` and `keymgr` write it.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence about the key.
    pub fn new(name: &str, algorithm: Algorithm, secret: &str) -> Result<Self, String> {
        let wire = wire_name(name).ok_or("has a name that is no domain name")?;
        let secret = BASE64.decode(secret.trim_ascii().as_bytes());
        let secret = secret.map_err(|_| "is not in base 64; make one with: openssl rand -base64 32")?;
        if secret.len() < MIN_SECRET {
            return Err("is short and can be guessed; make one with: openssl rand -base64 32".to_owned());
        }
        let algorithm_name = wire_name(algorithm.name()).unwrap_or_default();
        Ok(Self { name: wire, algorithm: algorithm_name, secret: hmac::Key::new(algorithm.hash(), &secret) })
    }
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Another key or algorithm.
    Key,
    /// Made with another secret, or over other octets.
    Signature,
    /// Right, and too old or too young.
    Time,
    /// Cut off more than we take.
    Truncated,
    /// No length that a signature can have.
    Malformed,
}

impl Wrong {
    /// The error in the TSIG record (RFC 8945 section 3).
    pub fn code(self) -> u16 {
        match self {
            Self::Key => BAD_KEY,
            Self::Signature => BAD_SIGNATURE,
            Self::Time => BAD_TIME,
            Self::Truncated => BAD_TRUNCATION,
            Self::Malformed => NO_ERROR,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Key => "another key or algorithm (BADKEY)",
            Self::Signature => "a signature that does not fit: another secret? (BADSIG)",
            Self::Time => "a signature of another time: see both clocks (BADTIME)",
            Self::Truncated => "a signature that is cut off (BADTRUNC)",
            Self::Malformed => "a signature that is none",
        }
    }
}

/// Checks the signature of a message. `request`: the signature of the message that it answers. The order of the checks is
/// that of RFC 8945 section 5.2: key, signature, time.
pub(super) fn verify(
    message: &[u8],
    signature: &Signature,
    key: &Key,
    request: Option<&[u8]>,
    now: u64,
) -> Result<(), Wrong> {
    if signature.key != key.name || signature.algorithm != key.algorithm {
        return Err(Wrong::Key);
    }
    let whole = key.secret.algorithm().digest_algorithm().output_len();
    if signature.mac.len() > whole || signature.mac.len() < (whole / 2).max(10) {
        return Err(Wrong::Malformed);
    }
    // The end of the records without this one, under the number the message was sent with.
    let additionals = u16::from_be_bytes([message[10], message[11]]).wrapping_sub(1);
    let mut over = request.map(with_length).unwrap_or_default();
    over.extend(signature.original_id.to_be_bytes());
    over.extend(&message[2..10]);
    over.extend(additionals.to_be_bytes());
    over.extend(&message[HEADER..signature.begins]);
    over.extend(variables(key, signature.time, signature.fudge, signature.error, &signature.other));
    if signature.mac.len() == whole {
        hmac::verify(&key.secret, &over, &signature.mac).map_err(|_| Wrong::Signature)?;
    } else {
        return Err(Wrong::Truncated);
    }
    if now.abs_diff(signature.time) > signature.fudge.into() {
        return Err(Wrong::Time);
    }
    Ok(())
}

fn with_length(mac: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(mac.len()).unwrap_or(0).to_be_bytes().to_vec();
    out.extend(mac);
    out
}

/// What a signature is over besides the message (RFC 8945 section 4.3.3).
fn variables(key: &Key, time: u64, fudge: u16, error: u16, other: &[u8]) -> Vec<u8> {
    let mut out = key.name.clone();
    out.extend(ANY.to_be_bytes());
    out.extend([0; 4]);
    out.extend(&key.algorithm);
    out.extend(timers(time, fudge));
    out.extend(error.to_be_bytes());
    out.extend(with_length(other));
    out
}

/// Time and fudge, the whole of it where a message follows another (RFC 8945 section 5.3.1).
fn timers(time: u64, fudge: u16) -> [u8; 8] {
    let mut out = [0; 8];
    out[..6].copy_from_slice(&time.to_be_bytes()[2..]);
    out[6..].copy_from_slice(&fudge.to_be_bytes());
    out
}

/// Signs the messages of one answer, each over the signature before it. Every message is signed: that is more than
/// RFC 8945 section 5.3.1 asks for, and whoever reads knows at each that it is ours.
pub(super) struct Signer {
    key: Key,
    before: Option<Vec<u8>>,
    follows: bool,
}

impl Signer {
    /// For a message of our own.
    pub fn fresh(key: &Key) -> Self {
        Self { key: key.clone(), before: None, follows: false }
    }

    /// For the answer to a message with this signature.
    pub fn answer(key: &Key, request: &Signature) -> Self {
        Self { key: key.clone(), before: Some(request.mac.clone()), follows: false }
    }

    /// Appends the record; gives the signature.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) -> Vec<u8> {
        self.sign_with(message, now, NO_ERROR, &[])
    }

    /// As [`Signer::sign`], with an error and what else it tells.
    pub fn sign_with(&mut self, message: &mut Vec<u8>, time: u64, error: u16, other: &[u8]) -> Vec<u8> {
        let mut over = self.before.as_deref().map(with_length).unwrap_or_default();
        over.extend(&*message);
        if self.follows {
            over.extend(timers(time, FUDGE));
        } else {
            over.extend(variables(&self.key, time, FUDGE, error, other));
        }
        let mac = hmac::sign(&self.key.secret, &over).as_ref().to_vec();
        append(message, [&self.key.name, &self.key.algorithm], time, &mac, error, other);
        self.follows = true;
        self.before = Some(mac.clone());
        mac
    }
}

/// Appends a TSIG record without a signature, which tells that the one of the request is not good (RFC 8945 section 5.2).
pub(super) fn append_unsigned(message: &mut Vec<u8>, request: &Signature, error: u16, now: u64) {
    append(message, [&request.key, &request.algorithm], now, &[], error, &[]);
}

fn append(message: &mut Vec<u8>, names: [&[u8]; 2], time: u64, mac: &[u8], error: u16, other: &[u8]) {
    let id = [message[0], message[1]];
    let [key, algorithm] = names;
    let mut data = algorithm.to_vec();
    data.extend(timers(time, FUDGE));
    data.extend(with_length(mac));
    data.extend(id);
    data.extend(error.to_be_bytes());
    data.extend(with_length(other));
    message.extend(key);
    message.extend(TSIG.to_be_bytes());
    message.extend(ANY.to_be_bytes());
    message.extend([0; 4]);
    message.extend(with_length(&data));
    let additionals = u16::from_be_bytes([message[10], message[11]]).wrapping_add(1);
    message[10..12].copy_from_slice(&additionals.to_be_bytes());
}
