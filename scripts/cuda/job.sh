#!/usr/bin/env bash
# A job through a server of its own, which is killed in its midst and started again.
#
#   scripts/cuda/job.sh MRPO DEVICE MODEL PAIRS
set -euo pipefail

mrpo=$1 device=$2 model=$(realpath "$3") pairs=$(realpath "$4")
data=$(mktemp -d)
server=http://127.0.0.1:18111
serve() {
    "$mrpo" serve --listen 127.0.0.1:18111 --data-dir "$data" --device "$device" >> "$data/log" 2>&1 &
    server_id=$!
    until curl -sf $server/readyz > "$data/ready"; do
        kill -0 $server_id || { cat "$data/log"; exit 1; }
        sleep 0.2
    done
}
trap 'kill $server_id 2>/dev/null || true; rm -rf "$data"' EXIT
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

serve
"$mrpo" models --server $server add model "path:$model"
file=$(curl -sf $server/v1/files -F purpose=fine-tune -F "file=@$pairs" | field id)
for dtype in float32 bfloat16; do
    job=$(curl -s $server/v1/fine_tuning/jobs --json "{\"model\": \"model\", \"training_file\": \"$file\", \"seed\": 1, \"method\":
        {\"type\": \"dpo\", \"dpo\": {\"hyperparameters\": {\"dtype\": \"$dtype\", \"n_epochs\": 2, \"checkpoint_every_n_steps\": 2}}}}" | field id)
    status=queued
    until [[ $status == succeeded ]]; do
        sleep 0.5
        status=$(curl -sf $server/v1/fine_tuning/jobs/"$job" | field status)
        [[ $status != failed ]] || { curl -s $server/v1/fine_tuning/jobs/"$job"; exit 1; }
        if [[ $dtype == float32 && ! -e $data/killed && -n $(find "$data/runs" -name manifest.json -print -quit) ]]; then
            touch "$data/killed"
            # The server and its run, which would go on without it.
            pkill -KILL -P $server_id || true
            kill -KILL $server_id
            echo "killed after the first checkpoint"
            serve
        fi
    done
    echo "$dtype: $status"
    curl -sf "$server/v1/fine_tuning/jobs/$job/metrics?format=csv"
    curl -sf "$server/v1/fine_tuning/jobs/$job/events?limit=100" | python3 -c '
import json, sys
for event in reversed(json.load(sys.stdin)["data"]):
    print(event["message"])'
done
