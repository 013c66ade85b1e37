//! DNS over TLS and over HTTPS: one connection per upstream, used by all, made anew when it breaks or falls silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hickory_net::h2::HttpsClientStream;
use hickory_net::runtime::{RuntimeProvider, Spawn, TokioRuntimeProvider};
use hickory_net::tls::tls_client_connect;
use hickory_net::xfer::{DnsExchange, FirstAnswer};
use hickory_net::{DnsHandle, DnsMultiplexer, NetError};
use hickory_proto::op::{DnsRequest, DnsRequestOptions};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;

use super::address::Protocol;
use super::wire::{Match, compare, question, random_id};
use super::{Failure, Lookup, Reply};

/// How long a connection may take to stand; the budget of a whole look-up is little more.
const CONNECT_TIME: Duration = Duration::from_millis(1500);
/// How long an answer on a standing connection may take.
const ANSWER_TIME: Duration = Duration::from_millis(1800);
/// After a failed connection nobody tries for this long: the look-ups that wait go to the next upstream at once.
const REST: Duration = Duration::from_millis(500);
/// This many questions in a row without any answer, over this long: the connection is dead, whatever TCP thinks.
const SILENCE: (u32, Duration) = (4, Duration::from_secs(1));
/// Questions open on one connection at most (hickory's 32 answers "busy" under load).
const MAX_OPEN: usize = 4096;

/// An upstream that is asked over an encrypted connection.
pub(in crate::dns) struct Encrypted {
    address: SocketAddr,
    protocol: Protocol,
    tls: Arc<ClientConfig>,
    /// Holds the tasks of the connections; they end with it.
    provider: TokioRuntimeProvider,
    line: Mutex<Line>,
    /// Questions since the last answer.
    unanswered: AtomicU32,
}

#[derive(Default)]
struct Line {
    exchange: Option<DnsExchange<TokioRuntimeProvider>>,
    /// Grows with every connection, so that one failure does not tear down the connection made after it.
    number: u64,
    failed: Option<(Instant, String)>,
    last_answer: Option<Instant>,
}

impl Encrypted {
    pub(super) fn new(address: SocketAddr, protocol: Protocol, tls: Arc<ClientConfig>) -> Self {
        Self {
            address,
            protocol,
            tls,
            provider: TokioRuntimeProvider::new(),
            line: Mutex::default(),
            unanswered: AtomicU32::new(0),
        }
    }

    /// Asks once; on a connection that the other side has closed meanwhile, once more on a new one.
    pub async fn ask(&self, lookup: &Lookup) -> Result<Reply, Failure> {
        let asked = question(lookup, &lookup.name, random_id()?);
        let mut retried = false;
        loop {
            let (exchange, number, fresh) = self.exchange().await?;
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            let request = DnsRequest::new(asked.clone(), DnsRequestOptions::default());
            match exchange.send(request).first_answer().await {
                Ok(response) => {
                    self.unanswered.store(0, Ordering::Relaxed);
                    self.line.lock().await.last_answer = Some(Instant::now());
                    let (mut message, buffer) = response.into_parts();
                    // The transport matched the id (DoH uses 0 always).
                    message.metadata.id = asked.metadata.id;
                    return match compare(&asked, &message) {
                        Match::No => Err(Failure::Network(format!("{} does not answer the question", self.address))),
                        Match::Exact | Match::Spelling => Ok(Reply { message, length: buffer.len() }),
                    };
                }
                Err(error) => {
                    self.drop_line(number).await;
                    if fresh || retried || matches!(error, NetError::Timeout) {
                        return Err(self.broken(&error));
                    }
                    retried = true;
                }
            }
        }
    }

    /// The connection, made if there is none; its number; whether it is new.
    async fn exchange(&self) -> Result<(DnsExchange<TokioRuntimeProvider>, u64, bool), Failure> {
        let mut line = self.line.lock().await;
        let silent = self.unanswered.load(Ordering::Relaxed) >= SILENCE.0
            && line.last_answer.is_none_or(|last| last.elapsed() > SILENCE.1);
        if silent {
            line.exchange = None;
        }
        if let Some(exchange) = &line.exchange {
            return Ok((exchange.clone(), line.number, false));
        }
        if let Some((when, why)) = &line.failed
            && when.elapsed() < REST
        {
            return Err(Failure::Network(why.clone()));
        }
        let made = tokio::time::timeout(CONNECT_TIME, self.connect()).await.unwrap_or(Err(NetError::Timeout));
        match made {
            Ok(exchange) => {
                line.number += 1;
                line.failed = None;
                line.last_answer = Some(Instant::now());
                line.exchange = Some(exchange.clone());
                self.unanswered.store(0, Ordering::Relaxed);
                Ok((exchange, line.number, true))
            }
            Err(error) => {
                let failure = self.broken(&error);
                line.failed = Some((Instant::now(), failure.to_string()));
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<DnsExchange<TokioRuntimeProvider>, NetError> {
        let provider = self.provider.clone();
        match &self.protocol {
            Protocol::Https(name, path) => {
                let mut builder = HttpsClientStream::builder(Arc::clone(&self.tls), provider);
                builder.request_timeout(ANSWER_TIME);
                builder.exchange(self.address, Arc::clone(name), Arc::clone(path)).await
            }
            Protocol::Tls(name) => self.connect_tls(name, provider).await,
            Protocol::Plain => Err(NetError::from("a plain upstream has no connection")),
        }
    }

    /// Like hickory's `tls_exchange`, but with the server's name in the hello: some servers choose the certificate by it.
    async fn connect_tls(
        &self,
        name: &str,
        provider: TokioRuntimeProvider,
    ) -> Result<DnsExchange<TokioRuntimeProvider>, NetError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| NetError::from(error.to_string()))?;
        let (stream, handle) = tls_client_connect(self.address, name, Arc::clone(&self.tls), provider.clone());
        let multiplexer =
            DnsMultiplexer::new(stream.await?, handle).with_timeout(ANSWER_TIME).with_max_active_requests(MAX_OPEN);
        let (exchange, background) = DnsExchange::<TokioRuntimeProvider>::from_stream(multiplexer);
        provider.create_handle().spawn_bg(background);
        Ok(exchange)
    }

    async fn drop_line(&self, number: u64) {
        let mut line = self.line.lock().await;
        if line.number == number {
            line.exchange = None;
        }
    }

    fn broken(&self, error: &NetError) -> Failure {
        Failure::Network(format!("{} cannot be asked: {error}", self.address))
    }
}

/// TLS as upstreams are spoken to: the system's certificates (or those of `SSL_CERT_FILE`), TLS 1.2 and 1.3.
///
/// # Errors
/// There is no certificate to trust, with the reason.
pub(in crate::dns) fn tls_config() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "none is installed".to_owned(), ToString::to_string);
        return Err(why);
    }
    tls_trusting(roots)
}

/// TLS that trusts exactly these roots.
///
/// # Errors
/// The library does not like its own defaults, with the reason.
pub(in crate::dns) fn tls_trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        .map_err(|error| error.to_string())
}
