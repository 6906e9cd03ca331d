// What every kernel needs: number types, reductions in a fixed order.
//
// Activations have the type T (float or bfloat16); everything is computed in float32. No kernel uses an atomic on a float: a sum
// is always taken in the same order, so that two runs give the same bits. The number of threads of a block is a multiple of 32.
#pragma once

#ifdef MRPO_EMULATE
#include "emulator.h"
#else
#include <cuda_bf16.h>
#include <mma.h>
#include <stdint.h>
#endif

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

// The sum over a warp, the same in every lane: a tree of pairs.
template <typename S> __device__ __forceinline__ S warp_sum(S x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// The sum over a block, the same in every thread.
template <typename S> __device__ S block_sum(S x) {
    __shared__ S sums[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();  // Whoever reads the last call's sums is done.
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return warp_sum(lane < n_warps ? sums[lane] : S(0));
}

__device__ float block_max(float x) {
    __shared__ float maxima[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) maxima[warp] = x;
    __syncthreads();
    return warp_max(lane < n_warps ? maxima[lane] : -INFINITY);
}

// c tanh(x / c), which never exceeds c (Gemma 2, arXiv 2408.00118), and its slope where it is y. A cap of 0 is none.
__device__ __forceinline__ float capped(float x, float cap) { return cap > 0 ? cap * tanhf(x / cap) : x; }
__device__ __forceinline__ float slope_of_capped(float y, float cap) { return cap > 0 ? 1.0f - (y / cap) * (y / cap) : 1.0f; }

// This thread's index over the whole grid, and the grid's size: for loops over all numbers of an array.
__device__ __forceinline__ size_t grid_thread() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ size_t grid_threads() { return size_t(gridDim.x) * blockDim.x; }

// Defines a kernel for both types of activations: NAME_f32 and NAME_bf16.
#define FOR_BOTH_TYPES(NAME, PARAMETERS, ARGUMENTS)                                      \
    extern "C" __global__ void NAME##_f32(PARAMETERS(float)) { NAME<float>(ARGUMENTS); } \
    extern "C" __global__ void NAME##_bf16(PARAMETERS(bf16)) { NAME<bf16>(ARGUMENTS); }

// Names the shared memory whose size the host gives at the launch.
#ifndef MRPO_EMULATE
#define SHARED_MEMORY(NAME) extern __shared__ __align__(128) unsigned char NAME[]
#endif
