#!/usr/bin/env bash
# schemathesis against servers that this starts: one that asks for keys, one that does not. Every check and every phase.
#
#     scripts/schemathesis.sh [PROGRAM]      # target/debug/mrpo by default
#
# MRPO_SCHEMATHESIS_EXAMPLES (10 by default) is how many requests each operation gets at most in fuzzing, MRPO_SCHEMATHESIS_SEED the seed.
# It comes from PyPI into a folder that is kept in target/; where PyPI cannot be reached the run is skipped. What each run sent and got is
# left in target/schemathesis/.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/debug/mrpo}")
examples=${MRPO_SCHEMATHESIS_EXAMPLES:-10}
seed=${MRPO_SCHEMATHESIS_SEED:-1}
version=4.32.5
venv=target/schemathesis/venv-$version
model=$PWD/tests/fixtures/models/llama/model.gguf

if [ ! -f "$venv/ready" ]; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "schemathesis==$version" && touch "$venv/ready"; }; then
        echo "SKIPPED: schemathesis could not be installed (no python3, or PyPI cannot be reached)"
        exit 0
    fi
fi

server=
directory=
stop() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    [ -z "$directory" ] || rm -rf "$directory"
    server= directory=
}
trap stop EXIT

run() { # NAME KEYED [OPTION...]
    local name=$1 keyed=$2 url
    shift 2
    directory=$(mktemp -d)
    export MRPO_KEY=none MRPO_KEY_ID=
    if [ "$keyed" = yes ]; then
        MRPO_KEY=$("$program" keys create --data-dir "$directory/data" --user root --role admin 2>/dev/null)
        MRPO_KEY_ID=$("$program" keys list --data-dir "$directory/data" | grep -o 'key-[0-9a-f]*' | head -n 1)
    fi
    : >"$directory/out"
    # Generated sources of models must reach nobody: no hub, no pip. A key's bucket is large enough for a tester in a hurry.
    HF_ENDPOINT=http://127.0.0.1:1 HF_HOME=$directory/hub MRPO_PIP=/bin/false RUST_LOG=mrpo=warn \
        "$program" serve --data-dir "$directory/data" --listen 127.0.0.1:0 --requests-per-second 100000 --allow-webhook 127.0.0.1:1 \
        >"$directory/out" 2>"$directory/log" &
    server=$!
    for _ in $(seq 100); do
        grep -q '^listening on ' "$directory/out" && break
        sleep 0.1
    done
    url=$(sed -n 's/^listening on //p' "$directory/out")
    [ -n "$url" ] || { cat "$directory/log"; exit 1; }
    python3 scripts/schemathesis/seed.py "$url" "$directory" "$model" "$([ "$keyed" = no ] || echo "$MRPO_KEY")"
    cp scripts/schemathesis/schemathesis.toml "$directory/"
    # From a file: what is loaded from an address is not asked for again, and would be left out.
    if [ "$keyed" = yes ]; then
        "$program" openapi >"$directory/openapi.json"
    else
        # That a server without keys asks nobody is said in words: OpenAPI has none for it.
        "$program" openapi | python3 scripts/schemathesis/without_keys.py >"$directory/openapi.json"
        sed -i '/^\[auth/,/^bearer/d' "$directory/schemathesis.toml"
    fi

    local report=target/schemathesis/$name failed=0
    mkdir -p "$report"
    "$venv/bin/schemathesis" --config-file "$directory/schemathesis.toml" run "$directory/openapi.json" --url "$url" \
        --checks all --phases examples,coverage,fuzzing,stateful --max-examples "$examples" --seed "$seed" --workers 1 \
        --report ndjson,json --report-ndjson-path "$report/events.ndjson" --report-json-path "$report/report.json" "$@" >"$report/out" 2>&1 || failed=1
    cp "$directory/log" "$report/server.log"
    kill -0 "$server" 2>/dev/null || { echo "the server has ended: see $report/server.log"; failed=1; }
    if [ "$failed" = 1 ]; then
        tail -n 400 "$report/out"
        echo "FAILED: schemathesis, $name"
        exit 1
    fi
    echo "schemathesis, $name: $(sed -n 's/^ *Tested: *//p' "$report/out") operations, $(grep -oE '[0-9]+ generated' "$report/out" | cut -d' ' -f1) cases, no failure"
    stop
}

run keyed yes
# The first key that is made ends this state.
run keyless no --exclude-operation-id create_key
