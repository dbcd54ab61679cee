# make demo   boots a Linux guest and shows it       make test   runs every test of the CI set
# Both install what is missing (Debian's packages, as root) and use an emulated KVM host where this machine's KVM cannot
# run an ordinary Linux guest.

CARGO ?= cargo
TARGET := target/x86_64-unknown-linux-gnu
RVMM := $(TARGET)/release/rvmm
# Beside them, resources/ has settings: a script there says which shell it is for.
SCRIPTS = .ci/run fuzz/run tests/run $(shell grep -rlE '^\#(!/bin/| shellcheck shell=)' resources)

.PHONY: help demo test test-long lint fuzz bench build clean

help:
	@sed -n '1,3s/^# *//p' Makefile
	@echo 'make build  the binary, $(RVMM)'
	@echo 'make test-long  the tests of the CI set, then the long ones: some 2 hours'
	@echo 'make lint   format, clippy, rustdoc, shell scripts, licences and sources of dependencies'
	@echo 'make fuzz   every fuzz target, for FUZZ_SECONDS each (20)'
	@echo 'make bench  microVMs and containers compared (target/compare/report.html), and rvmm measured: start, restore, socket, I/O'

build:
	resources/setup build
	$(CARGO) build --release

demo: build
	resources/setup images emulated-host
	resources/demo $(RVMM)

test: build
	resources/setup images kernel emulated-host compare
	tests/run

test-long: test
	tests/run long
	resources/setup build fuzz
	FUZZ_SECONDS=$${FUZZ_SECONDS:-120} fuzz/run
	resources/emulated-host-trial $(RVMM) --boots 5 -- --cpus 1
	resources/emulated-host-trial $(RVMM) --boots 5 -- --cpus 2

lint:
	resources/setup build lint
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items
	shellcheck -x -P SCRIPTDIR $(SCRIPTS)
	deny=$$(resources/cargo-deny) && $$deny --locked --workspace check licenses bans sources && \
	$$deny --locked --manifest-path fuzz/Cargo.toml --config deny.toml check licenses bans sources

fuzz:
	resources/setup build fuzz
	fuzz/run

bench: build
	resources/setup build images kernel emulated-host bench compare report
	resources/compare $(RVMM) target/compare
	resources/check-report target/compare/report.html --json target/compare/result.json --schema docs/bench.schema.json
	$(RVMM) bench startup
	$(RVMM) bench restore
	$(RVMM) bench api
	$(RVMM) bench io

clean:
	$(CARGO) clean
