#!/usr/bin/env bash
# Asks the admin API whatever its OpenAPI document allows and much that it does not, and holds the
# answers against the document: schemathesis, with all of its checks.
#
#   tests/schemathesis.sh               as in tests/run.sh
#   FAAS_EXAMPLES=200 FAAS_SEED=7 tests/schemathesis.sh
#
# Needs target/debug/faas and target/examples/hello.wasm, which tests/run.sh builds before. The tool
# goes to FAAS_CACHE (default: faas-tests in the user's cache folder).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset RUST_BACKTRACE

version=4.32.5
venv=${FAAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}/schemathesis-$version
if [[ ! -e $venv/.complete ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "schemathesis==$version"
    touch "$venv/.complete"
fi

work=$(mktemp -d)
node=
finish() {
    local status=$?
    if [[ -n $node ]]; then
        kill "$node" 2>/dev/null || true
        wait "$node" 2>/dev/null || true
    fi
    if [[ $status -ne 0 ]]; then
        grep -E '"level":"(WARN|ERROR)"' "$work/log" >&2 || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

mkfifo "$work/said"
target/debug/faas serve --data-dir "$work/data" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    >"$work/said" 2>"$work/log" &
node=$!
# It says where it listens once it does.
exec 3<"$work/said"
admin=
while IFS= read -r line <&3; do
    case $line in "admin "*) admin=${line#admin } && break ;; esac
done
if [[ -z $admin ]]; then
    echo "schemathesis: faas serve did not start" >&2
    cat "$work/log" >&2
    exit 1
fi
FAAS_TOKEN=$(cat "$work/data/admin.token")
export FAAS_TOKEN
FAAS_SERVER=$admin target/debug/faas deploy target/examples/hello.wasm >"$work/deployed"

cd "$work"
"$venv/bin/schemathesis" --config-file "$OLDPWD/tests/schemathesis.toml" run "$admin/v1/openapi.json" \
    --checks all --continue-on-failure --generation-deterministic --seed "${FAAS_SEED:-1}" \
    --max-examples "${FAAS_EXAMPLES:-15}" --warnings off --no-color
