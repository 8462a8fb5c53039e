//! A scripted VNish: recorded answers, bearer tokens, the body's numbers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scripted::{Body, Delivery, PASSWORD, Script, recorded};

struct Miner {
    body: Body,
    door: Mutex<Door>,
}

#[derive(Default)]
struct Door {
    token: Option<String>,
    made: u32,
}

/// Starts one; it ends with the test's runtime.
pub async fn listen(body: Body) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let miner = Arc::new(Miner { body, door: Mutex::default() });
    let router = Router::new().fallback(answer).with_state(miner);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(
    State(miner): State<Arc<Miner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().strip_prefix("/api/v1/").unwrap_or("");
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let (status, reply) = match (&method, path) {
        (&Method::POST, "unlock") => miner.unlock(&body),
        (&Method::POST, _) if !miner.admits(token) => {
            (StatusCode::UNAUTHORIZED, json!({"err": "unauthorized"}))
        }
        (&Method::POST, _) => miner.order(path, &body),
        _ => miner.read(path),
    };
    match miner.body.deliver(&reply).await {
        Delivery::Whole(bytes) => (status, bytes).into_response(),
        // A body that ends in an error cuts the connection short of its announced end.
        Delivery::Cut(bytes) => {
            let cut = [Ok(Bytes::from(bytes)), Err(std::io::Error::other("cut"))];
            (status, HttpBody::from_stream(stream::iter(cut))).into_response()
        }
        Delivery::Nothing => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

impl Miner {
    fn unlock(&self, body: &Value) -> (StatusCode, Value) {
        if self.body.script() == Script::WrongPassword || body["pw"] != PASSWORD {
            return (StatusCode::FORBIDDEN, json!({"err": "Wrong password"}));
        }
        let mut door = self.door.lock().unwrap();
        door.made += 1;
        let token = format!("token{}", door.made);
        door.token = Some(token.clone());
        (StatusCode::OK, json!({ "token": token }))
    }

    fn admits(&self, token: Option<&str>) -> bool {
        let mut door = self.door.lock().unwrap();
        if self.body.script() == Script::ForgetsLogin && door.made % 2 == 1 {
            door.token = None;
        }
        token.is_some() && door.token.as_deref() == token
    }

    fn read(&self, path: &str) -> (StatusCode, Value) {
        let watts = self.body.watts();
        let reply = match path {
            "info" => recorded("vnish/web/info.json"),
            "summary" => {
                let mut reply = recorded("vnish/web/summary.json");
                let miner = &mut reply["miner"];
                miner["power_consumption"] = watts.into();
                miner["hr_realtime"] = self.body.gigahash().into();
                let state = if self.body.is_awake() { "mining" } else { "stopped" };
                miner["miner_status"]["miner_state"] = state.into();
                reply
            }
            "settings" => {
                let mut reply = recorded("vnish/web/settings.json");
                reply["miner"]["overclock"]["preset"] = self.body.step().to_string().into();
                reply["miner"]["overclock"]["preset_switcher"]["enabled"] = false.into();
                reply
            }
            "autotune/presets" => json!([
                {"name": "disabled", "pretty": "Disabled", "status": "untuned"},
                {"name": "1299", "pretty": "1299 watt ~ 65 TH", "status": "tuned"},
                {"name": "1390", "pretty": "1390 watt ~ 70 TH", "status": "untuned"},
                {"name": "2794", "pretty": "2794 watt ~ 121 TH", "status": "tuned"},
            ]),
            _ => return (StatusCode::NOT_FOUND, Value::Null),
        };
        (StatusCode::OK, reply)
    }

    fn order(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let accepted = match path {
            "mining/stop" => self.body.order("sleep", |awake, _| *awake = false),
            "mining/start" => self.body.order("wake", |awake, _| *awake = true),
            "mining/restart" => true,
            "settings" => {
                let preset = body["miner"]["overclock"]["preset"].as_str().unwrap_or("");
                let Ok(watts) = preset.parse::<u64>() else {
                    return (StatusCode::BAD_REQUEST, json!({"err": "no such preset"}));
                };
                self.body.order("step", |_, step| *step = watts);
                let answer = json!({"restart_required": true, "reboot_required": false});
                return (StatusCode::OK, answer);
            }
            _ => return (StatusCode::NOT_FOUND, Value::Null),
        };
        if accepted {
            (StatusCode::OK, json!({"success": true}))
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, json!({"err": "not today"}))
        }
    }
}
