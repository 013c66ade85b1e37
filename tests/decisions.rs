//! The decision log by itself: what goes in comes out, or is counted; nobody who tells it anything waits.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{SubsecRound, Utc};
use clawgress::decisions::{
    Action, Cause, Filter, Keep, Key, Layer, Log, News, Options, Record, Sender, Sighting, Who, read, start,
};
use clawgress::policy::decision::Reason;
use clawgress::settings::Decisions;
use tempfile::TempDir;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

fn options(dir: &Path) -> Options {
    let keep = Keep { bytes: 64 << 20, age: Duration::from_secs(3600) };
    Options { dir: dir.to_owned(), keep, wanted: Decisions::Block }
}

struct Running {
    sender: Sender,
    log: Arc<Log>,
    thread: std::thread::JoinHandle<()>,
}

fn run(options: &Options) -> Running {
    let (sender, log, thread) = start(options).expect("a thread");
    Running { sender, log, thread }
}

impl Running {
    fn end(self) -> Arc<Log> {
        self.sender.stop();
        self.thread.join().expect("it ends");
        self.log
    }
}

fn record(reason: Reason) -> Record {
    Record::new(Utc::now(), 3, Action::Block, Layer::Packet, reason)
}

/// A query for a name of which there are `kinds`.
fn query(sender: &Sender, n: u64, kinds: u64) {
    let (action, reason) = (Action::Block, Reason::NotAllowlisted);
    let cause = Cause { layer: Layer::Dns, action, reason, counter: 0 };
    let domain: Arc<str> = format!("n{}.example.com", n % kinds).into();
    sender.query(action, reason, || Sighting {
        key: Key {
            who: Who::Source([10, 0, 0, 1].into()),
            cause,
            revision: 3,
            domain: Some(Arc::clone(&domain)),
            address: None,
            port: None,
            protocol: 0,
        },
        time: Utc::now(),
        describe: Box::new(move || {
            Some(Record { domain: Some(domain), ..Record::new(Utc::now(), 3, action, Layer::Dns, reason) })
        }),
    });
}

fn sum(dir: &TempDir) -> u64 {
    read(dir.path()).map(|record| record.suppressed + 1).sum()
}

#[test]
fn a_flood_of_queries_is_recorded_by_its_number() {
    for kinds in [1, 100, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let log = run(&options(dir.path()));
        for n in 0..200_000 {
            query(&log.sender, n, kinds);
        }
        let log = log.end();
        assert_eq!(sum(&dir), 200_000, "{kinds} kinds");
        let report = log.report();
        assert_eq!((report.decisions, report.dropped, report.unwritten), (200_000, 0, 0));
        assert!(report.records < 1000, "{} records of a flood of {kinds} kinds", report.records);
    }
}

#[test]
fn what_is_to_be_recorded_as_it_is_is_recorded_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = run(&options(dir.path()));
    for _ in 0..3 {
        assert!(log.sender.record(record(Reason::CapExhausted)));
    }
    assert!(log.sender.record(Record { action: Action::Allow, ..record(Reason::Allowed) }), "not wanted is no failure");
    log.end();
    let found: Vec<Record> = read(dir.path()).collect();
    assert_eq!(
        found.iter().map(|record| (record.id, record.reason)).collect::<Vec<_>>(),
        [1, 2, 3].map(|id| (id, Reason::CapExhausted))
    );
}

#[test]
fn nobody_waits_for_the_log_and_what_has_no_place_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = run(&options(dir.path()));
    // The log's thread waits for somebody else.
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let key = Key {
        who: Who::Anyone,
        cause: Cause { layer: Layer::Packet, action: Action::Block, reason: Reason::Denied, counter: 1 },
        revision: 3,
        domain: None,
        address: None,
        port: None,
        protocol: 6,
    };
    let describe = Box::new(move || {
        let _ = waits.recv();
        Some(record(Reason::Denied))
    });
    log.sender.packet(Sighting { key, time: Utc::now(), describe });
    let sent = (0..50_000).filter(|_| log.sender.record(record(Reason::CapExhausted))).count() as u64;
    assert!(sent < 10_000, "the queue is bounded: {sent}");
    assert_eq!(log.log.report().dropped, 50_000 - sent);
    go.send(()).unwrap();
    log.end();
    assert_eq!(sum(&dir), sent + 1);
}

#[test]
fn looking_back_goes_from_memory_into_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Utc::now().trunc_subsecs(3);
    let log = run(&options(dir.path()));
    for _ in 0..9000 {
        while !log.sender.record(record(Reason::Denied)) {
            std::thread::yield_now();
        }
    }
    let log = log.end();
    let ids = |filter: Filter| log.find(&filter).iter().map(|record| record.id).collect::<Vec<_>>();
    let of = |limit| Filter { limit: Some(limit), ..Filter::default() };
    assert_eq!(ids(of(3)), [8998, 8999, 9000]);
    assert_eq!(ids(of(9500)), (1..=9000).collect::<Vec<_>>(), "each once, across the border");
    assert_eq!(ids(Filter { since: Some(begin), ..of(9500) }).len(), 9000);
    assert_eq!(ids(Filter { since: Some(Utc::now() + chrono::TimeDelta::hours(1)), ..of(9500) }), [0_u64; 0]);
    assert_eq!(ids(Filter { text: Some("no such text".into()), ..of(10) }), [0_u64; 0]);
    // Another run: the numbers go on, and what the first one wrote is found.
    let again = run(&options(dir.path()));
    assert!(again.sender.record(record(Reason::NoLease)));
    let log = again.end();
    let found = log.find(&of(2));
    assert_eq!(
        found.iter().map(|record| (record.id, record.reason)).collect::<Vec<_>>(),
        [(9000, Reason::Denied), (9001, Reason::NoLease)]
    );
}

#[tokio::test]
async fn who_follows_too_slowly_is_told_what_he_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = run(&options(dir.path()));
    let mut quick = log.log.follow(Filter::default());
    let mut slow = log.log.follow(Filter { host: Some("nobody".into()), ..Filter::default() });
    assert!(log.sender.record(record(Reason::Denied)));
    let News::Records(first) = quick.next().await.expect("the log goes on") else { panic!("nothing was missed") };
    assert_eq!(first.len(), 1);
    let (mut sent, mut seen, end) = (0, 0, Instant::now() + PATIENCE);
    while sent < 10_000 {
        sent += u64::from(log.sender.record(record(Reason::Denied)));
    }
    while seen < sent {
        assert!(Instant::now() < end, "{seen} of {sent}");
        match quick.next().await.expect("the log goes on") {
            News::Records(records) => seen += records.len() as u64,
            News::Missed(missed) => seen += missed,
        }
    }
    assert_eq!(seen, sent, "each is seen or counted");
    assert!(matches!(slow.next().await, Some(News::Missed(1..))));
    log.end();
}

#[test]
fn a_place_that_cannot_be_written_costs_the_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("decisions");
    std::fs::write(&place, "a file where a directory should be").unwrap();
    let log = run(&options(&place));
    assert!(log.sender.record(record(Reason::Denied)));
    let found = |log: &Log| log.find(&Filter::default()).len();
    wait_until(|| found(&log.log) == 1);
    assert!(log.log.report().trouble[0].contains("not written to"), "{:?}", log.log.report());
    std::fs::remove_file(&place).unwrap();
    wait_until(|| log.log.report().trouble.is_empty());
    assert!(log.sender.record(record(Reason::NoLease)));
    let log = log.end();
    assert_eq!((log.report().unwritten, found(&log)), (0, 2));
    assert_eq!(
        read(&place).map(|record| record.reason).collect::<Vec<_>>(),
        [Reason::Denied, Reason::NoLease],
        "what waited is written, in its order"
    );
}

#[test]
fn what_waits_for_a_disk_is_bounded_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("decisions");
    std::fs::write(&place, "a file where a directory should be").unwrap();
    let log = run(&options(&place));
    for _ in 0..5000 {
        while !log.sender.record(record(Reason::Denied)) {
            std::thread::yield_now();
        }
    }
    wait_until(|| log.log.report().records == 5000);
    let lost = log.log.report().unwritten;
    assert!((1000..4900).contains(&lost), "{lost} of 5000");
    std::fs::remove_file(&place).unwrap();
    wait_until(|| log.log.report().trouble.is_empty() && read(&place).count() as u64 == 5000 - lost);
    // A disk that never comes back: at the end all is counted.
    let nowhere = dir.path().join("decisions/decisions-000001.jsonl/below");
    let lost = run(&options(&nowhere));
    assert!(lost.sender.record(record(Reason::Denied)));
    assert_eq!(lost.end().report().unwritten, 1);
    log.end();
}

#[test]
fn a_log_that_fails_says_so_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = run(&options(dir.path()));
    let cause = Cause { layer: Layer::Packet, action: Action::Block, reason: Reason::Denied, counter: 1 };
    let key = Key { who: Who::Anyone, cause, revision: 3, domain: None, address: None, port: None, protocol: 6 };
    log.sender.packet(Sighting { key, time: Utc::now(), describe: Box::new(|| panic!("a test of panics")) });
    wait_until(|| !log.log.report().trouble.is_empty());
    assert!(log.log.report().trouble[0].contains("decisions are not recorded"));
    assert!(!log.sender.record(record(Reason::Denied)), "there is nobody to take it");
    log.sender.stop();
    assert!(log.thread.join().is_err());
}

#[test]
fn nothing_is_kept_where_nothing_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("decisions");
    let log = run(&Options { wanted: Decisions::None, ..options(&place) });
    log.sender.record(record(Reason::Denied));
    query(&log.sender, 1, 1);
    let log = log.end();
    assert_eq!((log.report().records, place.exists()), (0, false));
}

#[track_caller]
fn wait_until(holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it does not come to be so");
        std::thread::sleep(Duration::from_millis(10));
    }
}
