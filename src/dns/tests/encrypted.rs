//! Upstreams over TLS and HTTPS, with a certificate of our own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::doubles::Table;
use super::fake::{Upstream, Via, now};
use super::gateway::{Gateway, bound, settings};
use super::wire::{a, ede, reply, told};
use crate::dns::Counters;
use crate::dns::listen::bind_with;
use crate::dns::upstream::tls_trusting;

const NAME: &str = "dns.test";

/// One certificate and its key for all tests of this file.
fn identity() -> &'static (rcgen::Certificate, rcgen::KeyPair) {
    static MADE: OnceLock<(rcgen::Certificate, rcgen::KeyPair)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        (made.cert, made.signing_key)
    })
}

fn acceptor(alpn: &[u8]) -> TlsAcceptor {
    let (certificate, key) = identity();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    serve: impl Fn(TlsStream<TcpStream>) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        if let Ok(stream) = acceptor.accept(stream).await {
            assert_eq!(stream.get_ref().1.server_name(), Some(NAME), "the hello names the server");
            tokio::spawn(serve(stream));
        }
    }
}

fn usual(listener: &TcpListener) -> Upstream {
    Upstream::new(listener.local_addr().unwrap(), |asked, _| {
        let name = asked.queries[0].name.to_ascii();
        let delay = if name.to_lowercase().starts_with("slow") { 500 } else { 0 };
        vec![(Duration::from_millis(delay), reply(asked, vec![a(&name, 300, "192.0.2.1")]))]
    })
}

async fn tls() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = usual(&listener);
    let serving = upstream.clone();
    tokio::spawn(accept(listener, acceptor(b"dot"), move |stream| serving.clone().converse(stream)));
    upstream
}

async fn https() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = usual(&listener);
    let serving = upstream.clone();
    tokio::spawn(accept(listener, acceptor(b"h2"), move |stream| serve_https(serving.clone(), stream)));
    upstream
}

async fn serve_https(upstream: Upstream, stream: TlsStream<TcpStream>) {
    upstream.connected();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let upstream = upstream.clone();
        tokio::spawn(async move {
            assert_eq!((request.method(), request.uri().path()), (&http::Method::POST, "/q"));
            let mut body = request.into_body();
            let mut packet = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                packet.extend_from_slice(&part);
            }
            let (delay, message) = upstream.react(&packet, Via::Tcp).remove(0);
            tokio::time::sleep(delay).await;
            let bytes = message.to_vec().unwrap();
            let head = http::Response::builder()
                .header("content-type", "application/dns-message")
                .header("content-length", bytes.len())
                .body(())
                .unwrap();
            respond.send_response(head, false).unwrap().send_data(Bytes::from(bytes), true).unwrap();
        });
    }
}

fn gateway(upstreams: &[String]) -> Gateway {
    let mut roots = RootCertStore::empty();
    roots.add(identity().0.der().clone()).unwrap();
    let counters = Arc::new(Counters::default());
    let settings = settings("127.0.0.1:0", upstreams);
    let bound = bound(|| bind_with(&settings, Arc::clone(&counters), || tls_trusting(roots.clone())));
    Gateway::serve(Some(Table::default()), bound, counters)
}

#[tokio::test]
async fn questions_share_one_encrypted_connection() {
    for (upstream, text) in [(tls().await, "tls://{}#dns.test"), (https().await, "https://{}/q#dns.test")] {
        let gateway = gateway(&[text.replace("{}", &upstream.address.to_string())]);
        let names: Vec<String> = (0..20).map(|number| format!("n{number}.wild.example")).collect();
        let answers = futures_util::future::join_all(names.iter().map(|name| gateway.a(name))).await;
        assert!(answers.iter().all(|answer| told(answer) == ["192.0.2.1"]), "{text}: {answers:?}");
        gateway.a("last.wild.example").await;
        assert_eq!((upstream.asked().len(), upstream.connections()), (21, 1), "{text}");
    }
}

#[tokio::test]
async fn a_closed_connection_is_made_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = usual(&listener);
    let serving = upstream.clone();
    // Every connection ends after its first answer.
    tokio::spawn(accept(listener, acceptor(b"dot"), move |stream| {
        let upstream = serving.clone();
        async move {
            let _ = tokio::time::timeout(Duration::from_millis(100), upstream.converse(stream)).await;
        }
    }));
    let gateway = gateway(&[format!("tls://{}#dns.test", upstream.address)]);
    for number in 0..3 {
        assert_eq!(told(&gateway.a(&format!("n{number}.wild.example")).await), ["192.0.2.1"], "{number}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_wrong_certificate_is_not_talked_to() {
    let upstream = tls().await;
    let other = Upstream::start(|asked, _| now(reply(asked, vec![a("allowed.example", 60, "192.0.2.2")]))).await;
    let wrong = format!("tls://{}#other.test", upstream.address);
    let answer = gateway(std::slice::from_ref(&wrong)).a("allowed.example").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let (code, text) = ede(&answer).unwrap();
    assert!(code == 23 && text.contains("cannot be asked"), "{text}");
    assert!(upstream.asked().is_empty());
    let answer = gateway(&[wrong, other.address.to_string()]).a("allowed.example").await;
    assert_eq!(told(&answer), ["192.0.2.2"], "the next one is asked at once");
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The first connection reads nothing, the later ones are in order.
    let upstream = usual(&listener);
    let serving = upstream.clone();
    let first = std::sync::atomic::AtomicBool::new(true);
    tokio::spawn(accept(listener, acceptor(b"dot"), move |stream| {
        let upstream = serving.clone();
        let silent = first.swap(false, std::sync::atomic::Ordering::Relaxed);
        async move {
            if silent {
                std::future::pending::<()>().await;
                drop(stream);
            } else {
                upstream.converse(stream).await;
            }
        }
    }));
    let gateway = gateway(&[format!("tls://{address}#dns.test")]);
    let first = gateway.a("one.wild.example").await;
    let second = gateway.a("two.wild.example").await;
    assert!([first, second].iter().any(|answer| told(answer) == ["192.0.2.1"]));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_is_slow_to_stand_is_there_for_the_next_question() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = usual(&listener);
    let serving = upstream.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        serving.converse(acceptor(b"dot").accept(stream).await.unwrap()).await;
    });
    let other =
        Upstream::start(|asked, _| now(reply(asked, vec![a(&asked.queries[0].name.to_ascii(), 60, "192.0.2.2")])))
            .await;
    let gateway = gateway(&[format!("tls://{}#dns.test", upstream.address), other.address.to_string()]);
    assert_eq!(told(&gateway.a("one.wild.example").await), ["192.0.2.2"], "the other was asked meanwhile");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(told(&gateway.a("two.wild.example").await), ["192.0.2.1"]);
}
