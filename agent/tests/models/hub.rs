//! A stand-in for the Hub and its file servers that misbehaves as told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

/// What the next request for a file gets; after the last one, the file itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trick {
    /// So many bytes, then the connection breaks.
    Drop(usize),
    /// So many bytes in an answer that says it is whole.
    EndEarly(usize),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// A range that was not asked for.
    WrongRange,
    /// A status without a file.
    Status(u16, Option<u64>),
    /// Other bytes of the same length.
    OtherBytes,
    /// Another length in the header and in the body.
    Longer,
    /// To itself, for ever.
    RedirectLoop,
    /// The file lies on another server.
    Elsewhere,
}

#[derive(Default)]
struct Told {
    files: Vec<(String, Vec<u8>)>,
    /// Names that the listing has beside the files.
    rumours: Vec<String>,
    tricks: Vec<Trick>,
    listing_tricks: Vec<Trick>,
    /// The listing says another sum.
    lie_about_sum: bool,
    /// The listing has no sums; only the redirect has.
    sums_in_header_only: bool,
    wants_token: Option<String>,
    /// Path, range and token of each request for a file.
    seen: Vec<(String, Option<String>, Option<String>)>,
    elsewhere: Option<SocketAddr>,
}

#[derive(Clone)]
pub struct HubStandIn {
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn sum(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl HubStandIn {
    pub async fn start(files: &[(&str, &[u8])]) -> Self {
        let told = Told {
            files: files.iter().map(|(name, data)| ((*name).into(), data.to_vec())).collect(),
            ..Told::default()
        };
        let told = Arc::new(Mutex::new(told));
        let (address, elsewhere) = (serve(&told).await, serve(&told).await);
        told.lock().unwrap().elsewhere = Some(elsewhere);
        Self { address, told }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn plays(&self, tricks: &[Trick]) {
        self.told.lock().unwrap().tricks = tricks.to_vec();
    }

    pub fn lists_with(&self, tricks: &[Trick]) {
        self.told.lock().unwrap().listing_tricks = tricks.to_vec();
    }

    pub fn lists_also(&self, name: &str) {
        self.told.lock().unwrap().rumours.push(name.into());
    }

    pub fn lies_about_the_sum(&self) {
        self.told.lock().unwrap().lie_about_sum = true;
    }

    pub fn says_sums_in_headers_only(&self) {
        self.told.lock().unwrap().sums_in_header_only = true;
    }

    pub fn wants(&self, token: &str) {
        self.told.lock().unwrap().wants_token = Some(token.into());
    }

    /// Range and token of each request for a file so far.
    pub fn seen(&self) -> Vec<(Option<String>, Option<String>)> {
        let told = self.told.lock().unwrap();
        told.seen.iter().map(|(_, range, token)| (range.clone(), token.clone())).collect()
    }
}

async fn serve(told: &Arc<Mutex<Told>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(Arc::clone(told));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

async fn answer(State(told): State<Arc<Mutex<Told>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let token = header(request.headers(), "authorization");
    let mut told = told.lock().unwrap();
    let is_elsewhere = path.starts_with("/elsewhere");
    let wanted = told.wants_token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && !is_elsewhere && token != wanted {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if path == "/api/models/org/repo/revision/main" {
        let trick = (!told.listing_tricks.is_empty()).then(|| told.listing_tricks.remove(0));
        return match trick {
            Some(Trick::Status(status, after)) => refusal(status, after),
            Some(_file_trick) => StatusCode::NOT_IMPLEMENTED.into_response(),
            None => axum::Json(listing(&told)).into_response(),
        };
    }
    let inside = format!("/org/repo/resolve/{COMMIT}/");
    let name = path.strip_prefix(&inside).or_else(|| path.strip_prefix("/elsewhere/"));
    let file = name.and_then(|name| told.files.iter().find(|(known, _)| known == name).cloned());
    let Some((name, data)) = file else { return StatusCode::NOT_FOUND.into_response() };
    let range = header(request.headers(), "range");
    told.seen.push((path.clone(), range.clone(), token));
    let trick = (!told.tricks.is_empty()).then(|| told.tricks.remove(0));
    let from = range.map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    match trick {
        None => ranged(&data, from),
        Some(Trick::Drop(count)) => {
            let from = from.unwrap_or(0);
            let until = (from + count).min(data.len());
            let pieces = [
                Ok(Bytes::copy_from_slice(&data[from..until])),
                Err(std::io::Error::other("told to break")),
            ];
            let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
            response.headers_mut().insert("content-length", (data.len() - from).into());
            place_range(&mut response, from, data.len());
            response
        }
        Some(Trick::EndEarly(count)) => {
            // Chunked: nothing on the wire says that more should come.
            let from = from.unwrap_or(0);
            let until = (from + count).min(data.len());
            let piece = Bytes::copy_from_slice(&data[from..until]);
            let piece: [Result<Bytes, std::io::Error>; 1] = [Ok(piece)];
            let mut response = Response::new(Body::from_stream(stream::iter(piece)));
            place_range(&mut response, from, data.len());
            response
        }
        Some(Trick::IgnoreRange) => ranged(&data, None),
        Some(Trick::WrongRange) => {
            let mut response = Response::new(Body::from(data.clone()));
            place_range(&mut response, 1, data.len());
            response
        }
        Some(Trick::Status(status, after)) => refusal(status, after),
        Some(Trick::OtherBytes) => {
            let other: Vec<u8> = data.iter().map(|byte| byte ^ 1).collect();
            ranged(&other, from)
        }
        Some(Trick::Longer) => {
            let mut longer = data.clone();
            longer.push(0);
            ranged(&longer, from)
        }
        Some(Trick::RedirectLoop) => {
            told.tricks.insert(0, Trick::RedirectLoop);
            redirect(&path, None)
        }
        Some(Trick::Elsewhere) => {
            let address = told.elsewhere.unwrap();
            redirect(&format!("http://{address}/elsewhere/{name}?signature=secret"), Some(&data))
        }
    }
}

fn listing(told: &Told) -> Value {
    let mut siblings: Vec<Value> =
        told.rumours.iter().map(|name| json!({"rfilename": name})).collect();
    for (name, data) in &told.files {
        let sum = if told.lie_about_sum { "0".repeat(64) } else { sum(data) };
        let is_large = name.ends_with("gguf") || name.ends_with("safetensors");
        siblings.push(if told.sums_in_header_only {
            json!({"rfilename": name})
        } else if is_large {
            json!({"rfilename": name, "size": data.len(), "lfs": {"sha256": sum, "size": data.len()}})
        } else {
            json!({"rfilename": name, "size": data.len()})
        });
    }
    json!({"id": "org/repo", "sha": COMMIT, "siblings": siblings, "gated": false})
}

fn ranged(data: &[u8], from: Option<usize>) -> Response {
    match from {
        Some(from) if from >= data.len() => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some(from) => {
            let mut response = Response::new(Body::from(data[from..].to_vec()));
            place_range(&mut response, from, data.len());
            response
        }
        None => Response::new(Body::from(data.to_vec())),
    }
}

fn place_range(response: &mut Response, from: usize, total: usize) {
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{total}", total - 1);
        response.headers_mut().insert("content-range", range.parse().unwrap());
    }
}

fn refusal(status: u16, after: Option<u64>) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(seconds) = after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn redirect(to: &str, linked: Option<&[u8]>) -> Response {
    let mut headers: HashMap<&str, String> = HashMap::from([("location", to.to_owned())]);
    if let Some(data) = linked {
        headers.insert("x-linked-etag", format!("\"{}\"", sum(data)));
        headers.insert("x-linked-size", data.len().to_string());
    }
    let mut response = StatusCode::FOUND.into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
