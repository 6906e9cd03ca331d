// What layer normalisation (arXiv 1607.06450) and biases need beside rms_norm.cu. Rows of d numbers.
#include "base.cuh"

// Each row less its mean, plus the residual's where there is one (not null). One block per row.
template <typename T> __device__ void centred(const T* x, const T* residual, int d, T* y) {
    const size_t at = size_t(blockIdx.x) * d;
    float sum = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) sum += to_float(x[at + i]);
    const float mean = block_sum(sum) / d;
    for (int i = threadIdx.x; i < d; i += blockDim.x)
        y[at + i] = from_float<T>(to_float(x[at + i]) - mean + (residual ? to_float(residual[at + i]) : 0.0f));
}
#define PARAMETERS(T) const T *x, const T *residual, int d, T *y
#define ARGUMENTS x, residual, d, y
FOR_BOTH_TYPES(centred, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// Adds the bias to each row. One block per row.
template <typename T> __device__ void add_bias(const float* bias, int d, T* to) {
    to += size_t(blockIdx.x) * d;
    for (int i = threadIdx.x; i < d; i += blockDim.x) to[i] = from_float<T>(to_float(to[i]) + bias[i]);
}
#define PARAMETERS(T) const float *bias, int d, T *to
#define ARGUMENTS bias, d, to
FOR_BOTH_TYPES(add_bias, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// Part blockIdx.y of a bias's gradient: the sum over rows_per_part rows, (parts, d). A thread has one column.
template <typename T> __device__ void column_sum_parts(const T* x, int n, int d, int rows_per_part, float* parts) {
    const int column = grid_thread();
    if (column >= d) return;
    const int first = blockIdx.y * rows_per_part, last = min(n, first + rows_per_part);
    float sum = 0;
    for (int row = first; row < last; row++) sum += to_float(x[size_t(row) * d + column]);
    parts[size_t(blockIdx.y) * d + column] = sum;
}
#define PARAMETERS(T) const T *x, int n, int d, int rows_per_part, float *parts
#define ARGUMENTS x, n, d, rows_per_part, parts
FOR_BOTH_TYPES(column_sum_parts, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// Sums the rows of (n_parts, d), in order.
extern "C" __global__ void sum_parts(const float* parts, int n_parts, int d, float* sums) {
    const int column = grid_thread();
    if (column >= d) return;
    float sum = 0;
    for (int part = 0; part < n_parts; part++) sum += parts[size_t(part) * d + column];
    sums[column] = sum;
}
