//! The single expressions that rules are made of.

use std::ffi::{CStr, CString};
use std::net::IpAddr;

use nftnl::nftnl_sys as sys;

use super::library::{Expr, Field as Value};
use crate::plan::ir::{Direction, End, Family, Field, Ident, Op, Verdict};

/// The first data register (`NFT_REG_1`): 16 octets.
pub(super) const FIRST: u32 = 1;
/// The second 4-octet register (`NFT_REG32_01`): where the address of a `mark . address` key goes.
pub(super) const BEHIND_MARK: u32 = 9;
/// The second 16-octet register (`NFT_REG_2`).
const SECOND: u32 = 2;
/// `NFT_REG_VERDICT`.
pub(super) const VERDICT: u32 = 0;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
pub(super) const NAT_PORT: u32 = 2;
/// Octets of an interface name in a register (`IFNAMSIZ`).
const NAME: usize = libc::IFNAMSIZ;
/// `RTN_LOCAL`, the type of route that `fib` gives for an own address.
pub(super) const LOCAL: u32 = libc::RTN_LOCAL as u32;
// `NFTA_FIB_F_*`.
pub(super) const FIB_SOURCE: u32 = 1;
pub(super) const FIB_DESTINATION: u32 = 2;
pub(super) const FIB_INPUT: u32 = 8;
pub(super) const FIB_PRESENT: u32 = 32;
// `NFT_FIB_RESULT_*`.
pub(super) const FIB_INTERFACE: u32 = 1;
pub(super) const FIB_NAME: u32 = 2;
pub(super) const FIB_TYPE: u32 = 3;
// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
pub(super) const REJECT_RESET: u32 = 1;
pub(super) const REJECT_ICMPX: u32 = 2;
pub(super) const ADMIN_PROHIBITED: u8 = 3;

// `NFT_OBJECT_*`.
pub(super) const OBJECT_COUNTER: u32 = super::uapi::object::COUNTER;
pub(super) const OBJECT_QUOTA: u32 = super::uapi::object::QUOTA;
/// `NFT_LIMIT_F_INV`: the rule goes on where there are too few tokens.
const LIMIT_OVER: u32 = 1;
/// `NFT_LIMIT_PKTS`.
const LIMIT_PACKETS: u32 = 0;
/// `NFT_LIMIT_PKT_BYTES`.
const LIMIT_BYTES: u32 = 1;
/// A rate's unit of one second.
const SECOND_UNIT: u64 = 1;

/// A name as a C string.
pub(super) fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a zero octet; choose another name"))
}

/// A rule in the making.
#[derive(Default)]
pub(super) struct Build {
    pub(super) out: Vec<Expr>,
    /// The family that the conditions so far leave, if they tell.
    family: Option<Family>,
}

impl Build {
    pub(super) fn push(&mut self, name: &'static CStr, fields: Vec<(u32, Value)>) {
        self.out.push(Expr { name, fields });
    }

    /// The header of the other family has other octets in the place of an address: ask for the family once.
    pub(super) fn depend(&mut self, field: Field) {
        if let Field::Packet(family, _) = field
            && self.family != Some(family)
        {
            self.nfproto(family);
        }
    }

    pub(super) fn nfproto(&mut self, family: Family) {
        self.family = Some(family);
        let number = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        self.meta_is(libc::NFT_META_NFPROTO, &[number as u8]);
    }

    pub(super) fn load(&mut self, field: Field, register: u32) {
        match field {
            Field::CtMark => self.ct(libc::NFT_CT_MARK, None, register),
            Field::Ct(direction, family, end) => {
                let key = match (family, end) {
                    (Family::V4, End::Source) => libc::NFT_CT_SRC_IP,
                    (Family::V4, End::Destination) => libc::NFT_CT_DST_IP,
                    (Family::V6, End::Source) => libc::NFT_CT_SRC_IP6,
                    (Family::V6, End::Destination) => libc::NFT_CT_DST_IP6,
                };
                self.ct(key, Some(direction), register);
            }
            Field::CtOriginalPort => self.ct(libc::NFT_CT_PROTO_DST, Some(Direction::Original), register),
            Field::Packet(family, end) => {
                let (offset, length) = match (family, end) {
                    (Family::V4, End::Source) => (12, 4),
                    (Family::V4, End::Destination) => (16, 4),
                    (Family::V6, End::Source) => (8, 16),
                    (Family::V6, End::Destination) => (24, 16),
                };
                self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register);
            }
        }
    }

    pub(super) fn ct(&mut self, key: i32, direction: Option<Direction>, register: u32) {
        let mut fields =
            vec![(sys::NFTNL_EXPR_CT_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_CT_DREG, Value::U32(register))];
        if let Some(direction) = direction {
            fields.push((sys::NFTNL_EXPR_CT_DIR, Value::U8(direction_number(direction))));
        }
        self.push(c"ct", fields);
    }

    pub(super) fn ct_set(&mut self, key: i32) {
        self.push(
            c"ct",
            vec![(sys::NFTNL_EXPR_CT_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_CT_SREG, Value::U32(FIRST))],
        );
    }

    pub(super) fn meta_is(&mut self, key: i32, value: &[u8]) {
        self.meta(key);
        self.compare(libc::NFT_CMP_EQ, value);
    }

    pub(super) fn meta(&mut self, key: i32) {
        self.push(
            c"meta",
            vec![(sys::NFTNL_EXPR_META_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_META_DREG, Value::U32(FIRST))],
        );
    }

    pub(super) fn object(&mut self, kind: u32, name: &str) -> Result<(), String> {
        self.push(
            c"objref",
            vec![
                (sys::NFTNL_EXPR_OBJREF_IMM_TYPE, Value::U32(kind)),
                (sys::NFTNL_EXPR_OBJREF_IMM_NAME, Value::Text(c_text(name)?)),
            ],
        );
        Ok(())
    }

    pub(super) fn over_rate(&mut self, rate: u64, burst: u32) {
        self.push(
            c"limit",
            vec![
                (sys::NFTNL_EXPR_LIMIT_RATE, Value::U64(rate)),
                (sys::NFTNL_EXPR_LIMIT_UNIT, Value::U64(SECOND_UNIT)),
                (sys::NFTNL_EXPR_LIMIT_BURST, Value::U32(burst)),
                (sys::NFTNL_EXPR_LIMIT_TYPE, Value::U32(LIMIT_BYTES)),
                (sys::NFTNL_EXPR_LIMIT_FLAGS, Value::U32(LIMIT_OVER)),
            ],
        );
    }

    pub(super) fn payload(&mut self, base: i32, offset: u32, length: u32, register: u32) {
        self.push(
            c"payload",
            vec![
                (sys::NFTNL_EXPR_PAYLOAD_BASE, Value::U32(base as u32)),
                (sys::NFTNL_EXPR_PAYLOAD_OFFSET, Value::U32(offset)),
                (sys::NFTNL_EXPR_PAYLOAD_LEN, Value::U32(length)),
                (sys::NFTNL_EXPR_PAYLOAD_DREG, Value::U32(register)),
            ],
        );
    }

    pub(super) fn fib(&mut self, result: u32, flags: u32) {
        self.push(
            c"fib",
            vec![
                (sys::NFTNL_EXPR_FIB_RESULT, Value::U32(result)),
                (sys::NFTNL_EXPR_FIB_FLAGS, Value::U32(flags)),
                (sys::NFTNL_EXPR_FIB_DREG, Value::U32(FIRST)),
            ],
        );
    }

    pub(super) fn compare(&mut self, op: i32, value: &[u8]) {
        self.push(
            c"cmp",
            vec![
                (sys::NFTNL_EXPR_CMP_SREG, Value::U32(FIRST)),
                (sys::NFTNL_EXPR_CMP_OP, Value::U32(op as u32)),
                (sys::NFTNL_EXPR_CMP_DATA, Value::Octets(value.to_vec())),
            ],
        );
    }

    /// Marks are in host byte order, but the kernel orders values octet by octet: "at least" needs network byte order.
    pub(super) fn compare_mark(&mut self, op: Op, value: u32) {
        match op {
            Op::Eq => self.compare(libc::NFT_CMP_EQ, &value.to_ne_bytes()),
            Op::Ne => self.compare(libc::NFT_CMP_NEQ, &value.to_ne_bytes()),
            Op::Ge => {
                self.turn_to_network_order();
                self.compare(libc::NFT_CMP_GTE, &value.to_be_bytes());
            }
        }
    }

    /// Turns the number of 4 octets in the first register.
    pub(super) fn turn_to_network_order(&mut self) {
        self.push(
            c"byteorder",
            vec![
                (sys::NFTNL_EXPR_BYTEORDER_SREG, Value::U32(FIRST)),
                (sys::NFTNL_EXPR_BYTEORDER_DREG, Value::U32(FIRST)),
                (sys::NFTNL_EXPR_BYTEORDER_OP, Value::U32(libc::NFT_BYTEORDER_HTON as u32)),
                (sys::NFTNL_EXPR_BYTEORDER_LEN, Value::U32(4)),
                (sys::NFTNL_EXPR_BYTEORDER_SIZE, Value::U32(4)),
            ],
        );
    }

    pub(super) fn lookup(&mut self, set: &Ident, result: Option<u32>, negate: bool) -> Result<(), String> {
        let mut fields = vec![
            (sys::NFTNL_EXPR_LOOKUP_SREG, Value::U32(FIRST)),
            (sys::NFTNL_EXPR_LOOKUP_SET, Value::Text(c_text(set)?)),
        ];
        if let Some(register) = result {
            fields.push((sys::NFTNL_EXPR_LOOKUP_DREG, Value::U32(register)));
        }
        if negate {
            fields.push((sys::NFTNL_EXPR_LOOKUP_FLAGS, Value::U32(libc::NFT_LOOKUP_F_INV as u32)));
        }
        self.push(c"lookup", fields);
        Ok(())
    }

    pub(super) fn immediate(&mut self, register: u32, value: &[u8]) {
        self.push(
            c"immediate",
            vec![
                (sys::NFTNL_EXPR_IMM_DREG, Value::U32(register)),
                (sys::NFTNL_EXPR_IMM_DATA, Value::Octets(value.to_vec())),
            ],
        );
    }

    pub(super) fn dnat(&mut self, address: IpAddr, port: u16) {
        let family = match address {
            IpAddr::V4(address) => {
                self.immediate(FIRST, &address.octets());
                libc::NFPROTO_IPV4
            }
            IpAddr::V6(address) => {
                self.immediate(FIRST, &address.octets());
                libc::NFPROTO_IPV6
            }
        };
        self.immediate(SECOND, &port.to_be_bytes());
        self.push(
            c"nat",
            vec![
                (sys::NFTNL_EXPR_NAT_TYPE, Value::U32(libc::NFT_NAT_DNAT as u32)),
                (sys::NFTNL_EXPR_NAT_FAMILY, Value::U32(family as u32)),
                (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, Value::U32(FIRST)),
                (sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, Value::U32(SECOND)),
                (sys::NFTNL_EXPR_NAT_FLAGS, Value::U32(NAT_PORT)),
            ],
        );
    }

    pub(super) fn reject(&mut self, kind: u32, code: u8) {
        self.push(
            c"reject",
            vec![(sys::NFTNL_EXPR_REJECT_TYPE, Value::U32(kind)), (sys::NFTNL_EXPR_REJECT_CODE, Value::U8(code))],
        );
    }

    /// Packets a second; `NFT_LIMIT_PKTS`, and no flag: it holds below the rate.
    pub(super) fn within(&mut self, rate: u32, burst: u32) {
        self.push(
            c"limit",
            vec![
                (sys::NFTNL_EXPR_LIMIT_RATE, Value::U64(rate.into())),
                (sys::NFTNL_EXPR_LIMIT_UNIT, Value::U64(SECOND_UNIT)),
                (sys::NFTNL_EXPR_LIMIT_BURST, Value::U32(burst)),
                (sys::NFTNL_EXPR_LIMIT_TYPE, Value::U32(LIMIT_PACKETS)),
                (sys::NFTNL_EXPR_LIMIT_FLAGS, Value::U32(0)),
            ],
        );
    }

    pub(super) fn log(&mut self, group: u16, prefix: &str, snaplen: u32) -> Result<(), String> {
        self.push(
            c"log",
            vec![
                (sys::NFTNL_EXPR_LOG_GROUP, Value::U16(group)),
                (sys::NFTNL_EXPR_LOG_PREFIX, Value::Text(c_text(prefix)?)),
                (sys::NFTNL_EXPR_LOG_SNAPLEN, Value::U32(snaplen)),
            ],
        );
        Ok(())
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) -> Result<(), String> {
        let (code, chain) = super::elements::verdict_code(verdict);
        let mut fields = vec![
            (sys::NFTNL_EXPR_IMM_DREG, Value::U32(VERDICT)),
            (sys::NFTNL_EXPR_IMM_VERDICT, Value::U32(code as u32)),
        ];
        if let Some(chain) = chain {
            fields.push((sys::NFTNL_EXPR_IMM_CHAIN, Value::Text(c_text(chain)?)));
        }
        self.push(c"immediate", fields);
        Ok(())
    }
}

/// `IP_CT_DIR_*`.
pub(super) fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::Original => 0,
        Direction::Reply => 1,
    }
}

/// An interface name as it stands in a register, padded with zeros.
pub(super) fn interface(name: &str) -> Result<[u8; NAME], String> {
    if name.is_empty() || name.len() >= NAME {
        return Err(format!("{name:?} is no interface name; use 1 to {} octets", NAME - 1));
    }
    let mut padded = [0; NAME];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Ok(padded)
}
