#!/usr/bin/env bash
# Runs every test: formatting, lints, documents, unit and end-to-end tests.
#
#   tests/run.sh             everything
#   tests/run.sh e2e NAME    only end-to-end tests whose name contains NAME
#
# FAAS_TEST_FULL=1 sends the crowds, floods and kills of the end-to-end tests at their full size, which
# takes minutes; some print what they measured (after `-- --nocapture`).
#
# Installs what they need: Wasm targets and guest toolchains (tests/toolchains.sh), schemathesis
# (tests/schemathesis.sh), cargo-deny (tests/deny.sh), and, as root on Debian, the packages below. Ends
# with the closing lines of the test runners.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Backtraces of expected failures cost time and say nothing.
unset RUST_BACKTRACE

step() {
    echo
    echo "== $*"
}

# command → Debian package
declare -A tools=(
    [promtool]=prometheus [curl]=curl [pebble]=pebble [systemd-analyze]=systemd [faketime]=faketime
)
missing=()
for tool in "${!tools[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${tools[$tool]}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
    if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
        step "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "tests/run.sh: please install: ${missing[*]}" >&2
        exit 1
    fi
fi

step "guest toolchains and examples"
tests/toolchains.sh

step "test guests"
guests() { # TARGET ARGS…
    cargo build --quiet --release --locked --manifest-path tests/guests/Cargo.toml \
        --target-dir target/guests --target "$@"
}
guests wasm32-wasip2
guests wasm32-wasip2 -p guest-fetch02
guests wasm32-wasip1 -p guest-cgi

# With the tests: what they depend on adds features, and the engine would be compiled a second time.
step "the binary"
cargo build --workspace --all-targets --locked

log=$(mktemp)
api_log=$(mktemp)
trap 'rm -f "$log" "$api_log"' EXIT

if [[ ${1-} == e2e ]]; then
    cargo test --workspace --locked --test e2e -- "${2-}"
    exit
fi

step "formatting"
cargo fmt --all --check
for manifest in examples/*/Cargo.toml tests/guests/Cargo.toml fuzz/Cargo.toml; do
    cargo fmt --all --check --manifest-path "$manifest"
done

step "tests"
failed=0
# A test that hangs must not hide what the others said.
timeout --signal=INT --kill-after=10 3600 \
    cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || failed=1

step "the API against its own document"
tests/schemathesis.sh >"$api_log" 2>&1 || failed=1
tail -n 4000 "$api_log" | grep -v '^$'

step "lints"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

step "documents"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet --document-private-items

step "what it is built of"
tests/deny.sh

step "closing lines"
grep -E '^(test result:|error: test failed)' "$log" || true
grep -E '^=+ .* in [0-9.]+s =+$' "$api_log" || true
exit "$failed"
