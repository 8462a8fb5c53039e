//! Reading the bodies of the PoC routes into requests of the proof side.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roadbed_compute::poc::{DecodeTerms, Identity, K_DIM, NonceShare, Round, Scheme, StatTest};
use serde_json::Value;

use super::super::body::{BodyFault, Fields, read_body};
use crate::proof::{CallbackUrl, JobRequest, Received, RoundRequest};

/// Nonces travel as int32.
const NONCE_MAX: u32 = i32::MAX as u32;
/// Nonces per step when the request does not say, as in the network's own nodes.
const BATCH_DEFAULT: usize = 32;
/// Longest block hash or key: they are part of every seed and of every delivery.
const IDENTITY_LENGTH_MAX: usize = 1024;
/// A trajectory as long as this fits no context we load.
const STEPS_MAX: usize = 1 << 16;
/// Steps of a DECODE round that does not say how many.
const STEPS_DEFAULT: usize = 256;
/// Width of the routing window of the branches that name one; no other is known.
const ROUTE_WINDOW: usize = 256;
/// Stands for a step that is no point of the codebook.
const NO_POINT: u8 = u8::MAX;
/// Fields of `params` this node knows; others are newer than it and passed over with a warning.
const PARAMS_KNOWN: [&str; 7] =
    ["model", "seq_len", "k_dim", "decode", "scheme", "max_tokens", "route_window"];

/// The nonces of a validation and of its artifacts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OtherNonces;

/// The body of `init/generate`.
pub(super) fn read_init(body: &[u8]) -> Result<RoundRequest, BodyFault> {
    read_body(body, read_request)
}

/// The body of `generate`, and whether the caller waits for the outcome.
pub(super) fn read_generate(
    body: &[u8],
) -> Result<Result<(JobRequest, bool), OtherNonces>, BodyFault> {
    read_body(body, |fields| {
        let request = read_request(fields);
        let nonces = read_nonces(fields);
        let wait = fields.optional("wait").unwrap_or(false);
        let scheme = request.as_ref().map_or(Scheme::Prefill, |request| request.round.scheme);
        let received = match fields.object("validation") {
            Some(validation) => Some(read_received(&validation, scheme)?),
            None => None,
        };
        let (stat_test, p_value_threshold) = read_stat_test(fields);
        let (request, nonces) = (request?, nonces?);
        if let Some(received) = &received {
            let ours: BTreeSet<u32> = nonces.iter().copied().collect();
            let theirs = received.nonces();
            let set: BTreeSet<u32> = theirs.iter().copied().collect();
            if ours != set || theirs.len() != set.len() {
                return Some(Err(OtherNonces));
            }
        }
        Some(Ok((JobRequest { request, nonces, received, stat_test, p_value_threshold }, wait)))
    })
}

fn read_request(fields: &Fields<'_>) -> Option<RoundRequest> {
    let block_hash = read_identity(fields, "block_hash");
    let public_key = read_identity(fields, "public_key");
    let block_height = fields.required("block_height");
    let share = read_share(fields);
    let batch: Option<usize> = fields.optional("batch_size");
    let url = read_url(fields);
    let stronger_rng = fields.optional("poc_stronger_rng").unwrap_or(false);
    let Some(params) = fields.object("params") else {
        if fields.value("params").is_none() {
            fields.complain("params", "missing", "Field required");
        }
        return None;
    };
    let model = params.required("model");
    let seq_len: Option<usize> = params.required("seq_len");
    if seq_len == Some(0) {
        params.complain("seq_len", "greater_than", "Input should be greater than 0");
    }
    let k_dim = params.optional("k_dim").unwrap_or(K_DIM);
    if k_dim == 0 {
        params.complain("k_dim", "greater_than", "Input should be greater than 0");
    }
    let scheme = read_scheme(&params);
    for name in params.unknown(&PARAMS_KNOWN) {
        tracing::warn!(name, "a field of params is not known here and passed over");
    }
    Some(RoundRequest {
        round: Round {
            identity: Identity { block_hash: block_hash?, public_key: public_key? },
            seq_len: seq_len?,
            k_dim,
            stronger_rng,
            scheme: scheme?,
        },
        block_height: block_height?,
        share: share?,
        model: model?,
        batch: batch.filter(|&batch| batch > 0).unwrap_or(BATCH_DEFAULT),
        url,
    })
}

/// The chain API says `decode`, the engine's plugin `scheme`, some branches add a `route_window`.
fn read_scheme(params: &Fields<'_>) -> Option<Scheme> {
    let flag = params.optional("decode").unwrap_or(false);
    let steps: Option<usize> = params.optional("max_tokens");
    if !flag && !params.value("scheme").is_some_and(is_decode) {
        return Some(Scheme::Prefill);
    }
    let window: Option<usize> = params.optional("route_window");
    if window.is_some_and(|window| window != ROUTE_WINDOW) {
        params.complain("route_window", "literal_error", format!("Input should be {ROUTE_WINDOW}"));
        return None;
    }
    let max_tokens = steps.filter(|&steps| steps > 0).unwrap_or(STEPS_DEFAULT);
    if max_tokens >= STEPS_MAX {
        let message = format!("Input should be less than {STEPS_MAX}");
        params.complain("max_tokens", "less_than", message);
        return None;
    }
    Some(Scheme::Decode(DecodeTerms { max_tokens }))
}

/// Whoever shares a node out over several engines numbers them; a node by itself is group 0 of 1.
pub(super) fn read_share(fields: &Fields<'_>) -> Option<NonceShare> {
    let node_id = fields.required("node_id");
    let node_count: Option<u32> = fields.required("node_count");
    let group_id = fields.optional("group_id").unwrap_or(0);
    let n_groups = fields.optional("n_groups").unwrap_or(1);
    for (name, number) in [("node_count", node_count), ("n_groups", Some(n_groups))] {
        if number == Some(0) {
            fields.complain(name, "greater_than", "Input should be greater than 0");
        }
    }
    if n_groups > 0 && group_id >= n_groups {
        // It would walk the nonces of another group, and a nonce twice is fraud.
        let message = format!("Input should be less than n_groups, which is {n_groups}");
        fields.complain("group_id", "less_than", message);
    }
    Some(NonceShare { node_id: node_id?, node_count: node_count?, group_id, n_groups })
}

fn is_decode(scheme: &Value) -> bool {
    scheme.as_str().is_some_and(|word| word.to_ascii_uppercase().ends_with("DECODE"))
}

fn read_identity(fields: &Fields<'_>, name: &str) -> Option<String> {
    let text: String = fields.required(name)?;
    if text.len() > IDENTITY_LENGTH_MAX {
        let message = format!("String should have at most {IDENTITY_LENGTH_MAX} characters");
        fields.complain(name, "string_too_long", message);
        return None;
    }
    Some(text)
}

fn read_url(fields: &Fields<'_>) -> Option<CallbackUrl> {
    let text: String = fields.optional("url")?;
    if text.is_empty() {
        return None;
    }
    match CallbackUrl::new(&text) {
        Ok(url) => Some(url),
        Err(error) => {
            fields.complain("url", "url_parsing", error.to_string());
            None
        }
    }
}

fn read_nonces(fields: &Fields<'_>) -> Option<Vec<u32>> {
    let Some(list) = fields.list::<u32>("nonces") else {
        if fields.value("nonces").is_none() {
            fields.complain("nonces", "missing", "Field required");
        }
        return None;
    };
    if list.iter().any(|&nonce| nonce > NONCE_MAX) {
        fields.complain("nonces", "less_than_equal", "nonces should be below 2147483648");
        return None;
    }
    let mut seen = BTreeSet::new();
    Some(list.into_iter().filter(|&nonce| seen.insert(nonce)).collect())
}

fn read_received(validation: &Fields<'_>, scheme: Scheme) -> Option<Received> {
    let Some(artifacts) = validation.objects("artifacts") else {
        if validation.value("artifacts").is_none() {
            validation.complain("artifacts", "missing", "Field required");
        }
        return None;
    };
    match scheme {
        Scheme::Prefill => {
            let read = |artifact: &Fields<'_>| {
                let nonce = artifact.required("nonce");
                let vector: Option<String> = artifact.required("vector_b64");
                Some((nonce?, vector?))
            };
            Some(Received::Vectors(artifacts.iter().filter_map(read).collect()))
        }
        Scheme::Decode(_) => {
            let read = |artifact: &Fields<'_>| {
                let nonce = artifact.required("nonce");
                let points = read_points(artifact);
                Some((nonce?, points?))
            };
            Some(Received::Trajectories(artifacts.iter().filter_map(read).collect()))
        }
    }
}

/// A trajectory, as a list or packed in the vector's place, one byte for each step. One that cannot be unpacked is no
/// trajectory, and that is the other side's doing: it is empty here and will mismatch.
fn read_points(artifact: &Fields<'_>) -> Option<Vec<u8>> {
    if let Some(list) = artifact.list::<i64>("k_points_steps") {
        return Some(list.iter().map(|&k| u8::try_from(k).unwrap_or(NO_POINT)).collect());
    }
    let packed: String = artifact.required("vector_b64")?;
    Some(STANDARD.decode(packed).unwrap_or_default())
}

/// The thresholds, and `p_value_threshold`, which newer Network Nodes send and the network's own engine does not know.
fn read_stat_test(fields: &Fields<'_>) -> (StatTest, Option<f64>) {
    let mut test = StatTest::default();
    let Some(given) = fields.object("stat_test") else { return (test, None) };
    for (name, most, value) in [
        ("dist_threshold", f64::MAX, &mut test.dist_threshold),
        ("p_mismatch", 1.0, &mut test.p_mismatch),
        ("fraud_threshold", 1.0, &mut test.fraud_threshold),
    ] {
        if let Some(number) = given.within(name, 0.0, most) {
            *value = number;
        }
    }
    (test, given.within("p_value_threshold", 0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn init() -> Value {
        json!({
            "block_hash": "A1", "block_height": 6_353_400, "public_key": "02ab",
            "node_id": 3, "node_count": 5,
            "params": {"model": "m", "seq_len": 64, "max_tokens": 0, "scheme": "PREFILL", "new": 1},
            "url": "http://n:9100/v2/poc-batches/a%252Fb",
        })
    }

    #[test]
    fn an_init_is_read_as_it_is_spelled() {
        let request = read_init(init().to_string().as_bytes()).unwrap();
        assert_eq!(request.round.identity.block_hash, "A1");
        let share = NonceShare { node_id: 3, node_count: 5, group_id: 0, n_groups: 1 };
        assert_eq!(request.share, share);
        assert_eq!((request.round.k_dim, request.batch), (12, 32));
        assert_eq!(request.url.unwrap().as_str(), "http://n:9100/v2/poc-batches/a%252Fb");
    }

    #[test]
    fn groups_do_not_overlap() {
        let read = |group_id: u32, n_groups: u32| {
            let mut body = init();
            (body["group_id"], body["n_groups"]) = (json!(group_id), json!(n_groups));
            read_init(body.to_string().as_bytes())
        };
        let share = read(6, 7).unwrap().share;
        assert_eq!((share.group_id, share.n_groups), (6, 7));
        assert!(read(7, 7).is_err() && read(0, 0).is_err());
    }

    #[test]
    fn decode_is_read_in_every_spelling() {
        for (params, steps) in [
            (json!({"decode": true, "max_tokens": 7}), 7),
            (json!({"decode": true, "max_tokens": 0}), 256),
            (json!({"scheme": "POC_SCHEME_DECODE", "max_tokens": 9}), 9),
            (json!({"scheme": "decode", "route_window": 256}), 256),
        ] {
            let mut body = init();
            body["params"]["scheme"] = Value::Null;
            for (name, value) in params.as_object().unwrap() {
                body["params"][name] = value.clone();
            }
            let round = read_init(body.to_string().as_bytes()).unwrap().round;
            assert_eq!(round.scheme, Scheme::Decode(DecodeTerms { max_tokens: steps }), "{params}");
        }
        for (name, value) in [("route_window", json!(64)), ("max_tokens", json!(1 << 20))] {
            let mut body = init();
            body["params"]["decode"] = json!(true);
            body["params"][name] = value;
            assert!(read_init(body.to_string().as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn trajectories_come_as_a_list_or_packed() {
        let mut body = init();
        body["params"]["decode"] = json!(true);
        body["nonces"] = json!([1, 2, 3]);
        body["validation"] = json!({"artifacts": [
            {"nonce": 1, "k_points_steps": [0, 15, -1, 700]},
            {"nonce": 2, "vector_b64": "AA8B"},
            {"nonce": 3, "vector_b64": "!"},
        ]});
        let (job, _) = read_generate(body.to_string().as_bytes()).unwrap().unwrap();
        let expected = vec![(1, vec![0, 15, 255, 255]), (2, vec![0, 15, 1]), (3, vec![])];
        assert_eq!(job.received, Some(Received::Trajectories(expected)));
    }

    #[test]
    fn nonces_must_be_the_same_on_both_sides() {
        let mut body = init();
        body["nonces"] = json!([4, 2]);
        let artifact = |nonce: u32| json!({"nonce": nonce, "vector_b64": "AA=="});
        body["validation"] = json!({"artifacts": [artifact(2), artifact(4)]});
        body["stat_test"] =
            json!({"dist_threshold": 0.4, "p_mismatch": 0.1, "p_value_threshold": 0.05});
        let (job, wait) = read_generate(body.to_string().as_bytes()).unwrap().unwrap();
        assert!(!wait);
        assert_eq!(job.nonces, [4, 2]);
        let expected = StatTest { dist_threshold: 0.4, p_mismatch: 0.1, fraud_threshold: 0.01 };
        assert_eq!((job.stat_test, job.p_value_threshold), (expected, Some(0.05)));
        for artifacts in
            [vec![artifact(2)], vec![artifact(2), artifact(4), artifact(4)], vec![artifact(9)]]
        {
            body["validation"] = json!({ "artifacts": artifacts });
            let read = read_generate(body.to_string().as_bytes()).unwrap();
            assert_eq!(read, Err(OtherNonces));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let mut body = init();
        body["params"]["seq_len"] = json!("64");
        body["node_count"] = json!(0);
        body["url"] = json!("http://n/a/../b");
        let details = read_init(body.to_string().as_bytes()).unwrap_err().details();
        let places: Vec<String> =
            details.as_array().unwrap().iter().map(|detail| detail["loc"].to_string()).collect();
        assert_eq!(
            places,
            [r#"["body","node_count"]"#, r#"["body","url"]"#, r#"["body","params","seq_len"]"#]
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z_]{1,12}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_in_any_field_is_answered(
            name in prop_oneof![
                Just("block_hash"), Just("block_height"), Just("node_id"), Just("node_count"),
                Just("group_id"), Just("n_groups"),
                Just("params"), Just("url"), Just("nonces"), Just("validation"), Just("stat_test"),
                Just("wait"), Just("batch_size"),
            ],
            value in any_json(),
        ) {
            let mut body = init();
            body["nonces"] = json!([0]);
            body[name] = value;
            drop(read_init(body.to_string().as_bytes()));
            drop(read_generate(body.to_string().as_bytes()));
        }
    }
}
