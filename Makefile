# Pilothouse: see README.md. `make up` needs a Debian-like machine, root, and Rust (https://rustup.rs).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up build test simulate prove lint fix bench release profile install-build install-test clean

, := ,
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
# Static, as the executable is also the content of the built-in image; not for proc macros, hence --target everywhere.
STATIC := -C target-feature=+crt-static -C relocation-model=static
# What ran often in a server under load (scripts/profile). Its name tells its content, as cargo looks at names only. Of code that
# changed since, nothing is known, and nothing said.
PROFDATA := $(CURDIR)/target/$(shell sha256sum packaging/pilothouse.profdata.gz | cut -c1-16).profdata
# Functions whose code is the same are kept once, where Rust brings its own linker along.
FOLD := $(if $(findstring x86_64-unknown-linux-gnu,$(TARGET)),-C link-arg=-Wl$(,)--icf=all)
RELEASE := $(STATIC) $(FOLD) -C profile-use=$(PROFDATA) -C llvm-args=-no-pgo-warn-mismatch

help: ## Says what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: release ## Builds, then runs a whole cluster on this machine, in the foreground
	@if [ "$$(id -u)" -ne 0 ]; then exec sudo --preserve-env=KUBECONFIG dist/pilothouse up $(ARGS); else exec dist/pilothouse up $(ARGS); fi

build: install-build ## Builds everything for development
	cargo build --workspace

test: install-build install-test ## Runs every test (as root)
	@if [ "$$(id -u)" -ne 0 ]; then echo "make test runs real containers, network namespaces and nftables: run it as root (sudo make test)"; exit 1; fi
	@if cargo nextest --version >/dev/null 2>&1; then run="nextest run"; else run="test"; fi; \
	set -x; RUSTFLAGS="$(STATIC)" cargo $$run --workspace --no-fail-fast --target $(TARGET)

SECONDS := 600
simulate: install-build ## Runs the store, then the watch cache and registry on it and two API servers that share it, on a simulated machine, on all processors, for SECONDS=600 together; new seeds, or from SEED on
	RUSTFLAGS="$(STATIC)" PILOTHOUSE_SIMULATE_SECONDS=$$(($(SECONDS) / 2)) $(if $(SEED),PILOTHOUSE_FIRST_SEED=$(SEED)) \
	cargo test --locked -p pilothouse-store -p pilothouse-apiserver --lib --target $(TARGET) -- for_a_time --nocapture

ROUNDS := 200
prove: release install-test ## Attacks the released executable: 200 kills and more under load; prints what was counted (as root)
	RUSTFLAGS="$(STATIC)" PILOTHOUSE_BINARY="$(CURDIR)/dist/pilothouse" PILOTHOUSE_ROUNDS=$(ROUNDS) PILOTHOUSE_READY_MS=2000 \
	cargo test --locked -p pilothouse --test proof --target $(TARGET) -- --nocapture --test-threads=1

lint: install-build ## Checks formatting and lints; writes nothing
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fix: install-build ## Mends formatting and what clippy can mend
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench: release install-test ## Measures, and prints the peers' figures beside ours
	scripts/bench dist/pilothouse
	RUSTFLAGS="$(RELEASE)" cargo bench --locked -p pilothouse-store --bench face --target $(TARGET)
	RUSTFLAGS="$(RELEASE)" cargo bench --locked -p pilothouse-apiserver --bench load --target $(TARGET) -- --binary "$(CURDIR)/dist/pilothouse"
	RUSTFLAGS="$(RELEASE)" cargo bench --locked -p pilothouse-apiserver --bench load --target $(TARGET) -- --binary "$(CURDIR)/dist/pilothouse" --growth "$(CURDIR)/target/bench"

release: install-build $(PROFDATA) ## Writes dist/pilothouse: one static executable, stripped, and its systemd unit
	RUSTFLAGS="$(RELEASE)" cargo build --release --locked -p pilothouse --target $(TARGET)
	mkdir -p dist
	install -s -m 0755 target/$(TARGET)/release/pilothouse dist/pilothouse
	install -m 0644 packaging/pilothouse.service dist/pilothouse.service

$(PROFDATA): packaging/pilothouse.profdata.gz
	mkdir -p target
	gunzip -c $< > $@

profile: install-build install-test ## Renews packaging/pilothouse.profdata.gz, by which releases are optimised
	STATIC="$(STATIC)" scripts/profile

install-build: ## Installs what building needs and this machine lacks
	@scripts/install build

install-test: ## Installs what testing needs and this machine lacks
	@scripts/install test

clean: ## Removes what was built
	cargo clean
	rm -rf dist
