//! What of an upstream's answer an agent is told.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS, MX, NULL, SVCB};
use hickory_proto::rr::{RData, Record, RecordType};

use super::doubles::{Table, name};
use super::fake::{Upstream, now};
use super::gateway::Gateway;
use super::wire::{a, aaaa, cname, ede, n, question, record, reply, soa, told};
use crate::core::lease::HostId;
use crate::policy::model::Mode;

async fn with(table: Table, records: Vec<Record>) -> (Gateway, Upstream) {
    let upstream = Upstream::start(move |asked, _| {
        let mut records = records.clone();
        let owner = &asked.queries[0].name;
        records.iter_mut().filter(|record| record.name == *owner).for_each(|record| record.name = owner.clone());
        now(reply(asked, records))
    })
    .await;
    (Gateway::start(table, &[&upstream]), upstream)
}

fn leased(gateway: &Gateway) -> Vec<String> {
    gateway.kernel.asked().iter().flat_map(|request| request.addresses.iter().map(ToString::to_string)).collect()
}

fn refused(answer: &Message, reason: &str) -> String {
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NXDomain, 0));
    let (code, text) = ede(answer).unwrap();
    assert!(code == 15 && text.starts_with(reason), "{text}");
    text
}

#[tokio::test]
async fn an_allowed_name_is_leased_and_told() {
    let records = vec![a("allowed.example", 300, "192.0.2.2"), a("allowed.example", 300, "192.0.2.1")];
    let (gateway, upstream) = with(Table::default(), records).await;
    let answer = gateway.a("AlloweD.example").await;
    assert_eq!(told(&answer), ["192.0.2.2", "192.0.2.1"], "the upstream's order");
    assert!(answer.metadata.recursion_available && answer.queries[0].name.eq_case(&n("AlloweD.example")));
    assert!(answer.answers.iter().all(|record| record.name.eq_case(&n("AlloweD.example"))), "there too");
    let requests = gateway.kernel.asked();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].revision, requests[0].host), (1, HostId(2)));
    assert_eq!(requests[0].name, name("allowed.example"));
    assert_eq!((requests[0].addresses.len(), requests[0].ttl.as_secs()), (2, 300));
    let (sent, _) = upstream.log().remove(0);
    assert!(sent.edns.unwrap().options().options.is_empty(), "no option of a client gets out");
    assert_ne!(sent.metadata.id, 0x4242, "nor its id");
}

#[tokio::test]
async fn a_chain_is_followed_and_the_rest_is_dropped() {
    let records = vec![
        a("unrelated.example", 300, "192.0.2.66"),
        cname("allowed.example", 300, "one.cdn.example"),
        cname("one.cdn.example", 60, "two.cdn.example"),
        a("two.cdn.example", 7200, "192.0.2.9"),
        aaaa("two.cdn.example", 7200, "2001:db8::9"),
        a("one.cdn.example", 300, "192.0.2.67"),
    ];
    let (gateway, _upstream) = with(Table::default(), records).await;
    let answer = gateway.a("allowed.example").await;
    assert_eq!(told(&answer), ["one.cdn.example.", "two.cdn.example.", "192.0.2.9"]);
    assert!(answer.answers.iter().all(|record| record.ttl == 60), "nobody remembers it for longer than the chain");
    assert_eq!(leased(&gateway), ["192.0.2.9"]);
    assert_eq!(gateway.kernel.asked()[0].ttl.as_secs(), 60);
    assert_eq!(gateway.kernel.asked()[0].name, name("allowed.example"));
    assert_eq!(gateway.kernel.asked()[0].links, [name("one.cdn.example"), name("two.cdn.example")]);
}

#[tokio::test]
async fn long_lives_are_cut() {
    let (gateway, _upstream) = with(Table::default(), vec![a("allowed.example", 86400, "192.0.2.9")]).await;
    assert_eq!(gateway.a("allowed.example").await.answers[0].ttl, 3600);
}

#[tokio::test]
async fn a_denied_link_blocks_the_answer() {
    let records = vec![
        cname("allowed.example", 300, "x.tracker.example"),
        cname("x.tracker.example", 300, "end.example"),
        a("end.example", 300, "192.0.2.9"),
    ];
    let table = Table { deny: vec!["*.tracker.example"], ..Table::default() };
    let (gateway, _upstream) = with(table, records).await;
    let text = refused(&gateway.a("allowed.example").await, "denied:");
    assert!(text.contains("x.tracker.example") && text.ends_with("(/deny/domains/0)"), "{text}");
    refused(&gateway.ask(&question("allowed.example", RecordType::CNAME)).await, "denied:");
    assert!(leased(&gateway).is_empty());
}

#[tokio::test]
async fn loops_and_odd_links_are_refused() {
    let round = vec![cname("allowed.example", 300, "b.example"), cname("b.example", 300, "allowed.example")];
    let (gateway, _upstream) = with(Table::default(), round).await;
    refused(&gateway.a("allowed.example").await, "malformed:");
    let odd = vec![
        record("allowed.example", 300, RData::CNAME(hickory_proto::rr::rdata::CNAME(n("a\\.b.tracker.example")))),
        record("a\\.b.tracker.example", 300, RData::A(A::new(192, 0, 2, 1))),
    ];
    let (gateway, _upstream) = with(Table::default(), odd).await;
    refused(&gateway.a("allowed.example").await, "malformed:");
}

#[tokio::test]
async fn addresses_inside_are_not_told() {
    let (gateway, _upstream) = with(Table::default(), vec![a("allowed.example", 300, "192.168.1.1")]).await;
    let text = refused(&gateway.a("allowed.example").await, "rebinding:");
    assert!(text.contains("192.168.1.1"), "{text}");
    assert!(leased(&gateway).is_empty());
    let mixed = vec![
        a("allowed.example", 300, "10.0.0.1"),
        a("allowed.example", 300, "192.0.2.1"),
        a("allowed.example", 300, "192.0.2.13"),
        a("allowed.example", 300, "172.16.0.1"),
    ];
    let table = Table {
        open: vec![IpAddr::from([172, 16, 0, 1])],
        denied: vec![IpAddr::from([192, 0, 2, 13])],
        ..Table::default()
    };
    let (gateway, _upstream) = with(table.clone(), mixed).await;
    assert_eq!(told(&gateway.a("allowed.example").await), ["192.0.2.1", "172.16.0.1"]);
    assert_eq!(leased(&gateway), ["192.0.2.1"], "an open address needs no lease");
    let (gateway, _upstream) = with(table.clone(), vec![a("allowed.example", 300, "192.0.2.13")]).await;
    refused(&gateway.a("allowed.example").await, "denied:");
    let (gateway, _upstream) = with(table, vec![a("allowed.example", 300, "172.16.0.1")]).await;
    assert_eq!(told(&gateway.a("allowed.example").await), ["172.16.0.1"]);
    assert!(gateway.kernel.asked().is_empty());
}

fn service(target: &str, hints: &[&str]) -> Record {
    let params = vec![
        (
            SvcParamKey::Mandatory,
            SvcParamValue::Mandatory(Mandatory(vec![
                SvcParamKey::Alpn,
                SvcParamKey::Ipv4Hint,
                SvcParamKey::EchConfigList,
            ])),
        ),
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()]))),
        (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(hints.iter().map(|hint| A(hint.parse().unwrap())).collect())),
        ),
        (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1, 2, 3]))),
        (
            SvcParamKey::Ipv6Hint,
            SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::5".parse().unwrap()), AAAA("::1".parse().unwrap())])),
        ),
    ];
    record("allowed.example", 300, RData::HTTPS(HTTPS(SVCB::new(1, n(target), params))))
}

fn params(answer: &Message) -> Vec<(SvcParamKey, SvcParamValue)> {
    let RData::HTTPS(HTTPS(service)) = &answer.answers[0].data else { panic!("no service binding") };
    service.svc_params.clone()
}

#[tokio::test]
async fn service_bindings_lose_ech_and_unleased_hints() {
    let ask = question("allowed.example", RecordType::HTTPS);
    let (gateway, _upstream) = with(Table::default(), vec![service(".", &["192.0.2.7", "10.0.0.1"])]).await;
    let found = params(&gateway.ask(&ask).await);
    let keys: Vec<SvcParamKey> = found.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [SvcParamKey::Mandatory, SvcParamKey::Alpn, SvcParamKey::Ipv4Hint, SvcParamKey::Ipv6Hint]);
    assert_eq!(found[0].1, SvcParamValue::Mandatory(Mandatory(vec![SvcParamKey::Alpn, SvcParamKey::Ipv4Hint])));
    assert_eq!(found[2].1, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, 7)])));
    assert_eq!(leased(&gateway), ["192.0.2.7", "2001:db8::5"]);
    let (gateway, _upstream) = with(Table::default(), vec![service(".", &["10.0.0.1"])]).await;
    let keys: Vec<SvcParamKey> = params(&gateway.ask(&ask).await).iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [SvcParamKey::Mandatory, SvcParamKey::Alpn, SvcParamKey::Ipv6Hint]);
    let (gateway, _upstream) = with(Table::default(), vec![service("elsewhere.example", &["192.0.2.7"])]).await;
    let keys: Vec<SvcParamKey> = params(&gateway.ask(&ask).await).iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [SvcParamKey::Mandatory, SvcParamKey::Alpn], "hints of another name");
    assert!(gateway.kernel.asked().is_empty());
    let table = Table { deny: vec!["elsewhere.example"], ..Table::default() };
    let (gateway, _upstream) = with(table, vec![service("elsewhere.example", &["192.0.2.7"])]).await;
    refused(&gateway.ask(&ask).await, "denied:");
}

#[tokio::test]
async fn records_that_lead_to_a_denied_name_are_left_out() {
    let mx = |target: &str| record("allowed.example", 300, RData::MX(MX::new(1, n(target))));
    let table = Table { deny: vec!["bad.example"], ..Table::default() };
    let (gateway, _upstream) = with(table, vec![mx("bad.example"), mx("good.example")]).await;
    assert_eq!(told(&gateway.ask(&question("allowed.example", RecordType::MX)).await), ["1 good.example."]);
}

#[tokio::test]
async fn nothing_there_is_told_with_a_short_life() {
    let upstream = Upstream::start(|asked, _| {
        let mut nothing = reply(asked, vec![]);
        nothing.metadata.response_code = ResponseCode::NXDomain;
        nothing.authorities.push(soa("wild.example", 86400, 86400));
        now(nothing)
    })
    .await;
    let gateway = Gateway::start(Table::default(), &[&upstream]);
    let answer = gateway.a("no.wild.example").await;
    assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::NXDomain, None));
    let RData::SOA(found) = &answer.authorities[0].data else { panic!("no SOA") };
    assert_eq!((answer.authorities[0].ttl, found.minimum), (60, 60));
    gateway.a("no.wild.example").await;
    assert_eq!(upstream.asked().len(), 1, "and remembered");
    assert!(gateway.kernel.asked().is_empty());
}

#[tokio::test]
async fn monitor_mode_lets_everything_pass() {
    let records = vec![cname("allowed.example", 60, "bad.example"), a("bad.example", 60, "192.168.0.1")];
    let table = Table { deny: vec!["bad.example"], mode: Mode::Monitor, ..Table::default() };
    let (gateway, _upstream) = with(table, records).await;
    assert_eq!(told(&gateway.a("allowed.example").await), ["bad.example.", "192.168.0.1"]);
    let table = Table { mode: Mode::Monitor, ..Table::default() };
    let (gateway, _upstream) = with(table, vec![a("unlisted.example", 60, "192.168.0.1")]).await;
    let answer = gateway.a("unlisted.example").await;
    assert_eq!(told(&answer), ["192.168.0.1"]);
    assert!(answer.answers[0].name.eq_case(&n("unlisted.example")));
    assert!(gateway.kernel.asked().is_empty());
}

#[tokio::test]
async fn signatures_go_to_who_wants_them_and_only_with_what_they_sign() {
    let signature = |owner: &str, covered: u16| {
        let mut octets = covered.to_be_bytes().to_vec();
        octets.extend([8, 2, 0, 0, 1, 44]);
        record(owner, 300, RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(octets) })
    };
    let records = vec![
        cname("allowed.example", 300, "b.example"),
        signature("allowed.example", 5),
        signature("allowed.example", 16),
        a("b.example", 300, "192.0.2.1"),
        signature("b.example", 1),
        signature("c.example", 1),
    ];
    let kinds = |answer: &Message| -> Vec<String> {
        answer.answers.iter().map(|record| record.record_type().to_string()).collect()
    };
    let mut wanting = question("allowed.example", RecordType::A);
    wanting.edns.as_mut().unwrap().set_dnssec_ok(true);
    let (gateway, upstream) = with(Table::default(), records.clone()).await;
    let answer = gateway.ask(&wanting).await;
    assert_eq!(kinds(&answer), ["CNAME", "RRSIG", "A", "RRSIG"]);
    assert!(answer.edns.unwrap().flags().dnssec_ok && upstream.log()[0].0.edns.as_ref().unwrap().flags().dnssec_ok);
    assert_eq!(kinds(&gateway.a("allowed.example").await), ["CNAME", "A"]);
    let changed = [records, vec![a("b.example", 300, "10.0.0.1")]].concat();
    let (gateway, _upstream) = with(Table::default(), changed).await;
    assert_eq!(kinds(&gateway.ask(&wanting).await), ["CNAME", "A"], "what was changed is not signed");
}
