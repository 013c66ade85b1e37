//! Opening the gateway without a daemon.

use crate::nft::{Kernel, Options};
use crate::plan::ops::Op;

use super::held;
use super::protocol::TornDown;

/// Removes the table that a dead daemon left.
///
/// # Errors
/// The kernel refused, or the table is not ours; nothing changed.
pub fn without_daemon() -> anyhow::Result<TornDown> {
    let mut kernel = Kernel::open(Options { own_table: false, ..Options::default() })?;
    match kernel.read()? {
        None => Ok(TornDown { removed: false, message: "there is no table: nothing was enforced".into() }),
        Some(held) if !held::is_ours(&held) => {
            anyhow::bail!(held::NOT_OURS)
        }
        Some(_) => {
            kernel.commit(&[Op::DelTable])?;
            Ok(TornDown {
                removed: true,
                message: "the gateway is open: nothing is enforced until the daemon runs again".into(),
            })
        }
    }
}
