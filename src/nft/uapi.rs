//! The numbers of linux/netfilter/nf_tables.h that the driver uses and libc lacks.

#![allow(missing_docs)]

pub(super) mod msg {
    pub(crate) const NEW_TABLE: i32 = 0;
    pub(crate) const GET_TABLE: i32 = 1;
    pub(crate) const DEL_TABLE: i32 = 2;
    pub(crate) const NEW_CHAIN: i32 = 3;
    pub(crate) const GET_CHAIN: i32 = 4;
    pub(crate) const DEL_CHAIN: i32 = 5;
    pub(crate) const NEW_RULE: i32 = 6;
    pub(crate) const GET_RULE: i32 = 7;
    pub(crate) const DEL_RULE: i32 = 8;
    pub(crate) const NEW_SET: i32 = 9;
    pub(crate) const GET_SET: i32 = 10;
    pub(crate) const DEL_SET: i32 = 11;
    pub(crate) const NEW_ELEMENTS: i32 = 12;
    pub(crate) const GET_ELEMENTS: i32 = 13;
    pub(crate) const DEL_ELEMENTS: i32 = 14;
    pub(crate) const NEW_GENERATION: i32 = 15;
    pub(crate) const GET_GENERATION: i32 = 16;
    pub(crate) const NEW_OBJECT: i32 = 18;
    pub(crate) const GET_OBJECT: i32 = 19;
    pub(crate) const DEL_OBJECT: i32 = 20;
    pub(crate) const NEW_FLOWTABLE: i32 = 22;
    pub(crate) const GET_FLOWTABLE: i32 = 23;
    /// Since Linux 6.3: like `DEL_ELEMENTS`, but an absent element is no error.
    pub(crate) const DESTROY_ELEMENTS: i32 = 30;
}

/// Entries of any list.
pub(super) const LIST_ELEM: u16 = 1;

pub(super) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    /// Its chains see no packet.
    pub(crate) const DORMANT: u32 = 1;
    /// Only the socket that made it may change it (Linux 5.12).
    pub(crate) const OWNER: u32 = 2;
    /// It outlives its owner (Linux 6.9).
    pub(crate) const PERSIST: u32 = 4;
}

pub(super) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
}

pub(super) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const USERDATA: u16 = 7;
    pub(crate) const EXPR_NAME: u16 = 1;
    pub(crate) const EXPR_DATA: u16 = 2;
}

pub(super) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LENGTH: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LENGTH: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const EXPR: u16 = 17;
    /// How many elements it has, in newer kernels.
    pub(crate) const COUNT: u16 = 20;
    pub(crate) const DESC_SIZE: u16 = 1;
    /// Flags.
    pub(crate) const INTERVAL: u32 = 4;
    pub(crate) const MAP: u32 = 8;
    pub(crate) const TIMEOUT: u32 = 16;
    /// `NFT_DATA_VERDICT`.
    pub(crate) const VERDICT: u32 = 0xffff_ff00;
}

pub(super) mod list {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
}

pub(super) mod element {
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const TIMEOUT: u16 = 4;
    pub(crate) const EXPIRATION: u16 = 5;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const EXPR: u16 = 7;
    /// Flag: not an element but the first key behind a range.
    pub(crate) const INTERVAL_END: u32 = 1;
}

pub(super) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
}

pub(super) mod counter {
    pub(crate) const BYTES: u16 = 1;
    pub(crate) const PACKETS: u16 = 2;
}

pub(super) mod object {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const DATA: u16 = 4;
    /// `NFT_OBJECT_COUNTER`.
    pub(crate) const COUNTER: u32 = 1;
    /// `NFT_OBJECT_QUOTA`.
    pub(crate) const QUOTA: u32 = 2;
}

pub(super) mod quota {
    pub(crate) const BYTES: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const CONSUMED: u16 = 4;
    /// `NFT_QUOTA_F_INV`: the rule goes on where the quota is over.
    pub(crate) const OVER: u32 = 1;
}

pub(super) mod verdict {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

pub(super) mod generation {
    pub(crate) const ID: u16 = 1;
    pub(crate) const PROCESS: u16 = 2;
    pub(crate) const PROCESS_NAME: u16 = 3;
}

pub(super) mod flowtable {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const HOOK: u16 = 3;
    pub(crate) const HOOK_DEVICES: u16 = 3;
    pub(crate) const DEVICE: u16 = 1;
}

/// Types of userdata entries, as nft (not the kernel) numbers them: libnftnl/udata.h.
pub(super) mod udata {
    pub(crate) const COMMENT: u8 = 0;
    pub(crate) const SET_KEY_ORDER: u8 = 0;
    pub(crate) const SET_DATA_ORDER: u8 = 1;
    pub(crate) const ELEMENT_FLAGS: u8 = 1;
    /// The range has no end because it reaches the last address.
    pub(crate) const ELEMENT_OPEN: u32 = 1;
    pub(crate) const ORDER_HOST: u32 = 1;
    pub(crate) const ORDER_NETWORK: u32 = 2;
}
