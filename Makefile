# The commands of everyday work. CI calls `make test` and nothing else.

CARGO ?= cargo

.PHONY: run test format lint engine docs tests trials trials-bite soak sim bench

# Builds the server and starts it without authentication, on loopback only. Optimised, but without the minutes that linking
# across crates takes: `make run PROFILE=release` for that.
PROFILE ?= trials

run:
	$(CARGO) run --profile $(PROFILE) --locked -- serve --dev

# Everything that must hold before a change goes in.
test: format lint engine docs tests trials

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# The engine alone: it builds, is clean and passes without a runtime, a store, TLS or a socket in its dependencies.
engine:
	$(CARGO) build --locked -p syncline --lib --no-default-features
	$(CARGO) clippy --locked -p syncline --all-targets --no-default-features -- -D warnings
	$(CARGO) test --locked -p syncline --no-default-features
	! $(CARGO) tree --locked -p syncline --no-default-features --edges normal,build --prefix none \
		| grep -E '^(tokio|mio|socket2|sled|rustls|hyper|axum) '

docs:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --workspace --no-deps

tests:
	$(CARGO) test --locked --workspace

# The scorecard against the real binary, see tests/trials/TRIALS.md: `make trials`, or `make trials ROW=1 SEED=42`.
ROW ?=
TRIALS = $(CARGO) test --locked --profile trials --test trials -- --failpoints target/trials/syncline-failpoints \
	$(foreach row,$(ROW),--row $(row)) $(if $(SEED),--seed $(SEED))

trials: failpoints
	$(TRIALS)

# Each row once more against a server that breaks what the row is about: there it must fail.
trials-bite: failpoints
	$(TRIALS) --bite

# The larger counts, as many as fit.
SOAK_MINUTES ?= 60

soak: failpoints
	$(TRIALS) --soak $(SOAK_MINUTES)

.PHONY: failpoints
failpoints:
	$(CARGO) build --locked --profile trials --features failpoints --bin syncline
	cp target/trials/syncline target/trials/syncline-failpoints

# The simulator on many seeds; `make sim SEED=42` replays one and prints what happens in it.
SEEDS ?= 10000

sim:
	$(CARGO) test --locked --test sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

# Measures Syncline against a bare relay, see benches/README.md: `make bench`, or `make bench WORKLOAD=latency RUNS=5`.
WORKLOAD ?=
RUNS ?= 3
BENCH = target/release/syncline-bench

bench:
	$(CARGO) build --release --locked -p syncline -p syncline-bench
	$(if $(filter micro,$(WORKLOAD)),,$(BENCH) load --runs $(RUNS) $(WORKLOAD))
	$(if $(filter-out micro,$(WORKLOAD)),,$(BENCH) micro --runs $(RUNS))
