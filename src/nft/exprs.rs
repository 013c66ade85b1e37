//! Rules as the kernel's expressions, the same ones that nft makes of [`crate::plan::text`].

use nftnl::nftnl_sys as sys;

use super::library::{Expr, Field as Value};
use super::pieces::{
    ADMIN_PROHIBITED, BEHIND_MARK, Build, FIB_DESTINATION, FIB_INPUT, FIB_INTERFACE, FIB_NAME, FIB_PRESENT, FIB_SOURCE,
    FIB_TYPE, FIRST, LOCAL, NAT_PORT, OBJECT_COUNTER, OBJECT_QUOTA, REJECT_ICMPX, REJECT_RESET, VERDICT,
    direction_number, interface,
};
use crate::plan::ir::{Action, Cond, Field, Lookup, Rule};

/// The expressions of a rule; `Err`: what is wrong with a name in it.
pub(super) fn rule(rule: &Rule) -> Result<Vec<Expr>, String> {
    let mut build = Build::default();
    for cond in &rule.conds {
        build.cond(cond)?;
    }
    for action in &rule.actions {
        build.action(action)?;
    }
    Ok(build.out)
}

impl Build {
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
            Cond::Longer(octets) => {
                self.meta(libc::NFT_META_LEN);
                self.turn_to_network_order();
                self.compare(libc::NFT_CMP_GT, &octets.to_be_bytes());
            }
            Cond::OverQuota(name) => self.object(OBJECT_QUOTA, name)?,
            Cond::OverRate { rate, burst } => self.over_rate(*rate, *burst),
            Cond::Within { rate, burst } => self.within(*rate, *burst),
        }
        Ok(())
    }

    fn action(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Counter => self.push(c"counter", Vec::new()),
            Action::CountIn(name) => self.object(OBJECT_COUNTER, name)?,
            Action::Log { group, prefix, snaplen } => self.log(*group, prefix, *snaplen)?,
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
}
