//! What an agent saw when it tried something, and the words a test uses for what it should have seen.

use std::fmt;
use std::time::Duration;

/// A refusal that takes longer is not the fast refusal that is promised (the lab's links have no delay).
pub const FAST: Duration = Duration::from_millis(200);

/// Why something was called unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ICMP type 3 code 9, 10 or 13; ICMPv6 type 1 code 1.
    AdminProhibited,
    /// ICMP type 3 code 3; ICMPv6 type 1 code 4: nobody listens, which is no policy's doing.
    Port,
    /// Another ICMP error.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// The system said so without the message that made it say so (TCP hides it).
    Errno(i32),
}

/// What happened. Times run from the first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Data came back.
    Reached {
        /// Until the answer was there.
        after: Duration,
        /// How many bytes came back.
        bytes: usize,
    },
    /// A TCP reset instead of a connection.
    Refused {
        /// Until the reset.
        after: Duration,
    },
    /// An ICMP error.
    Unreachable {
        /// Until the error.
        after: Duration,
        /// Which.
        kind: Kind,
    },
    /// Connected, and then reset or silent before data came back.
    Cut {
        /// Until it was over.
        after: Duration,
    },
    /// Nothing at all came back.
    TimedOut,
    /// The name gave no address, so nothing was tried.
    Unresolved {
        /// Until the DNS answer; `None`: there was none.
        after: Option<Duration>,
        /// The response code in words, or "no answer".
        code: String,
        /// Extended DNS Error of the answer: code and text.
        ede: Option<(u16, String)>,
    },
}

impl Outcome {
    /// Whether data came back.
    pub fn reached(&self) -> bool {
        matches!(self, Self::Reached { .. })
    }

    /// Until the verdict was known; `None` for silence.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Reached { after, .. }
            | Self::Refused { after }
            | Self::Unreachable { after, .. }
            | Self::Cut { after } => Some(*after),
            Self::Unresolved { after, .. } => *after,
            Self::TimedOut => None,
        }
    }

    /// Panics unless data came back.
    #[track_caller]
    pub fn must_reach(&self) {
        assert!(self.reached(), "should get through, got: {self}");
    }

    /// Panics unless this is a fast TCP reset.
    #[track_caller]
    pub fn must_be_reset(&self) {
        assert!(matches!(self, Self::Refused { after } if *after < FAST), "should be reset at once, got: {self}");
    }

    /// Panics unless this is a fast administratively-prohibited.
    #[track_caller]
    pub fn must_be_prohibited(&self) {
        let right = matches!(self, Self::Unreachable { after, kind: Kind::AdminProhibited } if *after < FAST);
        assert!(right, "should be administratively prohibited at once, got: {self}");
    }

    /// Panics unless nothing came back.
    #[track_caller]
    pub fn must_time_out(&self) {
        assert_eq!(*self, Self::TimedOut, "should meet silence, got: {self}");
    }

    /// Panics unless the name was refused fast, with NXDOMAIN and Extended DNS Error 15 (Blocked) and a reason.
    #[track_caller]
    pub fn must_be_blocked_by_name(&self) {
        let right = matches!(self, Self::Unresolved { after: Some(after), code, ede: Some((15, text)) }
            if *after < FAST && code == "NXDOMAIN" && !text.is_empty());
        assert!(right, "should be NXDOMAIN with EDE 15 and a reason at once, got: {self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached { after, bytes } => write!(f, "reached ({bytes} bytes back after {after:.1?})"),
            Self::Refused { after } => write!(f, "TCP reset after {after:.1?}"),
            Self::Unreachable { after, kind: Kind::AdminProhibited } => {
                write!(f, "administratively prohibited after {after:.1?}")
            }
            Self::Unreachable { after, kind: Kind::Port } => write!(f, "port unreachable after {after:.1?}"),
            Self::Unreachable { after, kind } => write!(f, "unreachable ({kind:?}) after {after:.1?}"),
            Self::Cut { after } => write!(f, "cut after {after:.1?}"),
            Self::TimedOut => f.write_str("silence"),
            Self::Unresolved { code, ede: Some((ede, text)), .. } => write!(f, "{code}, EDE {ede} ({text})"),
            Self::Unresolved { code, ede: None, .. } => f.write_str(code),
        }
    }
}
