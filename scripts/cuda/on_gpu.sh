#!/usr/bin/env bash
# Checks and measures everything on a machine with an NVIDIA GPU, in one go and in under 8 minutes. Needs no Rust and no network.
#
#   scripts/cuda/on_gpu.sh MRPO [OUT] [MODEL PAIRS]
#
# MRPO is the program of scripts/cuda/build.sh, OUT a folder for what is found (./gpu-figures). With a model (a GGUF file or a
# Hugging Face directory) and preference pairs a job is run through a server too, which is killed in its midst. DEVICE=cpu tries
# the script out where there is no GPU.
set -euo pipefail

mrpo=$(realpath "$1") out=${2:-gpu-figures} model=${3:-} pairs=${4:-} device=${DEVICE:-cuda}
here=$(dirname "$(realpath "$0")")
mkdir -p "$out"

# cuBLAS and cuRAND: a toolkit's, or those that PyTorch's wheels bring.
for folder in /usr/local/cuda*/lib64 $(python3 -c '
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
for root in spec.submodule_search_locations if spec else []:
    for library in sorted(pathlib.Path(root).glob("**/libcublas.so.13")) + sorted(pathlib.Path(root).glob("**/libcurand.so.10")):
        print(library.parent)' 2>/dev/null || true); do
    [[ -d $folder ]] && LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}

failed=0
step() { # NAME SECONDS COMMAND...: its output goes to OUT/NAME and to the terminal
    local name=$1 limit=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$out/$name" || failed=1
}

{ nvidia-smi || true; lscpu | head -20; "$mrpo" --version; } > "$out/machine.txt" 2>&1
step check.jsonl 300 "$mrpo" check-device "$device" --json
if [[ $device == cuda ]] && python3 -c 'import torch' 2>/dev/null; then
    step torch.txt 60 python3 "$here/torch_speed.py"
fi
if [[ -n $model ]]; then
    step job.txt 100 "$here/job.sh" "$mrpo" "$device" "$model" "$pairs"
fi
exit "$failed"
