//! Rules as the kernel's expressions, the same ones that nft makes of [`crate::plan::text`].

use std::ffi::CString;
use std::net::IpAddr;

use nftnl::nftnl_sys as sys;

use super::library::{Expr, Field as Value};
use crate::plan::ir::{Action, Cond, Direction, End, Family, Field, Ident, Lookup, Op, Rule, Verdict};

/// The first data register (`NFT_REG_1`): 16 octets.
const FIRST: u32 = 1;
/// The second 4-octet register (`NFT_REG32_01`): where the address of a `mark . address` key goes.
const BEHIND_MARK: u32 = 9;
/// The second 16-octet register (`NFT_REG_2`).
const SECOND: u32 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_PORT: u32 = 2;
/// Octets of an interface name in a register (`IFNAMSIZ`).
const NAME: usize = libc::IFNAMSIZ;
/// `RTN_LOCAL`, the type of route that `fib` gives for an own address.
const LOCAL: u32 = libc::RTN_LOCAL as u32;
/// `NFTA_FIB_F_*`.
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_INPUT: u32 = 8;
const FIB_PRESENT: u32 = 32;
/// `NFT_FIB_RESULT_*`.
const FIB_INTERFACE: u32 = 1;
const FIB_NAME: u32 = 2;
const FIB_TYPE: u32 = 3;
/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
const REJECT_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ADMIN_PROHIBITED: u8 = 3;

/// The expressions of a rule; `Err`: what is wrong with a name in it.
pub(super) fn rule(rule: &Rule) -> Result<Vec<Expr>, String> {
    let mut build = Build { out: Vec::new(), family: None };
    for cond in &rule.conds {
        build.cond(cond)?;
    }
    for action in &rule.actions {
        build.action(action)?;
    }
    Ok(build.out)
}

/// A name as a C string.
pub(super) fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a zero octet; choose another name"))
}

struct Build {
    out: Vec<Expr>,
    /// The family that the conditions so far leave, if they tell.
    family: Option<Family>,
}

impl Build {
    fn push(&mut self, name: &'static std::ffi::CStr, fields: Vec<(u32, Value)>) {
        self.out.push(Expr { name, fields });
    }

    fn cond(&mut self, cond: &Cond) -> Result<(), String> {
        match cond {
            Cond::Mark(op, value) => {
                self.load(Field::CtMark, FIRST);
                self.compare_mark(*op, *value);
            }
            Cond::State(states) => {
                self.ct(libc::NFT_CT_STATE, None, FIRST);
                self.push(
                    c"bitwise",
                    vec![
                        (sys::NFTNL_EXPR_BITWISE_SREG, Value::U32(FIRST)),
                        (sys::NFTNL_EXPR_BITWISE_DREG, Value::U32(FIRST)),
                        (sys::NFTNL_EXPR_BITWISE_LEN, Value::U32(4)),
                        (sys::NFTNL_EXPR_BITWISE_MASK, Value::Octets(states.0.to_ne_bytes().to_vec())),
                        (sys::NFTNL_EXPR_BITWISE_XOR, Value::Octets(vec![0; 4])),
                    ],
                );
                self.compare(libc::NFT_CMP_NEQ, &[0; 4]);
            }
            Cond::Direction(direction) => {
                self.ct(libc::NFT_CT_DIRECTION, None, FIRST);
                self.compare(libc::NFT_CMP_EQ, &[direction_number(*direction)]);
            }
            Cond::Family(family) => self.nfproto(*family),
            Cond::Proto(number) => self.meta_is(libc::NFT_META_L4PROTO, &[*number]),
            Cond::Iif(name) => self.meta_is(libc::NFT_META_IIFNAME, &interface(name)?),
            Cond::Oif(name) => self.meta_is(libc::NFT_META_OIFNAME, &interface(name)?),
            Cond::In { field, set, negate } => {
                self.depend(*field);
                self.load(*field, FIRST);
                self.lookup(set, None, *negate)?;
            }
            Cond::Mapped { field, map, op, value } => {
                self.depend(*field);
                self.load(*field, FIRST);
                self.lookup(map, Some(FIRST), false)?;
                self.compare_mark(*op, *value);
            }
            Cond::FlowPort(port) => {
                self.load(Field::CtOriginalPort, FIRST);
                self.compare(libc::NFT_CMP_EQ, &port.to_be_bytes());
            }
            Cond::Dport(port) => {
                self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, FIRST);
                self.compare(libc::NFT_CMP_EQ, &port.to_be_bytes());
            }
            Cond::IcmpType(_, kind) => {
                self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, FIRST);
                self.compare(libc::NFT_CMP_EQ, &[*kind]);
            }
            Cond::NoReversePath => {
                self.fib(FIB_INTERFACE, FIB_SOURCE | FIB_INPUT | FIB_PRESENT);
                self.compare(libc::NFT_CMP_EQ, &[0; 4]);
            }
            Cond::DestinationLocal(local) => {
                self.fib(FIB_TYPE, FIB_DESTINATION);
                let op = if *local { libc::NFT_CMP_EQ } else { libc::NFT_CMP_NEQ };
                self.compare(op, &LOCAL.to_ne_bytes());
            }
            Cond::RouteLeavesBy(name) => {
                self.fib(FIB_NAME, FIB_DESTINATION);
                self.compare(libc::NFT_CMP_EQ, &interface(name)?);
            }
        }
        Ok(())
    }

    fn action(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Counter => self.push(c"counter", Vec::new()),
            Action::SetMark(mark) => {
                self.immediate(FIRST, &mark.to_ne_bytes());
                self.ct_set(libc::NFT_CT_MARK);
            }
            Action::SetMarkFrom(key, map) => {
                match key {
                    Lookup::One(field) => {
                        self.depend(*field);
                        self.load(*field, FIRST);
                    }
                    Lookup::MarkAnd(field) => {
                        self.depend(*field);
                        self.load(Field::CtMark, FIRST);
                        self.load(*field, BEHIND_MARK);
                    }
                }
                self.lookup(map, Some(FIRST), false)?;
                self.ct_set(libc::NFT_CT_MARK);
            }
            Action::Vmap(field, map) => {
                self.depend(*field);
                self.load(*field, FIRST);
                self.lookup(map, Some(VERDICT), false)?;
            }
            Action::KeepTracking => {
                self.immediate(FIRST, &0u16.to_ne_bytes());
                self.ct_set(libc::NFT_CT_ZONE);
            }
            Action::Redirect(port) => {
                self.immediate(FIRST, &port.to_be_bytes());
                self.push(
                    c"redir",
                    vec![
                        (sys::NFTNL_EXPR_REDIR_REG_PROTO_MIN, Value::U32(FIRST)),
                        (sys::NFTNL_EXPR_REDIR_FLAGS, Value::U32(NAT_PORT)),
                    ],
                );
            }
            Action::Dnat(address, port) => self.dnat(*address, *port),
            Action::Reset => self.reject(REJECT_RESET, 0),
            Action::Prohibit => self.reject(REJECT_ICMPX, ADMIN_PROHIBITED),
            Action::Verdict(verdict) => self.verdict(verdict)?,
        }
        Ok(())
    }

    /// The header of the other family has other octets in the place of an address: ask for the family once.
    fn depend(&mut self, field: Field) {
        if let Field::Packet(family, _) = field
            && self.family != Some(family)
        {
            self.nfproto(family);
        }
    }

    fn nfproto(&mut self, family: Family) {
        self.family = Some(family);
        let number = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        self.meta_is(libc::NFT_META_NFPROTO, &[number as u8]);
    }

    fn load(&mut self, field: Field, register: u32) {
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

    fn ct(&mut self, key: i32, direction: Option<Direction>, register: u32) {
        let mut fields =
            vec![(sys::NFTNL_EXPR_CT_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_CT_DREG, Value::U32(register))];
        if let Some(direction) = direction {
            fields.push((sys::NFTNL_EXPR_CT_DIR, Value::U8(direction_number(direction))));
        }
        self.push(c"ct", fields);
    }

    fn ct_set(&mut self, key: i32) {
        self.push(
            c"ct",
            vec![(sys::NFTNL_EXPR_CT_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_CT_SREG, Value::U32(FIRST))],
        );
    }

    fn meta_is(&mut self, key: i32, value: &[u8]) {
        self.push(
            c"meta",
            vec![(sys::NFTNL_EXPR_META_KEY, Value::U32(key as u32)), (sys::NFTNL_EXPR_META_DREG, Value::U32(FIRST))],
        );
        self.compare(libc::NFT_CMP_EQ, value);
    }

    fn payload(&mut self, base: i32, offset: u32, length: u32, register: u32) {
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

    fn fib(&mut self, result: u32, flags: u32) {
        self.push(
            c"fib",
            vec![
                (sys::NFTNL_EXPR_FIB_RESULT, Value::U32(result)),
                (sys::NFTNL_EXPR_FIB_FLAGS, Value::U32(flags)),
                (sys::NFTNL_EXPR_FIB_DREG, Value::U32(FIRST)),
            ],
        );
    }

    fn compare(&mut self, op: i32, value: &[u8]) {
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
    fn compare_mark(&mut self, op: Op, value: u32) {
        match op {
            Op::Eq => self.compare(libc::NFT_CMP_EQ, &value.to_ne_bytes()),
            Op::Ne => self.compare(libc::NFT_CMP_NEQ, &value.to_ne_bytes()),
            Op::Ge => {
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
                self.compare(libc::NFT_CMP_GTE, &value.to_be_bytes());
            }
        }
    }

    fn lookup(&mut self, set: &Ident, result: Option<u32>, negate: bool) -> Result<(), String> {
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

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.push(
            c"immediate",
            vec![
                (sys::NFTNL_EXPR_IMM_DREG, Value::U32(register)),
                (sys::NFTNL_EXPR_IMM_DATA, Value::Octets(value.to_vec())),
            ],
        );
    }

    fn dnat(&mut self, address: IpAddr, port: u16) {
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

    fn reject(&mut self, kind: u32, code: u8) {
        self.push(
            c"reject",
            vec![(sys::NFTNL_EXPR_REJECT_TYPE, Value::U32(kind)), (sys::NFTNL_EXPR_REJECT_CODE, Value::U8(code))],
        );
    }

    fn verdict(&mut self, verdict: &Verdict) -> Result<(), String> {
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
fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::Original => 0,
        Direction::Reply => 1,
    }
}

/// An interface name as it stands in a register, padded with zeros.
fn interface(name: &str) -> Result<[u8; NAME], String> {
    if name.is_empty() || name.len() >= NAME {
        return Err(format!("{name:?} is no interface name; use 1 to {} octets", NAME - 1));
    }
    let mut padded = [0; NAME];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Ok(padded)
}
