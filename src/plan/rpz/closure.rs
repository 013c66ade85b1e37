//! The rule of wildcards (RFC 4592), as zones have to follow it.

use std::collections::{HashMap, HashSet};

/// What the records of a zone entail: a wildcard covers nothing at and below a name that exists, and every owner makes
/// itself and all names above it exist. So each existing name below a wildcard gets what the wildcard says, and a wildcard
/// of its own where it has room: owners of so many octets at most. `follow` gets each of those.
pub(super) fn close<'n, R: Copy, E>(
    records: impl Iterator<Item = (&'n str, R)> + Clone,
    room: usize,
    mut follow: impl FnMut(&str, R) -> Result<(), E>,
) -> Result<(), E> {
    let wildcards: HashMap<&str, R> =
        records.clone().filter_map(|(owner, record)| Some((owner.strip_prefix("*.")?, record))).collect();
    if wildcards.is_empty() {
        return Ok(());
    }
    let above = |node| names_above(node).find_map(|name| wildcards.get(name).copied());
    let mut seen = HashSet::new();
    for (owner, _) in records {
        let node = owner.strip_prefix("*.").unwrap_or(owner);
        for node in std::iter::once(node).chain(names_above(node)) {
            let Some(wildcard) = above(node) else { continue };
            // Names above one that was looked at were looked at as well.
            if !seen.insert(node) {
                break;
            }
            follow(node, wildcard)?;
            if node.len() + 2 <= room {
                follow(&format!("*.{node}"), wildcard)?;
            }
        }
    }
    Ok(())
}

/// The names above one, the longest first.
fn names_above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.')).map(|(_, rest)| rest)
}
