#!/bin/bash
# Installs what a build needs: a C compiler, libseccomp's static archive and a
# Rust toolchain - the one on PATH when it is new enough, else Debian's. With
# the argument "check" also what `make check` needs: rustfmt, clippy, shellcheck,
# cargo-deny, and git for its list of advisories. Fetches nothing that is already there.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml")
[ -n "$wanted" ] || die "no rust-version in Cargo.toml"

# Prints the version of a Rust tool on PATH, or nothing.
version() { { "$@" --version 2>/dev/null || true; } | sed -n 's/^[a-z-]* \([0-9][0-9.]*\).*/\1/p'; }

# Prints whichever of Debian's two Rust compilers is the newer one; rustc-web is
# what the older releases get with their security updates, to build browsers.
debian_rustc() {
    local plain web
    plain=$(candidate rustc) web=$(candidate rustc-web)
    if at_least "$web" "${plain:-0}"; then echo rustc-web; else echo rustc; fi
}

install_toolchain() {
    local package
    update_lists
    package=$(debian_rustc)
    at_least "$(candidate "$package")" "$wanted" ||
        die "Debian has no Rust $wanted here: install one (https://rustup.rs) and put it on PATH"
    install_packages "$package" "${package/rustc/cargo}"
    hash -r
    at_least "$(version rustc)" "$wanted" ||
        die "$(command -v rustc) is older than Rust $wanted and hides Debian's on PATH"
}

# Adds rustfmt and clippy to the toolchain in use.
install_lints() {
    if [ "$(command -v rustc)" != /usr/bin/rustc ]; then
        rustup component add rustfmt clippy
    elif [ -z "$(missing rustc-web)" ]; then
        install_packages rustfmt-web rust-web-clippy
    else
        install_packages rustfmt rust-clippy
    fi
}

# Built once, into cargo's own directory for programs, where `cargo deny` finds it.
install_deny() {
    local release=0.20.2
    # The last one that Debian 13's compiler builds.
    at_least "$(version rustc)" 1.88 || release=0.18.3
    say "building cargo-deny $release (a few minutes, once)"
    # Away from this tree, whose settings are for the runtime's own static build.
    (cd / && env -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR \
        cargo install --quiet --locked "cargo-deny@$release")
}

install_packages ca-certificates gcc libc6-dev make pkg-config libseccomp-dev
if ! at_least "$(version rustc)" "$wanted" || ! at_least "$(version cargo)" "$wanted"; then
    install_toolchain
fi
if [ "${1:-}" = check ]; then
    install_packages git shellcheck
    if [ -z "$(version cargo fmt)" ] || [ -z "$(version cargo clippy)" ]; then install_lints; fi
    if [ -z "$(version cargo deny)" ]; then install_deny; fi
fi
