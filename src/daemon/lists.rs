//! The watch over files with lists of names: a file that changes makes a new revision.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::answer::Office;
use super::protocol::Check;
use super::revisions::Revisions;
use super::status::check;
use crate::policy::lists::{emptied, summaries};
use crate::store::{KeptList, Stamp};

/// How often files are looked at. A change is taken up when two looks in a row see the same, so that no half of a file
/// that is being written is.
const LOOK: Duration = Duration::from_secs(2);

/// What files look like, or why they cannot be looked at.
type Looks = BTreeMap<String, Result<Stamp, String>>;

/// Follows the files of the policy in force.
pub async fn follow(office: Arc<Office>, stopped: impl Future<Output = ()>) {
    let work = async {
        let mut before = Looks::new();
        // What was taken up last, be it that it could not be read.
        let mut taken = Looks::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let (lists, troubled) = {
                let revisions = office.revisions.lock().await;
                (revisions.lists(), !revisions.lists_trouble.is_empty())
            };
            if lists.is_empty() {
                continue;
            }
            let in_force: BTreeMap<_, _> = lists.into_iter().map(|list| (list.file, list.seen)).collect();
            let Some(now) = look(in_force.keys().cloned().collect()).await else { return };
            let news = now.iter().any(|(file, look)| {
                // What is told of a file holds no more when the file is again as it was.
                let changed = troubled || in_force.get(file).is_none_or(|seen| seen.as_ref() != look.as_ref().ok());
                changed && taken.get(file) != Some(look)
            });
            if news && now == before {
                take_up(&office).await;
                taken.clone_from(&now);
            }
            before = now;
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
}

/// On a thread of its own: a file system that is gone must not hold up answers.
async fn look(files: Vec<String>) -> Option<Looks> {
    let one = |file: &String| Stamp::of(Path::new(file)).map_err(|error| error.to_string());
    let looks = move || files.into_iter().map(|file| (file.clone(), one(&file))).collect();
    tokio::task::spawn_blocking(looks).await.ok()
}

async fn take_up(office: &Office) {
    let mut revisions = office.revisions.lock().await;
    let before = revisions.current.as_ref().map(|current| current.meta.revision);
    match revisions.follow_lists().await {
        None => {}
        Some(Ok(accepted)) => {
            if accepted.revision != before {
                info!("a list of names changed: revision {} is in force", accepted.revision.unwrap_or_default());
            }
            for sentence in accepted.trouble.iter().chain(&revisions.lists_trouble) {
                warn!("{sentence}");
            }
        }
        Some(Err(rejected)) => {
            error!("a list of names changed and is not enforced: {}", rejected.message);
            revisions.lists_trouble = vec![format!("a changed list is not enforced: {}", rejected.message)];
        }
    }
}

/// The lists in `status`; nothing where the policy has none.
pub(super) fn checks(revisions: &Revisions) -> Vec<Check> {
    let Some(current) = &revisions.current else { return Vec::new() };
    let told = summaries(&current.policy);
    if told.is_empty() && revisions.lists_trouble.is_empty() {
        return Vec::new();
    }
    let misread = current.policy.domain_lists().filter_map(|(path, list)| {
        let report = list.contents.as_ref()?.report();
        let (file, format) = (&list.file, list.format.word());
        report.is_misread().then(|| format!("{path}: nothing in {file} could be read as {format}"))
    });
    let mut checks: Vec<Check> = revisions
        .lists_trouble
        .iter()
        .cloned()
        .chain(misread)
        .map(|sentence| check("lists", false, sentence))
        .collect();
    let well = checks.is_empty();
    // Somebody may mean it so: no failure, and not to be overlooked.
    let of_file = |list: &KeptList| list.held.map(|held| check("lists", true, emptied(&list.file, Some(held))));
    checks.extend(current.meta.lists.iter().filter_map(of_file));
    if well {
        let lists: Vec<String> = told.iter().map(ToString::to_string).collect();
        checks.push(check("lists", true, lists.join("; ")));
    }
    checks
}
