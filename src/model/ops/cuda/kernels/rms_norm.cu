// Root-mean-square normalisation (arXiv 1910.07467): y = w * x * r, r = 1 / sqrt(mean(x^2) + eps). Rows of d numbers, one block each.
#include "base.cuh"

template <typename T>
__device__ void rms_norm(const T* x, const float* weight, int d, float eps, T* y, float* inverse) {
    const size_t row = blockIdx.x;
    x += row * d;
    float sum = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) sum += to_float(x[i]) * to_float(x[i]);
    const float r = 1.0f / sqrtf(block_sum(sum) / d + eps);
    for (int i = threadIdx.x; i < d; i += blockDim.x) y[row * d + i] = from_float<T>(weight[i] * (to_float(x[i]) * r));
    if (threadIdx.x == 0) inverse[row] = r;
}
#define PARAMETERS(T) const T *x, const float *weight, int d, float eps, T *y, float *inverse
#define ARGUMENTS x, weight, d, eps, y, inverse
FOR_BOTH_TYPES(rms_norm, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// y once more, from the kept r.
template <typename T>
__device__ void rms_norm_again(const T* x, const float* weight, const float* inverse, int d, T* y) {
    const size_t row = blockIdx.x;
    const float r = inverse[row];
    for (int i = threadIdx.x; i < d; i += blockDim.x)
        y[row * d + i] = from_float<T>(weight[i] * (to_float(x[row * d + i]) * r));
}
#define PARAMETERS(T) const T *x, const float *weight, const float *inverse, int d, T *y
#define ARGUMENTS x, weight, inverse, d, y
FOR_BOTH_TYPES(rms_norm_again, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// dx = r (g - x r^2 mean(g x)) with g = w * dy, plus the residual's gradient where there is one (not null).
template <typename T>
__device__ void rms_norm_backward(const T* dy, const T* x, const float* weight, const float* inverse, const T* residual, int d,
                                  T* dx) {
    const size_t at = size_t(blockIdx.x) * d;
    const float r = inverse[blockIdx.x];
    float dot = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) dot += weight[i] * to_float(dy[at + i]) * to_float(x[at + i]);
    const float shrink = block_sum(dot) / d * r * r;
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        const float g = weight[i] * to_float(dy[at + i]);
        const float rest = residual ? to_float(residual[at + i]) : 0.0f;
        dx[at + i] = from_float<T>(r * (g - to_float(x[at + i]) * shrink) + rest);
    }
}
#define PARAMETERS(T) \
    const T *dy, const T *x, const float *weight, const float *inverse, const T *residual, int d, T *dx
#define ARGUMENTS dy, x, weight, inverse, residual, d, dx
FOR_BOTH_TYPES(rms_norm_backward, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// Part blockIdx.y of the weight's gradient: the sum of dy * x * r over rows_per_part rows, (parts, d). A thread has one column.
template <typename T>
__device__ void rms_norm_weight_parts(const T* dy, const T* x, const float* inverse, int n, int d, int rows_per_part,
                                      float* parts) {
    const int column = grid_thread();
    if (column >= d) return;
    const int first = blockIdx.y * rows_per_part, last = min(n, first + rows_per_part);
    float sum = 0;
    for (int row = first; row < last; row++) {
        const size_t at = size_t(row) * d + column;
        sum += to_float(dy[at]) * (to_float(x[at]) * inverse[row]);
    }
    parts[size_t(blockIdx.y) * d + column] = sum;
}
#define PARAMETERS(T) const T *dy, const T *x, const float *inverse, int n, int d, int rows_per_part, float *parts
#define ARGUMENTS dy, x, inverse, n, d, rows_per_part, parts
FOR_BOTH_TYPES(rms_norm_weight_parts, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS
