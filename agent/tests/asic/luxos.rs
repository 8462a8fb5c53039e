//! A scripted LuxOS: recorded answers, one session, the body's numbers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::scripted::{Body, Delivery, Script, recorded};

struct Miner {
    body: Body,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    held: Option<String>,
    made: u32,
    atm_off: bool,
}

/// Starts one; it ends with the test's runtime.
pub async fn listen(body: Body) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let miner = Arc::new(Miner { body, session: Mutex::default() });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(miner.clone(), stream));
        }
    });
    address
}

async fn serve(miner: Arc<Miner>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(request) = serde_json::from_str::<Value>(&line) else { return };
    let parameter = request["parameter"].as_str().unwrap_or("");
    let reply = miner.answer(request["command"].as_str().unwrap_or(""), parameter);
    let (Delivery::Whole(bytes) | Delivery::Cut(bytes)) = miner.body.deliver(&reply).await else {
        return;
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

fn status(letter: &str, code: u32, message: &str) -> Value {
    json!({"STATUS": [{"STATUS": letter, "Code": code, "Msg": message}], "id": 1})
}

impl Miner {
    fn answer(&self, command: &str, parameter: &str) -> Value {
        let (awake, watts) = (self.body.is_awake(), self.body.watts());
        match command {
            "version" | "temps" | "profiles" => recorded(&format!("luxos/{command}.json")),
            "power" => {
                let mut reply = recorded("luxos/power.json");
                reply["POWER"][0]["Watts"] = watts.into();
                reply
            }
            "summary" => {
                let mut reply = recorded("luxos/summary.json");
                reply["SUMMARY"][0]["GHS 5s"] = self.body.gigahash().into();
                reply
            }
            "config" => {
                let mut reply = recorded("luxos/config.json");
                let config = &mut reply["CONFIG"][0];
                config["CurtailMode"] = if awake { "None" } else { "Sleep" }.into();
                config["IsPowerSupplyOn"] = awake.into();
                let name = if self.body.step() > 2_000 { "default" } else { "315MHz" };
                config["Profile"] = name.into();
                reply
            }
            "atm" => {
                let mut reply = status("S", 339, "ATM configuration values");
                reply["ATM"] = json!([{ "Enabled": !self.session.lock().unwrap().atm_off }]);
                reply
            }
            "logon" => self.log_on(),
            _ => self.order(command, parameter),
        }
    }

    fn log_on(&self) -> Value {
        if let Script::SessionHeld(tries) = self.body.script()
            && self.body.trick(tries)
        {
            return status("E", 402, "Another session is active");
        }
        let mut session = self.session.lock().unwrap();
        if session.held.is_some() {
            return status("E", 402, "Another session is active");
        }
        session.made += 1;
        let id = format!("session{}", session.made);
        session.held = Some(id.clone());
        let mut reply = status("S", 316, "Session created");
        reply["SESSION"] = json!([{ "SessionID": id }]);
        reply
    }

    fn order(&self, command: &str, parameter: &str) -> Value {
        let (id, rest) = parameter.split_once(',').unwrap_or((parameter, ""));
        let mut session = self.session.lock().unwrap();
        if session.held.as_deref() != Some(id) {
            return status("E", 402, "Invalid session ID");
        }
        if command == "logoff" {
            session.held = None;
            return status("S", 317, "Session terminated");
        }
        if self.body.script() == Script::ForgetsLogin && session.made % 2 == 1 {
            session.held = None;
            return status("E", 402, "Session expired");
        }
        let accepted = match (command, rest) {
            ("curtail", "sleep") => self.body.order("sleep", |awake, _| *awake = false),
            ("curtail", "wakeup") => self.body.order("wake", |awake, _| *awake = true),
            ("atmset", rest) => {
                session.atm_off = rest.contains("enabled=false");
                true
            }
            ("profileset", _) if !session.atm_off => return status("E", 402, "ATM is enabled"),
            ("profileset", "default") => self.body.order("step", |_, step| *step = 2_794),
            ("profileset", "315MHz") => self.body.order("step", |_, step| *step = 1_299),
            (_, _) => return status("E", 14, "Invalid command"),
        };
        if accepted { status("S", 335, "done") } else { status("E", 402, "not today") }
    }
}
