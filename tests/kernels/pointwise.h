// Checks of the kernels that go over numbers, of rotary embedding and of the vocabulary head's.
#pragma once

template <typename T> void check_rope(int n, int query_heads, int kv_heads, int size, int half) {
    const std::string name = std::string("rope ") + NAME<T> + " size " + std::to_string(size) + " pairs " + std::to_string(half);
    const int width = (query_heads + 2 * kv_heads) * size, q_width = query_heads * size, kv_width = kv_heads * size;
    auto q = random_array<T>(n * q_width), k = random_array<T>(n * kv_width), v = random_array<T>(n * kv_width);
    auto angles = random_array<float>(n * half, 2);
    Array<float> cosines(n * half), sines(n * half);
    for (size_t i = 0; i < angles.n; i++) cosines[i] = std::cos(angles[i]), sines[i] = std::sin(angles[i]);
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> joined(n * width), dq(q.n), dk(k.n), dv(v.n);
        launch(order, {unsigned(n)}, 96, 0, [&] {
            join_rotated<T>(q.get(), k.get(), v.get(), cosines.get(), sines.get(), query_heads, kv_heads, size, half,
                            joined.get());
        });
        launch(order, {unsigned(n)}, 96, 0, [&] {
            split_rotated_back<T>(joined.get(), cosines.get(), sines.get(), query_heads, kv_heads, size, half, dq.get(), dk.get(),
                                  dv.get());
        });
        return list(as_float(joined), as_float(dq), as_float(dk), as_float(dv));
    });
    std::vector<double> joined(n * width), same_q(q.n), same_k(k.n), same_v(v.n);
    auto at = [&](int row, int head) {
        return head < query_heads ? &q[row * q_width + head * size] : &k[row * kv_width + (head - query_heads) * size];
    };
    for (int row = 0; row < n; row++) {
        for (int head = 0; head < query_heads + kv_heads; head++) {
            for (int i = 2 * half; i < size; i++) joined[row * width + head * size + i] = value(at(row, head)[i]);
            for (int i = 0; i < half; i++) {
                const double a = value(at(row, head)[i]), b = value(at(row, head)[half + i]), angle = angles[row * half + i];
                joined[row * width + head * size + i] = a * std::cos(angle) - b * std::sin(angle);
                joined[row * width + head * size + half + i] = b * std::cos(angle) + a * std::sin(angle);
            }
        }
        for (int i = 0; i < kv_width; i++) joined[row * width + q_width + kv_width + i] = value(v[row * kv_width + i]);
    }
    for (size_t i = 0; i < q.n; i++) same_q[i] = value(q[i]);
    for (size_t i = 0; i < k.n; i++) same_k[i] = value(k[i]), same_v[i] = value(v[i]);
    compare((name + " joined").c_str(), got[0], joined, TOLERANCE<T>);
    compare((name + " q back").c_str(), got[1], same_q, 2 * TOLERANCE<T>);
    compare((name + " k back").c_str(), got[2], same_k, 2 * TOLERANCE<T>);
    compare((name + " v back").c_str(), got[3], same_v, 0);
}

// `f` is the function in float64; its slope is found by differences.
template <typename T> void check_activation(const std::string& function, int kind, int n, double (*f)(double)) {
    const std::string name = function + " " + NAME<T> + " " + std::to_string(n);
    auto x = random_array<T>(n, 3), up = random_array<T>(n), dy = random_array<T>(n);
    x[0] = from_float<T>(100.0f), x[1] = from_float<T>(-100.0f), x[2] = from_float<T>(0.0f);  // exp overflows, and nothing else may.
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> y(n), dx(n), product(n), d_gate(n), d_up(n);
        launch(order, {3}, 64, 0, [&] { activated<T>(x.get(), kind, n, y.get()); });
        launch(order, {3}, 64, 0, [&] { activated_backward<T>(dy.get(), x.get(), kind, n, dx.get()); });
        launch(order, {3}, 64, 0, [&] { gated<T>(x.get(), up.get(), kind, n, product.get()); });
        launch(order, {3}, 64, 0, [&] { gated_backward<T>(dy.get(), x.get(), up.get(), kind, n, d_gate.get(), d_up.get()); });
        return list(as_float(y), as_float(dx), as_float(product), as_float(d_gate), as_float(d_up));
    });
    std::vector<double> y(n), dx(n), product(n), d_gate(n), d_up(n);
    for (int i = 0; i < n; i++) {
        const double xi = value(x[i]), ui = value(up[i]), di = value(dy[i]), step = 1e-5;
        const double slope = (f(xi + step) - f(xi - step)) / (2 * step);
        y[i] = f(xi);
        dx[i] = di * slope;
        product[i] = f(xi) * ui;
        d_gate[i] = di * ui * slope;
        d_up[i] = di * f(xi);
    }
    compare((name + " y").c_str(), got[0], y, TOLERANCE<T>);
    compare((name + " dx").c_str(), got[1], dx, TOLERANCE<T>);
    compare((name + " gated").c_str(), got[2], product, TOLERANCE<T>);
    compare((name + " d_gate").c_str(), got[3], d_gate, TOLERANCE<T>);
    compare((name + " d_up").c_str(), got[4], d_up, TOLERANCE<T>);
    // The tails, where a number's own size is the measure: those of ordinary x are lost beside the largest.
    n_checks++;
    double worst = 0;
    for (float xi = -6; xi < 6; xi += 0.37f) {
        const ValueAndSlope found = activation(kind, xi);
        worst = std::max(worst, std::fabs(found.value - f(xi)) / std::fabs(f(xi)));
    }
    if (!(worst < 1e-4)) n_failures++, printf("FAILED %s tails: relative error %.2g\n", name.c_str(), worst);
}

template <typename T> void check_head(int n, int v, bool scaled, float spread, float cap) {
    const std::string name = std::string("logps ") + NAME<T> + " v " + std::to_string(v) + (scaled ? " scaled" : "") +
                             " cap " + std::to_string(cap);
    auto logits = random_array<float>(size_t(n) * v, spread), scales = random_array<float>(n);
    Array<uint32_t> targets(n);
    for (int i = 0; i < n; i++) targets[i] = i == 0 ? v - 1 : i == 1 ? 0 : numbers() % v;
    auto got = in_all_orders(name, [&](Order order) {
        Array<float> values(n), alone(n);
        Array<T> gradient(logits.n);
        auto kernel = [&](const float* from, T* to, float* into) {
            return [=, &targets, &scales] { logps<T>(from, targets.get(), scaled ? scales.get() : nullptr, v, cap, into, to); };
        };
        launch(order, {unsigned(n)}, 128, 0, kernel(logits.get(), nullptr, alone.get()));
        launch(order, {unsigned(n)}, 128, 0, kernel(logits.get(), gradient.get(), values.get()));
        auto result = list(std::move(values), as_float(gradient), std::move(alone));
        if constexpr (sizeof(T) == 4) {  // In place.
            auto own = copy_of(logits);
            launch(order, {unsigned(n)}, 128, 0, kernel(own.get(), own.get(), result[2].get()));
            if (!same_bits(own, result[1])) n_failures++, printf("FAILED %s in place\n", name.c_str());
        }
        return result;
    });
    std::vector<double> values(n), gradient(logits.n);
    for (int row = 0; row < n; row++) {
        std::vector<double> z(v), slopes(v, 1.0);
        double max = -INFINITY, sum = 0;
        for (int i = 0; i < v; i++) {
            const double logit = logits[row * v + i], tanh = cap == 0 ? 0 : std::tanh(logit / cap);
            z[i] = cap == 0 ? logit : cap * tanh;
            slopes[i] = 1 - tanh * tanh;
            max = std::max(max, z[i]);
        }
        for (double x : z) sum += std::exp(x - max);
        const double log_sum = max + std::log(sum);
        values[row] = z[targets[row]] - log_sum;
        for (int i = 0; i < v; i++)
            gradient[row * v + i] = (scaled ? scales[row] : 1.0) * ((i == int(targets[row])) - std::exp(z[i] - log_sum)) * slopes[i];
    }
    compare(name.c_str(), got[0], values, 2e-6);
    compare((name + " gradient").c_str(), got[1], gradient, std::max(TOLERANCE<T>, 1e-5));
    compare((name + " alone").c_str(), got[2], values, 2e-6);
}

template <typename T> void check_sums(int d) {
    const std::string name = std::string("sums ") + NAME<T>;
    const int v = 5;
    const std::vector<uint32_t> rows = {0, 3, 4}, starts = {0, 3, 4, 6}, order_of = {1, 4, 5, 0, 2, 3};
    auto x = random_array<T>(6 * d), y = random_array<T>(6 * d);
    auto to = random_array<float>(v * d);
    auto row_array = array_of(rows), start_array = array_of(starts), order_array = array_of(order_of);
    auto got = in_all_orders(name, [&](Order order) {
        auto sum = copy_of(to);
        auto other = copy_of(y);
        launch(order, {3}, 32, 0,
               [&] { add_rows<T>(x.get(), row_array.get(), start_array.get(), order_array.get(), d, sum.get()); });
        launch(order, {2}, 64, 0, [&] { add_in_place<T>(x.get(), x.n, other.get()); });
        return list(std::move(sum), as_float(other));
    });
    std::vector<double> want(v * d), other(x.n);
    for (int i = 0; i < v * d; i++) want[i] = to[i];
    for (int b = 0; b < 3; b++)
        for (uint32_t i = starts[b]; i < starts[b + 1]; i++)
            for (int c = 0; c < d; c++) want[rows[b] * d + c] += value(x[order_of[i] * d + c]);
    for (size_t i = 0; i < x.n; i++) other[i] = value(x[i]) + value(y[i]);
    compare((name + " rows").c_str(), got[0], want, 4e-6);
    compare((name + " in place").c_str(), got[1], other, TOLERANCE<T>);
}

template <typename T> void check_pointwise() {
    check_rope<T>(5, 4, 2, 8, 4);
    check_rope<T>(3, 9, 3, 64, 32);
    check_rope<T>(2, 1, 1, 2, 1);
    check_rope<T>(3, 4, 2, 80, 16);  // A part of each head.
    check_rope<T>(2, 3, 1, 11, 5);   // One number stays.
    for (int n : {777, 3}) {
        check_activation<T>("silu", SILU, n, [](double x) { return x / (1 + std::exp(-x)); });
        check_activation<T>("gelu", GELU, n, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); });
        check_activation<T>("gelu_tanh", GELU_TANH, n, [](double x) {
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
        });
    }
    for (int v : {1, 100, 128, 1000})
        for (bool scaled : {false, true})
            for (float cap : {0.0f, 4.0f}) check_head<T>(4, v, scaled, 3, cap);
    check_head<T>(3, 500, false, 60, 0);
    check_head<T>(3, 500, true, 60, 30);
    check_sums<T>(50);
    check_sums<T>(1);
}

inline void check_optimizer() {
    const int n = 500;
    auto parameter = random_array<float>(n), gradient = random_array<float>(n), first = random_array<float>(n, 0.1f);
    Array<float> second(n);
    for (int i = 0; i < n; i++) second[i] = std::fabs(gradient[i]) * 0.01f;
    const float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, step_size = 1e-2f, root = 0.3f, decay = 0.99f, scale = 0.5f;
    auto got = in_all_orders("adamw", [&](Order order) {
        auto p = copy_of(parameter), m = copy_of(first), v = copy_of(second);
        launch(order, {2}, 64, 0, [&] {
            adamw(gradient.get(), n, beta1, beta2, epsilon, step_size, root, decay, scale, p.get(), m.get(), v.get());
        });
        return list(std::move(p), std::move(m), std::move(v));
    });
    std::vector<double> p(n), m(n), v(n);
    for (int i = 0; i < n; i++) {
        const double g = double(gradient[i]) * scale;
        m[i] = double(beta1) * first[i] + (1 - double(beta1)) * g;
        v[i] = double(beta2) * second[i] + (1 - double(beta2)) * g * g;
        p[i] = double(parameter[i]) * decay - step_size * m[i] / (std::sqrt(v[i]) / root + epsilon);
    }
    compare("adamw parameter", got[0], p, 2e-6);
    compare("adamw first", got[1], m, 2e-6);
    compare("adamw second", got[2], v, 1e-4);  // 1 - 0.999 in float32.

    auto norm = in_all_orders("squared norm", [&](Order order) {
        Array<double> parts(3);
        launch(order, {3}, 64, 0, [&] { squared_norm_parts(gradient.get(), n, parts.get()); });
        return list(std::move(parts));
    });
    double want = 0;
    for (int i = 0; i < n; i++) want += double(gradient[i]) * gradient[i];
    Array<double> sum(1);
    sum[0] = norm[0][0] + norm[0][1] + norm[0][2];
    compare("squared norm", sum, {want}, 1e-14);
}
