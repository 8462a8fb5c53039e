//! The public API: `/v1/…` of the API process, `/chain-api/…` and `/chain-rpc/…` of the chain behind the same proxy.
//!
//! The first writes whole numbers as numbers, as Go's own JSON does; the second writes 64-bit numbers as strings, as the
//! chain's gRPC gateway does. A reader must take both, and both spellings of a decimal's parts.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::chain::{Confirmation, Phase};
use super::registry::rfc3339;
use super::world::{Shared, World, lock};
use super::{Decimal, Model};

/// Where the inference module's queries are.
const MODULE: &str = "/chain-api/productscience/inference/inference/";

/// The routes.
pub(super) fn router(world: Shared) -> Router {
    Router::new().fallback(answer).with_state(world)
}

async fn answer(State(world): State<Shared>, method: Method, uri: Uri) -> Response {
    let slow_ms = lock(&world).faults.slow_ms;
    if slow_ms > 0 {
        tokio::time::sleep(Duration::from_millis(slow_ms)).await;
    }
    let mut world = lock(&world);
    if world.down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path();
    let right = world.answer(path, uri.query().unwrap_or(""));
    let (status, document) = world.faults.bend(path, right);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if document.is_null() {
        return (status, "upstream connect error").into_response();
    }
    (status, Json(document)).into_response()
}

/// The parts as the chain's gateway writes them.
fn decimal(decimal: Decimal) -> Value {
    json!({ "value": decimal.value.to_string(), "exponent": decimal.exponent })
}

fn ok(document: Value) -> (u16, Value) {
    (200, document)
}

impl World {
    /// The answer as it should be.
    fn answer(&self, path: &str, query: &str) -> (u16, Value) {
        if let Some(rest) = path.strip_prefix(MODULE) {
            return self.module(rest, query);
        }
        match path {
            "/v1/epochs/latest" => ok(self.latest()),
            "/v1/epochs/current/participants" => self.participants(self.chain.effective_epoch()),
            "/v1/pricing" | "/v1/governance/pricing" => ok(self.pricing()),
            "/v1/models" | "/v1/governance/models" => {
                ok(json!({ "models": self.config.models.iter().map(model).collect::<Vec<_>>() }))
            }
            "/v1/versions" => ok(json!({
                "node_version": { "app_name": "inferenced", "version": "0.2.16" },
                "api_version": { "app_name": "decentralized-api", "version": "0.2.16" },
            })),
            "/v1/status" => ok(json!({
                "status": "ok", "block_height": self.chain.height, "catching_up": false,
            })),
            "/chain-rpc/status" => ok(self.comet()),
            _ => match path
                .strip_prefix("/v1/epochs/")
                .and_then(|rest| rest.strip_suffix("/participants"))
            {
                Some(epoch) => {
                    epoch.parse().map_or_else(|_| missing(), |epoch| self.participants(epoch))
                }
                None => missing(),
            },
        }
    }

    fn module(&self, rest: &str, query: &str) -> (u16, Value) {
        let parts: Vec<&str> = rest.split('/').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        match parts[..] {
            ["params"] => ok(self.params()),
            ["epoch_info"] => ok(self.epoch_info()),
            ["get_current_epoch"] => {
                ok(json!({ "epoch": self.chain.effective_epoch().to_string() }))
            }
            ["current_epoch_group_data"] => self.group_data(self.chain.effective_epoch(), query),
            ["epoch_group_data", epoch] => {
                number(epoch).map_or_else(missing, |epoch| self.group_data(epoch, query))
            }
            ["dynamic_coefficients", epoch] => {
                number(epoch).map_or_else(missing, |epoch| ok(self.coefficients(epoch)))
            }
            ["hardware_nodes_all"] => ok(json!({ "nodes": [self.hardware()] })),
            ["hardware_nodes", address] if address == self.config.address => {
                ok(json!({ "nodes": self.hardware() }))
            }
            ["all_model_per_token_prices"] => ok(json!({ "model_prices": self.config.models.iter()
                .map(|model| json!({ "model_id": model.id, "price": model.price_per_token.to_string() }))
                .collect::<Vec<_>>() })),
            ["models_all"] => {
                ok(json!({ "model": self.config.models.iter().map(model).collect::<Vec<_>>() }))
            }
            ["active_confirmation_poc_event"] => ok(match self.chain.confirmation() {
                Some(event) => json!({ "is_active": true, "event": self.event(&event) }),
                None => json!({ "is_active": false, "event": null }),
            }),
            ["confirmation_poc_events"] => ok(self.past_events(self.chain.stages().epoch_index)),
            ["confirmation_poc_events", epoch] => {
                number(epoch).map_or_else(missing, |epoch| ok(self.past_events(epoch)))
            }
            ["epoch_performance_summary", epoch, address] => {
                number(epoch).map_or_else(missing, |epoch| self.performance(epoch, address))
            }
            ["settle_amount", address] => self.settle(address),
            ["poc_delegation", _] => {
                ok(json!({ "delegations": [], "refusals": [], "intents": [] }))
            }
            ["preserved_nodes_snapshot"] => ok(self.preserved()),
            _ => missing(),
        }
    }

    fn latest(&self) -> Value {
        let stages = self.chain.stages();
        let next = self.chain.stages_of(stages.epoch_index + 1);
        let event = self.chain.confirmation();
        let mut document = json!({
            "block_height": self.chain.height,
            "latest_epoch":
                { "index": stages.epoch_index, "poc_start_block_height": stages.poc_start },
            "phase": self.chain.phase().word(),
            "epoch_stages": stages.document(),
            "next_epoch_stages": next.document(),
            "epoch_params": self.epoch_params(),
            "effective_epoch_index": self.chain.effective_epoch(),
            "is_confirmation_poc_active": event.is_some(),
        });
        if let Some(event) = event {
            document["active_confirmation_poc_event"] = self.event_in_numbers(&event);
        }
        document
    }

    fn epoch_params(&self) -> Value {
        let params = &self.chain.params;
        json!({
            "epoch_length": params.epoch_length, "epoch_multiplier": 1, "epoch_shift": 16_980,
            "poc_stage_duration": params.poc_stage_duration,
            "poc_exchange_duration": params.poc_exchange_duration,
            "poc_validation_delay": params.poc_validation_delay,
            "poc_validation_duration": params.poc_validation_duration,
            "set_new_validators_delay": params.set_new_validators_delay,
            "confirmation_poc_safety_window": params.confirmation_quiet,
            "poc_slot_allocation": decimal(Decimal { value: 1, exponent: -1 }),
        })
    }

    /// As Go's own JSON writes it: numbers, the phase too.
    fn event_in_numbers(&self, event: &Confirmation) -> Value {
        let mut document = json!({
            "epoch_index": event.epoch_index, "event_sequence": event.event_sequence,
            "trigger_height": event.trigger_height,
            "generation_start_height": event.generation_start_height,
            "generation_end_height": event.generation_end_height,
            "validation_start_height": event.validation_start_height,
            "validation_end_height": event.validation_end_height,
            "phase": event.phase_at(self.chain.height).number(),
        });
        if self.chain.height >= event.generation_start_height {
            let hash = self.chain.hash(event.generation_start_height - 1);
            document["poc_seed_block_hash"] = json!(hash);
        }
        document
    }

    /// As the chain's gateway writes it: 64-bit numbers as strings, the phase by name.
    fn event(&self, event: &Confirmation) -> Value {
        let mut document = self.event_in_numbers(event);
        for (name, value) in document.as_object_mut().into_iter().flatten() {
            if name == "phase" {
                *value = json!(event.phase_at(self.chain.height).word());
            } else if value.is_number() {
                *value = json!(value.to_string());
            }
        }
        document
    }

    fn past_events(&self, epoch: u64) -> Value {
        let all = self.chain.confirmations(&self.chain.stages_of(epoch));
        let known = all.iter().filter(|event| event.trigger_height <= self.chain.height);
        json!({ "events": known.map(|event| self.event(event)).collect::<Vec<_>>() })
    }

    fn participants(&self, epoch: u64) -> (u16, Value) {
        if epoch > self.chain.effective_epoch() {
            return missing();
        }
        let book = self.books.get(&epoch);
        let models: Vec<&str> = self.config.models.iter().map(|model| model.id.as_str()).collect();
        let nodes: Vec<Value> = self
            .registry
            .iter()
            .filter_map(|node| {
                let nonces = book?.node_nonces.get(&node.config.id)?;
                Some(json!({
                    "node_id": node.config.id, "throughput": 0, "poc_weight": nonces,
                    "timeslot_allocation": [true, node.preserved],
                }))
            })
            .collect();
        let participant = |address: &str, weight: u64, nodes: Vec<Value>| {
            json!({
                "index": address, "validator_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "weight": weight, "inference_url": format!("http://{address}.invalid:8000"),
                "models": models, "seed": { "participant": address, "epoch_index": epoch, "signature": "00" },
                "ml_nodes": [{ "ml_nodes": nodes }],
            })
        };
        let mut all: Vec<Value> = self
            .config
            .strangers
            .iter()
            .map(|stranger| participant(&stranger.address, stranger.weight, Vec::new()))
            .collect();
        if let Some(book) = book.filter(|book| book.weight > 0) {
            all.push(participant(&self.config.address, book.weight, nodes));
        }
        ok(json!({
            "active_participants": {
                "participants": all, "epoch_group_id": epoch, "epoch_id": epoch,
                "poc_start_block_height": self.chain.stages_of(epoch).poc_start,
                "effective_block_height": self.chain.stages_of(epoch).set_new_validators,
                "created_at_block_height": self.chain.stages_of(epoch).poc_validation_end,
            },
            "addresses": [], "validators": [], "block": [], "proof_ops": null,
        }))
    }

    fn pricing(&self) -> Value {
        let models: Vec<Value> = self
            .config
            .models
            .iter()
            .map(|model| {
                json!({
                    "id": model.id, "units_of_compute_per_token": 100,
                    "price_per_token": model.price_per_token, "utilization": 0.5, "capacity": 1_000,
                })
            })
            .collect();
        json!({ "unit_of_compute_price": 100, "dynamic_pricing_enabled": true, "models": models })
    }

    fn params(&self) -> Value {
        let mut epoch_params = self.epoch_params();
        for value in epoch_params.as_object_mut().into_iter().flatten().map(|(_, value)| value) {
            if value.is_number() {
                *value = json!(value.to_string());
            }
        }
        let models: Vec<Value> = self
            .config
            .models
            .iter()
            .map(|model| {
                json!({
                    "model_id": model.id, "seq_len": model.seq_len.to_string(),
                    "weight_scale_factor": decimal(model.coefficient),
                    "stat_test": {
                        "dist_threshold": decimal(self.config.dist_threshold),
                        "p_mismatch": decimal(Decimal { value: 1, exponent: -1 }),
                        "p_value_threshold": decimal(Decimal { value: 5, exponent: -2 }),
                    },
                })
            })
            .collect();
        let first = self.config.models.first();
        json!({ "params": {
            "epoch_params": epoch_params,
            "validation_params": { "logprobs_mode": "processed_logprobs" },
            "poc_params": {
                "model_id": first.map(|model| model.id.clone()),
                "seq_len": first.map(|model| model.seq_len.to_string()),
                "validation_sample_size": self.config.validation_sample,
                "poc_stronger_rng": self.config.stronger_rng,
                "models": models,
            },
            "confirmation_poc_params": {
                "expected_confirmations_per_epoch": self.chain.params.confirmations.to_string(),
                "alpha_threshold": decimal(Decimal { value: 5, exponent: -1 }),
                "slash_fraction": decimal(Decimal { value: 0, exponent: 0 }),
            },
            "bitcoin_reward_params": {
                "use_bitcoin_rewards": true, "initial_epoch_reward": "323000000000000",
                "decay_rate": decimal(Decimal { value: -475, exponent: -6 }), "genesis_epoch": "1",
            },
            "collateral_params": {
                "slash_fraction_invalid": decimal(Decimal { value: 2, exponent: -1 }),
                "slash_fraction_downtime": decimal(Decimal { value: 1, exponent: -1 }),
                "base_weight_ratio": decimal(Decimal { value: 2, exponent: -1 }),
                "collateral_per_weight_unit": decimal(Decimal { value: 1, exponent: 0 }),
            },
            "delegation_params": {
                "deploy_window": "500", "delegation_share": decimal(Decimal { value: 5, exponent: -2 }),
                "refusal_penalty": decimal(Decimal { value: 1, exponent: -1 }),
                "no_participation_penalty": decimal(Decimal { value: 15, exponent: -2 }),
            },
            "tokenomics_params": { "reward_vesting_period": "180" },
            "dynamic_pricing_params": {
                "stability_zone_lower_bound": decimal(Decimal { value: 4, exponent: -1 }),
                "stability_zone_upper_bound": decimal(Decimal { value: 6, exponent: -1 }),
                "price_elasticity": decimal(Decimal { value: 5, exponent: -2 }),
                "min_per_token_price": "1", "base_per_token_price": "100",
                "utilization_window_duration": "60",
            },
        } })
    }

    fn epoch_info(&self) -> Value {
        let event = self.chain.confirmation();
        let stages = self.chain.stages();
        json!({
            "block_height": self.chain.height.to_string(), "params": self.params()["params"],
            "latest_epoch": {
                "index": stages.epoch_index.to_string(),
                "poc_start_block_height": stages.poc_start.to_string(),
            },
            "is_confirmation_poc_active": event.is_some(),
            "active_confirmation_poc_event": event.map(|event| self.event(&event)),
        })
    }

    fn group_data(&self, epoch: u64, query: &str) -> (u16, Value) {
        if epoch > self.chain.effective_epoch() {
            return missing();
        }
        let book = self.books.get(&epoch).cloned().unwrap_or_default();
        let mut weights: Vec<Value> = self
            .config
            .strangers
            .iter()
            .map(|stranger| {
                json!({
                    "member_address": stranger.address, "weight": stranger.weight.to_string(),
                    "confirmation_weight": stranger.weight.to_string(), "reputation": 100, "ml_nodes": [],
                })
            })
            .collect();
        let nodes: Vec<Value> = book
            .node_nonces
            .iter()
            .map(|(id, nonces)| {
                let preserved = self.registry.get(id).is_some_and(|node| node.preserved);
                json!({
                    "node_id": id, "throughput": "0", "poc_weight": nonces.to_string(),
                    "timeslot_allocation": [true, preserved],
                })
            })
            .collect();
        if book.weight > 0 {
            weights.push(json!({
                "member_address": self.config.address, "weight": book.weight.to_string(),
                "confirmation_weight": book.confirmation_weight.to_string(), "reputation": 100,
                "ml_nodes": nodes,
            }));
        }
        let model_id = query.split('&').find_map(|pair| pair.strip_prefix("model_id="));
        let of_model = model_id.map(str::to_owned).unwrap_or_default();
        let models: Vec<&str> = self.config.models.iter().map(|model| model.id.as_str()).collect();
        ok(json!({ "epoch_group_data": {
            "epoch_index": epoch.to_string(), "model_id": of_model.replace("%2F", "/"),
            "poc_start_block_height": self.chain.stages_of(epoch).poc_start.to_string(),
            "total_weight": book.total_weight.to_string(), "sub_group_models": models,
            "validation_weights": weights, "confirmation_weight_scales": [],
        } }))
    }

    fn coefficients(&self, epoch: u64) -> Value {
        let epoch = if epoch == 0 { self.chain.effective_epoch() } else { epoch };
        let coefficients: Vec<Value> = self
            .config
            .models
            .iter()
            .map(|model| {
                let Decimal { value, exponent } = model.coefficient;
                let near = |percent: i64| {
                    decimal(Decimal { value: value * percent, exponent: exponent - 2 })
                };
                json!({
                    "model_id": model.id, "effective_coefficient": decimal(model.coefficient),
                    "base_coefficient": decimal(model.coefficient),
                    "config": { "coeff_min": near(90), "coeff_max": near(110) },
                })
            })
            .collect();
        json!({ "epoch_index": epoch.to_string(), "coefficients": coefficients })
    }

    fn hardware(&self) -> Value {
        let nodes: Vec<Value> = self
            .registry
            .iter()
            .map(|node| {
                let (status, _) = node.seen.words();
                let hardware = node.config.hardware.iter();
                let models: Vec<&String> = node.config.models.keys().collect();
                json!({
                    "local_id": node.config.id, "status": status, "models": models,
                    "hardware": hardware.map(|gpu| json!({ "type": gpu.kind, "count": gpu.count })).collect::<Vec<_>>(),
                    "host": node.config.host, "port": node.config.poc_port.to_string(),
                })
            })
            .collect();
        json!({ "participant": self.config.address, "hardware_nodes": nodes })
    }

    fn performance(&self, epoch: u64, address: &str) -> (u16, Value) {
        let Some(book) = self.books.get(&epoch).filter(|_| address == self.config.address) else {
            return missing();
        };
        let Some(reward) = book.reward_ngonka else { return missing() };
        ok(json!({ "epoch_performance_summary": {
            "epoch_index": epoch.to_string(), "participant_id": address, "inference_count": "0",
            "missed_requests": "0", "earned_coins": "0", "rewarded_coins": reward.to_string(),
            "burned_coins": "0", "validated_inferences": "0", "invalidated_inferences": "0",
            "claimed": book.claimed_at.is_some(),
            "participant_reward_weight": book.rewarded_weight().to_string(),
        } }))
    }

    fn settle(&self, address: &str) -> (u16, Value) {
        let last = self.books.iter().rev().find(|(_, book)| book.reward_ngonka.is_some());
        let Some((epoch, book)) = last.filter(|_| address == self.config.address) else {
            return missing();
        };
        ok(json!({ "settle_amount": {
            "participant": address, "epoch_index": epoch.to_string(), "work_coins": "0",
            "reward_coins": book.reward_ngonka.unwrap_or(0).to_string(), "seed_signature": "",
        } }))
    }

    fn preserved(&self) -> Value {
        let nodes = self.registry.iter().filter(|node| node.preserved);
        let ids: Vec<&str> = nodes.map(|node| node.config.id.as_str()).collect();
        let models: Vec<Value> = self
            .config
            .models
            .iter()
            .map(|model| json!({ "model_id": model.id, "preserved_node_ids": ids }))
            .collect();
        json!({ "found": true, "snapshot": {
            "episode_anchor_height": self.chain.stages().poc_start.to_string(),
            "model_preserved_nodes": models,
        } })
    }

    fn comet(&self) -> Value {
        let height = self.chain.height;
        let in_poc = self.chain.phase() != Phase::Inference;
        json!({ "jsonrpc": "2.0", "id": -1, "result": {
            "node_info": { "network": "gonka-stand-in", "version": "0.38.17", "moniker": "stand-in" },
            "sync_info": {
                "latest_block_hash": self.chain.hash(height), "latest_block_height": height.to_string(),
                "latest_block_time": rfc3339(self.now_ms()), "catching_up": false,
            },
            "validator_info": { "voting_power": if in_poc { "1" } else { "2" } },
        } })
    }
}

fn model(model: &Model) -> Value {
    json!({
        "id": model.id, "proposed_by": "gonka1stand1n", "v_ram": model.v_ram.to_string(),
        "throughput_per_nonce": "1000", "units_of_compute_per_token": "100", "hf_repo": model.id,
        "hf_commit": "", "model_args": [],
        "validation_threshold": { "value": "900", "exponent": -3 },
    })
}

fn missing() -> (u16, Value) {
    (404, json!({ "code": 5, "message": "not found", "details": [] }))
}
