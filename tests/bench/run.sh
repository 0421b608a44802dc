#!/usr/bin/env bash
# Measures what a request costs the server: CPU time, page faults, latency, memory.
#
#   tests/bench/run.sh                          everything, 5 rounds
#   tests/bench/run.sh --only hello --rounds 3  some rows; `--help` has the rest
#   tests/bench/run.sh --install-peers          first installs wasmtime, deno and workerd
#   tests/bench/run.sh --build-only             measures nothing
#
# What tests/bench/pgo.sh has built is measured beside the plain build.
#
# Needs two cores, wrk and taskset; `perf`, where it is installed, counts system calls. Prints a
# table and writes target/bench.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset RUST_BACKTRACE RUST_LOG

peers=target/peers
if [[ ${1-} == --install-peers ]]; then
    shift
    mkdir -p "$peers"
    cargo install wasmtime-cli --version 48.0.8 --locked --root "$peers"
    npm install --silent --prefix "$peers" workerd@1.20261117.1 deno@2.9.6
fi

for tool in wrk taskset; do
    command -v "$tool" >/dev/null || {
        echo "tests/bench/run.sh: please install $tool (Debian: wrk, util-linux)" >&2
        exit 1
    }
done

tests/toolchains.sh >&2
cargo build --quiet --release --locked --manifest-path tests/guests/Cargo.toml \
    --target-dir target/guests --target wasm32-wasip2
cargo build --release --locked
cargo build --release --locked -p faas-bench
[[ ${1-} == --build-only ]] || exec target/release/faas-bench "$@"
