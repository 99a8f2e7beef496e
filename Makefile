# make demo     the whole thing on this machine, no account needed
# make test     all tests, on a PostgreSQL of their own
# make lint     format, clippy, documentation, dependencies, systemd unit
# make bench    throughput, each figure beside its ceiling
# make prepare  renew .sqlx after a change of SQL
# make install  the release binary and the systemd files under $(DESTDIR)$(PREFIX)

PREFIX ?= /usr/local
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: build demo test lint bench prepare check-prepared install needs needs-build needs-postgres

build: needs-build
	cargo build --release

demo: needs-build needs-postgres
	cargo run --quiet -- demo

test: needs-build needs-postgres
	@.ci/needs nextest
	cargo run --quiet --example with_postgres -- cargo nextest run
	cargo test --quiet --doc

lint: needs-build
	@.ci/needs deny
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
	cargo deny --log-level error check bans licenses sources
	.ci/verify-unit

bench: needs-build needs-postgres
	cargo bench

prepare: needs-build needs-postgres
	.ci/prepare

check-prepared: needs-build needs-postgres
	.ci/prepare --check

install: build
	install -D -m 755 $${CARGO_TARGET_DIR:-target}/release/postrider $(DESTDIR)$(PREFIX)/bin/postrider
	install -D -m 644 systemd/postrider.service $(DESTDIR)$(PREFIX)/lib/systemd/system/postrider.service
	install -D -m 644 systemd/postrider.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/postrider.conf
	install -D -m 644 systemd/postrider.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/postrider.conf
	install -D -m 644 config/postrider.toml $(DESTDIR)$(PREFIX)/share/postrider/postrider.toml

# What is missing is installed, said aloud; nothing is said when nothing is missing.
needs:
	@.ci/needs rust cc postgres nextest deny
needs-build:
	@.ci/needs rust cc
needs-postgres:
	@.ci/needs postgres
