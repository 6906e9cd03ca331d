// Sums of gradients, any grid, and the optimizer.
#include "base.cuh"

// to += x.
template <typename T> __device__ void add_in_place(const T* x, size_t n, T* to) {
    for (size_t i = grid_thread(); i < n; i += grid_threads()) to[i] = from_float<T>(to_float(to[i]) + to_float(x[i]));
}
#define PARAMETERS(T) const T *x, size_t n, T *to
#define ARGUMENTS x, n, to
FOR_BOTH_TYPES(add_in_place, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// to[rows[b]] += the sum of x[order[i]] for starts[b] <= i < starts[b + 1], in this order; block b alone writes its row, of d numbers.
template <typename T>
__device__ void add_rows(const T* x, const uint32_t* rows, const uint32_t* starts, const uint32_t* order, int d, float* to) {
    const uint32_t first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    to += size_t(rows[blockIdx.x]) * d;
    for (int column = threadIdx.x; column < d; column += blockDim.x) {
        float sum = to[column];
        for (uint32_t i = first; i < last; i++) sum += to_float(x[size_t(order[i]) * d + column]);
        to[column] = sum;
    }
}
#define PARAMETERS(T) const T *x, const uint32_t *rows, const uint32_t *starts, const uint32_t *order, int d, float *to
#define ARGUMENTS x, rows, starts, order, d, to
FOR_BOTH_TYPES(add_rows, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// The sum of x^2 in one part per block; the host adds these up. The grid's size is part of the result: it must not vary.
extern "C" __global__ void squared_norm_parts(const float* x, size_t n, double* parts) {
    double sum = 0;
    for (size_t i = grid_thread(); i < n; i += grid_threads()) sum += double(x[i]) * double(x[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One step of AdamW (arXiv 1711.05101) as PyTorch computes it.
extern "C" __global__ void adamw(const float* gradient, size_t n, float beta1, float beta2, float epsilon, float step_size,
                                 float root_correction, float decay, float gradient_scale, float* parameter, float* first,
                                 float* second) {
    for (size_t i = grid_thread(); i < n; i += grid_threads()) {
        const float g = gradient[i] * gradient_scale;
        const float m = first[i] + (1.0f - beta1) * (g - first[i]);
        const float v = beta2 * second[i] + (1.0f - beta2) * g * g;
        first[i] = m;
        second[i] = v;
        parameter[i] = parameter[i] * decay - step_size * m / (sqrtf(v) / root_correction + epsilon);
    }
}
