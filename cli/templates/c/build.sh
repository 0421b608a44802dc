#!/bin/sh
set -eu
cd "$(dirname "$0")"
PATH="$PWD/.venv/bin:$PATH"

# Zig is the C compiler that brings its own headers and C library for WASI.
if python3 -m ziglang version >/dev/null 2>&1; then
    zig="python3 -m ziglang"
elif command -v zig >/dev/null; then
    zig=zig
else
    echo "zig is missing: python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1" >&2
    exit 1
fi
mkdir -p dist
$zig cc -target wasm32-wasi -Os -s -Wall -Wextra main.c -o dist/{{name}}.wasm
