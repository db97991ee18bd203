# The commands of everyday work. CI calls `make test` and nothing else.

CARGO ?= cargo

.PHONY: run test format lint engine docs deny tests sim bench

# Builds the server and starts it without authentication, on loopback only.
run:
	$(CARGO) run --release --locked -- serve --dev

# Everything that must hold before a change goes in.
test: format lint engine docs deny tests

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# The engine alone: it builds, is clean and passes without a runtime, a store, TLS or a socket in its dependencies. The long
# proof of the gate is the same code there and in `tests`, which runs it.
engine:
	$(CARGO) build --locked -p syncline --lib --no-default-features
	$(CARGO) clippy --locked -p syncline --all-targets --no-default-features -- -D warnings
	$(CARGO) test --locked -p syncline --no-default-features -- --skip proof::
	! $(CARGO) tree --locked -p syncline --no-default-features --edges normal,build --prefix none \
		| grep -E '^(tokio|mio|socket2|sled|rustls|hyper|axum) '

docs:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --workspace --no-deps

# Bans, licences and sources of the dependencies, as deny.toml has them. Advisories come from the network: `cargo deny check`.
deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "deny: skipped, cargo-deny is not installed (cargo install cargo-deny); the test 'dependencies' reads licences and sources"; \
	fi

tests:
	$(CARGO) test --locked --workspace

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
