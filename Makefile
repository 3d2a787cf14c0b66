# Everything that one does with this tree, as thin targets over cargo and
# scripts/. The setup-* targets install what the others need on Debian 12 or
# newer, as root; all of them are quick when nothing is missing.

PREFIX ?= /usr/local
DESTDIR ?=
# Which tests to run (a part of their names), and how many at a time.
TEST ?=
TEST_THREADS ?=

# Debian's own places, and cargo's, which a bare root shell may lack.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
# Looked up when used, since `make setup-build` may have to install rustc first.
HOST = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN = $(TARGET)/$(HOST)/release/stasis
PEERS = $(TARGET)/peers

CARGO = CARGO_BUILD_TARGET=$(HOST) cargo
CARGO_TEST = STASIS_BIN=$(BIN) $(CARGO) test --locked
TEST_ARGS = -- $(if $(TEST_THREADS),--test-threads=$(TEST_THREADS)) $(TEST)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build install generate test unit kernel integration criu docker containerd podman systemd databases machine conformance bench capabilities check fmt clippy doc deny shellcheck \
	demo clean setup-build setup-check setup-criu setup-demo setup-test

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build the static release binary
	$(CARGO) build --release --locked

install: build ## install the binary, its man pages and completions (PREFIX, DESTDIR)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/stasis
	for page in man/*.8; do \
		[ ! -e "$$page" ] || install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 "$$page"; \
	done
	install -D -m 644 completions/stasis.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/stasis
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions completions/_stasis
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d completions/stasis.fish

generate: ## write what is kept in the tree and follows from the command line's definition: the completions of bash, zsh and fish
	$(CARGO) test --locked --bin stasis -- --ignored generated

test: export STRICT = 1
test: setup-test build unit kernel integration criu docker containerd podman systemd databases ## install what the tests need and run them all

unit: ## tests of plain code, without root
	$(CARGO) test --locked --lib --bins $(TEST_ARGS)

kernel: ## tests of the library on the kernel, below containers (root)
	$(CARGO) test --locked --test kernel $(TEST_ARGS)

integration: build ## tests of the binary (root)
	$(CARGO_TEST) --test integration --test allocation $(TEST_ARGS)

criu: build ## tests of checkpoint and restore (root, CRIU)
	$(CARGO_TEST) --test criu $(TEST_ARGS)

docker: build ## tests under a dockerd of their own (root, docker.io, CRIU)
	$(CARGO_TEST) --test docker $(TEST_ARGS)

containerd: build ## tests under a containerd of their own, by ctr (root, containerd, CRIU)
	$(CARGO_TEST) --test containerd $(TEST_ARGS)

podman: build ## tests under a Podman with directories of its own (root, podman, CRIU)
	$(CARGO_TEST) --test podman $(TEST_ARGS)

systemd: build ## tests under a systemd of their own (root, systemd, dbus, CRIU)
	$(CARGO_TEST) --test systemd $(TEST_ARGS)

databases: build ## PostgreSQL and Redis through a checkpoint (root, CRIU); REDIS_MIB: how much Redis holds
	$(CARGO_TEST) --test databases $(TEST_ARGS)

# The test binaries are those of criu and systemd; a machine that emulates is slow, so that only what needs it runs there.
machine: build ## tests that need another kernel, in an emulated machine (root; the first time makes its image)
	$(CARGO_TEST) --test criu --test systemd --no-run
	@TESTS="$$($(CARGO_TEST) --test criu --test systemd --no-run --message-format=json 2>/dev/null | \
		jq -r 'select(.target.kind == ["test"]).executable // empty')"; \
	: "$${TESTS:?cargo has not said where the tests are}"; \
	mkdir -p $(TARGET)/$(HOST)/tmp; \
	scripts/machine.sh $(TARGET)/machine $(BIN) $$TESTS $(TARGET)/$(HOST)/tmp tests/programs tests/support tests/systemd -- \
		env STRICT=1 STASIS_BIN=$(BIN) sh -c 'for tests; do "$$tests" --test-threads=1 $(or $(TEST),by_stages on_v2_limits users scope apparmor) || exit; done' sh $$TESTS

# The suite's own programs, in Rust, are an example of the crate.
conformance: setup-test build ## runc's integration suite (root): RUNTIME=runc or crun instead of ours, LAYOUT=hybrid, v1 or v2, MODE=rootless[-idmap][-cgroup], FILES
	$(CARGO) build --release --locked --example conformance
	scripts/conformance-parts.sh $(TARGET)/conformance $(TARGET)/$(HOST)/release/examples/conformance
	scripts/conformance.sh $(TARGET)/conformance $(or $(RUNTIME),$(BIN)) $(or $(LAYOUT),hybrid)$(addprefix -,$(MODE)) $(FILES)

capabilities: setup-test build ## run the tests of checkpoints, and write what they show into the table in README.md
	for suite in criu docker; do $(CARGO_TEST) --test $$suite --no-fail-fast 2>&1; done | scripts/capabilities.sh README.md

# It measures an installed copy, as users run it: what the linker wrote lies in smaller pieces in the page cache.
bench: setup-test build ## measure stasis against crun, runc, youki and libcontainer (root), and write docs/benchmarks; BENCH: options
	scripts/peers.sh $(PEERS)
	cd benches && $(CARGO) build --release --locked --target-dir $(TARGET)/benches
	cd benches/libcontainer && RUSTFLAGS= LIBSECCOMP_LINK_TYPE=dylib $(CARGO) build --release --locked --target-dir $(PEERS)/libcontainer
	install -D $(BIN) $(TARGET)/benches/stasis
	STASIS=$(TARGET)/benches/stasis CRUN=$(PEERS)/crun RUNC=$(PEERS)/runc YOUKI=$(PEERS)/youki \
		LIBCONTAINER=$(PEERS)/libcontainer/$(HOST)/release/libcontainer-runner \
		$(TARGET)/benches/$(HOST)/release/bench $(or $(BENCH),--docs docs)

check: setup-check fmt clippy doc deny shellcheck ## format, lints, documentation, dependencies

fmt:
	cargo fmt --check
	cd benches && cargo fmt --check
	cd benches/libcontainer && cargo fmt --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cd benches && $(CARGO) clippy --locked --all-targets --target-dir $(TARGET)/benches -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

# The advisories are a git repository of their own, which not every build machine can reach.
deny:
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	@if timeout 120 cargo deny --locked fetch db 2>/dev/null; then \
		set -x; cargo deny --locked check advisories; \
	else \
		echo "deny: advisories not checked: their database cannot be reached from here"; \
	fi

shellcheck:
	shellcheck -x .ci/run scripts/*.sh tests/support/*.sh tests/systemd/*.sh completions/*.bash

demo: setup-demo build ## checkpoint and restore a counting container, step by step (root)
	RUNTIME=$(or $(RUNTIME),$(BIN)) scripts/demo.sh

clean: ## remove what was built here
	cargo clean

setup-build: ## install what a build needs
	scripts/install-build.sh

setup-check: ## install what `make check` needs
	scripts/install-build.sh check

setup-criu: ## install CRIU
	scripts/install-criu.sh

setup-demo: setup-build setup-criu ## install what `make demo` needs
	scripts/install-test.sh demo

setup-test: setup-build setup-criu ## install what `make test` needs
	scripts/install-test.sh
