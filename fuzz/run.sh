#!/usr/bin/env bash
# Runs fuzz targets one after the other, each for so many seconds, with its words; all of them if none
# is named:
#   fuzz/run.sh SECONDS [TARGET...]
# Shows the last line of each; the others are in fuzz/artifacts/TARGET.log. What is in fuzz/corpus/ is
# used and kept.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
seconds=${1:?how many seconds for each target}
shift
if (($# == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list)
    set -- "${targets[@]}"
fi
mkdir -p fuzz/artifacts
failed=0
for target; do
    log=fuzz/artifacts/$target.log
    options=(-max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096)
    case $target in
    # Lines are cut behind 16 KiB.
    lines) options+=(-max_len=20000 -len_control=20) ;;
    # A few bytes make no program that has anything in it; and what each covers is too much for
    # libFuzzer to weigh by how rare it is, which would take longer than to run them.
    generated | merge) options+=(-len_control=0 -entropic=0) ;;
    artifact | inspect)
        [[ -d fuzz/corpus/$target ]] || cargo run --quiet --manifest-path fuzz/Cargo.toml \
            --no-default-features --example seeds -- "fuzz/corpus/$target"
        ;;
    esac
    [[ -f fuzz/words/$target ]] && options+=(-dict="fuzz/words/$target")
    if cargo +nightly fuzz run -s none "$target" -- "${options[@]}" >"$log" 2>&1; then
        printf '%-14s %s\n' "$target" "$(grep DONE "$log")"
    else
        printf '%-14s failed, see %s\n' "$target" "$log"
        failed=1
    fi
done
exit "$failed"
