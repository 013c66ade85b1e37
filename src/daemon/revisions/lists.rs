//! What the files of a policy say: now, or when a revision was applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::policy::lists::Contents;
use crate::policy::model::ListFile;
use crate::policy::{Diagnostic, Policy};
use crate::store::{KeptList, ListError, RevisionMeta, Stamp, Store, each_list, read_list};

/// Where the contents of files come from.
#[derive(Clone, Copy)]
pub(in crate::daemon) enum Files<'a> {
    /// The files as they are now; one that cannot be read is a mistake.
    Now,
    /// Those of a revision, whatever the files say now.
    Of(&'a RevisionMeta),
    /// The files that have changed since a revision; for the others, and for those that cannot be read, those of the
    /// revision.
    Since(&'a RevisionMeta),
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub contents: BTreeMap<ListFile, Arc<Contents>>,
    /// For the record, in the order of the policy.
    pub kept: Vec<KeptList>,
    /// Files that could not be read, for which those of a revision stand.
    pub trouble: Vec<String>,
}

/// The lists of `policy`. `known`: lists in memory that need not be there twice.
///
/// # Errors
/// Files that cannot be read, each with the line of the policy that names it.
pub(super) fn load(
    policy: &Policy,
    files: Files<'_>,
    store: &Store,
    known: &BTreeMap<String, Arc<Contents>>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let (mut kept, mut troubles) = (Vec::new(), Vec::new());
    let contents = each_list(policy, |key, room| {
        let One { contents, seen, trouble } = one(key, files, store, known, room)?;
        let (file, format) = (key.0.clone(), key.1.word().to_owned());
        kept.push(KeptList { file, format, sha256: contents.digest().to_owned(), seen });
        troubles.extend(trouble);
        Ok(contents)
    })?;
    Ok(Loaded { contents, kept, trouble: troubles })
}

struct One {
    contents: Arc<Contents>,
    seen: Option<Stamp>,
    trouble: Option<String>,
}

fn one(
    key: &ListFile,
    files: Files<'_>,
    store: &Store,
    known: &BTreeMap<String, Arc<Contents>>,
    room: usize,
) -> Result<One, String> {
    let path = Path::new(&key.0);
    let now = || -> Result<One, ListError> {
        let (contents, stamp) = read_list(path, key.1, room)?;
        let contents = known.get(contents.digest()).cloned().unwrap_or_else(|| Arc::new(contents));
        Ok(One { contents, seen: Some(stamp), trouble: None })
    };
    let (meta, pinned) = match files {
        Files::Now => return now().map_err(|error| error.to_string()),
        Files::Of(meta) => (meta, true),
        Files::Since(meta) => (meta, false),
    };
    let stamp = Stamp::of(path);
    let Some(kept) = meta.lists.iter().find(|list| list.file == key.0 && list.format == key.1.word()) else {
        return now().map_err(|error| error.to_string());
    };
    let fresh = match &stamp {
        _ if pinned => None,
        Ok(stamp) if Some(stamp) == kept.seen.as_ref() => None,
        _ => Some(now()),
    };
    let trouble = match fresh {
        // An error page in the place of the list, or a list of another format, must not lift the one that is in force.
        Some(Ok(one)) if one.contents.report().is_misread() && one.contents.digest() != kept.sha256 => {
            Some(format!("nothing in {} could be read as {}", key.0, key.1.word()))
        }
        Some(Ok(one)) => return Ok(one),
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    let trouble = trouble.map(|why| format!("{why}; what it said in revision {} stays in force", meta.revision));
    // What was no good was not taken up, and is told again by the next revision and the next start.
    let seen = if trouble.is_some() { kept.seen.clone() } else { stamp.ok() };
    let contents = match known.get(&kept.sha256) {
        Some(contents) => Some(Arc::clone(contents)),
        None => store.kept_list(&kept.sha256).map_err(|error| error.to_string())?.map(Arc::new),
    };
    match (contents, pinned) {
        (Some(contents), _) => Ok(One { contents, seen, trouble }),
        (None, true) => Err(format!("what {} said in revision {} is not kept any more", key.0, meta.revision)),
        // Better what it says now than nothing.
        (None, false) => now().map_err(|error| error.to_string()),
    }
}
