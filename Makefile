# Everything that walferry's developers run; `make help` lists it.
#
#   make demo SECONDS=20    ends by itself: 0 when MongoDB equals PostgreSQL, 1 otherwise
#   make demo DATA=dir      loads the CSV files of a directory instead of generated ones
#   make demo RATE=500      sales per second
#   make test-matrix VERSIONS=18 ONLY=stream::   of the suite these tests, on this version of PostgreSQL
#   make demo PROFILE=dev   builds sooner and runs slower
#   make demo KAFKA=0       without Kafka: from PostgreSQL straight into MongoDB
#   make torture SECONDS=600  kills under load for so long, 20 of them at least; SEED=7 for another run, or
#                           the same again; WALFERRY_PATH=split (two processes) or direct (without Kafka)
#   make bench ROWS=50000 ONLY=drain,latency   a smaller run, of these parts: drain, reader, latency, batch, memory; rules, alerts
#   make bench RECORD=1     becomes the run that later ones are compared with (benches/recorded.json)

# The tests of the suite that every way of running the daemon has to pass.
WAYS = stream:: types:: ddl:: messages:: giant:: large:: dead_letters:: history:: faults:: restarts:: orders:: retail:: \
	torture:: analytics_at_once::

# Cargo is given the whole workspace below, and what of it is wanted: with -p it builds the dependencies once more,
# with the features of that package alone.

BENCH = $(or $(CARGO_TARGET_DIR),target)/release/bench $(if $(ROWS),--rows $(ROWS)) $(if $(JSON),--json)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-matrix torture mutate bench-programs bench bench-growth bench-incumbent lint

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)

setup: ## install what demo and test need; a second run asks the network nothing
	@scripts/setup.sh $(if $(filter 0,$(KAFKA)),direct)

demo: PROFILE ?= release
demo: setup ## private servers, the retail system, live sales, shown in the terminal (Ctrl-C ends it)
	@echo "demo: building the $(PROFILE) binaries"
	@cargo build --profile $(PROFILE) --workspace --bin walferry --bin retail --bin demo
	@$(or $(CARGO_TARGET_DIR),target)/$(PROFILE:dev=debug)/demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(DATA),--data $(DATA)) $(if $(RATE),--rate $(RATE)) $(if $(filter 0,$(KAFKA)),--direct)

test: ## the whole suite, on private servers below .run/
	@scripts/setup.sh test
	@echo "test: building and running every test of the workspace"
	@cargo test --workspace
	@echo "test: the whole way of a change again, without Kafka"
	@WALFERRY_PATH=direct cargo test -q --workspace --test suite -- $(WAYS)
	@echo "test: and with reader and sink as two processes, each of which is killed alone too"
	@WALFERRY_PATH=split cargo test -q --workspace --test suite -- $(WAYS)

test-matrix: VERSIONS ?= 16 17 18
test-matrix: ## the tests that ask PostgreSQL something, on the servers of other versions (Debian's has `make test`)
	@scripts/setup.sh test
	@scripts/setup.sh matrix $(VERSIONS)
	@set -e; for version in $(VERSIONS); do \
		echo "test-matrix: PostgreSQL $$version"; \
		export WALFERRY_POSTGRES=$$version; \
		cargo test -q --workspace --test postgres; \
		cargo test -q --workspace --test suite -- $(ONLY); \
	done

torture: setup ## kills of the daemon, its halves and the servers under load, for SECONDS (300)
	@WALFERRY_TORTURE_SECONDS=$(or $(SECONDS),300) $(if $(SEED),WALFERRY_SEED=$(SEED)) \
		cargo test --workspace --test suite torture:: -- --nocapture --test-threads=1

mutate: setup ## break the engine on purpose, one way at a time: a named test must notice each
	@scripts/mutate.sh

bench-programs: setup
	@echo "bench: building the release binaries"
	@cargo build --release -p walferry -p walferry-bench --bins

bench: bench-programs ## speed and cost, each beside the limit of the servers measured in the same run
	@$(BENCH) $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RECORD),--record)

bench-growth: ROWS ?= 1000000
bench-growth: bench-programs ## how a drain changes with the size and shape of its backlog
	@$(BENCH) --only growth

bench-incumbent: bench-programs ## the same drain by Debezium and MongoDB's sink in Kafka Connect, beside ours
	@scripts/setup.sh incumbent
	@$(BENCH) --only incumbent

lint: ## formatting, clippy, documentation, dependencies, the mutations, the alerts, the compose file
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	.tools/deny/bin/cargo-deny --log-level error check bans licenses sources
	scripts/mutate.sh --check
	[ ! -e .tools/promtool ] || .tools/promtool/promtool check rules docs/deploy/alerts.yml
	[ ! -e .tools/promtool ] || .tools/promtool/promtool test rules tests/alerts.yml
	PYTHONPATH=.tools/schemas python3 -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
