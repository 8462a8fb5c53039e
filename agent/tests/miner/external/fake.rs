//! A stand-in for external miners, in a process of its own. It says that it is one; it hashes nothing.
//!
//! It reads the port of its API from the command line as the miner it plays would, answers as `tests/data/miners` has it
//! with a count of shares that rises, and behaves badly when told to.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The command line it was started with.
const ARGS: &str = "ROADBED_FAKE_MINER_ARGS";
/// Which miner it plays, and its manners, with spaces.
const PLAYS: &str = "ROADBED_FAKE_MINER";

/// Writes a program to a folder that is a fake miner of this name, with these manners:
/// `silent` API, `garbage`, `oversize`, `cut` answers, `zero` hashrate, `barren` without shares, `deaf` to SIGTERM, `forks`
/// a deaf grandchild, `exits` at once, `slow` start.
pub fn program(folder: &Path, miner: &str, manners: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(miner);
    let itself = std::env::current_exe().unwrap();
    let fork = if manners.contains("forks") { "(trap '' TERM; sleep 300) &\n" } else { "" };
    let trap = if manners.contains("deaf") { "trap '' TERM\n" } else { "" };
    let script = format!(
        "#!/bin/sh\n{fork}{trap}{ARGS}=\"$*\" {PLAYS}=\"{miner} {manners}\" exec '{}' miner::external::fake::process_of_a_fake_miner --exact --nocapture\n",
        itself.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

/// The miner's own way to say where its API listens.
fn port(miner: &str, args: &str) -> u16 {
    let option = match miner {
        "xmrig" => "--http-port ",
        "t-rex" => "--api-bind-http 127.0.0.1:",
        "lolminer" => "--apiport ",
        "srbminer-multi" => "--api-port ",
        "teamredminer" => "--api_listen=127.0.0.1:",
        "bzminer" => "--http_port ",
        "rigel" => "--api-bind 127.0.0.1:",
        other => unreachable!("{other} is no miner"),
    };
    let (_, behind) = args.split_once(option).unwrap();
    behind.split(' ').next().unwrap().parse().unwrap()
}

/// Answers: what is asked, the file, where its accepted shares and its rate stand.
fn pages(miner: &str) -> &'static [(&'static str, &'static str, &'static str, &'static str)] {
    match miner {
        "xmrig" => &[("/2/summary", "xmrig.summary", "/results/shares_good", "/hashrate/total/0")],
        "t-rex" => &[("/summary", "t-rex.summary", "/accepted_count", "/hashrate")],
        "lolminer" => &[(
            "/summary",
            "lolminer.summary",
            "/Algorithms/0/Total_Accepted",
            "/Algorithms/0/Total_Performance",
        )],
        "srbminer-multi" => &[(
            "/",
            "srbminer-multi.status",
            "/algorithms/0/shares/accepted",
            "/algorithms/0/hashrate/gpu/total",
        )],
        "teamredminer" => &[
            ("summary", "teamredminer.summary", "/SUMMARY/0/Accepted", "/SUMMARY/0/MHS 30s"),
            ("devs", "teamredminer.devs", "", ""),
        ],
        "bzminer" => {
            &[("/status", "bzminer.status", "/pools/0/valid_solutions", "/devices/0/hashrate/0")]
        }
        "rigel" => &[("/", "rigel.status", "/solution_stat/kawpow/accepted", "/hashrate/kawpow")],
        other => unreachable!("{other} is no miner"),
    }
}

/// A recorded-shape answer.
pub fn answer(file: &str) -> Value {
    let path = format!("{}/../tests/data/miners/{file}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn process_of_a_fake_miner() {
    let (Ok(args), Ok(plays)) = (std::env::var(ARGS), std::env::var(PLAYS)) else { return };
    let (miner, manners) = plays.split_once(' ').unwrap();
    let is = |manner: &str| manners.split(' ').any(|word| word == manner);
    println!("a stand-in for {miner}, not a miner; its password is hush-hush");
    if is("exits") {
        eprintln!("no CUDA device");
        std::process::exit(3);
    }
    if is("slow") {
        std::thread::sleep(Duration::from_millis(400));
    }
    let listener = TcpListener::bind(("127.0.0.1", port(miner, &args))).unwrap();
    let token = args.split("--http-access-token ").nth(1).and_then(|rest| rest.split(' ').next());
    let mut looks = 0;
    loop {
        let (socket, _) = listener.accept().unwrap();
        if is("silent") {
            // Held open: the asker finds out by the clock.
            std::mem::forget(socket);
            continue;
        }
        looks += 1;
        serve(socket, miner, &is, token, looks);
    }
}

fn serve(
    mut socket: TcpStream,
    miner: &str,
    is: &dyn Fn(&str) -> bool,
    token: Option<&str>,
    looks: u64,
) {
    let tcp = miner == "teamredminer";
    let mut request = Vec::new();
    let mut byte = [0];
    let end: &[u8] = if tcp { b"\n" } else { b"\r\n\r\n" };
    while !request.ends_with(end) && socket.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let what = match tcp {
        true => {
            serde_json::from_str::<Value>(&request).unwrap()["command"].as_str().unwrap().to_owned()
        }
        false => request.split(' ').nth(1).unwrap().to_owned(),
    };
    if what == "/control?command=shutdown" {
        reply(&mut socket, tcp, 200, json!({"success": 1}).to_string().as_bytes());
        if !is("deaf") {
            std::process::exit(0);
        }
        return;
    }
    if let Some(token) = token
        && !request.to_lowercase().contains(&format!("authorization: bearer {token}"))
    {
        return reply(&mut socket, tcp, 401, b"{}");
    }
    let Some((_, file, accepted, rate)) = pages(miner).iter().find(|(asked, ..)| *asked == what)
    else {
        return reply(&mut socket, tcp, 404, b"{}");
    };
    let mut document = answer(file);
    if let Some(count) = document.pointer_mut(accepted).filter(|_| !accepted.is_empty()) {
        *count = if is("barren") { json!(0) } else { json!(looks) };
    }
    if is("zero")
        && let Some(rate) = document.pointer_mut(rate)
    {
        *rate = json!(0);
    }
    let whole = document.to_string().into_bytes();
    let body = match () {
        () if is("garbage") => b"<html>it works</html>".to_vec(),
        () if is("oversize") => vec![b' '; 1 << 20],
        () if is("cut") => whole[..whole.len() / 2].to_vec(),
        () => whole,
    };
    reply(&mut socket, tcp, 200, &body);
}

/// An asker that has heard enough hangs up; that is no fault of ours.
fn reply(socket: &mut TcpStream, tcp: bool, status: u16, body: &[u8]) {
    if tcp {
        let _ = socket.write_all(body).and_then(|()| socket.write_all(&[0]));
        return;
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body));
}
