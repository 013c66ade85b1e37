//! One call from its head to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request as HttpRequest};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response as HttpResponse};
use axum::routing::{get, post};
use tracing::{info, warn};

use super::Ask;
use super::body::{Incoming, MAX_BODY, Room, Unread, Whole};
use super::brake::Brake;
use super::fields::Fields;
use super::keys::{Holder, Keys};
use super::routes::{PREFIXES, ROUTES, Route};
use crate::daemon::protocol::{Refusal, Request, Response, Text};
use crate::settings::Role;

/// Where the metrics are, and in which form (Prometheus' exposition format).
pub(super) const METRICS: &str = "/metrics";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Who asks for them, in place of a key's id.
const SCRAPER: &str = "metrics";

/// What the calls of one listener share.
pub(super) struct Desk {
    pub keys: Keys,
    pub brake: Arc<Brake>,
    pub room: Room,
    pub ask: Ask,
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub IpAddr);

/// An answer that is no 200.
struct Refused {
    status: StatusCode,
    response: Box<Response>,
    retry_after: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, response: Box::new(Response::failed(why)), retry_after: None }
    }
}

/// The router of every call, under both prefixes, for one connection's peer.
pub(super) fn router(desk: &Arc<Desk>, metrics: bool) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        for prefix in PREFIXES {
            let desk = Arc::clone(desk);
            let handler = move |Extension(peer): Extension<Peer>, request: HttpRequest| async move {
                call(&desk, route, peer, request).await
            };
            router = router.route(&format!("{prefix}/{}", route.name), post(handler));
        }
    }
    if metrics {
        let desk = Arc::clone(desk);
        router = router.route(METRICS, get(move || async move { exposition(&desk).await }));
    }
    router
        .route("/openapi.json", get(openapi))
        .fallback(|request: HttpRequest| async {
            let why = format!("there is no {}; GET /openapi.json lists the calls", request.uri().path());
            turn_away(request, Refused::new(StatusCode::NOT_FOUND, why)).await
        })
        .method_not_allowed_fallback(|request: HttpRequest| async {
            let why = format!("{} is not for {}", request.method(), request.uri().path());
            turn_away(request, Refused::new(StatusCode::METHOD_NOT_ALLOWED, why)).await
        })
}

async fn openapi() -> HttpResponse {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let text = TEXT.get_or_init(|| super::document().to_string());
    http(StatusCode::OK, text.clone(), None)
}

/// Counters for a machine that asks often and has no key: nothing in them says what the policy allows.
async fn exposition(desk: &Desk) -> HttpResponse {
    let response = (desk.ask)(Request::Metrics {}, SCRAPER.to_owned()).await;
    match response.data::<Text>() {
        Ok(Text { text: counters }) if response.success => {
            let mut answer = http(StatusCode::OK, counters, None);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EXPOSITION));
            answer
        }
        _ => http(StatusCode::INTERNAL_SERVER_ERROR, text(&response), None),
    }
}

async fn turn_away(request: HttpRequest, refused: Refused) -> HttpResponse {
    let (head, body) = request.into_parts();
    Incoming::new(&head.headers, body).throw_away().await;
    refused.into_http()
}

async fn call(desk: &Desk, route: &'static Route, Peer(source): Peer, request: HttpRequest) -> HttpResponse {
    let (head, body) = request.into_parts();
    let mut body = Incoming::new(&head.headers, body);
    let done = attend(desk, route, source, &head.headers, &mut body).await;
    body.throw_away().await;
    match done {
        Ok(response) => http(StatusCode::OK, text(&response), None),
        Err(refused) => refused.into_http(),
    }
}

async fn attend(
    desk: &Desk,
    route: &'static Route,
    source: IpAddr,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Response, Refused> {
    may_try(desk, source)?;
    require_json(headers)?;
    let bearer = bearer(headers);
    // Who shows a wrong key in the head is not listened to any further.
    if let Some(shown) = bearer {
        known(desk, route, source, shown)?;
    }
    let Whole { bytes, room } = body.read(&desk.room, bearer.is_some()).await.map_err(unread)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "the body is not a text in UTF-8"))?;
    let mut fields = Fields::read(text).map_err(|why| Refused::new(StatusCode::BAD_REQUEST, why))?;
    let in_body = fields.take_key();
    let shown = in_body.as_deref().or(bearer).ok_or_else(|| {
        let why = "the key is missing: \"key\": \"…\" in the body, or an Authorization: Bearer header";
        Refused::new(StatusCode::UNAUTHORIZED, why)
    })?;
    let holder = known(desk, route, source, shown)?;
    // Else who has a read key could show it now and then, and guess at a write key for ever.
    if holder.role == Role::Write {
        desk.brake.right(source);
    }
    if route.role == Role::Write && holder.role == Role::Read {
        info!("key {} from {source} may read only; refused: {}", holder.id, route.name);
        let why = format!("the key {} may read only, and {} changes something", holder.id, route.name);
        return Err(Refused::new(StatusCode::FORBIDDEN, why));
    }
    fields.expect(route.fields);
    let request = (route.request)(&mut fields);
    fields.finish().map_err(|mistakes| Refused {
        status: StatusCode::BAD_REQUEST,
        response: Box::new(Response::refused("the call has mistakes; nothing was done", mistakes)),
        retry_after: None,
    })?;
    let Some(request) = request else {
        return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in clawgress, please report it"));
    };
    // The request has what it needs of the body; room is taken until it is done.
    drop(bytes);
    let response = (desk.ask)(request, holder.id.clone()).await;
    drop(room);
    if response.success {
        return Ok(response);
    }
    Err(Refused { status: status(&response), response: Box::new(response), retry_after: None })
}

fn status(response: &Response) -> StatusCode {
    match response.refusal {
        Refusal::Invalid => StatusCode::BAD_REQUEST,
        Refusal::Conflict => StatusCode::CONFLICT,
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether a key from this source is looked at now.
fn may_try(desk: &Desk, source: IpAddr) -> Result<(), Refused> {
    let Some(wait) = desk.brake.wait(source, Instant::now()) else { return Ok(()) };
    let why = "too many wrong keys from your address; wait, then use the right one";
    let retry_after = Some(wait.as_secs() + 1);
    Err(Refused { retry_after, ..Refused::new(StatusCode::TOO_MANY_REQUESTS, why) })
}

/// The holder of the key; a wrong one is counted and logged by its source, never by what it was.
fn known<'d>(desk: &'d Desk, route: &Route, source: IpAddr, shown: &str) -> Result<&'d Holder, Refused> {
    // Others of this source may have shown wrong keys while the body came.
    may_try(desk, source)?;
    desk.keys.holder(shown).ok_or_else(|| {
        let (count, wait) = desk.brake.wrong(source, Instant::now());
        let waits = wait.map(|wait| format!("; it waits {} s", wait.as_secs())).unwrap_or_default();
        warn!("wrong API key from {source} for {} ({count} in a row){waits}", route.name);
        Refused::new(StatusCode::UNAUTHORIZED, "the key is not known")
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn require_json(headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let why = "bodies are JSON: send the header Content-Type: application/json";
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

fn unread(why: Unread) -> Refused {
    match why {
        Unread::TooLarge => {
            let most = MAX_BODY / (1024 * 1024);
            let why = format!("the body is over {most} MiB; move long lists of names into files (domain_lists)");
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        Unread::TooSlow => Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        Unread::Crowded => {
            let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "too many large bodies at once; try again");
            Refused { retry_after: Some(1), ..refused }
        }
        Unread::Broken => Refused::new(StatusCode::BAD_REQUEST, "the body broke off"),
    }
}

impl Refused {
    fn into_http(self) -> HttpResponse {
        let mut response = http(self.status, text(&self.response), self.retry_after);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn text(response: &Response) -> String {
    serde_json::to_string(response).unwrap_or_default()
}

fn http(status: StatusCode, text: String, retry_after: Option<u64>) -> HttpResponse {
    let mut response = (status, Body::from(text)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Answers are about this moment, and about who may go where.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
