//! Chains and rules through libnftnl: the safe types of `nftnl`, and expressions of our own where it has none.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use nftnl::expr::Expression;
use nftnl::{Chain, MsgType, NlMsg, ProtoFamily, Rule, Table, nft_nlmsg_maxsize, nftnl_sys as sys};

use crate::plan::ir::{self, ChainType, Hook, TABLE};

/// An expression as libnftnl knows it: its name, and its fields by their `NFTNL_EXPR_*` numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expr {
    pub(super) name: &'static CStr,
    pub(super) fields: Vec<(u32, Field)>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Octets(Vec<u8>),
    Text(CString),
}

impl Expression for Expr {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name is a C string; libnftnl copies it. It returns null for a name it does not know, which
        // cannot be as all names are constants of this crate, or when out of memory.
        let Some(expr) = NonNull::new(unsafe { sys::nftnl_expr_alloc(self.name.as_ptr()) }) else {
            std::process::abort();
        };
        for (number, value) in &self.fields {
            let number = *number as u16;
            // SAFETY: `expr` is live, and libnftnl copies each value, whose length is the one given; it ignores
            // numbers the expression does not have.
            unsafe {
                match value {
                    Field::U8(value) => sys::nftnl_expr_set_u8(expr.as_ptr(), number, *value),
                    Field::U16(value) => sys::nftnl_expr_set_u16(expr.as_ptr(), number, *value),
                    Field::U32(value) => sys::nftnl_expr_set_u32(expr.as_ptr(), number, *value),
                    Field::U64(value) => sys::nftnl_expr_set_u64(expr.as_ptr(), number, *value),
                    Field::Octets(value) => {
                        sys::nftnl_expr_set(expr.as_ptr(), number, value.as_ptr().cast(), value.len() as u32);
                    }
                    Field::Text(value) => {
                        sys::nftnl_expr_set_str(expr.as_ptr(), number, value.as_ptr());
                    }
                }
            }
        }
        expr
    }
}

/// Writes messages of libnftnl's objects.
pub(super) struct Library {
    table: Table,
    /// Room for the largest message. Words of 8 octets, because libnftnl writes aligned headers.
    room: Vec<u64>,
}

impl Library {
    pub(super) fn new() -> Self {
        let name = CString::new(TABLE).unwrap_or_default();
        let words = (nft_nlmsg_maxsize() as usize).div_ceil(8);
        Self { table: Table::new(name, ProtoFamily::Inet), room: vec![0; words] }
    }

    /// `NFT_MSG_NEWCHAIN`.
    pub(super) fn add_chain(&mut self, name: &CStr, base: Option<&ir::Base>, sequence: u32) -> &[u8] {
        let mut chain = Chain::new(name, &self.table);
        if let Some(base) = base {
            let hook = match base.hook {
                Hook::Prerouting => nftnl::Hook::PreRouting,
                Hook::Input => nftnl::Hook::In,
                Hook::Forward => nftnl::Hook::Forward,
                Hook::Output => nftnl::Hook::Out,
            };
            chain.set_hook(hook, base.priority);
            chain.set_type(match base.kind {
                ChainType::Filter => nftnl::ChainType::Filter,
                ChainType::Nat => nftnl::ChainType::Nat,
            });
            chain.set_policy(nftnl::Policy::Accept);
        }
        write(&mut self.room, &chain, sequence)
    }

    /// `NFT_MSG_NEWRULE` at the end of a chain.
    pub(super) fn add_rule(&mut self, chain: &CStr, exprs: &[Expr], sequence: u32) -> &[u8] {
        let chain = Chain::new(chain, &self.table);
        let mut rule = Rule::new(&chain);
        for expr in exprs {
            rule.add_expr(expr);
        }
        write(&mut self.room, &rule, sequence)
    }
}

fn write<'a>(room: &'a mut [u64], message: &impl NlMsg, sequence: u32) -> &'a [u8] {
    let octets = size_of_val(room);
    // SAFETY: `room` has the octets of the largest message, as `NlMsg::write` demands, and is aligned; the slice made
    // of it covers the same octets, which are initialised, for as long as the borrow lasts.
    let written = unsafe {
        message.write(room.as_mut_ptr().cast(), sequence, MsgType::Add);
        std::slice::from_raw_parts(room.as_ptr().cast::<u8>(), octets)
    };
    let length = super::message::word(written, 0).unwrap_or(0) as usize;
    &written[..length.min(octets)]
}

/// Gives memory that was freed back to the system. glibc by itself keeps what large transactions and policies needed
/// for a moment, in each thread's arena; other allocators decide for themselves. Takes some milliseconds.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks, may be called by any thread at any time, and touches
    // free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator keep blocks of a mebibyte and more apart, so that they go back to the system when they are freed, and
/// have one heap for all threads, which grows by a mebibyte; to be called once, early (mallopt(3)).
///
/// glibc by itself moves the first bound up to 32 MiB as such blocks are freed, and what a large policy needed for a moment
/// stays in holes. The heap of a thread grows by single pages, each a call of the system and a fault: a twentieth of the
/// time of a look-up, which leaves an answer, a lease and a class behind. What is freed soon stays with its thread anyway.
pub fn set_up_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes the allocator's own locks and two numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, 1 << 20);
    }
}
