#!/usr/bin/env bash
# Checks the CUDA kernels without a GPU: the same .cu files, compiled for the processor with AddressSanitizer and
# UndefinedBehaviorSanitizer, and compared with plain float64 code. Needs g++ only (x86-64).
set -euo pipefail

cd "$(dirname "$0")/../.."
build=target/cuda-emulation
mkdir -p "$build"
g++ -std=c++20 -O2 -g1 -Wall -Wextra -Wno-unknown-pragmas -fsanitize=address,undefined -fno-sanitize-recover=all -DMRPO_EMULATE \
    -Itests/kernels -Isrc/model/ops/cuda/kernels -o "$build/kernels" tests/kernels/main.cpp
"$build/kernels"
