//! The REST API (SPEC section 5): the control socket's requests over HTTP, for those who hold a key.
//!
//! A call goes through these doors in turn: a place among the connections, the brake on those who guess keys, the size
//! of the body, the key, the key's role, the fields. Behind them stands a [`Request`], the same that the tool sends, and
//! the daemon answers it. [`routes::ROUTES`] is the one list of calls; the router and the OpenAPI document are made of it.
//!
//! Nothing here can open the gateway: where the API cannot be had (a port that is taken, a certificate that cannot be
//! read), the policy is enforced without it, and `status` tells.

mod body;
mod brake;
mod call;
mod connections;
mod fields;
mod keys;
mod listen;
mod openapi;
mod routes;
mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::daemon::protocol::{Request, Response};

pub use listen::serve;
pub use openapi::document;

/// An answer on its way.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Who answers: the request, and the id of the key that asks. What it returns may be dropped half-way (a client that
/// goes away); what it began must go on.
pub type Ask = Arc<dyn Fn(Request, String) -> Answer + Send + Sync>;

/// How the API is doing, for `status`.
#[derive(Debug, Default)]
pub struct State {
    /// One sentence: listening where, or why not.
    now: Mutex<Option<Result<String, String>>>,
}

impl State {
    /// Whether it is as it should be, and a sentence; `None`: nobody has a key or asks for metrics, so there is no API.
    pub fn told(&self) -> Option<Result<String, String>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nobody has a key, and nobody asks for metrics.
    fn is_off(&self) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// True: this is news.
    fn tell(&self, now: Result<String, String>) -> bool {
        let mut told = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told.as_ref() != Some(&now);
        *told = Some(now);
        news
    }
}
