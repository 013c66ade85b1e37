//! `log`: looking back into the decisions, and following them.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::Office;
use super::protocol::{Check, Logged, Response};
use crate::decisions::{Filter, Log, News};
use crate::settings::Decisions;

/// The latest records that the filter wants.
pub async fn answer(office: &Arc<Office>, filter: Filter) -> Response {
    let log = Arc::clone(&office.log);
    match tokio::task::spawn_blocking(move || log.find(&filter)).await {
        Ok(records) => Response::done(Logged { records, missed: 0 }),
        Err(_) => Response::failed("the records could not be read: a fault in clawgress, please report it"),
    }
}

/// The same, and then what comes, until the other side or the daemon has enough.
pub async fn follow(
    filter: Filter,
    office: &Arc<Office>,
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) {
    let Ok(_place) = Arc::clone(&office.followers).try_acquire_owned() else {
        let refused = Response::failed("too many follow the log already; end one of them (clawgress log --follow)");
        let _ = send(to, &refused).await;
        return;
    };
    // First the subscription, so that nothing falls between the two.
    let follower = office.log.follow(filter.clone());
    let log = Arc::clone(&office.log);
    let Ok(records) = tokio::task::spawn_blocking(move || log.find(&filter)).await else { return };
    let mut follower = follower.after(records.last().map_or(0, |record| record.id));
    if send(to, &Response::done(Logged { records, missed: 0 })).await.is_err() {
        return;
    }
    let mut stopped = office.stopped.clone();
    let mut octet = [0];
    loop {
        let news = tokio::select! {
            news = follower.next() => news,
            // Nothing more is to be said by the other side: it has gone, or does not keep to the protocol.
            _ = from.read(&mut octet) => return,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let piece = match news {
            Some(News::Records(records)) => Logged { records, missed: 0 },
            Some(News::Missed(missed)) => Logged { records: Vec::new(), missed },
            None => return,
        };
        if send(to, &Response::done(piece)).await.is_err() {
            return;
        }
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), response: &Response) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(response).unwrap_or_default();
    text.push(b'\n');
    to.write_all(&text).await
}

/// How the log is.
pub fn check(log: &Log) -> Check {
    let report = log.report();
    let ok = report.trouble.is_empty();
    let mut message = match report.wanted {
        Decisions::None => "decisions are not recorded (log.decisions = \"none\")".to_owned(),
        _ => format!(
            "{} records of {} decisions since the start, {} KiB on disk",
            report.records,
            report.decisions,
            report.bytes.div_ceil(1024)
        ),
    };
    for (count, what) in [
        (report.lost, "copies of packets lost on the way, which are counted"),
        (report.dropped, "records dropped because too many came at once"),
        (report.unwritten, "records not written to disk"),
    ] {
        if count > 0 {
            message.push_str(&format!("; {count} {what}"));
        }
    }
    for sentence in &report.trouble {
        message.push_str(&format!("; {sentence}"));
    }
    Check { name: "decision-log".into(), ok, message }
}
