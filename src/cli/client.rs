//! The tool's end of the control socket. Blocking: a tool has nothing else to do.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::protocol::{LONG, MAX_LINE, Request, Response};
use crate::settings::socket_in;
use crate::store::words;

/// How long an answer may take. A policy of a hundred thousand names is in force within some seconds on a slow
/// router; who waits longer than this waits for a daemon that hangs.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon is not running: nobody listens on {}; start it with `systemctl start clawgress` or `clawgress run`",
        socket.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The system refused.
    #[error("cannot talk to the daemon on {}: {}", socket.display(), words(source))]
    Io {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon took the request and said nothing.
    #[error("the daemon did not answer within {} seconds; its log tells why", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The daemon closed the connection.
    #[error("the daemon closed the connection without an answer; its log tells why")]
    Closed,
    /// The request is longer than the daemon reads.
    #[error("the policy is too long: at most {} MiB are sent to the daemon", MAX_LINE / (1024 * 1024))]
    TooLong,
    /// The answer makes no sense.
    #[error("the daemon's answer is not understood; restart it if clawgress was updated meanwhile")]
    NotUnderstood,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Client {
    /// Connects to the daemon's socket in its runtime directory.
    ///
    /// # Errors
    /// Nobody listens there, or only others may talk.
    pub fn connect(runtime_dir: &Path) -> Result<Self, ClientError> {
        let socket = socket_in(runtime_dir);
        let stream = match UnixStream::connect(&socket) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Err(ClientError::NotRunning { socket });
            }
            Err(source) => return Err(ClientError::Io { socket, source }),
        };
        let timeout = Some(ANSWER_TIMEOUT);
        match stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)) {
            Ok(()) => Ok(Self { stream: BufReader::new(stream), socket }),
            Err(source) => Err(ClientError::Io { socket, source }),
        }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// No answer came, or none that is understood. A refusal is an answer.
    pub fn ask(&mut self, mut request: Request) -> Result<Response, ClientError> {
        let long = request.policy_mut().filter(|text| text.len() >= LONG).map(std::mem::take);
        let octets = long.as_ref().map_or(0, String::len);
        let head = if long.is_some() { line(&Request::Text { octets })? } else { Vec::new() };
        let request = line(&request)?;
        if octets.max(request.len()) > MAX_LINE {
            return Err(ClientError::TooLong);
        }
        for part in [&head, long.unwrap_or_default().as_bytes(), &request] {
            match self.stream.get_mut().write_all(part) {
                // A daemon that refuses early may close before it has read all; what it said still counts.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(self.failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        self.answer()?.ok_or(ClientError::Closed)
    }

    /// Waits for a further answer to a request that goes on, as long as it takes; `None`: it has ended.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn more(&mut self) -> Result<Option<Response>, ClientError> {
        self.stream.get_mut().set_read_timeout(None).map_err(|error| self.failed(error))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Option<Response>, ClientError> {
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(MAX_LINE as u64).read_until(b'\n', &mut answer);
        read.map_err(|error| self.failed(error))?;
        if answer.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&answer).map(Some).map_err(|_| ClientError::NotUnderstood)
    }

    fn failed(&self, error: io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ClientError::Closed,
            _ => ClientError::Io { socket: self.socket.clone(), source: error },
        }
    }
}

fn line(request: &Request) -> Result<Vec<u8>, ClientError> {
    let mut line = serde_json::to_vec(request).map_err(|_| ClientError::NotUnderstood)?;
    line.push(b'\n');
    Ok(line)
}
