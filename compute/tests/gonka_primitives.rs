//! The primitives that a second implementation made, from the published algorithm and without code of ours or theirs.
//!
//! Where it and the vectors of `tests/data/poc` agree with us, what is wrong is wrong three times.

use roadbed_compute::poc::inputs::InputStreams;
use roadbed_compute::poc::normal::{NormalStream, unit};
use roadbed_compute::poc::pick::pick;
use roadbed_compute::poc::reflection::{haar_rotate, layer_vector};
use roadbed_compute::poc::seed::Seed;
use roadbed_compute::poc::steps::NonceSteps;
use roadbed_compute::poc::verdict::binomial_tail;
use roadbed_compute::poc::{Identity, K_DIM};
use serde_json::Value;

use crate::models::{ids, vectors};

/// Its README's bar for what is not an integer.
const CLOSE: f64 = 1e-5;
/// Seed salts of a step's input, pick and token id.
const SALTS: [u64; 3] = [0x0D, 0x91, 0x57];
/// Dimensions a DECODE step is judged by.
const SPHERE_DIMS: usize = 256;

fn primitives() -> (Value, Identity) {
    let table = vectors("gonka/poc_primitives.json");
    let text = |name: &str| table[name].as_str().unwrap().to_owned();
    let identity = Identity { block_hash: text("block_hash"), public_key: text("public_key") };
    (table, identity)
}

fn rows<'t>(table: &'t Value, name: &str) -> &'t [Value] {
    let rows = table[name].as_array().unwrap();
    assert!(!rows.is_empty(), "{name}");
    rows
}

fn word(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn reals(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(what: &str, ours: impl IntoIterator<Item = f64>, theirs: &[f64]) {
    let ours: Vec<f64> = ours.into_iter().collect();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (place, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= CLOSE, "{what} [{place}]: {ours}, not {theirs}");
    }
}

#[test]
fn integers_are_the_second_implementations() {
    let (table, identity) = primitives();
    for row in rows(&table, "seed") {
        assert_eq!(Seed::of(row["s"].as_str().unwrap()).0, word(&row["seed"]), "{row}");
    }
    for row in rows(&table, "murmur3_32_counter") {
        let seed = Seed(word(&row["seed"]));
        let hashes: Vec<u32> = ids(&row["keys"]).into_iter().map(|key| seed.hash(key)).collect();
        assert_eq!(hashes, ids(&row["out"]));
    }
    for row in rows(&table, "pick") {
        let (nonce, dim) = (word(&row["nonce"]), word(&row["dim"]));
        let order: Vec<u32> = pick(identity.pick_seed(nonce, K_DIM), dim, K_DIM)
            .into_iter()
            .map(|index| u32::try_from(index).unwrap())
            .collect();
        assert_eq!(order, ids(&row["hypothesis_cuda_topk_unsorted_order"]), "nonce {nonce}");
        // Another order of the same set would pass for fraud.
        assert_ne!(order, ids(&row["ascending_score_order"]));
        assert_ne!(order, ids(&row["set_sorted_by_index"]));
    }
}

#[test]
fn seeds_of_decode_steps_are_the_second_implementations() {
    let (table, identity) = primitives();
    let steps = NonceSteps::new(&identity, 0);
    let mut seen = [false; 3];
    for row in rows(&table, "decode_step_seed") {
        let (step, before) = (word(&row["step"]), u8::try_from(word(&row["prev_k"])).unwrap());
        let (salt, out) = (row["salt"].as_u64().unwrap(), Seed(word(&row["out"])));
        assert_eq!(Seed::of(&identity.input_text(0)).0, word(&row["base"]));
        let place = SALTS.iter().position(|known| *known == salt).unwrap();
        seen[place] = true;
        match place {
            0 => assert_eq!(steps.input(step, before, 64).segments[0].seed, out),
            1 => assert_eq!(steps.pick(step, before, 576), pick(out, 576, SPHERE_DIMS)),
            _ => assert_eq!(steps.token_id(step, before, 129_280), out.hash(0) % 129_280),
        }
    }
    assert_eq!(seen, [true; 3], "each use has a row");
}

#[test]
fn reals_are_close_to_the_second_implementations() {
    let (table, identity) = primitives();
    for row in rows(&table, "uniform") {
        let (seed, count) = (Seed(word(&row["seed"])), word(&row["n"]));
        let ours = (0..count).map(|key| f64::from(unit(seed.hash(key))));
        assert_close("uniform", ours, &reals(&row["out"]));
    }
    for row in rows(&table, "normal") {
        let stream = NormalStream { seed: Seed(word(&row["seed"])), count: word(&row["n"]) };
        assert_close("normal", stream.exact(), &reals(&row["out"]));
    }

    let input = &table["prefill_input_nonce0"];
    let count = word(&input["seq_len"]) * word(&input["hidden"]);
    let values = InputStreams::new(&identity, 0, count, false).generate();
    for pair in rows(input, "index_value") {
        let value = f64::from(values[usize::try_from(pair[0].as_u64().unwrap()).unwrap()]);
        assert_close(&format!("input {}", pair[0]), [value], &[pair[1].as_f64().unwrap()]);
    }
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / f64::from(count);
    let squares = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    let spread = (squares / f64::from(count)).sqrt();
    let wanted = [&input["mean"], &input["std"]].map(|value| value.as_f64().unwrap());
    assert_close("mean and spread of all inputs", [mean, spread], &wanted);

    let reflection = &table["householder_layer0_dim1024"];
    let vector = layer_vector(&identity, 0, 1024);
    let first = vector[..8].iter().map(|value| f64::from(*value));
    assert_close("reflection", first, &reals(&reflection["first8"]));
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    assert_close("its length", [norm], &[reflection["norm"].as_f64().unwrap()]);

    // Column by column: what becomes of a unit vector.
    let matrix: Vec<Vec<f64>> =
        rows(&table, "haar_matrix_nonce0_k12_rowmajor").iter().map(reals).collect();
    for column in 0..K_DIM {
        let mut x = vec![0.0; K_DIM];
        x[column] = 1.0;
        haar_rotate(&identity, 0, &mut x);
        let theirs: Vec<f64> = matrix.iter().map(|row| row[column]).collect();
        assert_close(&format!("rotation, column {column}"), x, &theirs);
    }

    for row in rows(&table, "binomial_greater") {
        let [n, k] = ["n", "k"].map(|name| row[name].as_u64().unwrap());
        let ours = binomial_tail(n, k, row["p"].as_f64().unwrap());
        assert_close(&format!("{k} of {n}"), [ours], &[row["p_value"].as_f64().unwrap()]);
    }
}
