//! The timetable: what is asked when, what a new epoch makes due, how old answers stay, how blocks become a pace.

use farm_controller::gonka::client::ClientError;
use farm_controller::gonka::question::Question;
use farm_controller::gonka::reader::{Answered, Reader};
use farm_core::gonka::{Fact, Height};
use roadbed_protocol::{Millis, UnixMillis};
use serde_json::{Value, json};

use super::{ADDRESS, MODEL, answer};

fn reader() -> Reader {
    Reader::new(ADDRESS, vec![MODEL.to_owned()], true, true)
}

/// What a healthy Network Node says, by path.
fn said(path: &str) -> Answered {
    let name = match path {
        "/v1/epochs/latest" => "epochs_latest",
        "/v1/epochs/current/participants" | "/v1/epochs/409/participants" => "participants",
        "/admin/v1/nodes" => "admin_nodes",
        "/v1/models" => "models",
        "/v1/pricing" => "pricing",
        "/v1/versions" => "versions",
        "/chain-rpc/status" => "comet_status",
        _ => {
            let module = path.trim_start_matches("/chain-api/productscience/inference/");
            match module.trim_start_matches("inference/").split(['/', '?']).next().unwrap() {
                "params" => "params",
                "current_epoch_group_data" | "epoch_group_data" => "group",
                "dynamic_coefficients" => "coefficients",
                "active_confirmation_poc_event" => "confirmation_event",
                "confirmation_poc_events" => "confirmation_events",
                "epoch_performance_summary" => "performance",
                "settle_amount" => "settle_amount",
                "poc_delegation" => "delegation",
                "collateral" => "collateral",
                "streamvesting" => "vesting",
                "hardware_nodes" => "hardware",
                _ => return Err(ClientError::NotOffered { url: path.to_owned(), status: 404 }),
            }
        }
    };
    Ok(answer(name))
}

/// Asks what is due until nothing is; tells what was asked.
pub(super) fn ask_all(reader: &mut Reader, now: UnixMillis) -> Vec<Question> {
    let mut asked = Vec::new();
    while let Some((question, path, due)) = reader.next().filter(|(_, _, due)| *due <= now) {
        assert!(due <= now && asked.len() < 60, "{question:?} at {path}");
        reader.take(question, &said(&path), now);
        asked.push(question);
    }
    asked
}

pub(super) fn at(seconds: i64) -> UnixMillis {
    UnixMillis(1_790_000_000_000 + seconds * 1_000)
}

fn epoch_at(height: i64, index: i64) -> Value {
    let mut value = answer("epochs_latest");
    value["block_height"] = json!(height);
    value["epoch_stages"]["epoch_index"] = json!(index);
    value
}

#[test]
fn everything_is_asked_once_and_then_at_its_pace() {
    let mut reader = reader();
    let asked = ask_all(&mut reader, at(0));
    assert_eq!(asked.len(), Question::all(1).count(), "each once: {asked:?}");
    let facts = reader.facts();
    assert!(facts.vesting.last().is_some() && facts.hardware.last().is_some());
    assert!(facts.params.failing().is_none() && facts.model_groups.contains_key(MODEL));
    assert_eq!(facts.coefficient("zai-org/GLM-5.3-Flash").unwrap().to_string(), "0.601");
    assert_eq!(facts.node("farm-h100-1").unwrap().node_num, Some(3));
    // A confirmation PoC is under way: the height matters every five seconds, nothing else does.
    assert_eq!(ask_all(&mut reader, at(4)), []);
    let asked = ask_all(&mut reader, at(5));
    assert_eq!(asked, [Question::Epoch, Question::ActiveConfirmation]);
}

#[test]
fn a_new_epoch_makes_its_questions_due() {
    let mut reader = reader();
    ask_all(&mut reader, at(0));
    let later = at(100);
    reader.take(Question::Epoch, &Ok(epoch_at(6_355_392, 411)), later);
    let (_, _, due) = reader.next().unwrap();
    assert!(due <= later);
    let asked = ask_all(&mut reader, later);
    assert!(asked.contains(&Question::Participants) && asked.contains(&Question::Params));
    assert!(!asked.contains(&Question::Vesting));
}

#[test]
fn a_failure_leaves_the_old_answer_and_comes_again_soon() {
    let mut reader = reader();
    ask_all(&mut reader, at(0));
    let gone = ClientError::Unreachable { url: "u".into(), reason: "refused".into() };
    assert!(!reader.take(Question::Params, &Err(gone), at(600)));
    let facts = reader.facts();
    assert_eq!(facts.params.last().unwrap().1, at(0));
    assert_eq!(facts.params.failing().unwrap().since, at(600));
    let bad = Ok(json!({"params": null}));
    assert!(!reader.take(Question::Params, &bad, at(660)));
    assert!(reader.facts().params.failing().unwrap().reason.contains("expected the params"));
    // A chain without the route says so, and that is an answer.
    let none = ClientError::NotOffered { url: "u".into(), status: 501 };
    reader.take(Question::Coefficients, &Err(none), at(600));
    assert_eq!(reader.facts().coefficients, Fact::NotOffered { at: at(600) });
    // Then the coefficient is the frozen one of the epoch.
    assert_eq!(reader.facts().coefficient("zai-org/GLM-5.3-Flash").unwrap().to_string(), "0.62");
}

#[test]
fn the_pace_of_blocks_is_measured_and_a_halt_is_seen() {
    let mut reader = reader();
    let mut see = |seconds: i64, height: i64| {
        reader.take(Question::Epoch, &Ok(epoch_at(height, 410)), at(seconds));
        reader.facts().clone()
    };
    assert_eq!(see(0, 1_000).block, None, "one block has no pace");
    let block = see(55, 1_010).block.unwrap();
    assert_eq!((block.height, block.block_time), (Height(1_010), Millis(5_500)));
    assert_eq!(see(530, 1_100).block.unwrap().block_time, Millis(5_300));
    // It stands still: the age grows, what was measured stays.
    let halted = see(1_130, 1_100);
    assert_eq!(halted.block_age(at(1_130)), Some(Millis::from_mins(10)));
    assert_eq!(halted.block.unwrap().block_time, Millis(5_300));
    // It goes on: the halt is not taken for a slow pace.
    assert_eq!(see(1_135, 1_101).block.unwrap().block_time, Millis(5_300));
    assert_eq!(see(1_165, 1_107).block.unwrap().block_time, Millis(5_000));
    // A Network Node that is behind does not turn time back.
    assert_eq!(see(1_170, 1_050).highest, Some((Height(1_107), at(1_165))));
}

#[test]
fn another_opinion_is_noted() {
    let mut reader = reader();
    ask_all(&mut reader, at(0));
    let other = |value: Value| [("http://b".to_owned(), Ok(value))];
    reader.compare(&other(epoch_at(6_344_010, 410)), at(1));
    assert_eq!(reader.facts().disagreement, None);
    reader.compare(&other(epoch_at(6_344_500, 410)), at(2));
    let told = reader.facts().disagreement.clone().unwrap();
    assert_eq!(told, "http://b is at height 6344500, the one that answers at 6344010");
    reader.compare(&other(epoch_at(6_344_012, 411)), at(3));
    assert!(reader.facts().disagreement.clone().unwrap().contains("epoch 411"));
}

#[test]
fn what_was_kept_is_known_with_its_age() {
    let mut reader = reader();
    reader.restore(Question::Params, &answer("params"), at(-3_600));
    reader.restore(Question::Epoch, &json!({"of": "another version"}), at(-3_600));
    assert_eq!(reader.facts().params.fresh(at(0), Millis::from_mins(30)), None);
    assert_eq!(reader.facts().params.last().unwrap().1, at(-3_600));
    assert_eq!(reader.facts().epoch, Fact::Unread);
    let (question, path, due) = reader.next().unwrap();
    assert_eq!((question, path.as_str()), (Question::Epoch, "/v1/epochs/latest"));
    assert!(due < at(0), "it is asked for again at once");
}
