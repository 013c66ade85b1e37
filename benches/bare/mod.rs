//! The same changes as batches of octets that were made before and are only sent: what the kernel takes whoever asks.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

/// A netlink socket without anything around it.
pub struct Bare(OwnedFd);

impl Bare {
    /// Ready to send.
    pub fn open() -> Self {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let socket = socket.expect("a socket");
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("it is bound");
        setsockopt(&socket, sockopt::SndBufForce, &(64 << 20)).expect("root may");
        Self(socket)
    }

    /// Sends one transaction and waits until the kernel has taken it.
    pub fn transact(&self, batch: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), batch, MsgFlags::empty()), Ok(batch.len()));
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        // nlmsghdr, and behind it the error number: NLMSG_ERROR with 0 is an acknowledgement.
        assert!(length >= 20 && answer[4] == 2 && answer[16..20] == [0; 4], "{:?}", &answer[..length.min(24)]);
    }
}

/// Elements of one message: the length of its list has 16 bits.
const PIECE: usize = 2048;
/// Elements of one transaction of ours.
const TRANSACTION: usize = 2048;
const NESTED: u16 = 0x8000;
/// `NLM_F_REQUEST`, `_ACK`, `_CREATE`, `_APPEND`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Types of linux/netfilter/nfnetlink.h and nf_tables.h: the batch's marks, rules, sets and elements, new and gone.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_RULE: u16 = 0xa06;
const DEL_RULE: u16 = 0xa08;
const NEW_SET: u16 = 0xa09;
const DEL_SET: u16 = 0xa0b;
const NEW_ELEMENTS: u16 = 0xa0c;
const DEL_ELEMENTS: u16 = 0xa0e;
const TABLE: &[u8] = b"clawgress\0";

/// A set emptied and filled in one transaction.
pub fn refilled(set: &str, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, BEGIN, 0, 0, 10, |_| {});
    message(&mut out, DEL_ELEMENTS, 0, 1, 0, |out| of_set(out, set));
    add(&mut out, set, addresses);
    message(&mut out, END, 0, 0, 10, |_| {});
    out
}

/// A set made for just so many elements and filled, a transaction after the other; the one rule of `chain` led to it
/// instead of to `old`; and that one removed.
pub fn replaced(chain: &str, old: &str, new: &str, addresses: &[Ipv4Addr]) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    for (nth, some) in addresses.chunks(TRANSACTION).enumerate() {
        let mut out = Vec::new();
        message(&mut out, BEGIN, 0, 0, 10, |_| {});
        if nth == 0 {
            message(&mut out, NEW_SET, CREATE, 1, 0, |out| {
                of_set(out, new);
                // Flags, the key's type and length, how many, and the number within the batch.
                number(out, 3, 0);
                number(out, 4, 7);
                number(out, 5, 4);
                nested(out, 9, |out| number(out, 1, u32::try_from(addresses.len()).expect("a set")));
                number(out, 10, 1);
            });
        }
        add(&mut out, new, some);
        message(&mut out, END, 0, 0, 10, |_| {});
        batches.push(out);
    }
    let mut out = Vec::new();
    message(&mut out, BEGIN, 0, 0, 10, |_| {});
    let of_chain = |out: &mut Vec<u8>| {
        attribute(out, 1, TABLE);
        attribute(out, 2, &text(chain));
    };
    message(&mut out, DEL_RULE, 0, 1, 0, of_chain);
    message(&mut out, NEW_RULE, CREATE | APPEND | ACK, 1, 0, |out| {
        of_chain(out);
        nested(out, 4, |out| lookup(out, new));
    });
    message(&mut out, END, 0, 0, 10, |_| {});
    batches.push(std::mem::take(&mut out));
    message(&mut out, BEGIN, 0, 0, 10, |_| {});
    message(&mut out, DEL_SET, ACK, 1, 0, |out| of_set(out, old));
    message(&mut out, END, 0, 0, 10, |_| {});
    batches.push(out);
    batches
}

/// `ip daddr @set accept`.
fn lookup(out: &mut Vec<u8>, set: &str) {
    let mut expression = |name: &[u8], body: &dyn Fn(&mut Vec<u8>)| {
        nested(out, 1, |out| {
            attribute(out, 1, name);
            nested(out, 2, body);
        });
    };
    // Register, the network header, its octets 16 to 19.
    expression(b"payload\0", &|out| {
        for (kind, value) in [(1, 1), (2, 1), (3, 16), (4, 4)] {
            number(out, kind, value);
        }
    });
    expression(b"lookup\0", &|out| {
        attribute(out, 1, &text(set));
        number(out, 2, 1);
    });
    expression(b"immediate\0", &|out| {
        number(out, 1, 0);
        nested(out, 2, |out| nested(out, 2, |out| number(out, 1, 1)));
    });
}

/// Elements; the last message asks for an answer.
fn add(out: &mut Vec<u8>, set: &str, addresses: &[Ipv4Addr]) {
    let pieces: Vec<&[Ipv4Addr]> = addresses.chunks(PIECE).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let ack = if index + 1 == pieces.len() { ACK } else { 0 };
        message(out, NEW_ELEMENTS, CREATE | ack, 1, 0, |out| {
            of_set(out, set);
            nested(out, 3, |out| {
                for address in *piece {
                    nested(out, 1, |out| nested(out, 1, |out| attribute(out, 1, &address.octets())));
                }
            });
        });
    }
}

fn of_set(out: &mut Vec<u8>, set: &str) {
    attribute(out, 1, TABLE);
    attribute(out, 2, &text(set));
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn message(out: &mut Vec<u8>, kind: u16, flags: u16, family: u8, resource: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    body(out);
    let length = u32::try_from(out.len() - start).expect("a message");
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn nested(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    body(out);
    let length = u16::try_from(out.len() - start).expect("a piece");
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&u16::try_from(value.len() + 4).expect("short").to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
