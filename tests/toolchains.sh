#!/usr/bin/env bash
# Installs what building the guests needs and builds the examples.
#
#   tests/toolchains.sh              all of them
#   tests/toolchains.sh c-cgi hello  only these
#
# Tools go to FAAS_CACHE (default: faas-tests in the user's cache folder), examples
# to target/examples/<name>.wasm. What is there and up to date is left alone.

# `step` calls functions by name, which shellcheck does not follow.
# shellcheck disable=SC2329
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
cache=${FAAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}
out=$root/target/examples

# The first two are the versions that examples/python-hello/requirements.txt and
# examples/c-cgi/build.sh name. wasmtime only assembles text, as `faas` does.
python_packages=(componentize-py==0.25.1 ziglang==0.17.1 wasmtime==50.0.1)

rust_examples=(hello json-api hello-wasi02)
python_examples=(python-hello c-cgi wat-hello)
node_examples=(js-hello)
known=("${rust_examples[@]}" "${python_examples[@]}" "${node_examples[@]}")

wanted=("$@")
[[ $# -gt 0 ]] || wanted=("${known[@]}")

fail() {
    echo "toolchains: $*" >&2
    exit 1
}

now() { # in microseconds, or in whole seconds where bash is older than 5
    if [[ -n ${EPOCHREALTIME-} ]]; then
        echo "${EPOCHREALTIME/[.,]/}"
    else
        echo "$(date +%s)000000"
    fi
}

report() { # LABEL START NOTE
    local tenths=$((($(now) - $2 + 50000) / 100000))
    printf '%-24s %4d.%d s  %s\n' "$1" $((tenths / 10)) $((tenths % 10)) "$3"
}

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# What builds leave behind is no input.
sources() { # FOLDER
    find "$1" \( -name node_modules -o -name dist -o -name target -o -name .venv \
        -o -name __pycache__ -o -name .faas \) -prune -o -type f -print | LC_ALL=C sort
}

checksum() { # FOLDER TOOLCHAIN
    {
        echo "$2"
        sources "$1" | while IFS= read -r file; do sha256 "$file"; done
    } | sha256 | cut -c1-16
}

is_wanted() {
    local name
    for name in "${wanted[@]}"; do [[ $name != "$1" ]] || return 0; done
    return 1
}

any_wanted() {
    local candidate
    for candidate in "$@"; do ! is_wanted "$candidate" || return 0; done
    return 1
}

# A step's output is of interest only when the step fails.
step() { # LABEL COMMAND...
    local label=$1 start log
    shift
    start=$(now)
    log=$logs/${label// /-}
    # Not `if ! "$@"`: bash ignores `set -e` inside a condition.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null
    local status=$?
    set -e
    if [[ $status -ne 0 ]]; then
        report "$label" "$start" failed
        sed 's/^/    /' "$log" >&2
        exit 1
    fi
    report "$label" "$start" "${note:-done}"
}

# A folder is complete when its stamp is there; an interrupted one starts again.
install_once() { # LABEL FOLDER FUNCTION
    if [[ -e $2/.complete ]]; then
        report "$1" "$(now)" ready
        return
    fi
    rm -rf "$2"
    mkdir -p "$2"
    step "$1" "$3"
    touch "$2/.complete"
}

build_once() { # NAME TOOLCHAIN FUNCTION
    local name=$1 start inputs
    start=$(now)
    inputs=$(checksum "examples/$name" "$2")
    if [[ -e $out/$name.wasm && $(cat "$out/.inputs/$name" 2>/dev/null) == "$inputs" ]]; then
        report "$name" "$start" unchanged
        return
    fi
    rm -f "$out/.inputs/$name"
    note=built step "$name" "$3" "$name"
    echo "$inputs" >"$out/.inputs/$name"
}

publish() { # NAME FILE; by renaming, since tests may be reading the one before
    cp "$2" "$out/.$1.wasm"
    mv "$out/.$1.wasm" "$out/$1.wasm"
}

# Builds happen in a copy, so that nothing appears in the source folders.
copy_sources() { # NAME
    local from=examples/$1 to=$out/.build/$1 file
    rm -rf "$to"
    sources "$from" | while IFS= read -r file; do
        mkdir -p "$to/$(dirname "${file#"$from"/}")"
        cp -p "$file" "$to/${file#"$from"/}"
    done
    cd "$to"
}

has_rust_targets() {
    local target
    for target in wasm32-wasip1 wasm32-wasip2; do
        [[ -d $(rustc --print target-libdir --target "$target") ]] || return 1
    done
}

install_rust_targets() {
    rustup target add wasm32-wasip1 wasm32-wasip2
}

build_rust() { # NAME
    CARGO_TARGET_DIR=$root/target/guests cargo build --release --locked \
        --target wasm32-wasip2 --manifest-path "examples/$1/Cargo.toml"
    publish "$1" "target/guests/wasm32-wasip2/release/${1//-/_}.wasm"
}

rust_guests() {
    local name
    if has_rust_targets; then
        report 'Rust targets' "$(now)" ready
    else
        command -v rustup >/dev/null || fail 'install the Rust targets wasm32-wasip1 and wasm32-wasip2'
        step 'Rust targets' install_rust_targets
    fi
    for name in "${rust_examples[@]}"; do
        # Cargo decides what is up to date: it also knows the path to the SDK.
        if is_wanted "$name"; then note=built step "$name" build_rust "$name"; fi
    done
}

install_python() {
    python3 -m venv "$venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: "${python_packages[@]}"
}

build_with_script() { # NAME
    copy_sources "$1"
    # Zig keeps the C library that it compiled once.
    PATH="$venv/bin:$PATH" ZIG_GLOBAL_CACHE_DIR="$cache/zig" sh build.sh
    publish "$1" "dist/$1.wasm"
}

assemble() { # NAME
    "$venv/bin/python3" - "examples/$1/$1.wat" "$out/.$1.wasm" <<'PYTHON'
import sys
from pathlib import Path
from wasmtime import wat2wasm

source, target = map(Path, sys.argv[1:])
target.write_bytes(wat2wasm(source.read_text()))
PYTHON
    mv "$out/.$1.wasm" "$out/$1.wasm"
}

python_guests() {
    local key name
    command -v python3 >/dev/null || fail 'python3 is missing (Debian: apt install python3 python3-venv)'
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        fail 'this Python cannot make virtual environments (Debian: apt install python3-venv)'
    # Of another Python, a virtual environment is of no use.
    key="${python_packages[*]} $(python3 -c 'import sys; print(sys.base_prefix, sys.version)')"
    venv=$cache/python-$(sha256 <<<"$key" | cut -c1-12)
    install_once 'Python packages' "$venv" install_python
    ln -sfn "$venv" "$cache/python"
    # The quick ones first.
    if is_wanted wat-hello; then build_once wat-hello "$key" assemble; fi
    if is_wanted c-cgi; then build_once c-cgi "$key" build_with_script; fi
    if is_wanted python-hello; then build_once python-hello "$key" build_with_script; fi
}

install_node() {
    cp examples/js-hello/{package.json,package-lock.json,.npmrc} "$modules"
    cd "$modules"
    npm ci --ignore-scripts --no-audit --no-fund
}

build_node() { # NAME
    copy_sources "$1"
    ln -s "$modules/node_modules" node_modules
    npm run build
    publish "$1" "dist/$1.wasm"
}

node_guests() {
    local key name
    command -v npm >/dev/null || fail 'Node.js is missing (Debian: apt install nodejs npm)'
    [[ $(node -p 'process.versions.node.split(".")[0]') -ge 20 ]] ||
        fail "Node.js $(node --version) is too old: 20 or newer is needed"
    # Packages with native code are for one binary interface of Node.js.
    key="$(sha256 <examples/js-hello/package-lock.json) $(node -p 'process.versions.modules')"
    modules=$cache/npm-$(sha256 <<<"$key" | cut -c1-12)
    install_once 'npm packages' "$modules" install_node
    ln -sfn "$modules" "$cache/npm"
    for name in "${node_examples[@]}"; do
        if is_wanted "$name"; then build_once "$name" "$key" build_node; fi
    done
}

for name in "${wanted[@]}"; do
    [[ " ${known[*]} " == *" $name "* ]] || fail "no example $name (there are: ${known[*]})"
    [[ -d examples/$name ]] || fail "examples/$name is missing"
done
mkdir -p "$cache" "$out/.inputs" "$out/.build"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Two runs at once would install into one folder. Without `flock` (macOS): do not start two.
if command -v flock >/dev/null; then
    exec 9>"$cache/lock"
    flock 9
fi

# Each language's tools use one core for most of their time, so the three go side by
# side; each in a process group of its own, so that an interrupt ends what they started.
jobs=()
trap 'for job in "${jobs[@]}"; do kill -- "-$job" 2>/dev/null || :; done; exit 130' INT TERM
set -m
if any_wanted "${node_examples[@]}"; then node_guests & jobs+=($!); fi
if any_wanted "${python_examples[@]}"; then python_guests & jobs+=($!); fi
if any_wanted "${rust_examples[@]}"; then rust_guests & jobs+=($!); fi
set +m
status=0
for job in "${jobs[@]}"; do wait "$job" || status=1; done
exit "$status"
