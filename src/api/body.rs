//! Reading a body: no more than is allowed, no longer than is allowed, and no more at a time than there is memory
//! for. A key may stand in the body, so this happens before anybody is known.

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
/// Bodies up to this are read whenever they come; longer ones take of the room.
const SMALL: usize = 64 * 1024;
/// Room for the bodies of those who showed a key in the head, bytes.
const ROOM_KNOWN: usize = 3 * MAX_BODY;
/// Room for the bodies of everybody else: the key may stand in them, so nobody knows yet whose they are.
const ROOM_UNKNOWN: usize = 2 * MAX_BODY;
/// Room is given out in units of this many bytes.
const UNIT: usize = 1024;
/// What is read and thrown away of a body that is not wanted, so that the client comes to read the answer.
const THROWN_AWAY: usize = 2 * MAX_BODY;

/// Memory for bodies.
#[derive(Clone)]
pub(super) struct Room {
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let units = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Self { known: units(ROOM_KNOWN), unknown: units(ROOM_UNKNOWN) }
    }
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is over [`MAX_BODY`].
    TooLarge,
    /// It took too long.
    TooSlow,
    /// There is no room for it.
    Crowded,
    /// It broke off.
    Broken,
}

/// A body that is all there.
pub(super) struct Whole {
    /// What came.
    pub bytes: Vec<u8>,
    /// Its room; as long as anything of it is in memory.
    pub room: Option<OwnedSemaphorePermit>,
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

    /// All of it. `known`: the client showed a key.
    pub async fn read(&mut self, room: &Room, known: bool) -> Result<Whole, Unread> {
        let declared = self.declared.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if declared.is_some_and(|length| length > MAX_BODY) {
            return Err(Unread::TooLarge);
        }
        let room = if known { &room.known } else { &room.unknown };
        let mut whole = Whole { bytes: Vec::new(), room: None };
        if let Some(length) = declared.filter(|length| *length > SMALL) {
            whole.room = Some(take(room, length, self.end).await?);
            whole.bytes.reserve_exact(length);
        }
        while let Some(piece) = self.next().await? {
            let length = whole.bytes.len() + piece.len();
            if length > MAX_BODY {
                return Err(Unread::TooLarge);
            }
            if length > SMALL && whole.room.is_none() {
                whole.room = Some(take(room, MAX_BODY, self.end).await?);
            }
            whole.bytes.extend_from_slice(&piece);
        }
        Ok(whole)
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

async fn take(room: &Arc<Semaphore>, length: usize, end: Instant) -> Result<OwnedSemaphorePermit, Unread> {
    let units = u32::try_from(length.div_ceil(UNIT)).map_err(|_| Unread::TooLarge)?;
    let taken = timeout_at(end, Arc::clone(room).acquire_many_owned(units)).await;
    taken.ok().and_then(Result::ok).ok_or(Unread::Crowded)
}
