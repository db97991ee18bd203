# The commands of everyday work. CI calls `make test` and nothing else.

CARGO ?= cargo

.PHONY: run test format lint engine docs tests sim

# Builds the server and starts it without authentication, on loopback only.
run:
	$(CARGO) run --release --locked -- serve --dev

# Everything that must hold before a change goes in.
test: format lint engine docs tests

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

# The simulator on many seeds; `make sim SEED=42` replays one and prints what happens in it.
SEEDS ?= 10000

sim:
	$(CARGO) test --locked --test sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
