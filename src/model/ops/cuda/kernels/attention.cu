// Causal attention over packed segments that may share a prefix, forward and backward, without a matrix of all scores.
//
// The idea is FlashAttention-2's (arXiv 2307.08691): tiles of queries meet tiles of keys, the forward keeps the log-sum-exp of each
// row, and the backward computes the scores again from it. The backward runs twice, once with a block that owns a tile of queries
// (dq) and once with a block that owns a tile of keys (dk, dv): seven products of tiles instead of five, but no two blocks ever add
// to the same number, so the result does not depend on their order.
//
// A row of `joined` holds the query heads, then the key heads, then the value heads of one token.
#include "tiles.cuh"

// Neighbouring queries of one segment, at most a tile. They see the keys of `prefix`, and those from `start` on up to themselves; of
// all these the nearest, as many as the window has.
struct Span {
    int first, n;
    int prefix_first, prefix_end;
    int start;
    // Tokens between the prefix and the segment, which this does not see: how much nearer the prefix is than its numbers say.
    __device__ int gap() const { return start - prefix_end; }
};

// Neighbouring keys, at most a tile, and which spans of queries see some of them: spans[spans_first..spans_end).
struct KeyTile {
    int first, n;
    int spans_first, spans_end;
};

struct Shape {
    int n_tokens, query_heads, kv_heads, size;
    float scale;
    float softcap;  // Scores s become c tanh(s / c); 0 where they stay.
    int window;     // Keys a query sees at most; INT_MAX where it sees all.
    __device__ int q_width() const { return query_heads * size; }
    __device__ int width() const { return (query_heads + 2 * kv_heads) * size; }
    __device__ int key_column(int kv_head) const { return (query_heads + kv_head) * size; }
    __device__ int value_column(int kv_head) const { return (query_heads + kv_heads + kv_head) * size; }
    // The tensor cores want widths of 16.
    __device__ int padded() const { return (size + 15) / 16 * 16; }
};

__device__ __forceinline__ bool sees(const Span& span, int window, int query, int key) {
    return (key >= span.prefix_first && key < span.prefix_end && query - span.gap() - key < window) ||
           (key >= span.start && key <= query && query - key < window);
}

// The key tiles that a span sees, in order: those of its prefix, then those of its own segment; from the first key on that its first
// query sees, which sees the furthest back.
template <int KEYS> struct SeenTiles {
    const Span& span;
    int first, n;
    int own_first;
    bool in_prefix;

    __device__ SeenTiles(const Span& span, int window)
        : span(span), first(max(span.prefix_first, span.first - span.gap() - window + 1)), n(0),
          own_first(max(span.start, span.first - window + 1)), in_prefix(first < span.prefix_end) {
        if (!in_prefix) first = own_first;
        fit();
    }
    __device__ bool any() const { return n > 0; }
    __device__ void advance() {
        first += n;
        if (in_prefix && first >= span.prefix_end) {
            in_prefix = false;
            first = own_first;
        }
        fit();
    }
    __device__ void fit() { n = max(0, min(KEYS, (in_prefix ? span.prefix_end : span.first + span.n) - first)); }
};

// One block: one span of queries of one head. Rows of `output` are (query_heads * size), log_sums is (query_heads, n_tokens).
template <typename T, int TILE>
__device__ void attention_tile(const T* joined, const Span* spans, Shape shape, T* output, float* log_sums, unsigned char* shared) {
    const Span span = spans[blockIdx.x];
    const int head = blockIdx.y, kv_head = head / (shape.query_heads / shape.kv_heads);
    const int size = shape.size, depth = shape.padded(), stride = depth + PAD<T>;
    const int score_stride = TILE + PAD<float>, weight_stride = TILE + PAD<T>, out_stride = depth + PAD<float>;
    SharedSpace space{shared};
    T* queries = space.take<T>(TILE, stride);
    T* keys = space.take<T>(TILE, stride);  // Then the values.
    T* weights = space.take<T>(TILE, weight_stride);
    float* scores = space.take<float>(TILE, score_stride);
    float* out = space.take<float>(TILE, out_stride);
    float* maxima = space.take<float>(1, TILE);
    float* sums = space.take<float>(1, TILE);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    const float scale = shape.softcap > 0 ? 1.0f : shape.scale;  // What caps the scores scales them first.

    load_tile(queries, stride, TILE, depth, joined + size_t(span.first) * shape.width() + head * size, shape.width(), span.n, size);
    for (int i = threadIdx.x; i < TILE * out_stride; i += blockDim.x) out[i] = 0;
    for (int i = threadIdx.x; i < TILE; i += blockDim.x) {
        maxima[i] = -INFINITY;
        sums[i] = 0;
    }
    for (SeenTiles<TILE> tile(span, shape.window); tile.any(); tile.advance()) {
        const T* rows = joined + size_t(tile.first) * shape.width();
        __syncthreads();  // The last tile's values are read.
        load_tile(keys, stride, TILE, depth, rows + shape.key_column(kv_head), shape.width(), tile.n, size);
        __syncthreads();
        multiply<false>(scores, score_stride, plain(queries, stride), transposed(keys, stride), TILE, TILE, depth);
        __syncthreads();
        load_tile(keys, stride, TILE, depth, rows + shape.value_column(kv_head), shape.width(), tile.n, size);
        for (int row = warp; row < TILE; row += n_warps) {
            const int query = span.first + row;
            float* own_scores = scores + row * score_stride;
            if (shape.softcap > 0)
                for (int j = lane; j < TILE; j += 32) own_scores[j] = capped(own_scores[j] * shape.scale, shape.softcap);
            float max = maxima[row];
            for (int j = lane; j < TILE; j += 32)
                if (row < span.n && j < tile.n && sees(span, shape.window, query, tile.first + j))
                    max = fmaxf(max, own_scores[j] * scale);
            max = warp_max(max);
            float sum = 0;
            for (int j = lane; j < TILE; j += 32) {
                float weight = 0;
                if (row < span.n && j < tile.n && sees(span, shape.window, query, tile.first + j))
                    weight = expf(own_scores[j] * scale - max);
                weights[row * weight_stride + j] = from_float<T>(weight);
                sum += weight;
            }
            sum = warp_sum(sum);
            // What was added up so far is relative to the old maximum. Both are -infinity in rows that have seen no key yet.
            const float shrink = max > maxima[row] ? expf(maxima[row] - max) : 1.0f;
            for (int j = lane; j < depth; j += 32) out[row * out_stride + j] *= shrink;
            __syncwarp();  // All lanes have read the row's old maximum.
            if (lane == 0) {
                maxima[row] = max;
                sums[row] = sums[row] * shrink + sum;
            }
        }
        __syncthreads();
        multiply<true>(out, out_stride, plain(weights, weight_stride), plain(keys, stride), TILE, depth, TILE);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < span.n * size; i += blockDim.x) {
        const int row = i / size, column = i % size;
        output[size_t(span.first + row) * shape.q_width() + head * size + column] =
            from_float<T>(out[row * out_stride + column] / sums[row]);
    }
    for (int row = threadIdx.x; row < span.n; row += blockDim.x)
        log_sums[size_t(head) * shape.n_tokens + span.first + row] = maxima[row] + logf(sums[row]);
}

// dots[head][token] = sum of d_output * output over the head: what the softmax takes off every score's gradient. A warp per number.
template <typename T> __device__ void attention_dots(const T* d_output, const T* output, Shape shape, float* dots) {
    const size_t index = grid_thread() / 32;
    const int lane = threadIdx.x % 32;
    if (index >= size_t(shape.n_tokens) * shape.query_heads) return;
    const size_t token = index / shape.query_heads, head = index % shape.query_heads;
    const size_t at = token * shape.q_width() + head * shape.size;
    float sum = 0;
    for (int j = lane; j < shape.size; j += 32) sum += to_float(d_output[at + j]) * to_float(output[at + j]);
    sum = warp_sum(sum);
    if (lane == 0) dots[head * shape.n_tokens + token] = sum;
}

// What the backward reads.
template <typename T> struct Kept {
    const T* d_output;
    const T* joined;
    const float* log_sums;
    const float* dots;
};

// Scores in float32 become weights: exp(score - log sum) where the query sees the key.
template <typename T, int TILE>
__device__ void weigh(T* weights, int weight_stride, const float* scores, int score_stride, const Span& span, int first_key, int n_keys,
                      const Shape& shape, const float* log_sums) {
    for (int i = threadIdx.x; i < TILE * TILE; i += blockDim.x) {
        const int row = i / TILE, j = i % TILE;
        float weight = 0;
        if (row < span.n && j < n_keys && sees(span, shape.window, span.first + row, first_key + j))
            weight = expf(capped(scores[row * score_stride + j] * shape.scale, shape.softcap) - log_sums[row]);
        weights[row * weight_stride + j] = from_float<T>(weight);
    }
}

// Weights become the gradient of the scores before the cap, given that of the weights.
template <typename T, int TILE>
__device__ void score_gradient(T* weights, int weight_stride, const float* d_weights, int score_stride, const Shape& shape,
                               const float* log_sums, const float* dots) {
    for (int i = threadIdx.x; i < TILE * TILE; i += blockDim.x) {
        const int row = i / TILE, j = i % TILE;
        T* at = weights + row * weight_stride + j;
        const float weight = to_float(*at);
        float d_score = weight * (d_weights[row * score_stride + j] - dots[row]);
        // The scores are gone, and the weights hold them still: score = log weight + log sum. The rounding of a bfloat16 weight moves
        // the slope by 0.004 / softcap at most. A weight of 0 has no gradient.
        if (shape.softcap > 0 && weight > 0) d_score *= slope_of_capped(logf(weight) + log_sums[row], shape.softcap);
        *at = from_float<T>(d_score);
    }
}

// Log-sums and dots of a span's queries; zeros behind its end.
template <int TILE>
__device__ void load_statistics(float* log_sums, float* dots, const float* all_log_sums, const float* all_dots, size_t at, int n) {
    for (int i = threadIdx.x; i < TILE; i += blockDim.x) {
        log_sums[i] = i < n ? all_log_sums[at + i] : 0.0f;
        dots[i] = i < n ? all_dots[at + i] : 0.0f;
    }
}

// One block: the gradient of one span of queries of one head.
template <typename T, int TILE>
__device__ void attention_dq_tile(Kept<T> kept, const Span* spans, Shape shape, T* d_joined, unsigned char* shared) {
    const Span span = spans[blockIdx.x];
    const int head = blockIdx.y, kv_head = head / (shape.query_heads / shape.kv_heads);
    const int size = shape.size, depth = shape.padded(), stride = depth + PAD<T>;
    const int score_stride = TILE + PAD<float>, weight_stride = TILE + PAD<T>, dq_stride = depth + PAD<float>;
    SharedSpace space{shared};
    T* queries = space.take<T>(TILE, stride);
    T* d_out = space.take<T>(TILE, stride);
    T* keys = space.take<T>(TILE, stride);
    T* values = space.take<T>(TILE, stride);
    T* weights = space.take<T>(TILE, weight_stride);
    float* scores = space.take<float>(TILE, score_stride);
    float* dq = space.take<float>(TILE, dq_stride);
    float* log_sums = space.take<float>(1, TILE);
    float* dots = space.take<float>(1, TILE);

    const size_t width = shape.width();
    load_tile(queries, stride, TILE, depth, kept.joined + span.first * width + head * size, width, span.n, size);
    load_tile(d_out, stride, TILE, depth, kept.d_output + size_t(span.first) * shape.q_width() + head * size, shape.q_width(), span.n,
              size);
    load_statistics<TILE>(log_sums, dots, kept.log_sums, kept.dots, size_t(head) * shape.n_tokens + span.first, span.n);
    for (int i = threadIdx.x; i < TILE * dq_stride; i += blockDim.x) dq[i] = 0;
    for (SeenTiles<TILE> tile(span, shape.window); tile.any(); tile.advance()) {
        const T* rows = kept.joined + tile.first * width;
        __syncthreads();
        load_tile(keys, stride, TILE, depth, rows + shape.key_column(kv_head), width, tile.n, size);
        load_tile(values, stride, TILE, depth, rows + shape.value_column(kv_head), width, tile.n, size);
        __syncthreads();
        multiply<false>(scores, score_stride, plain(queries, stride), transposed(keys, stride), TILE, TILE, depth);
        __syncthreads();
        weigh<T, TILE>(weights, weight_stride, scores, score_stride, span, tile.first, tile.n, shape, log_sums);
        __syncthreads();
        multiply<false>(scores, score_stride, plain(d_out, stride), transposed(values, stride), TILE, TILE, depth);
        __syncthreads();
        score_gradient<T, TILE>(weights, weight_stride, scores, score_stride, shape, log_sums, dots);
        __syncthreads();
        multiply<true>(dq, dq_stride, plain(weights, weight_stride), plain(keys, stride), TILE, depth, TILE);
    }
    __syncthreads();
    store_tile(d_joined + span.first * width + head * size, width, dq, dq_stride, span.n, size, shape.scale);
}

// One block: the gradients of one tile of keys and values of one head, from all queries of all heads that see them.
template <typename T, int TILE>
__device__ void attention_dkv_tile(Kept<T> kept, const KeyTile* tiles, const Span* spans, Shape shape, T* d_joined,
                                   unsigned char* shared) {
    const KeyTile tile = tiles[blockIdx.x];
    const int kv_head = blockIdx.y, group = shape.query_heads / shape.kv_heads;
    const int size = shape.size, depth = shape.padded(), stride = depth + PAD<T>;
    const int score_stride = TILE + PAD<float>, weight_stride = TILE + PAD<T>, sum_stride = depth + PAD<float>;
    SharedSpace space{shared};
    T* queries = space.take<T>(TILE, stride);
    T* d_out = space.take<T>(TILE, stride);
    T* keys = space.take<T>(TILE, stride);
    T* values = space.take<T>(TILE, stride);
    T* weights = space.take<T>(TILE, weight_stride);
    float* scores = space.take<float>(TILE, score_stride);
    float* dk = space.take<float>(TILE, sum_stride);
    float* dv = space.take<float>(TILE, sum_stride);
    float* log_sums = space.take<float>(1, TILE);
    float* dots = space.take<float>(1, TILE);

    const size_t width = shape.width();
    const T* rows = kept.joined + tile.first * width;
    load_tile(keys, stride, TILE, depth, rows + shape.key_column(kv_head), width, tile.n, size);
    load_tile(values, stride, TILE, depth, rows + shape.value_column(kv_head), width, tile.n, size);
    for (int i = threadIdx.x; i < TILE * sum_stride; i += blockDim.x) dk[i] = dv[i] = 0;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int index = tile.spans_first; index < tile.spans_end; index++) {
            const Span span = spans[index];
            __syncthreads();
            load_tile(queries, stride, TILE, depth, kept.joined + span.first * width + head * size, width, span.n, size);
            load_tile(d_out, stride, TILE, depth, kept.d_output + size_t(span.first) * shape.q_width() + head * size, shape.q_width(),
                      span.n, size);
            load_statistics<TILE>(log_sums, dots, kept.log_sums, kept.dots, size_t(head) * shape.n_tokens + span.first, span.n);
            __syncthreads();
            multiply<false>(scores, score_stride, plain(queries, stride), transposed(keys, stride), TILE, TILE, depth);
            __syncthreads();
            weigh<T, TILE>(weights, weight_stride, scores, score_stride, span, tile.first, tile.n, shape, log_sums);
            __syncthreads();
            multiply<true>(dv, sum_stride, transposed(weights, weight_stride), plain(d_out, stride), TILE, depth, TILE);
            multiply<false>(scores, score_stride, plain(d_out, stride), transposed(values, stride), TILE, TILE, depth);
            __syncthreads();
            score_gradient<T, TILE>(weights, weight_stride, scores, score_stride, shape, log_sums, dots);
            __syncthreads();
            multiply<true>(dk, sum_stride, transposed(weights, weight_stride), plain(queries, stride), TILE, depth, TILE);
        }
    }
    __syncthreads();
    T* d_rows = d_joined + tile.first * width;
    store_tile(d_rows + shape.key_column(kv_head), width, dk, sum_stride, tile.n, size, shape.scale);
    store_tile(d_rows + shape.value_column(kv_head), width, dv, sum_stride, tile.n, size, 1.0f);
}

// Kernels for one type and tile; the host picks the tile by the head size, so that everything fits into shared memory, and sends
// the shape number by number.
#define SHAPE_PARAMETERS int n_tokens, int query_heads, int kv_heads, int size, float scale, float softcap, int window
#define SHAPE_ARGUMENT Shape{n_tokens, query_heads, kv_heads, size, scale, softcap, window}
#define ATTENTION(T, SUFFIX, TILE)                                                                                            \
    extern "C" __global__ void attention_##SUFFIX##_##TILE(const T* joined, const Span* spans, SHAPE_PARAMETERS, T* output,  \
                                                           float* log_sums) {                                                \
        SHARED_MEMORY(shared);                                                                                               \
        attention_tile<T, TILE>(joined, spans, SHAPE_ARGUMENT, output, log_sums, shared);                                    \
    }                                                                                                                        \
    extern "C" __global__ void attention_dq_##SUFFIX##_##TILE(const T* d_output, const T* joined, const float* log_sums,     \
                                                              const float* dots, const Span* spans, SHAPE_PARAMETERS,        \
                                                              T* d_joined) {                                                 \
        SHARED_MEMORY(shared);                                                                                               \
        attention_dq_tile<T, TILE>({d_output, joined, log_sums, dots}, spans, SHAPE_ARGUMENT, d_joined, shared);             \
    }                                                                                                                        \
    extern "C" __global__ void attention_dkv_##SUFFIX##_##TILE(const T* d_output, const T* joined, const float* log_sums,    \
                                                               const float* dots, const KeyTile* tiles, const Span* spans,   \
                                                               SHAPE_PARAMETERS, T* d_joined) {                              \
        SHARED_MEMORY(shared);                                                                                               \
        attention_dkv_tile<T, TILE>({d_output, joined, log_sums, dots}, tiles, spans, SHAPE_ARGUMENT, d_joined, shared);     \
    }
ATTENTION(float, f32, 16)
ATTENTION(float, f32, 32)
ATTENTION(bf16, bf16, 32)
ATTENTION(bf16, bf16, 64)

#define PARAMETERS(T) const T *d_output, const T *output, SHAPE_PARAMETERS, float *dots
#define ARGUMENTS d_output, output, SHAPE_ARGUMENT, dots
FOR_BOTH_TYPES(attention_dots, PARAMETERS, ARGUMENTS)
#undef PARAMETERS
#undef ARGUMENTS
