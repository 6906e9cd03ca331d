#!/usr/bin/env bash
# Fetches what compiles CUDA code (nvcc and the headers it needs) from PyPI: no root, no GPU, no CUDA library.
#
#   scripts/cuda/toolchain.sh [FOLDER]      FOLDER is target/cuda unless given
#
# Prints the folder of the toolkit. Does nothing if it is already there.
set -euo pipefail

cd "$(dirname "$0")/../.."
folder=${1:-target/cuda}
mkdir -p "$folder"
folder=$(realpath "$folder")
toolkit=$folder/nvidia/cu13
done_mark=$folder/.fetched-13.0

if [[ ! -e $done_mark ]]; then
    python3 -m pip download --quiet --no-deps --dest "$folder/wheels" \
        nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
        nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 >&2
    for wheel in "$folder"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$folder"
    done
    # A zip file keeps no executable bits.
    chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
    # What the linker is shown in place of the CUDA libraries. They are opened at run time (see build.sh); the runtime library is
    # linked in whole.
    stubs=$folder/stubs
    mkdir -p "$stubs"
    for library in cuda cublas cublasLt curand nvrtc; do
        gcc -shared -Wl,-soname,"lib$library.so.stub" -o "$stubs/lib$library.so" -x c /dev/null
    done
    ln -sf "$toolkit/lib/libcudart_static.a" "$stubs/libcudart.a"
    touch "$done_mark"
fi
echo "$toolkit"
