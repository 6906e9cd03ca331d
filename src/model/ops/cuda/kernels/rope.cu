// Rotary position embedding (arXiv 2104.09864) while q, k and v are joined to one row (q heads, k heads, v heads) or split again. Of
// each head, number i of the first `half` turns with number half + i; those behind 2 half stay as they are. One block per token; cos
// and sin are (tokens, half).
#include "base.cuh"

// Turns the pair (a, b) by the angle with this cosine and sine.
__device__ __forceinline__ float2 turned(float a, float b, float cosine, float sine) {
    return make_float2(a * cosine - b * sine, b * cosine + a * sine);
}

template <typename T>
__device__ void join_rotated(const T* q, const T* k, const T* v, const float* cos, const float* sin, int query_heads, int kv_heads,
                             int size, int half, T* joined) {
    const size_t token = blockIdx.x;
    const int q_width = query_heads * size, kv_width = kv_heads * size;
    const int per_head = size - half;  // A pair, or a number that stays, is one thread's.
    T* row = joined + token * (q_width + 2 * kv_width);
    for (int i = threadIdx.x; i < (query_heads + kv_heads) * per_head; i += blockDim.x) {
        const int head = i / per_head, pair = i % per_head;
        const T* from = head < query_heads ? q + token * q_width + head * size
                                           : k + token * kv_width + (head - query_heads) * size;
        if (pair >= half) {
            row[head * size + half + pair] = from[half + pair];
            continue;
        }
        const float2 to = turned(to_float(from[pair]), to_float(from[half + pair]), cos[token * half + pair],
                                 sin[token * half + pair]);
        row[head * size + pair] = from_float<T>(to.x);
        row[head * size + half + pair] = from_float<T>(to.y);
    }
    for (int i = threadIdx.x; i < kv_width; i += blockDim.x) row[q_width + kv_width + i] = v[token * kv_width + i];
}
#define PARAMETERS(T)                                                                                                  \
    const T *q, const T *k, const T *v, const float *cos, const float *sin, int query_heads, int kv_heads, int size, \
        int half, T *joined
#define ARGUMENTS q, k, v, cos, sin, query_heads, kv_heads, size, half, joined
FOR_BOTH_TYPES(join_rotated, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

template <typename T>
__device__ void split_rotated_back(const T* joined, const float* cos, const float* sin, int query_heads, int kv_heads, int size,
                                   int half, T* q, T* k, T* v) {
    const size_t token = blockIdx.x;
    const int q_width = query_heads * size, kv_width = kv_heads * size;
    const int per_head = size - half;  // A pair, or a number that stays, is one thread's.
    const T* row = joined + token * (q_width + 2 * kv_width);
    for (int i = threadIdx.x; i < (query_heads + kv_heads) * per_head; i += blockDim.x) {
        const int head = i / per_head, pair = i % per_head;
        T* to = head < query_heads ? q + token * q_width + head * size : k + token * kv_width + (head - query_heads) * size;
        if (pair >= half) {
            to[half + pair] = row[head * size + half + pair];
            continue;
        }
        const float2 back = turned(to_float(row[head * size + pair]), to_float(row[head * size + half + pair]),
                                   cos[token * half + pair], -sin[token * half + pair]);
        to[pair] = from_float<T>(back.x);
        to[half + pair] = from_float<T>(back.y);
    }
    for (int i = threadIdx.x; i < kv_width; i += blockDim.x) v[token * kv_width + i] = row[q_width + kv_width + i];
}
#define PARAMETERS(T) \
    const T *joined, const float *cos, const float *sin, int query_heads, int kv_heads, int size, int half, T *q, \
        T *k, T *v
#define ARGUMENTS joined, cos, sin, query_heads, kv_heads, size, half, q, k, v
FOR_BOTH_TYPES(split_rotated_back, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS
