// Checks of attention: forward, both passes of the backward, over packed segments, with windows and caps.
#pragma once

#include <climits>

// What is computed. A query sees the `window` nearest of its keys.
struct Case {
    std::vector<std::vector<int>> sequences;  // {prompt, completion, completion...}, lengths.
    int query_heads, kv_heads, size;
    double scale = 0;  // 0: 1 / sqrt(size).
    double softcap = 0;
    int window = INT_MAX;
    float spread = 1;  // Of queries, keys and values: large ones give weights of almost one and of almost nothing.
    double rounding = 1;  // What the tolerances are multiplied by: a score's rounding grows with it.

    double factor() const { return scale == 0 ? 1 / std::sqrt(double(size)) : scale; }
    std::string name() const {
        std::string name = "heads " + std::to_string(query_heads) + "/" + std::to_string(kv_heads) + " size " + std::to_string(size);
        if (scale != 0) name += " scale " + std::to_string(scale);
        if (softcap != 0) name += " softcap " + std::to_string(softcap);
        if (window != INT_MAX) name += " window " + std::to_string(window);
        if (spread != 1) name += " spread " + std::to_string(spread);
        name += " lengths";
        for (const auto& lengths : sequences)
            for (size_t i = 0; i < lengths.size(); i++) name += (i ? "+" : " ") + std::to_string(lengths[i]);
        return name;
    }
};

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

// The keys that token `query` of a segment sees, in order.
inline std::vector<int> seen_keys(const Segment& s, int query, int window) {
    std::vector<int> seen;
    for (int key = s.prefix_first; key < s.prefix_end; key++) seen.push_back(key);
    for (int key = s.start; key <= query; key++) seen.push_back(key);
    if (seen.size() > size_t(window)) seen.erase(seen.begin(), seen.end() - window);
    return seen;
}

struct Plan {
    std::vector<Span> spans, seeing;
    std::vector<KeyTile> tiles;
};

// Cuts segments into tiles, and finds for each tile of keys the spans of queries that see some of it.
inline Plan plan_of(const std::vector<Segment>& segments, int tile, int window) {
    Plan plan;
    std::vector<std::vector<int>> seen_by_spans;
    for (const Segment& s : segments)
        for (int first = s.start; first < s.start + s.n; first += tile) {
            const int n = std::min(tile, s.start + s.n - first);
            plan.spans.push_back({first, n, s.prefix_first, s.prefix_end, s.start});
            auto seen = seen_keys(s, first, window);
            for (int query = first + 1; query < first + n; query++)
                for (int key : seen_keys(s, query, window)) seen.push_back(key);
            seen_by_spans.push_back(seen);
        }
    for (const Segment& s : segments)
        for (int first = s.start; first < s.start + s.n; first += tile) {
            KeyTile keys = {first, std::min(tile, s.start + s.n - first), int(plan.seeing.size()), 0};
            for (size_t i = 0; i < plan.spans.size(); i++)
                if (std::any_of(seen_by_spans[i].begin(), seen_by_spans[i].end(),
                                [&](int key) { return key >= first && key < first + keys.n; }))
                    plan.seeing.push_back(plan.spans[i]);
            keys.spans_end = plan.seeing.size();
            plan.tiles.push_back(keys);
        }
    return plan;
}

// The tiles that a block goes through hold each key that its queries see once, and none has only keys that they do not see.
template <int TILE> void check_seen_tiles(const std::string& name, const std::vector<Segment>& segments, int window) {
    n_checks++;
    bool is_good = true;
    for (const Span& span : plan_of(segments, TILE, window).spans) {
        std::vector<int> met, seen;
        for (SeenTiles<TILE> tile(span, window); tile.any(); tile.advance()) {
            bool is_needed = false;
            for (int key = tile.first; key < tile.first + tile.n; key++) {
                met.push_back(key);
                for (int query = span.first; query < span.first + span.n; query++) is_needed |= sees(span, window, query, key);
            }
            is_good &= is_needed && tile.n <= TILE;
        }
        const Segment segment = {span.start, span.first + span.n - span.start, span.prefix_first, span.prefix_end};
        for (int query = span.first; query < span.first + span.n; query++)
            for (int key : seen_keys(segment, query, window)) seen.push_back(key);
        std::sort(seen.begin(), seen.end());
        seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
        is_good &= met == seen;
    }
    if (!is_good) n_failures++, printf("FAILED %s: tiles are not those that are seen\n", name.c_str());
}

// Shared memory of the kernels, as attention.rs computes it.
inline size_t shared_bytes(int tile, int size, size_t number, int n_tiles, int n_float_tiles) {
    const size_t depth = (size + 15) / 16 * 16;
    auto bytes = [](size_t rows, size_t stride, size_t number) { return (rows * stride * number + 127) / 128 * 128; };
    return n_tiles * bytes(tile, depth + 16 / number, number) + n_float_tiles * bytes(tile, depth + 4, 4) +
           bytes(tile, tile + 16 / number, number) + bytes(tile, tile + 4, 4) + 2 * bytes(1, tile, 4);
}

// What attention gives: outputs (tokens, query heads x size), log sums (query heads, tokens), the gradient of `joined`.
struct Expected {
    std::vector<double> output, log_sums, d_joined;
};

// What one query of one head adds to it.
template <typename T>
void add_query(const Case& c, const Array<T>& joined, const Array<T>& d_output, int query, int head, const std::vector<int>& seen,
               Expected& to) {
    const int size = c.size, q_width = c.query_heads * size, width = q_width + 2 * c.kv_heads * size;
    const int kv_head = head / (c.query_heads / c.kv_heads), n = joined.n / width;
    const size_t q = size_t(query) * width + head * size, out = size_t(query) * q_width + head * size;
    auto key_at = [&](int key) { return size_t(key) * width + q_width + kv_head * size; };
    auto value_at = [&](int key) { return key_at(key) + c.kv_heads * size; };
    std::vector<double> scores, slopes, d_weights;
    double max = -INFINITY, sum = 0, dot = 0;
    for (int key : seen) {
        double score = 0;
        for (int i = 0; i < size; i++) score += value(joined[q + i]) * value(joined[key_at(key) + i]);
        score *= c.factor();
        const double tanh = c.softcap == 0 ? 0 : std::tanh(score / c.softcap);
        scores.push_back(c.softcap == 0 ? score : c.softcap * tanh);
        slopes.push_back(1 - tanh * tanh);
        max = std::max(max, scores.back());
    }
    for (double score : scores) sum += std::exp(score - max);
    to.log_sums[size_t(head) * n + query] = max + std::log(sum);
    for (size_t at = 0; at < seen.size(); at++) {
        const double weight = std::exp(scores[at] - max) / sum;
        double d_weight = 0;
        for (int i = 0; i < size; i++) {
            const double vi = value(joined[value_at(seen[at]) + i]), di = value(d_output[out + i]);
            to.output[out + i] += weight * vi;
            to.d_joined[value_at(seen[at]) + i] += weight * di;
            d_weight += di * vi;
        }
        d_weights.push_back(d_weight);
        dot += weight * d_weight;
    }
    for (size_t at = 0; at < seen.size(); at++) {
        const double d_score = std::exp(scores[at] - max) / sum * (d_weights[at] - dot) * slopes[at] * c.factor();
        for (int i = 0; i < size; i++) {
            to.d_joined[q + i] += d_score * value(joined[key_at(seen[at]) + i]);
            to.d_joined[key_at(seen[at]) + i] += d_score * value(joined[q + i]);
        }
    }
}

template <typename T, int TILE> void check_attention(const Case& c, unsigned n_threads) {
    const std::string name = std::string("attention ") + NAME<T> + " tile " + std::to_string(TILE) + " " + c.name();
    const auto segments = segments_of(c.sequences);
    check_seen_tiles<TILE>(name, segments, c.window);
    const int n = segments.back().start + segments.back().n, q_width = c.query_heads * c.size;
    const int width = q_width + 2 * c.kv_heads * c.size;
    const Shape shape = {n, c.query_heads, c.kv_heads, c.size, float(c.factor()), float(c.softcap), c.window};
    const Plan plan = plan_of(segments, TILE, c.window);
    auto spans = array_of(plan.spans), seeing = array_of(plan.seeing);
    auto tiles = array_of(plan.tiles);
    auto joined = random_array<T>(size_t(n) * width, c.spread), d_output = random_array<T>(size_t(n) * q_width);
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> output(d_output.n), d_joined(joined.n);
        Array<float> log_sums(size_t(c.query_heads) * n), dots(log_sums.n);
        const Dim by_span = {unsigned(spans.n), unsigned(c.query_heads)};
        auto shared = [&](int n_tiles, int n_float_tiles) { return shared_bytes(TILE, c.size, sizeof(T), n_tiles, n_float_tiles); };
        launch(order, by_span, n_threads, shared(2, 1), [&] {
            attention_tile<T, TILE>(joined.get(), spans.get(), shape, output.get(), log_sums.get(), emulator::shared);
        });
        launch(order, {unsigned(n * c.query_heads + 3) / 4}, 128, 0,
               [&] { attention_dots<T>(d_output.get(), output.get(), shape, dots.get()); });
        const Kept<T> kept = {d_output.get(), joined.get(), log_sums.get(), dots.get()};
        launch(order, by_span, n_threads, shared(4, 1),
               [&] { attention_dq_tile<T, TILE>(kept, spans.get(), shape, d_joined.get(), emulator::shared); });
        launch(order, {unsigned(tiles.n), unsigned(c.kv_heads)}, n_threads, shared(4, 2), [&] {
            attention_dkv_tile<T, TILE>(kept, tiles.get(), seeing.get(), shape, d_joined.get(), emulator::shared);
        });
        return list(as_float(output), std::move(log_sums), as_float(d_joined));
    });
    Expected want = {std::vector<double>(d_output.n), std::vector<double>(size_t(c.query_heads) * n), std::vector<double>(joined.n)};
    for (const Segment& s : segments)
        for (int query = s.start; query < s.start + s.n; query++)
            for (int head = 0; head < c.query_heads; head++)
                add_query(c, joined, d_output, query, head, seen_keys(s, query, c.window), want);
    compare((name + " output").c_str(), got[0], want.output, c.rounding * TOLERANCE<T>);
    compare((name + " log sums").c_str(), got[1], want.log_sums, 4e-6);
    compare((name + " gradient").c_str(), got[2], want.d_joined, c.rounding * 2 * TOLERANCE<T>);
}

// One case with the tiles the host would take for its type and head size.
inline void check_both(const Case& c) {
    if (c.size <= 128) {
        check_attention<float, 32>(c, 128);
        check_attention<bf16, 64>(c, 256);
    } else {
        check_attention<float, 16>(c, 128);
        check_attention<bf16, 32>(c, 128);
    }
}

inline void check_attention() {
    check_both({{{1}}, 1, 1, 32});
    check_both({{{1, 1, 1}, {2, 1}}, 3, 1, 4});  // Narrower than a vector load.
    check_both({{{5, 17, 3}, {1, 2}, {40}}, 4, 2, 32});
    check_both({{{64, 64, 64}}, 2, 1, 64});  // Exactly a tile.
    check_both({{{65, 63, 1}}, 3, 3, 64});
    check_both({{{130, 2, 70}, {3, 130}}, 2, 1, 96});
    check_both({{{33, 31}}, 2, 2, 20});  // Neither a multiple of 16 nor of 8.
    check_both({{{20, 100}}, 4, 1, 128});
    check_both({{{40, 9, 50}}, 2, 1, 256});
    check_both({{{7, 66}, {90, 12, 1}}, 9, 3, 64});
    check_both({{{30, 40}}, 1, 1, 80});
    check_attention<float, 32>({.sequences = {{50, 20}}, .query_heads = 2, .kv_heads = 1, .size = 64, .spread = 4}, 128);
    check_attention<bf16, 64>({.sequences = {{70, 20}}, .query_heads = 2, .kv_heads = 1, .size = 64, .spread = 2}, 256);
}

// Windows, caps and scales.
inline void check_attention_variants() {
    // Within a tile; across prefix and own keys; of a tile; of more than one; larger than everything.
    for (int window : {1, 7, 32, 64, 90, 5000})
        check_both({.sequences = {{70, 40, 9}, {1, 130}}, .query_heads = 2, .kv_heads = 1, .size = 16, .window = window});
    check_both({.sequences = {{40, 9, 50}}, .query_heads = 2, .kv_heads = 2, .size = 256, .window = 20});
    // Barely capped, and most scores near the cap.
    for (double softcap : {20.0, 1.0})
        check_both({.sequences = {{70, 40, 9}}, .query_heads = 4, .kv_heads = 2, .size = 32, .softcap = softcap, .spread = 1.5f});
    check_both({.sequences = {{33, 31}}, .query_heads = 2, .kv_heads = 2, .size = 20, .scale = 0.5});
    check_both({.sequences = {{33, 31}}, .query_heads = 2, .kv_heads = 1, .size = 64, .scale = 0.05, .softcap = 3});
    check_both({.sequences = {{50, 60}, {20}}, .query_heads = 2, .kv_heads = 1, .size = 80, .scale = 0.1, .softcap = 2, .window = 25});
    check_both({.sequences = {{40, 30}}, .query_heads = 2, .kv_heads = 1, .size = 256, .scale = 1 / 16.0, .softcap = 50, .window = 33});
    // Weights that are zero in float32: their gradient is too, though their scores are lost.
    check_attention<float, 32>(
        {.sequences = {{40}}, .query_heads = 1, .kv_heads = 1, .size = 32, .scale = 40, .softcap = 500, .rounding = 10}, 128);
}
