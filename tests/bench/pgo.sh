#!/usr/bin/env bash
# Builds `faas` guided by a profile of its own work: what requests really run is laid out and
# inlined for that. A seventh less CPU time for a small function; takes two more builds.
#
#   tests/bench/pgo.sh      leaves the binary at target/pgo/faas
#
# Trains with the load of the bench, so it needs what tests/bench/run.sh needs. With rustup it
# installs the toolchain's `llvm-tools`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset RUST_BACKTRACE RUST_LOG

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[[ -x $profdata ]] || rustup component add llvm-tools
[[ -x $profdata ]] || {
    echo "tests/bench/pgo.sh: the toolchain has no llvm-profdata" >&2
    exit 1
}
out=$PWD/target/pgo

build() { # FLAGS: only the program gets them; build scripts and macros do not, for `--target`
    RUSTFLAGS=$1 cargo build --release --locked --target "$host" --target-dir "$out/build"
}

tests/bench/run.sh --build-only
rm -rf "$out/raw"
build "-Cprofile-generate=$out/raw"
target/release/faas-bench --train --faas "$out/build/$host/release/faas"
"$profdata" merge -o "$out/merged.profdata" "$out/raw"
build "-Cprofile-use=$out/merged.profdata"
cp "$out/build/$host/release/faas" "$out/faas"
echo "$out/faas"
