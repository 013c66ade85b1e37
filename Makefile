# `make` lists what there is. On a fresh Debian 12 with a Rust toolchain, `make demo` is all one needs.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# Programs that need root rights run with this in front; building never does.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
# cargo starts test programs through it, so that the lab has its rights and target/ keeps its owner.
RUNNER := $(if $(ROOT),--config 'target."cfg(unix)".runner = "$(ROOT)"')
# Debian's own: it is the one that python3-pytest belongs to. No bytecode, so that nothing of root's is left behind.
PYTEST := $(ROOT) /usr/bin/python3 -B -m pytest -q -p no:cacheprovider -rs
# Where `make run` keeps its settings file.
RUN_SETTINGS := target/run/clawgress.toml

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## install the Debian packages that are missing
	@packaging/setup build lab

.PHONY: setup-peers
setup-peers:
	@packaging/setup build lab peers vyos package

.PHONY: demo
demo: setup ## watch two agents meet their policy, in a lab of namespaces
	@echo "demo: building (the first time takes some minutes)"
	@cargo build --quiet --bin clawgress --example demo
	@$(ROOT) target/debug/examples/demo

.PHONY: test
test: setup-peers ## everything: unit, golden, property, and the lab with packets (root)
	@mkdir -p target
	@status=0; cargo test --no-fail-fast $(RUNNER) 2>&1 | tee target/test.log || status=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	     /^SKIP:/ { skipped++ } \
	     /^test .* \.\.\. FAILED$$/ { names = names "\n  " $$2 } \
	     END { printf "\n== tests: %d passed, %d failed, %d ignored, %d skipped%s\n", \
	           passed, failed, ignored, skipped, names }' target/test.log; \
	echo "== the router's parts:"; $(PYTEST) tests/vyos || status=$$?; \
	exit $$status

.PHONY: test-vyos
test-vyos: ## the router's parts alone: command line, commit, show (root)
	@packaging/setup build lab vyos
	@cargo build --quiet --bin clawgress
	@$(PYTEST) tests/vyos

.PHONY: vyos
vyos: ## target/vyos: what a VyOS router gets besides the program, as a tree for /
	@python3 -B vyos-templates/build.py --output target/vyos
	@echo "vyos: $$(find target/vyos -type f | wc -l) files below target/vyos"

.PHONY: deb
deb: ## target/clawgress_<version>_<arch>.deb, for Debian and VyOS
	@packaging/setup build vyos
	@packaging/deb/compile
	@packaging/deb/build --binary target/deb/release/clawgress

.PHONY: check
check: ## format, lints, unit tests: what to run before each commit
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo test --quiet --lib --bins

.PHONY: fuzz
fuzz: setup ## fuzz each reader of foreign octets: make fuzz SECONDS=600 (needs cargo-fuzz)
	@fuzz/run $(or $(SECONDS),600) $(TARGETS)

.PHONY: run
run: setup ## the real thing on this host: make run POLICY=my-policy.json
	@[ -n "$(POLICY)" ] || { echo "say which policy: make run POLICY=my-policy.json" >&2; exit 2; }
	@[ -r "$(POLICY)" ] || { echo "cannot read $(POLICY)" >&2; exit 1; }
	@echo "run: building (release)"
	@cargo build --quiet --release --bin clawgress
	@target/release/clawgress check --policy "$(POLICY)"
	@mkdir -p $(dir $(RUN_SETTINGS))
	@printf 'policy = "%s"\n' "$$(realpath "$(POLICY)")" > $(RUN_SETTINGS)
	@echo "run: traffic that this host forwards is policed now, also after Ctrl-C; 'make teardown' opens it again"
	@$(ROOT) target/release/clawgress run --config $(RUN_SETTINGS)

.PHONY: teardown
teardown: ## stop enforcing what `make run` left in the kernel
	@$(ROOT) target/release/clawgress teardown --config $(RUN_SETTINGS)

# One after the other: each pins processors.
BENCHES := --bench forwarding --bench policy --bench lease --bench classes --bench dns --bench replay --bench lists --bench rules --bench elements

.PHONY: bench
bench: setup ## ratios against peers from Debian, in one run (docs/benchmarks.md)
	@packaging/setup bench
	@cargo bench --quiet $(RUNNER) $(BENCHES)

.PHONY: bench-quick
bench-quick: setup ## the same with the fewest rounds: under three minutes once it is built
	@packaging/setup bench
	@BENCH_QUICK=1 cargo bench --quiet $(RUNNER) $(BENCHES)
