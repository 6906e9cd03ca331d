// Matrix tiles in shared memory: how they get there, and products of them by a whole block.
//
// A tile's rows are padded, so that neighbouring rows start in different banks; what lies outside the matrix is zero. Products of
// bfloat16 tiles run on the tensor cores; heights, widths and depths are multiples of 16 then.
#pragma once
#include "base.cuh"

// Padding of a row, 16 bytes: keeps rows aligned to vector loads.
template <typename T> constexpr int PAD = 16 / sizeof(T);

// Takes tiles out of one piece of shared memory, one after the other.
struct SharedSpace {
    unsigned char* next;
    template <typename T> __device__ T* take(int rows, int stride) {
        T* tile = reinterpret_cast<T*>(next);
        next += (size_t(rows) * stride * sizeof(T) + 127) / 128 * 128;
        return tile;
    }
};

// Loads n_rows x columns numbers that lie `stride` apart into a tile of `height` rows and `width` columns; the rest becomes zero.
template <typename T>
__device__ void load_tile(T* tile, int tile_stride, int height, int width, const T* from, size_t stride, int n_rows, int columns) {
    constexpr int V = 16 / sizeof(T);
    if (columns % V == 0 && stride % V == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        for (int i = threadIdx.x; i < height * (width / V); i += blockDim.x) {
            const int row = i / (width / V), column = i % (width / V) * V;
            uint4 value = make_uint4(0, 0, 0, 0);
            if (row < n_rows && column < columns) value = *reinterpret_cast<const uint4*>(from + row * stride + column);
            *reinterpret_cast<uint4*>(tile + row * tile_stride + column) = value;
        }
    } else {
        for (int i = threadIdx.x; i < height * width; i += blockDim.x) {
            const int row = i / width, column = i % width;
            tile[row * tile_stride + column] =
                row < n_rows && column < columns ? from[row * stride + column] : from_float<T>(0.0f);
        }
    }
}

// Writes n_rows x columns numbers of a float32 tile, times `scale`.
template <typename T>
__device__ void store_tile(T* to, size_t stride, const float* tile, int tile_stride, int n_rows, int columns, float scale) {
    for (int i = threadIdx.x; i < n_rows * columns; i += blockDim.x) {
        const int row = i / columns, column = i % columns;
        to[row * stride + column] = from_float<T>(tile[row * tile_stride + column] * scale);
    }
}

// A matrix in shared memory, or its transpose.
template <typename T, bool TRANSPOSED> struct Operand {
    const T* numbers;
    int stride;
};
template <typename T> __device__ __forceinline__ Operand<T, false> plain(const T* tile, int stride) { return {tile, stride}; }
template <typename T> __device__ __forceinline__ Operand<T, true> transposed(const T* tile, int stride) { return {tile, stride}; }

// c = a b, or c += a b: c is height x width, the inner dimension is depth. All threads of the block call it; the caller
// synchronises before and after.
template <bool ADD, bool AT, bool BT>
__device__ void multiply(float* c, int c_stride, Operand<float, AT> a, Operand<float, BT> b, int height, int width, int depth) {
    for (int i = threadIdx.x; i < height * width; i += blockDim.x) {
        const int row = i / width, column = i % width;
        float sum = 0;
        for (int k = 0; k < depth; k++)
            sum += a.numbers[AT ? k * a.stride + row : row * a.stride + k] *
                   b.numbers[BT ? column * b.stride + k : k * b.stride + column];
        float* at = c + row * c_stride + column;
        *at = ADD ? *at + sum : sum;
    }
}

template <bool TRANSPOSED> struct MemoryOrder { using type = nvcuda::wmma::row_major; };
template <> struct MemoryOrder<true> { using type = nvcuda::wmma::col_major; };

template <bool ADD, bool AT, bool BT>
__device__ void multiply(float* c, int c_stride, Operand<bf16, AT> a, Operand<bf16, BT> b, int height, int width, int depth) {
    namespace wmma = nvcuda::wmma;
    const int n_warps = blockDim.x / 32, tiles_across = width / 16;
    for (int tile = threadIdx.x / 32; tile < height / 16 * tiles_across; tile += n_warps) {
        const int row = tile / tiles_across * 16, column = tile % tiles_across * 16;
        wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
        if (ADD) {
            wmma::load_matrix_sync(sum, c + row * c_stride + column, c_stride, wmma::mem_row_major);
        } else {
            wmma::fill_fragment(sum, 0.0f);
        }
        for (int k = 0; k < depth; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, bf16, typename MemoryOrder<AT>::type> left;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, bf16, typename MemoryOrder<BT>::type> right;
            wmma::load_matrix_sync(left, a.numbers + (AT ? k * a.stride + row : row * a.stride + k), a.stride);
            wmma::load_matrix_sync(right, b.numbers + (BT ? column * b.stride + k : k * b.stride + column), b.stride);
            wmma::mma_sync(sum, left, right, sum);
        }
        wmma::store_matrix_sync(c + row * c_stride + column, sum, c_stride, wmma::mem_row_major);
    }
}
