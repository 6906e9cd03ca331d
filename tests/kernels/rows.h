// Checks of the kernels that go over rows: normalisation, biases, sums over rows.
#pragma once

template <typename T> void check_rms_norm(int n, int d) {
    const std::string name = std::string("rms_norm ") + NAME<T> + " " + std::to_string(n) + "x" + std::to_string(d);
    auto x = random_array<T>(size_t(n) * d), dy = random_array<T>(size_t(n) * d), residual = random_array<T>(size_t(n) * d);
    auto weight = random_array<float>(d);
    const float eps = 1e-5f;
    const int rows_per_part = 3, n_parts = (n + rows_per_part - 1) / rows_per_part;
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> y(x.n), again(x.n), dx(x.n), dx_alone(x.n);
        Array<float> inverse(n), parts(size_t(n_parts) * d), dw(d);
        launch(order, {unsigned(n)}, 64, 0, [&] { rms_norm<T>(x.get(), weight.get(), d, eps, y.get(), inverse.get()); });
        launch(order, {unsigned(n)}, 64, 0, [&] { rms_norm_again<T>(x.get(), weight.get(), inverse.get(), d, again.get()); });
        launch(order, {unsigned(n)}, 64, 0, [&] {
            rms_norm_backward<T>(dy.get(), x.get(), weight.get(), inverse.get(), residual.get(), d, dx.get());
        });
        launch(order, {unsigned(n)}, 64, 0, [&] {
            rms_norm_backward<T>(dy.get(), x.get(), weight.get(), inverse.get(), nullptr, d, dx_alone.get());
        });
        launch(order, {unsigned(d + 31) / 32, unsigned(n_parts)}, 32, 0, [&] {
            rms_norm_weight_parts<T>(dy.get(), x.get(), inverse.get(), n, d, rows_per_part, parts.get());
        });
        launch(order, {unsigned(d + 31) / 32}, 32, 0, [&] { sum_parts(parts.get(), n_parts, d, dw.get()); });
        return list(as_float(y), as_float(again), as_float(dx), as_float(dx_alone), std::move(inverse), std::move(dw));
    });
    std::vector<double> y(x.n), dx(x.n), dx_alone(x.n), inverse(n), dw(d, 0.0);
    for (int row = 0; row < n; row++) {
        double squares = 0, dot = 0;
        for (int i = 0; i < d; i++) squares += value(x[row * d + i]) * value(x[row * d + i]);
        const double r = inverse[row] = 1 / std::sqrt(squares / d + eps);
        for (int i = 0; i < d; i++) dot += weight[i] * value(dy[row * d + i]) * value(x[row * d + i]) / d;
        for (int i = 0; i < d; i++) {
            const double xi = value(x[row * d + i]), dyi = value(dy[row * d + i]);
            y[row * d + i] = weight[i] * xi * r;
            dx_alone[row * d + i] = r * (weight[i] * dyi - xi * r * r * dot);
            dx[row * d + i] = dx_alone[row * d + i] + value(residual[row * d + i]);
            dw[i] += dyi * xi * r;
        }
    }
    compare((name + " y").c_str(), got[0], y, TOLERANCE<T>);
    compare((name + " again").c_str(), got[1], y, TOLERANCE<T>);
    compare((name + " dx").c_str(), got[2], dx, TOLERANCE<T>);
    compare((name + " dx alone").c_str(), got[3], dx_alone, TOLERANCE<T>);
    compare((name + " inverse").c_str(), got[4], inverse, 4e-6);
    compare((name + " dw").c_str(), got[5], dw, 4e-6);
    n_checks++;
    if (!same_bits(got[0], got[1])) n_failures++, printf("FAILED %s: again gives other bits\n", name.c_str());
}

template <typename T> void check_rows(int n, int d) {
    const std::string name = std::string("rows ") + NAME<T> + " " + std::to_string(n) + "x" + std::to_string(d);
    auto x = random_array<T>(size_t(n) * d), residual = random_array<T>(size_t(n) * d);
    for (int i = 0; i < d; i++) x[i] = from_float<T>(to_float(x[i]) + 30);  // A mean that is large beside the rest.
    auto bias = random_array<float>(d);
    const int rows_per_part = 3, n_parts = (n + rows_per_part - 1) / rows_per_part;
    auto got = in_all_orders(name, [&](Order order) {
        Array<T> y(x.n), alone(x.n);
        auto biased = copy_of(x);
        Array<float> parts(size_t(n_parts) * d), sums(d);
        launch(order, {unsigned(n)}, 64, 0, [&] { centred<T>(x.get(), residual.get(), d, y.get()); });
        launch(order, {unsigned(n)}, 64, 0, [&] { centred<T>(x.get(), nullptr, d, alone.get()); });
        launch(order, {unsigned(n)}, 64, 0, [&] { add_bias<T>(bias.get(), d, biased.get()); });
        launch(order, {unsigned(d + 31) / 32, unsigned(n_parts)}, 32, 0,
               [&] { column_sum_parts<T>(x.get(), n, d, rows_per_part, parts.get()); });
        launch(order, {unsigned(d + 31) / 32}, 32, 0, [&] { sum_parts(parts.get(), n_parts, d, sums.get()); });
        return list(as_float(y), as_float(alone), as_float(biased), std::move(sums));
    });
    std::vector<double> y(x.n), alone(x.n), biased(x.n), sums(d, 0.0);
    for (int row = 0; row < n; row++) {
        double mean = 0;
        for (int i = 0; i < d; i++) mean += value(x[row * d + i]) / d;
        for (int i = 0; i < d; i++) {
            const double xi = value(x[row * d + i]);
            alone[row * d + i] = xi - mean;
            y[row * d + i] = xi - mean + value(residual[row * d + i]);
            biased[row * d + i] = xi + bias[i];
            sums[i] += xi;
        }
    }
    // Relative to the numbers before the mean is taken off, where float32 has rounded them.
    const double of_mean = sizeof(T) == 4 ? 1e-5 : TOLERANCE<T>;
    compare((name + " centred").c_str(), got[0], y, of_mean);
    if (d > 1) compare((name + " centred alone").c_str(), got[1], alone, of_mean);
    compare((name + " biased").c_str(), got[2], biased, TOLERANCE<T>);
    compare((name + " sums").c_str(), got[3], sums, 4e-6);
}

template <typename T> void check_all_rows() {
    for (int d : {3, 31, 64, 100, 576}) {
        check_rms_norm<T>(7, d);
        check_rows<T>(7, d);
    }
    check_rms_norm<T>(1, 64);
    check_rows<T>(1, 64);
    check_rows<T>(4, 1);
}
