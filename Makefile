# Roadbed. `make demo` shows the farm, `make test` proves it; both set up what they need and may be run again.

CARGO ?= cargo
MODEL ?= smollm2-135m
DEMO_ARGS ?=
BENCH_ARGS ?=

.PHONY: help demo test test-peers test-peers-full lint fmt sim bench-inference bench-poc bench-hash setup setup-system openai-client model build release

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

demo: setup-system release ## set up, build and run the demo farm (DEMO_ARGS="--headless --minutes 3")
	@target/release/roadbed-agent models pull $(MODEL)
	@target/release/roadbed demo --model $(MODEL) $(DEMO_ARGS)

# Everything is built as one workspace, always: other selections of packages unify features differently and would build
# half of the dependencies again.
# Many tests wait for processes and sockets, so twice as many run at once as there are processors.
test: setup openai-client ## set up and run every test
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(getconf _NPROCESSORS_ONLN)))} $(CARGO) test --workspace --locked
	@echo "== OpenAI's own client against the agent"
	AGENT=target/debug/roadbed-agent ROADBED=target/debug/roadbed PYTHON=tests/peers/python_openai tests/peers/run_openai

test-peers: release ## hold the built programs against foreign software (Python, the package registry; some need root)
	@sh packaging/setup.sh --peers
	@sh tests/peers/run_all

test-peers-full: release ## mine blocks that Bitcoin Core connects, through the reference pool (builds all three: half an hour once)
	@sh packaging/setup.sh --peers-full
	@tests/peers/run_pool_sv2
	@tests/peers/run_chain

bench-poc: release model ## nonces a minute beside plain prefill of the same length (BENCH_ARGS="--adapter all")
	@target/release/roadbed-agent poc bench --model $(MODEL) $(BENCH_ARGS)

bench-hash: release ## SHA-256d beside the sha2 crate, every adapter, new jobs and stops (BENCH_ARGS="--rounds 15")
	@target/release/roadbed-agent bench hash $(BENCH_ARGS)

bench-inference: release model ## time the engine beside llama.cpp on this machine (BENCH_ARGS="--rounds 3")
	tests/peers/python tests/peers/bench_inference.py $(BENCH_ARGS)

lint: setup-system ## formatting, clippy with the workspace's rules, shell syntax
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@for script in packaging/*.sh tests/gpu_day tests/peers/python tests/peers/python_openai tests/peers/run_* tests/peers/*/setup; do sh -n $$script || exit 1; done

fmt: ## format the sources
	$(CARGO) fmt --all

sim: ## replay one seed of the farm simulation with its trace: make sim SEED=42
	ROADBED_SIM_SEED=$(SEED) $(CARGO) test --workspace --locked --test farm -- sim --nocapture

setup: setup-system model ## install what is missing and fetch the default model

setup-system: ## install system pieces that are missing (Vulkan driver, C compiler, pip)
	@sh packaging/setup.sh

openai-client: setup-system ## install OpenAI's Python client for the tests
	@tests/peers/python_openai

model: setup-system ## fetch the default model once
	$(CARGO) test --workspace --locked --no-run
	@target/debug/roadbed-agent models pull $(MODEL)

build: ## debug build of everything
	$(CARGO) build --workspace --locked

release: setup-system ## release build of the three binaries
	$(CARGO) build --workspace --release --locked --bins
