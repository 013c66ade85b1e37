//! Reading a body: no more than is allowed, no longer than is allowed, and no more large ones at a time than there is
//! memory for. A key may stand in the body, so this happens before anybody is known.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The longest body, bytes (SPEC section 5).
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long nothing of it may come.
const PIECE_TIME: Duration = Duration::from_secs(10);
/// Bodies up to this are read whenever they come; larger ones take a place.
const SMALL: usize = 64 * 1024;
/// Large bodies at a time: 64 MiB at the most.
const LARGE_AT_A_TIME: usize = 4;
/// What is read and thrown away of a body that is not wanted, so that the client comes to read the answer.
const THROWN_AWAY: usize = 2 * MAX_BODY;

/// Places for large bodies.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_AT_A_TIME)))
    }
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is over [`MAX_BODY`].
    TooLarge,
    /// It took too long.
    TooSlow,
    /// There are too many large ones at once.
    Crowded,
    /// It broke off.
    Broken,
}

/// A body that is all there.
pub(super) struct Whole {
    pub bytes: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A body on its way.
pub(super) struct Incoming {
    stream: BodyDataStream,
    /// What the client says that it is long.
    declared: Option<u64>,
    /// The client waits for a word before it sends the body.
    hesitates: bool,
    end: Instant,
    over: bool,
}

impl Incoming {
    pub fn new(headers: &HeaderMap, body: Body) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            stream: body.into_data_stream(),
            declared: text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            hesitates: headers.contains_key(header::EXPECT),
            end: Instant::now() + BODY_TIME,
            over: false,
        }
    }

    /// All of it.
    pub async fn read(&mut self, places: &Places) -> Result<Whole, Unread> {
        if self.declared.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(Unread::TooLarge);
        }
        let (mut bytes, mut place) = (Vec::new(), None);
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > MAX_BODY {
                return Err(Unread::TooLarge);
            }
            if place.is_none() && bytes.len() + piece.len() > SMALL {
                let free = timeout_at(self.end, Arc::clone(&places.0).acquire_owned()).await;
                place = Some(free.ok().and_then(Result::ok).ok_or(Unread::Crowded)?);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Whole { bytes, _place: place })
    }

    /// Reads what is left and forgets it. Closing a connection that still has something to read would take the answer
    /// from the client as well (RFC 9112 section 9.6).
    pub async fn throw_away(&mut self) {
        let mut left = THROWN_AWAY;
        while !self.hesitates && !self.over {
            match self.next().await {
                Ok(Some(piece)) if piece.len() < left => left -= piece.len(),
                _ => return,
            }
        }
    }

    async fn next(&mut self) -> Result<Option<axum::body::Bytes>, Unread> {
        self.hesitates = false;
        let end = self.end.min(Instant::now() + PIECE_TIME);
        let piece = timeout_at(end, self.stream.next()).await;
        self.over = !matches!(piece, Ok(Some(Ok(_))));
        match piece {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) => Err(Unread::Broken),
            Err(_) => Err(Unread::TooSlow),
        }
    }
}
