#!/bin/sh
set -eu
cd "$(dirname "$0")"
PATH="$PWD/.venv/bin:$PATH"

if ! command -v componentize-py >/dev/null; then
    echo "componentize-py is missing: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt" >&2
    exit 1
fi
mkdir -p dist
componentize-py -d wit -w function componentize app -o dist/{{name}}.wasm
