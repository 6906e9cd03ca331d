// Checks of attention: forward, both passes of the backward, over packed segments.
#pragma once

// A segment as the host describes it.
struct Segment {
    int start, n, prefix_first, prefix_end;
};

// Prompts and their completions one after the other: {prompt, completion, completion...}, lengths.
inline std::vector<Segment> segments_of(const std::vector<std::vector<int>>& sequences) {
    std::vector<Segment> segments;
    int at = 0;
    for (const auto& lengths : sequences) {
        const int prompt = at;
        for (size_t i = 0; i < lengths.size(); i++) {
            segments.push_back({at, lengths[i], prompt, i == 0 ? prompt : prompt + lengths[0]});
            at += lengths[i];
        }
    }
    return segments;
}

struct Plan {
    std::vector<Span> spans, seeing;
    std::vector<KeyTile> tiles;
};

// Cuts segments into tiles, and finds for each tile of keys the spans of queries that see some of it.
inline Plan plan_of(const std::vector<Segment>& segments, int tile) {
    Plan plan;
    for (const Segment& s : segments)
        for (int first = s.start; first < s.start + s.n; first += tile)
            plan.spans.push_back({first, std::min(tile, s.start + s.n - first), s.prefix_first, s.prefix_end, s.start});
    for (const Segment& s : segments)
        for (int first = s.start; first < s.start + s.n; first += tile) {
            KeyTile keys = {first, std::min(tile, s.start + s.n - first), int(plan.seeing.size()), 0};
            for (const Span& span : plan.spans) {
                const bool own = span.start == s.start && span.first + span.n > first;
                const bool shared = span.prefix_first < first + keys.n && span.prefix_end > first;
                if (own || shared) plan.seeing.push_back(span);
            }
            keys.spans_end = plan.seeing.size();
            plan.tiles.push_back(keys);
        }
    return plan;
}

// Shared memory of the kernels, as mod.rs computes it.
inline size_t shared_bytes(int tile, int size, size_t number, int n_tiles, int n_float_tiles) {
    const size_t depth = (size + 15) / 16 * 16;
    auto bytes = [](size_t rows, size_t stride, size_t number) { return (rows * stride * number + 127) / 128 * 128; };
    return n_tiles * bytes(tile, depth + 16 / number, number) + n_float_tiles * bytes(tile, depth + 4, 4) +
           bytes(tile, tile + 16 / number, number) + bytes(tile, tile + 4, 4) + 2 * bytes(1, tile, 4);
}

template <typename T, int TILE>
void check_attention(const std::vector<std::vector<int>>& sequences, int query_heads, int kv_heads, int size, unsigned n_threads,
                     float spread = 1) {
    std::string name = std::string("attention ") + NAME<T> + " tile " + std::to_string(TILE) + " heads " + std::to_string(query_heads) +
                       "/" + std::to_string(kv_heads) + " size " + std::to_string(size) + " lengths";
    for (const auto& lengths : sequences)
        for (size_t i = 0; i < lengths.size(); i++) name += (i ? "+" : " ") + std::to_string(lengths[i]);
    const auto segments = segments_of(sequences);
    const int n = segments.back().start + segments.back().n, width = (query_heads + 2 * kv_heads) * size, q_width = query_heads * size;
    const Shape shape = {n, query_heads, kv_heads, size, float(1 / std::sqrt(double(size)))};
    const Plan plan = plan_of(segments, TILE);
    auto spans = array_of(plan.spans), seeing = array_of(plan.seeing);
    auto tiles = array_of(plan.tiles);
    auto joined = random_array<T>(size_t(n) * width, spread), d_output = random_array<T>(size_t(n) * q_width);
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> output(d_output.n), d_joined(joined.n);
        Array<float> log_sums(size_t(query_heads) * n), dots(log_sums.n);
        const Dim by_span = {unsigned(spans.n), unsigned(query_heads)};
        launch(order, by_span, n_threads, shared_bytes(TILE, size, sizeof(T), 2, 1), [&] {
            attention_tile<T, TILE>(joined.get(), spans.get(), shape, output.get(), log_sums.get(), emulator::shared);
        });
        launch(order, {unsigned(n * query_heads + 3) / 4}, 128, 0,
               [&] { attention_dots<T>(d_output.get(), output.get(), shape, dots.get()); });
        const Kept<T> kept = {d_output.get(), joined.get(), log_sums.get(), dots.get()};
        launch(order, by_span, n_threads, shared_bytes(TILE, size, sizeof(T), 4, 1),
               [&] { attention_dq_tile<T, TILE>(kept, spans.get(), shape, d_joined.get(), emulator::shared); });
        launch(order, {unsigned(tiles.n), unsigned(kv_heads)}, n_threads, shared_bytes(TILE, size, sizeof(T), 4, 2), [&] {
            attention_dkv_tile<T, TILE>(kept, tiles.get(), seeing.get(), shape, d_joined.get(), emulator::shared);
        });
        return list(as_float(output), std::move(log_sums), as_float(d_joined));
    });

    std::vector<double> output(d_output.n, 0), log_sums(size_t(query_heads) * n), d_joined(joined.n, 0);
    const int group = query_heads / kv_heads;
    for (const Segment& s : segments)
        for (int i = s.start; i < s.start + s.n; i++)
            for (int head = 0; head < query_heads; head++) {
                const int q = head * size, k = (query_heads + head / group) * size, v = k + kv_heads * size;
                std::vector<int> seen;
                for (int j = s.prefix_first; j < s.prefix_end; j++) seen.push_back(j);
                for (int j = s.start; j <= i; j++) seen.push_back(j);
                std::vector<double> scores, d_weights;
                double max = -INFINITY, sum = 0, dot = 0;
                for (int j : seen) {
                    double score = 0;
                    for (int c = 0; c < size; c++) score += value(joined[size_t(i) * width + q + c]) * value(joined[size_t(j) * width + k + c]);
                    scores.push_back(score / std::sqrt(double(size)));
                    max = std::max(max, scores.back());
                }
                for (double score : scores) sum += std::exp(score - max);
                log_sums[size_t(head) * n + i] = max + std::log(sum);
                for (size_t at = 0; at < seen.size(); at++) {
                    const double weight = std::exp(scores[at] - max) / sum;
                    double d_weight = 0;
                    for (int c = 0; c < size; c++) {
                        const double vc = value(joined[size_t(seen[at]) * width + v + c]);
                        output[size_t(i) * q_width + q + c] += weight * vc;
                        d_weight += value(d_output[size_t(i) * q_width + q + c]) * vc;
                        d_joined[size_t(seen[at]) * width + v + c] += weight * value(d_output[size_t(i) * q_width + q + c]);
                    }
                    d_weights.push_back(d_weight);
                    dot += weight * d_weight;
                }
                for (size_t at = 0; at < seen.size(); at++) {
                    const double d_score = std::exp(scores[at] - max) / sum * (d_weights[at] - dot) / std::sqrt(double(size));
                    for (int c = 0; c < size; c++) {
                        d_joined[size_t(i) * width + q + c] += d_score * value(joined[size_t(seen[at]) * width + k + c]);
                        d_joined[size_t(seen[at]) * width + k + c] += d_score * value(joined[size_t(i) * width + q + c]);
                    }
                }
            }
    compare((name + " output").c_str(), got[0], output, TOLERANCE<T>);
    compare((name + " log sums").c_str(), got[1], log_sums, 4e-6);
    compare((name + " gradient").c_str(), got[2], d_joined, 2 * TOLERANCE<T>);
}

// One shape with the tiles the host would take for its type and head size.
inline void check_both(const std::vector<std::vector<int>>& sequences, int query_heads, int kv_heads, int size) {
    if (size <= 128) {
        check_attention<float, 32>(sequences, query_heads, kv_heads, size, 128);
        check_attention<bf16, 64>(sequences, query_heads, kv_heads, size, 256);
    } else {
        check_attention<float, 16>(sequences, query_heads, kv_heads, size, 128);
        check_attention<bf16, 32>(sequences, query_heads, kv_heads, size, 128);
    }
}

inline void check_attention() {
    check_both({{1}}, 1, 1, 32);
    check_both({{1, 1, 1}, {2, 1}}, 3, 1, 4);  // Narrower than a vector load.
    check_both({{5, 17, 3}, {1, 2}, {40}}, 4, 2, 32);
    check_both({{64, 64, 64}}, 2, 1, 64);  // Exactly a tile.
    check_both({{65, 63, 1}}, 3, 3, 64);
    check_both({{130, 2, 70}, {3, 130}}, 2, 1, 96);
    check_both({{33, 31}}, 2, 2, 20);  // Neither a multiple of 16 nor of 8.
    check_both({{20, 100}}, 4, 1, 128);
    check_both({{40, 9, 50}}, 2, 1, 256);
    check_both({{7, 66}, {90, 12, 1}}, 9, 3, 64);
    check_both({{30, 40}}, 1, 1, 80);
    // Large scores: weights of almost one and of almost nothing.
    check_attention<float, 32>({{50, 20}}, 2, 1, 64, 128, 4);
    check_attention<bf16, 64>({{70, 20}}, 2, 1, 64, 256, 2);
}
