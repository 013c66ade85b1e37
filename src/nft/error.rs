//! What can go wrong between us and the kernel, in the words of someone who runs a gateway.

use nix::errno::Errno;

use crate::plan::ir::{ObjectKind, TABLE};
use crate::plan::ops::Op;

/// What a daemon can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The process lacks CAP_NET_ADMIN, or another process owns the table.
    NotPermitted,
    /// The kernel has no nf_tables.
    NoNfTables,
    /// The kernel has no NFLOG, so it refuses rules that log, too.
    NoPacketLog,
    /// The table is there without an owner, so that this process cannot become its owner: drop it or go on without.
    NotAdoptable,
    /// The kernel refused an operation; nothing changed.
    Refused,
    /// The transaction is larger than the kernel takes at once; nothing changed.
    TooLarge,
    /// Answers were lost or made no sense: what the kernel holds is not known until it is read.
    Unknown,
}

/// An operation that the kernel did not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct KernelError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// Which of the operations of the transaction failed; `None`: not one alone.
    pub op_index: Option<usize>,
    /// The kernel's error number (`errno.h`); 0: the error was found before asking the kernel.
    pub errno: i32,
    /// For people.
    pub what: String,
}

impl KernelError {
    /// The error number as a name.
    #[must_use]
    pub fn errno(&self) -> Errno {
        Errno::from_raw(self.errno)
    }

    /// Something was asked for that cannot be encoded; the kernel was not asked.
    pub(super) fn invalid(op_index: Option<usize>, what: String) -> Self {
        Self { kind: ErrorKind::Refused, op_index, errno: 0, what }
    }

    /// A system call on the socket failed.
    pub(super) fn socket(doing: &str, errno: Errno) -> Self {
        let kind = match errno {
            Errno::EPERM | Errno::EACCES => ErrorKind::NotPermitted,
            Errno::EMSGSIZE => ErrorKind::TooLarge,
            Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => ErrorKind::NoNfTables,
            _ => ErrorKind::Unknown,
        };
        Self { kind, op_index: None, errno: errno as i32, what: format!("cannot {doing}: {}", reason(errno)) }
    }

    /// The kernel's answer made no sense or did not come.
    pub(super) fn unknown(what: &str) -> Self {
        Self { kind: ErrorKind::Unknown, op_index: None, errno: 0, what: what.to_owned() }
    }

    /// The kernel refused `doing` for a reason that may come with a message of its own.
    pub(super) fn refused(op_index: Option<usize>, doing: &str, errno: Errno, hint: Option<&str>) -> Self {
        let kind = match errno {
            Errno::EPERM => ErrorKind::NotPermitted,
            _ => ErrorKind::Refused,
        };
        let mut what = format!("the kernel refused to {doing}: {}", reason(errno));
        if let Some(hint) = hint {
            what.push_str(&format!(" (kernel: {hint})"));
        }
        Self { kind, op_index, errno: errno as i32, what }
    }
}

/// Error numbers in words that say what to do.
pub(super) fn reason(errno: Errno) -> String {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            format!(
                "not permitted; run as root or with CAP_NET_ADMIN, and check that no other process owns table inet {TABLE}"
            )
        }
        Errno::ENOENT => "something it names is not there; read the table again".to_owned(),
        Errno::EEXIST => "something of that name or key is there with other content; read the table again".to_owned(),
        Errno::EBUSY => "it is still referred to; remove the rules and elements that name it first".to_owned(),
        Errno::ENFILE => "the set is full; raise its size or remove elements".to_owned(),
        Errno::EOPNOTSUPP => "this kernel does not support it; see the list of kernel options in the manual".to_owned(),
        Errno::EMSGSIZE => "too much for one transaction; split it".to_owned(),
        Errno::ENOMEM => "out of memory".to_owned(),
        Errno::ENOBUFS => "answers were lost; read the table again".to_owned(),
        Errno::ELOOP | Errno::EMLINK => "chains jump in a circle or too deep".to_owned(),
        other => format!("{} ({})", other.desc().to_lowercase(), other as i32),
    }
}

/// An operation in words that follow "refused to".
pub(super) fn describe(op: &Op) -> String {
    match op {
        Op::AddTable => format!("add table inet {TABLE}"),
        Op::DelTable => format!("remove table inet {TABLE}"),
        Op::AddChain(name, None) => format!("add chain {name}"),
        Op::AddChain(name, Some(_)) => format!("add base chain {name}"),
        Op::DelChain(name) => format!("remove chain {name}"),
        Op::FlushChain(name) => format!("empty chain {name}"),
        Op::AddRule(chain, rule) => format!("add rule \"{}\" to chain {chain}", crate::plan::text::render_rule(rule)),
        Op::AddObject(name, object) => match object.kind() {
            ObjectKind::Quota => format!("add quota {name}"),
            ObjectKind::Counter => format!("add counter {name}"),
        },
        Op::SetQuota(name, limit) => format!("set quota {name} to {limit} bytes"),
        Op::DelObject(name, _) => format!("remove object {name}"),
        Op::AddSet(name, _) => format!("add set {name}"),
        Op::DelSet(name) => format!("remove set {name}"),
        Op::FlushSet(name) => format!("empty set {name}"),
        Op::Fill(name, elements) => format!("add {} to set {name}", count(elements.len())),
        Op::AddElements(name, elements) => format!("add {} to set {name}", count(elements.len())),
        Op::DelElements(name, keys) => format!("remove {} from set {name}", count(keys.len())),
        Op::PutElements(name, elements) => format!("put {} into set {name}", count(elements.len())),
    }
}

fn count(number: usize) -> String {
    if number == 1 { "1 element".to_owned() } else { format!("{number} elements") }
}
