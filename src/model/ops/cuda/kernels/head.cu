// Log-softmax and gather over rows of float32 logits, (rows, v), one block each; its gradient in the same pass. With a cap that is
// not 0, z = capped(logit) takes each logit's place, and the gradient is still the logits'.
#include "base.cuh"

// values[row] = z[target] - log sum exp(z). Where gradient is not null: gradient = scale * (onehot(target) - softmax(z)) * dz/dlogit,
// scale being 1 where scales is null. gradient may be the logits themselves.
template <typename T>
__device__ void logps(const float* logits, const uint32_t* targets, const float* scales, int v, float cap, float* values,
                      T* gradient) {
    const size_t row = blockIdx.x;
    const float* from = logits + row * v;
    // The largest so far and the sum relative to it, in one reading.
    float max = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        const float x = capped(from[i], cap);
        if (x > max) {
            sum *= expf(max - x);
            max = x;
        }
        sum += expf(x - max);
    }
    const float all_max = block_max(max);
    const float log_sum = all_max + logf(block_sum(sum > 0 ? sum * expf(max - all_max) : 0.0f));
    const int target = targets[row];
    if (threadIdx.x == 0) values[row] = capped(from[target], cap) - log_sum;
    if (!gradient) return;
    __syncthreads();  // The target's logit is read before it is overwritten.
    const float scale = scales ? scales[row] : 1.0f;
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        const float z = capped(from[i], cap);
        const float of_z = scale * ((i == target ? 1.0f : 0.0f) - expf(z - log_sum));
        gradient[row * v + i] = from_float<T>(of_z * slope_of_capped(z, cap));
    }
}
#define PARAMETERS(T) \
    const float *logits, const uint32_t *targets, const float *scales, int v, float cap, float *values, T *gradient
#define ARGUMENTS logits, targets, scales, v, cap, values, gradient
FOR_BOTH_TYPES(logps, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS
