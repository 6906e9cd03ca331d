#!/usr/bin/env bash
# Builds `mrpo` with its CUDA kernels, on any machine with Rust, gcc and Python.
#
#   scripts/cuda/build.sh [CARGO ARGUMENTS]
#
# The program starts without any CUDA library and opens those it finds when it is asked for `--device cuda`.
#
# candle links the CUDA libraries, and a program that links them does not start where they are missing. cudarc, through which
# candle reaches them, can open them at run time instead: its code asks for the feature `dynamic-loading` only, which candle does
# not turn on, but a `--cfg` does. The stubs of toolchain.sh satisfy the linker, and `--as-needed` (rustc's own default) drops them.
# `--target` keeps the flags away from build scripts, one of which refuses both features at once.
set -euo pipefail

cd "$(dirname "$0")/../.."
toolkit=$(scripts/cuda/toolchain.sh)
stubs=$(dirname "$(dirname "$toolkit")")/stubs
target=x86_64-unknown-linux-gnu

export CUDA_HOME=$toolkit NVCC=$toolkit/bin/nvcc PATH=$toolkit/bin:$PATH
# PTX for this or any newer GPU: the driver compiles it at first use.
export CUDA_COMPUTE_CAP=80 CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-2}
export RUSTFLAGS="-L native=$stubs --cfg feature=\"dynamic-loading\" ${RUSTFLAGS:-}"
cargo build --locked --release --features cuda --target "$target" "$@"

program=target/$target/release/mrpo
strip -o "$program-stripped" "$program"
bytes=$(stat -c %s "$program-stripped")
echo "$program-stripped: $((bytes >> 20)) MiB"
if readelf -d "$program-stripped" | grep -E 'NEEDED.*(cuda|cublas|curand|nvrtc)'; then
    echo "the program needs a CUDA library to start" >&2
    exit 1
fi
