# The commands of everyday work. CI calls `make test` and nothing else.

CARGO ?= cargo
NPM ?= npm

.PHONY: run test page format lint engine docs deny tests trials trials-bite soak typescript screenshots sim bench bench-repo compare compare-durability

# Builds the server and starts it without authentication, on loopback only. The page at / is built in where there is a Node
# that can build it; without one, / says so.
NODE_IS_FIT = $(shell node -p '(([a, b]) => a > 20 || (a == 20 && b >= 19))(process.versions.node.split("."))' 2>/dev/null)

# Optimised, but without the minutes that linking across crates takes: `make run PROFILE=release` for that.
PROFILE ?= trials

run:
	$(if $(filter true,$(NODE_IS_FIT)),$(MAKE) page || echo "the page could not be built; the server starts without it")
	$(CARGO) run --profile $(PROFILE) --locked -- serve --dev

# Everything that must hold before a change goes in. The page comes first, so that the server is built once.
test: page format lint engine docs deny tests trials typescript samod

# The page that the server shows at /: the next build of the server takes it in.
page: clients/demo/dist/index.html

PACKAGES = clients/node_modules/.package-lock.json
PAGE_SOURCES = $(shell find clients/demo/src clients/demo/public clients/typescript/src -type f) \
	clients/demo/index.html clients/demo/vite.config.ts

$(PACKAGES): clients/package-lock.json $(wildcard clients/*/package.json)
	cd clients && $(NPM) ci --no-audit --no-fund
	touch $@

clients/demo/dist/index.html: $(PACKAGES) $(PAGE_SOURCES)
	cd clients && $(NPM) run build -w demo

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked -p syncline --test trials -- -D warnings

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

# The scorecard against the real binary, see tests/trials/TRIALS.md: `make trials`, or `make trials ROW=1 SEED=42`. Cargo gives
# tests a build with failpoints, so the binary that the rows are run against is built before, as it is for use.
ROW ?=
TRIALS = $(CARGO) test --locked --profile trials --test trials -- --binary target/trials/syncline-as-used \
	$(foreach row,$(ROW),--row $(row)) $(if $(SEED),--seed $(SEED))

trials: as-used
	$(TRIALS)

# Each row once more against a server that breaks what the row is about: there it must fail.
trials-bite: as-used
	$(TRIALS) --bite

# One of the fuzz targets (gate, frames, repo, store) under libFuzzer: `make fuzz TARGET=gate SECONDS=60`. What sancov needs are
# stable flags, so any toolchain builds it; dependencies and build scripts of the other builds stay as they are.
TARGET ?= gate
SECONDS ?= 60
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code --cfg fuzzing
FUZZ_DATA = target/fuzz/data/$(TARGET)

.PHONY: fuzz
fuzz:
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz \
		--target $(FUZZ_HOST)
	mkdir -p $(FUZZ_DATA)/corpus $(FUZZ_DATA)/seeds $(FUZZ_DATA)/failed
	FUZZ_TARGET=$(TARGET) FUZZ_SEEDS=$(FUZZ_DATA)/seeds target/fuzz/$(FUZZ_HOST)/release/syncline-fuzz \
		-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=4096 -artifact_prefix=$(FUZZ_DATA)/failed/ \
		$(FUZZ_DATA)/corpus $(FUZZ_DATA)/seeds $(wildcard tests/fuzz/found/$(TARGET))

# The larger counts, as many as fit.
SOAK_MINUTES ?= 60

soak: as-used
	$(TRIALS) --soak $(SOAK_MINUTES)

.PHONY: as-used
as-used:
	$(CARGO) build --locked --profile trials --bin syncline
	cp target/trials/syncline target/trials/syncline-as-used

# The client and the page: types, tests in Node, against the server as it is built, and in Chromium.
typescript: page
	sh clients/chromium.sh
	$(CARGO) build --locked
	cd clients && $(NPM) run check --workspaces
	cd clients && $(NPM) test --workspaces
	cd clients && $(NPM) run e2e --workspaces --if-present
	cd clients && $(NPM) run browser --workspaces --if-present

# The pictures in README.md.
screenshots: page
	sh clients/chromium.sh
	$(CARGO) build --locked
	cd clients && $(NPM) run screenshots -w demo

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
	$(if $(filter-out micro,$(WORKLOAD)),,$(BENCH) micro)

# What an edit costs the server in automerge-repo's dialect, beside automerge-repo's own sync server.
bench-repo: $(PACKAGES)
	$(CARGO) build --locked --release --bin syncline
	cd clients && $(NPM) run bench -w interop

# samod's clients against the server: a crate outside the workspace, so that no other build waits for what samod brings along.
.PHONY: samod

samod:
	$(CARGO) build --locked --bin syncline
	$(CARGO) test --locked --manifest-path clients/interop/samod/Cargo.toml --target-dir target/samod

# What other servers lose when they are killed, beside Syncline, see benches/README.md: `make compare-durability`, or with
# `REPETITIONS=3 SEED=7`. Nothing else installs their packages.
REPETITIONS ?= 20
RIVALS = benches/rivals/node_modules/.package-lock.json

$(RIVALS): benches/rivals/package.json benches/rivals/package-lock.json
	cd benches/rivals && $(NPM) ci --no-audit --no-fund
	touch $@

# The same load on Syncline, the relay and its rivals, see benches/README.md; writes the table in README.md. Quiet, some forty
# minutes; `make compare COMPARE="latency --runs 1"` is a part of it, and leaves README.md alone.
COMPARE ?=
BUILT_RIVALS = target/rivals/bin/y-sweet target/rivals/bin/samod
INSTALL_RIVAL = $(CARGO) install --locked --root target/rivals --target-dir target/rivals/build

target/rivals/bin/y-sweet:
	$(INSTALL_RIVAL) y-sweet --version 0.9.1

target/rivals/bin/samod: $(wildcard benches/rivals/samod/* benches/rivals/samod/src/*)
	$(INSTALL_RIVAL) --path benches/rivals/samod

compare: $(RIVALS) $(BUILT_RIVALS)
	$(CARGO) build --release --locked -p syncline -p syncline-bench
	$(BENCH) compare $(or $(COMPARE),--runs $(RUNS) --readme README.md)

compare-durability: $(PACKAGES) $(RIVALS)
	$(CARGO) build --profile trials --locked --bin syncline
	cd clients && $(NPM) run build -w typescript
	cd benches/rivals && REPETITIONS=$(REPETITIONS) SEED=$(or $(SEED),1) $(NPM) run --silent durability
