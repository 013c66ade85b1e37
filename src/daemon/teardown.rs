//! Opening the gateway without a daemon.

use crate::nft::{Kernel, Options};
use crate::plan::ops::Op;

use super::held;

/// Removes the table that a dead daemon left. False: there was none.
///
/// # Errors
/// The kernel refused, or the table is not ours; nothing changed.
pub fn without_daemon() -> anyhow::Result<bool> {
    let mut kernel = Kernel::open(Options { own_table: false, ..Options::default() })?;
    match kernel.read()? {
        None => Ok(false),
        Some(held) if !held::is_ours(&held) => {
            anyhow::bail!("there is a table \"inet clawgress\" that is not ours; it stays (nft list table inet clawgress)")
        }
        Some(_) => {
            kernel.commit(&[Op::DelTable])?;
            Ok(true)
        }
    }
}
