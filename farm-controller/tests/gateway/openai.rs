//! `/v1/..`: one endpoint for the farm.

use serde_json::{Value, json};

use super::stand_in::{Manner, StandIn, hangs};
use super::{MODEL, bare, raw, site_of, split, start, until_up};

const OTHER: &str = "org/model-b";

async fn ask(url: &str, model: &str) -> (u16, Value, Option<String>) {
    let body = json!({"model": model, "messages": []}).to_string();
    let response =
        reqwest::Client::new().post(format!("{url}/v1/chat/completions")).body(body).send().await;
    let response = response.unwrap();
    let retry = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)), retry)
}

#[tokio::test]
async fn requests_go_to_the_rig_that_serves_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (StandIn::start("a", MODEL).await, StandIn::start("b", OTHER).await);
    let gateway = start(&site_of(&[&a, &b], folder.path())).await;
    let url = format!("http://{}", gateway.address());
    until_up(gateway.address(), 0, true).await;
    until_up(gateway.address(), 1, true).await;
    for (model, name) in [(MODEL, "a"), (OTHER, "b"), (OTHER, "b")] {
        assert_eq!(ask(&url, model).await.1["by"], name);
    }
    let models = reqwest::get(format!("{url}/v1/models")).await.unwrap();
    let models: Value = models.json().await.unwrap();
    assert_eq!(models["data"][0]["id"], MODEL);
    assert_eq!(models["data"][1]["id"], OTHER);
    let one = reqwest::get(format!("{url}/v1/models/org/model-b")).await.unwrap();
    assert_eq!(one.json::<Value>().await.unwrap()["id"], OTHER);
    let (status, body, _) = ask(&url, "org/nothing").await;
    assert_eq!((status, &body["error"]["type"]), (404, &json!("not_found_error")));
    // The body passes as it was written, the model's name among it; what is no JSON is the rig's to refuse.
    let odd = b"{ \"model\":\"org/model-b\", \"x\": 1e0 }";
    raw(gateway.address(), &bare("POST", "/v3.0.16//v1/chat/completions", Some(odd))).await;
    assert_eq!(b.seen("/v1/chat/completions").pop().unwrap().body, &odd[..]);
    let nonsense = bare("POST", "/v1/chat/completions", Some(b"\xff{"));
    assert_eq!(split(&raw(gateway.address(), &nonsense).await).0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn the_least_loaded_rig_is_asked_and_another_if_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = StandIn::start("a", MODEL).await;
    let b = StandIn::start("b", MODEL).await;
    let gateway = start(&site_of(&[&a, &b], folder.path())).await;
    let url = format!("http://{}", gateway.address());
    until_up(gateway.address(), 0, true).await;
    until_up(gateway.address(), 1, true).await;
    // One that hangs keeps its place: everybody else goes to the other.
    a.inside().chats = Manner::Hangs;
    b.inside().chats = Manner::Hangs;
    let hanging = tokio::spawn({
        let url = url.clone();
        async move { ask(&url, MODEL).await }
    });
    let (full, free, by) = tokio::select! {
        _ = hangs(&a, |(now, _)| *now == 1) => (&a, &b, "b"),
        _ = hangs(&b, |(now, _)| *now == 1) => (&b, &a, "a"),
    };
    free.inside().chats = Manner::Proper;
    for _ in 0..3 {
        assert_eq!(ask(&url, MODEL).await.1["by"], by);
    }
    hanging.abort();
    hangs(full, |(_, dropped)| *dropped == 1).await;
    // One that refuses for now is passed over; if both do, the customer is told, with the time to come again.
    for refusal in [429, 502, 503] {
        a.inside().chats = Manner::Refuses(refusal);
        b.inside().chats = Manner::Proper;
        for _ in 0..2 {
            assert_eq!(ask(&url, MODEL).await.1["by"], "b", "{refusal}");
        }
        b.inside().chats = Manner::Refuses(refusal);
        let (status, body, retry) = ask(&url, MODEL).await;
        assert_eq!((status, body, retry.as_deref()), (refusal, json!("no"), Some("7")));
    }
    // What the customer has to mend is asked once.
    a.inside().chats = Manner::Refuses(400);
    b.inside().chats = Manner::Refuses(400);
    let before = a.seen("/v1/chat").len() + b.seen("/v1/chat").len();
    assert_eq!(ask(&url, MODEL).await.0, 400);
    assert_eq!(a.seen("/v1/chat").len() + b.seen("/v1/chat").len(), before + 1);
    // One that is gone, with nobody knowing yet, costs nobody an answer.
    b.inside().chats = Manner::Proper;
    a.die().await;
    for _ in 0..3 {
        assert_eq!(ask(&url, MODEL).await.1["by"], "b");
    }
    // One that says that it is ill is not asked, whatever it lists.
    b.inside().ill = true;
    until_up(gateway.address(), 1, false).await;
    until_up(gateway.address(), 0, false).await;
    let (status, body, retry) = ask(&url, MODEL).await;
    assert_eq!((status, body), (503, json!("No vLLM backend available")));
    assert!(retry.is_some());
    gateway.stop().await;
}
