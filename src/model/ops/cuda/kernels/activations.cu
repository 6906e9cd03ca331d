// The functions between the two halves of a feed-forward layer, number by number, any grid.
#include "base.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The host sends its `Activation` as one of these.
enum ActivationKind { SILU, GELU, GELU_TANH };

// What a function is at a number, and how steep.
struct ValueAndSlope {
    float value, slope;
};

// The branch is the same in every thread.
__device__ __forceinline__ ValueAndSlope activation(int kind, float x) {
    if (kind == SILU) {
        const float s = sigmoid(x);
        return {x * s, s * (1.0f + x * (1.0f - s))};
    }
    if (kind == GELU) {
        // 1 + erf would lose the left tail to rounding; the density is 1 / sqrt(2 pi) exp(-x^2 / 2).
        const float below = 0.5f * erfcf(-0.70710678f * x);
        return {x * below, below + x * (0.39894228f * expf(-0.5f * x * x))};
    }
    // (1 + tanh(u)) / 2 is sigmoid(2u), and keeps the left tail too.
    const float scale = 1.59576912f;  // 2 sqrt(2 / pi)
    const float s = sigmoid(scale * (x + 0.044715f * x * x * x));
    return {x * s, s + x * s * (1.0f - s) * scale * (1.0f + 0.134145f * x * x)};
}

// f(x).
template <typename T> __device__ void activated(const T* x, int kind, size_t n, T* y) {
    for (size_t i = grid_thread(); i < n; i += grid_threads()) y[i] = from_float<T>(activation(kind, to_float(x[i])).value);
}
#define PARAMETERS(T) const T *x, int kind, size_t n, T *y
#define ARGUMENTS x, kind, n, y
FOR_BOTH_TYPES(activated, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

template <typename T> __device__ void activated_backward(const T* dy, const T* x, int kind, size_t n, T* dx) {
    for (size_t i = grid_thread(); i < n; i += grid_threads())
        dx[i] = from_float<T>(to_float(dy[i]) * activation(kind, to_float(x[i])).slope);
}
#define PARAMETERS(T) const T *dy, const T *x, int kind, size_t n, T *dx
#define ARGUMENTS dy, x, kind, n, dx
FOR_BOTH_TYPES(activated_backward, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

// f(gate) * up (arXiv 2002.05202).
template <typename T> __device__ void gated(const T* gate, const T* up, int kind, size_t n, T* y) {
    for (size_t i = grid_thread(); i < n; i += grid_threads())
        y[i] = from_float<T>(activation(kind, to_float(gate[i])).value * to_float(up[i]));
}
#define PARAMETERS(T) const T *gate, const T *up, int kind, size_t n, T *y
#define ARGUMENTS gate, up, kind, n, y
FOR_BOTH_TYPES(gated, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS

template <typename T>
__device__ void gated_backward(const T* dy, const T* gate, const T* up, int kind, size_t n, T* d_gate, T* d_up) {
    for (size_t i = grid_thread(); i < n; i += grid_threads()) {
        const float d = to_float(dy[i]);
        const ValueAndSlope f = activation(kind, to_float(gate[i]));
        d_gate[i] = from_float<T>(d * to_float(up[i]) * f.slope);
        d_up[i] = from_float<T>(d * f.value);
    }
}
#define PARAMETERS(T) const T *dy, const T *gate, const T *up, int kind, size_t n, T *d_gate, T *d_up
#define ARGUMENTS dy, gate, up, kind, n, d_gate, d_up
FOR_BOTH_TYPES(gated_backward, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS
