//! No answer without a lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;

use super::doubles::Table;
use super::fake::{Upstream, now};
use super::gateway::Gateway;
use super::wire::{a, ede, reply, told};
use crate::core::lease::LeaseError;
use crate::dns::service::pause;
use crate::policy::model::Mode;

async fn usual() -> Upstream {
    Upstream::start(|asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 300, "192.0.2.1")]))).await
}

#[tokio::test]
async fn the_answer_waits_for_the_kernel() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    *gateway.kernel.delay.lock().unwrap() = Duration::from_millis(300);
    for _ in 0..2 {
        let start = Instant::now();
        let early = tokio::time::timeout(Duration::from_millis(250), gateway.a("allowed.example")).await;
        assert!(early.is_err(), "an answer before the lease");
        let answer = gateway.a("allowed.example").await;
        assert!(start.elapsed() > Duration::from_millis(300));
        assert_eq!(told(&answer), ["192.0.2.1"]);
    }
    assert_eq!(upstream.asked().len(), 1, "the second time from the cache, and leased again all the same");
    assert_eq!(gateway.kernel.asked().len(), 4);
}

#[tokio::test]
async fn every_host_gets_its_own_lease() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    gateway.a("allowed.example").await;
    let message = super::wire::question("allowed.example", hickory_proto::rr::RecordType::A);
    gateway.ask_from("127.0.0.66:0", &message).await;
    let hosts: Vec<u16> = gateway.kernel.asked().iter().map(|request| request.host.0).collect();
    assert_eq!((hosts, upstream.asked().len()), (vec![2, 3], 1));
    assert_eq!(gateway.counters.cache_hits.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_a_lease_there_is_no_answer() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    for (error, code) in [(LeaseError::Kernel("no space".to_owned()), 23), (LeaseError::Busy, 14)] {
        gateway.kernel.refuse([error.clone()]);
        let answer = gateway.a("allowed.example").await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::ServFail, 0));
        assert_eq!(ede(&answer), Some((code, error.to_string())));
    }
    gateway.kernel.refuse([LeaseError::Stale, LeaseError::Stale, LeaseError::Stale]);
    assert_eq!(ede(&gateway.a("allowed.example").await).unwrap().0, 14);
    assert_eq!(gateway.counters.lease_failures.load(Ordering::Relaxed), 3);
    *gateway.kernel.delay.lock().unwrap() = Duration::from_secs(60);
    let (start, answer) = (Instant::now(), gateway.a("allowed.example").await);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() > Duration::from_millis(900) && start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_policy_that_changes_meanwhile_has_the_say() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let judge = Arc::clone(&gateway.judge);
    let newer = Table { revision: 2, ..Table::default() };
    *gateway.kernel.on_request.lock().unwrap() = Some(Box::new(move || judge.store(Some(Arc::new(newer.clone())))));
    gateway.kernel.refuse([LeaseError::Stale]);
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1"]);
    let revisions: Vec<u64> = gateway.kernel.asked().iter().map(|request| request.revision).collect();
    assert_eq!(revisions, [1, 2]);

    let judge = Arc::clone(&gateway.judge);
    let closed = Table { revision: 3, allow: vec![], ..Table::default() };
    *gateway.kernel.on_request.lock().unwrap() = Some(Box::new(move || judge.store(Some(Arc::new(closed.clone())))));
    gateway.kernel.refuse([LeaseError::Stale]);
    assert_eq!(gateway.a("allowed.example").await.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn where_another_policy_is_in_force_it_is_asked_at_once() {
    let [before, now] = [1, 2].map(|revision| Table { revision, ..Table::default() });
    assert_eq!(pause(1, Some(&now)), None);
    assert!(pause(1, Some(&before)).is_some() && pause(1, None::<&Table>).is_some());
}

#[tokio::test]
async fn a_policy_that_changes_while_the_upstream_thinks_has_the_say() {
    let upstream = Upstream::start(|asked, _| {
        vec![(Duration::from_millis(200), reply(asked, vec![a("allowed.example", 300, "192.0.2.1")]))]
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gateway.judge.store(Some(Arc::new(Table { allow: vec![], ..Table::default() })));
    };
    let (answer, ()) = tokio::join!(gateway.a("allowed.example"), change);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(gateway.kernel.asked().is_empty());
}

#[tokio::test]
async fn in_monitor_mode_a_kernel_that_refuses_stops_nobody() {
    let upstream = usual().await;
    let gateway = Gateway::start(Table { mode: Mode::Monitor, ..Table::default() }, &[&upstream]);
    gateway.kernel.refuse([LeaseError::Busy]);
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1"]);
}
