#!/usr/bin/env bash
# OpenAI's own clients, unmodified, through whole jobs on a server that this starts: Python's newest 3.x and 1.60, and Node's.
#
#     scripts/openai_clients.sh [PROGRAM]      # target/debug/mrpo by default
#
# The clients come from PyPI and npm into a folder that is kept in target/. Where a registry cannot be reached that client is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-target/debug/mrpo}
clients=target/openai_clients
data=$(mktemp -d)
mkdir -p "$clients"

"$program" serve --data-dir "$data" --listen 127.0.0.1:0 --allow-webhook 127.0.0.1 >"$data/out" 2>"$data/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$data"' EXIT
for _ in $(seq 100); do
    grep -q '^listening on ' "$data/out" && break
    sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$data/out")/v1
[ "$url" != /v1 ] || { cat "$data/log"; exit 1; }
source="path:$PWD/tests/fixtures/models/llama/model.gguf"

python_client() { # NAME REQUIREMENT...
    local venv="$clients/$1"
    shift
    if [ ! -f "$venv/ready" ]; then
        if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "$@" && touch "$venv/ready"; }; then
            echo "SKIPPED: $* could not be installed (no python3, or PyPI cannot be reached)"
            return 0
        fi
    fi
    "$venv/bin/python" scripts/openai_client.py --base-url "$url" --model tiny --source "$source" --webhook-port 0
}

node_client() {
    if ! command -v npm >/dev/null; then
        echo "SKIPPED: openai for Node (there is no npm)"
        return 0
    fi
    if [ ! -d "$clients/node/node_modules/openai" ]; then
        if ! npm install --silent --no-audit --no-fund --prefix "$clients/node" openai; then
            echo "SKIPPED: openai for Node could not be installed (npm's registry cannot be reached)"
            return 0
        fi
    fi
    # Node looks for packages beside the script.
    cp scripts/openai_client.mjs "$clients/node/"
    node "$clients/node/openai_client.mjs" "$url" tiny
}

python_client python-3 'openai>=3,<4'
python_client python-1.60 openai==1.60.0 'httpx<0.28'
node_client
