//! What the files of a policy say: now, or when a revision was applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::Current;
use crate::policy::lists::{Contents, emptied};
use crate::policy::model::{DomainList, ListFile};
use crate::policy::{Diagnostic, Policy};
use crate::store::{KeptList, ListError, RevisionMeta, Stamp, Store, StoreError, each_list, read_list};

/// Where the contents of files come from.
#[derive(Clone, Copy)]
pub(in crate::daemon) enum Files<'a> {
    /// The files as they are now. A mistake is one that cannot be read, and one that is in force and is no list any more.
    Now,
    /// Those of a revision, whatever the files say now.
    Of(&'a RevisionMeta),
    /// The files that have changed since a revision; for the others, and for those that cannot be read or are no lists any
    /// more, those of the revision.
    Since(&'a RevisionMeta),
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub contents: BTreeMap<ListFile, Arc<Contents>>,
    /// For the record, in the order of the policy.
    pub kept: Vec<KeptList>,
    /// Files that were emptied, and how many rules each had before.
    pub held: BTreeMap<ListFile, usize>,
    /// Files that could not be read, for which those of a revision stand.
    pub trouble: Vec<String>,
}

/// The lists of `policy`. What is in memory of those in force need not be there twice.
///
/// # Errors
/// Files that cannot be read, each with the line of the policy that names it.
pub(super) fn load(
    policy: &Policy,
    files: Files<'_>,
    store: &Store,
    current: Option<&Current>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let before = match files {
        Files::Now => current.map(|current| &current.meta),
        Files::Of(meta) | Files::Since(meta) => Some(meta),
    };
    let known = current.into_iter().flat_map(|current| current.policy.domain_lists());
    let known = known.filter_map(|(_, list)| list.contents.clone());
    let known = known.map(|contents| (contents.digest().to_owned(), contents)).collect();
    let source = Source { files, before, store, known };
    let (mut kept, mut held, mut trouble) = (Vec::new(), BTreeMap::new(), Vec::new());
    let contents = each_list(policy, |list, room| {
        let one = source.one(list, room)?;
        let (file, format) = (list.file.clone(), list.format.word().to_owned());
        held.extend(one.held.map(|held| (list.key(), held)));
        kept.push(KeptList { file, format, sha256: one.contents.digest().to_owned(), seen: one.seen, held: one.held });
        trouble.extend(one.trouble);
        Ok(one.contents)
    })?;
    Ok(Loaded { contents, kept, held, trouble })
}

/// Says which files were emptied since, now that this is in force.
pub(super) fn tell_emptied(before: Option<&Current>, now: &[KeptList]) {
    let what = |list: &KeptList| (list.file.clone(), list.format.clone(), list.held);
    let told: Vec<_> = before.into_iter().flat_map(|before| before.meta.lists.iter().map(what)).collect();
    for list in now.iter().filter(|list| list.held.is_some() && !told.contains(&what(list))) {
        warn!("{}", emptied(&list.file, list.held));
    }
}

struct Source<'a> {
    files: Files<'a>,
    /// What the files are compared with.
    before: Option<&'a RevisionMeta>,
    store: &'a Store,
    known: BTreeMap<String, Arc<Contents>>,
}

struct One {
    contents: Arc<Contents>,
    seen: Option<Stamp>,
    held: Option<usize>,
    trouble: Option<String>,
}

impl Source<'_> {
    fn one(&self, list: &DomainList, room: usize) -> Result<One, String> {
        let (file, format) = (&list.file, list.format.word());
        let before = self.before.and_then(|meta| {
            let kept = meta.lists.iter().find(|kept| kept.file == *file && kept.format == format)?;
            Some((meta.revision, kept))
        });
        let Some((revision, kept)) = before else { return self.now(list, room, None).map_err(|e| e.to_string()) };
        let stamp = Stamp::of(Path::new(file));
        let fresh = match (self.files, &stamp) {
            (Files::Of(_), _) => None,
            (Files::Since(_), Ok(stamp)) if Some(stamp) == kept.seen.as_ref() => None,
            _ => Some(self.now(list, room, Some(kept))),
        };
        let asked = matches!(self.files, Files::Now);
        let trouble = match fresh {
            // An error page in the place of the list, or a list of another format, must not lift the one that is in force.
            Some(Ok(one)) if one.contents.report().is_misread() && one.contents.digest() != kept.sha256 => {
                let why = format!("nothing in {file} could be read as {format}");
                match self.rules(kept) {
                    _ if !asked => Some(why),
                    0 => return Ok(one),
                    rules => return Err(refusal(&list.name, &why, &one.contents.report().found(), revision, rules)),
                }
            }
            Some(Ok(one)) => return Ok(one),
            Some(Err(error)) if asked => return Err(error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => None,
        };
        let trouble = trouble.map(|why| format!("{why}; what it said in revision {revision} stays in force"));
        // What was no good was not taken up, and is told again by the next revision and the next start.
        let seen = if trouble.is_some() { kept.seen.clone() } else { stamp.ok() };
        match self.kept(kept).map_err(|error| error.to_string())? {
            Some(contents) => Ok(One { contents, seen, held: kept.held, trouble }),
            None if matches!(self.files, Files::Of(_)) => {
                Err(format!("what {file} said in revision {revision} is not kept any more"))
            }
            // Better what it says now than nothing.
            None => self.now(list, room, Some(kept)).map_err(|error| error.to_string()),
        }
    }

    /// What a file says now. `before`: what is known of it.
    fn now(&self, list: &DomainList, room: usize, before: Option<&KeptList>) -> Result<One, ListError> {
        let (contents, stamp) = read_list(Path::new(&list.file), list.format, room)?;
        let contents = self.known.get(contents.digest()).cloned().unwrap_or_else(|| Arc::new(contents));
        let emptied = contents.is_empty() && !contents.report().is_misread();
        let held = before.filter(|_| emptied).and_then(|before| match self.rules(before) {
            0 => before.held,
            rules => Some(rules),
        });
        Ok(One { contents, seen: Some(stamp), held, trouble: None })
    }

    fn kept(&self, list: &KeptList) -> Result<Option<Arc<Contents>>, StoreError> {
        match self.known.get(&list.sha256) {
            Some(contents) => Ok(Some(Arc::clone(contents))),
            None => Ok(self.store.kept_list(&list.sha256)?.map(Arc::new)),
        }
    }

    /// How many rules a list had; none if that is not known any more.
    fn rules(&self, list: &KeptList) -> usize {
        self.kept(list).ok().flatten().map_or(0, |contents| contents.len())
    }
}

/// Somebody asked for what would lift a list that is in force.
fn refusal(name: &str, why: &str, found: &str, revision: u64, rules: usize) -> String {
    let rules = if rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") };
    format!(
        "list {name}: {why} ({found}), and what it said in revision {revision} is in force: {rules}; to give it up, empty \
         the file or take the list out of the policy"
    )
}
