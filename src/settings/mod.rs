//! `clawgress.toml`: where things are and how the gateway's DNS is reached (SPEC section 4). Everything about *who may
//! talk to what* is in the policy, not here.
//!
//! [`parse`] is pure: text to [`Settings`], or to every mistake in it, each with line and key. The file is found and read
//! by [`crate::store::load_settings`].

mod keys;
mod reader;
mod rpz;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use keys::parse;
pub use rpz::{Hash, Rpz, Secondary, TransferKey};

/// Where the settings are looked for when nobody names a file, first come first served: the one that a router's
/// configuration renders, then the one that people edit.
pub const DEFAULT_FILES: [&str; 2] = ["/run/clawgress/clawgress.toml", "/etc/clawgress/clawgress.toml"];

/// The name of the control socket in the runtime directory.
pub const SOCKET_NAME: &str = "clawgress.sock";

/// Octets in the megabytes of `log.keep_megabytes`.
pub const MEGABYTE: u64 = 1 << 20;
/// The days of `log.keep_days`.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// A busy gateway writes some ten of them a day.
const DEFAULT_KEEP_MEGABYTES: u64 = 64;
const DEFAULT_KEEP_DAYS: u32 = 30;
/// Some ten times what a busy agent asks for.
const DEFAULT_QUERIES_PER_SECOND: u32 = 2000;

/// The longest path of a Unix socket, bytes (`sun_path` without its closing zero, unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// The settings, every value legal, absent ones filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file with the stored policy. Absolute.
    pub policy: PathBuf,
    /// Revisions and what else outlives the daemon. Absolute.
    pub state_dir: PathBuf,
    /// The control socket's directory. Absolute.
    pub runtime_dir: PathBuf,
    /// The gateway's DNS.
    pub dns: Dns,
    /// The zones for other name servers.
    pub rpz: Rpz,
    /// The REST API.
    pub api: Api,
    /// The decision log.
    pub log: Log,
    /// The kernel's table.
    pub kernel: Kernel,
    /// What the file asks for and has no effect, one sentence each, for the daemon to log.
    pub not_yet: Vec<String>,
    /// Where the settings are from.
    pub source: Source,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Addresses to listen on. Never empty, no port 0, none twice.
    pub listen: Vec<SocketAddr>,
    /// Where allowed names are asked, as written; `None`: the servers of `/etc/resolv.conf`. Never an empty list.
    pub upstreams: Option<Vec<String>>,
    /// Whether port-53 traffic in scope comes to the gateway's DNS whatever its destination.
    pub redirect: bool,
    /// Queries from outside the scope.
    pub out_of_scope: OutOfScope,
    /// Queries a second that one host may ask; `None`: as many as it likes.
    pub queries_per_second: Option<NonZeroU32>,
    /// Threads that take queries off each address; `None`: as many as there are processors.
    pub receivers: Option<NonZeroUsize>,
}

/// What happens to queries that reach the listener from outside the policy's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfScope {
    /// They are refused.
    Refuse,
    /// They are answered without filter.
    Forward,
}

/// `[api]`: served if there is a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Certificate and key files; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Who may call.
    pub keys: Vec<ApiKey>,
    /// Whether `GET /metrics` answers.
    pub metrics: bool,
}

/// Certificate and private key, PEM files. Absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// One key of the REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The name by which logs call it.
    pub id: String,
    /// The secret, or where it is.
    pub secret: Secret,
    /// What it may do.
    pub role: Role,
}

/// A secret, here or in a file. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Written in the settings.
    Here(String),
    /// In a file of its own.
    InFile(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here(…)"),
            Self::InFile(path) => write!(f, "InFile({})", path.display()),
        }
    }
}

/// What a key of the REST API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ask.
    Read,
    /// Ask and change.
    Write,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Which decisions are recorded.
    pub decisions: Decisions,
    /// Room that the records may take on disk, octets.
    pub keep_bytes: u64,
    /// How long they are kept.
    pub keep_age: Duration,
}

/// Which decisions are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decisions {
    /// All.
    All,
    /// Those that block.
    Block,
    /// None.
    None,
}

/// `[kernel]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether the daemon owns the table where the kernel can say so (6.9 and later): nobody else can change it then.
    pub lock_table: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: "/config/clawgress/policy.json".into(),
            state_dir: "/var/lib/clawgress".into(),
            runtime_dir: "/run/clawgress".into(),
            dns: Dns::default(),
            rpz: Rpz::default(),
            api: Api::default(),
            log: Log {
                decisions: Decisions::Block,
                keep_bytes: DEFAULT_KEEP_MEGABYTES * MEGABYTE,
                keep_age: DAY * DEFAULT_KEEP_DAYS,
            },
            kernel: Kernel { lock_table: true },
            not_yet: Vec::new(),
            source: Source::Defaults,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        let port = 53;
        Self {
            listen: vec![
                (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
                (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            ],
            upstreams: None,
            redirect: true,
            out_of_scope: OutOfScope::Refuse,
            queries_per_second: NonZeroU32::new(DEFAULT_QUERIES_PER_SECOND),
            receivers: None,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        let port = 8787;
        Self { listen: (std::net::Ipv4Addr::LOCALHOST, port).into(), tls: None, keys: Vec::new(), metrics: false }
    }
}

impl Settings {
    /// What a text with mistakes still tells of where the files are; everything else as if it said nothing.
    pub fn salvaged(text: &str) -> Self {
        let table: toml::Table = text.parse().unwrap_or_default();
        let path = |key: &str| table.get(key)?.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
        let Self { policy, state_dir, .. } = Self::default();
        let (policy, state_dir) = (path("policy").unwrap_or(policy), path("state_dir").unwrap_or(state_dir));
        Self { policy, state_dir, ..Self::default() }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.runtime_dir)
    }
}

/// Where settings are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the file that the user named.
    Named(PathBuf),
    /// From the first of [`DEFAULT_FILES`] that exists.
    Found(PathBuf),
    /// There is no file.
    Defaults,
}

impl Source {
    /// The file that the user named.
    pub fn named(&self) -> Option<&Path> {
        match self {
            Self::Named(path) => Some(path),
            Self::Found(_) | Self::Defaults => None,
        }
    }
}

/// The control socket in a runtime directory.
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET_NAME)
}

/// One mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; `None`: the mistake has no place.
    pub line: Option<usize>,
    /// The key, such as `dns.listen[1]`; empty: the text as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    /// One line: place, message and hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

#[cfg(test)]
mod tests;
