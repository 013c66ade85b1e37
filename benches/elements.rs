//! A hundred thousand addresses of a set changed for others in one transaction: by our writer, by `nft -f`, and by a batch
//! that was encoded before and is only sent. All three ask the same of the kernel: empty the set, fill it.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use clawgress::nft::{Kernel, Options};
use clawgress::plan::ir::{Data, DataType, Family, Ident, Key, KeyType, SetSpec, Value};
use clawgress::plan::ops::Op;
use measure::{Table, bar, first_in_line, median, order, ratio, rounds, spread, timed};

const SIZE: u32 = 100_000;
const SET: &str = "many";
/// The bars: `nft -f` to us, us to the bare batch.
const FASTER: f64 = 4.0;
const ABOVE_BARE: f64 = 1.3;

fn main() {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("SKIP: this benchmark needs root");
        return;
    }
    first_in_line();
    let mut kernel = Kernel::open(Options { own_table: false, ..Options::default() }).expect("the packet filter");
    let spec = SetSpec {
        key: KeyType::Address(Family::V4),
        data: DataType::None,
        interval: false,
        timeout: false,
        counter: false,
        size: None,
    };
    kernel.commit(&[Op::AddTable, Op::AddSet(Ident::from(SET), spec)]).expect("a table");
    let bare = Bare::open();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds() {
        for variant in order(round, times.len()) {
            // Other addresses than the ones that are there.
            let addresses = addresses(round * times.len() + variant);
            let time = match variant {
                0 => {
                    let ops = ops(&addresses);
                    timed(|| kernel.commit(&ops).expect("it is taken")).1
                }
                1 => {
                    let text = text(&addresses);
                    timed(|| nft(&text)).1
                }
                _ => {
                    let batch = batch(&addresses);
                    timed(|| bare.transact(&batch)).1
                }
            };
            times[variant].push(time);
            let held = kernel.read().expect("readable").expect("the table");
            assert_eq!(held.sets[SET].elements.len(), addresses.len(), "all of them and no others");
        }
    }
    let [ours, nft, bare] = &times;
    let mut table = Table::new(
        &format!("{SIZE} addresses of a set, changed for others in one transaction"),
        &["by", "median ms", "spread", "to ours", "bar"],
    );
    let row = |who: &str, times: &[f64], bar: String| {
        let own = format!("{:.2}", ratio(times, ours));
        [who.to_owned(), format!("{:.1}", median(times)), spread(times, 0), own, bar]
    };
    table.row(row("Clawgress", ours, String::new()));
    table.row(row("nft -f", nft, bar(ratio(nft, ours) >= FASTER, "≥ 4")));
    table.row(row("a batch encoded before", bare, bar(ratio(ours, bare) <= ABOVE_BARE, "≥ 0.77")));
    table.print();
}

fn addresses(turn: usize) -> Vec<Ipv4Addr> {
    let first = 0x0a00_0000 + u32::try_from(turn).expect("few rounds") * SIZE;
    // In no order that a hash would like.
    (0..SIZE).map(|nth| Ipv4Addr::from(first + nth.wrapping_mul(7919) % SIZE)).collect()
}

fn ops(addresses: &[Ipv4Addr]) -> Vec<Op> {
    let elements = addresses.iter().map(|address| (Key::Address(IpAddr::V4(*address)), Value::plain(Data::None)));
    vec![Op::FlushSet(Ident::from(SET)), Op::AddElements(Ident::from(SET), elements.collect())]
}

fn text(addresses: &[Ipv4Addr]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("flush set inet clawgress {SET}\nadd element inet clawgress {SET} {{ {} }}\n", list.join(", "))
}

fn nft(text: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("nft reads");
    assert!(child.wait().expect("nft ends").success());
}

/// A netlink socket without anything around it.
struct Bare(OwnedFd);

impl Bare {
    fn open() -> Self {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let socket = socket.expect("a socket");
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("it is bound");
        setsockopt(&socket, sockopt::SndBufForce, &(64 << 20)).expect("root may");
        Self(socket)
    }

    fn transact(&self, batch: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), batch, MsgFlags::empty()), Ok(batch.len()));
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        // nlmsghdr, and behind it the error number: NLMSG_ERROR with 0 is an acknowledgement.
        assert!(length >= 20 && answer[4] == 2 && answer[16..20] == [0; 4], "{:?}", &answer[..length.min(24)]);
    }
}

/// Elements of one message: the length of its list has 16 bits.
const PIECE: usize = 2048;
const NESTED: u16 = 0x8000;
/// `NLM_F_REQUEST`, `_ACK`, `_CREATE`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
/// Types of linux/netfilter/nfnetlink.h and nf_tables.h: the batch's marks, and elements new and gone.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_ELEMENTS: u16 = 0xa0c;
const DEL_ELEMENTS: u16 = 0xa0e;

fn batch(addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, BEGIN, 0, 0, 10, |_| {});
    message(&mut out, DEL_ELEMENTS, 0, 1, 0, names);
    let pieces: Vec<&[Ipv4Addr]> = addresses.chunks(PIECE).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let ack = if index + 1 == pieces.len() { ACK } else { 0 };
        message(&mut out, NEW_ELEMENTS, CREATE | ack, 1, 0, |out| {
            names(out);
            nested(out, 3, |out| {
                for address in *piece {
                    nested(out, 1, |out| nested(out, 1, |out| attribute(out, 1, &address.octets())));
                }
            });
        });
    }
    message(&mut out, END, 0, 0, 10, |_| {});
    out
}

fn names(out: &mut Vec<u8>) {
    attribute(out, 1, b"clawgress\0");
    attribute(out, 2, format!("{SET}\0").as_bytes());
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
