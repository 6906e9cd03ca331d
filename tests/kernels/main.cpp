// Checks the CUDA kernels against plain float64 code on small and awkward shapes; see emulator.h and scripts/cuda/emulate.sh.
#define EMULATOR_MAIN
#include <algorithm>

#include "all.cu"

using emulator::Order;


int n_checks = 0, n_failures = 0;
std::mt19937 numbers(1);

template <typename T> constexpr const char* NAME = sizeof(T) == 4 ? "f32" : "bf16";
// Rounding errors allowed, relative to the largest number of a result.
template <typename T> constexpr double TOLERANCE = sizeof(T) == 4 ? 4e-6 : 1e-2;

// An array of exactly n numbers, so that AddressSanitizer sees an access beside it.
template <typename T> struct Array {
    std::unique_ptr<T, decltype(&free)> memory;
    size_t n;
    explicit Array(size_t n) : memory(static_cast<T*>(aligned_alloc(256, (n * sizeof(T) + 255) / 256 * 256)), &free), n(n) {
        // ... also between the end and the next multiple of 256.
        poison();
        memset(static_cast<void*>(memory.get()), 0xff, n * sizeof(T));
    }
    Array(Array&&) = default;
    Array& operator=(Array&&) = default;
    T* get() const { return memory.get(); }
    T& operator[](size_t i) const { return memory.get()[i]; }
    void poison();
    ~Array();
};

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
template <typename T> void Array<T>::poison() {
    ASAN_POISON_MEMORY_REGION(memory.get() + n, (n * sizeof(T) + 255) / 256 * 256 - n * sizeof(T));
}
template <typename T> Array<T>::~Array() {
    if (memory) ASAN_UNPOISON_MEMORY_REGION(memory.get(), (n * sizeof(T) + 255) / 256 * 256);
}
#else
template <typename T> void Array<T>::poison() {}
template <typename T> Array<T>::~Array() {}
#endif

template <typename T> Array<T> random_array(size_t n, float scale = 1) {
    Array<T> a(n);
    std::normal_distribution<float> normal(0, scale);
    for (size_t i = 0; i < n; i++) a[i] = from_float<T>(normal(numbers));
    return a;
}
template <typename T> Array<T> array_of(const std::vector<T>& values) {
    Array<T> a(values.size());
    std::copy(values.begin(), values.end(), a.get());
    return a;
}
template <typename T> Array<T> copy_of(const Array<T>& from) {
    Array<T> a(from.n);
    memcpy(static_cast<void*>(a.get()), from.get(), from.n * sizeof(T));
    return a;
}
template <typename T> double value(T x) { return to_float(x); }
template <> double value(double x) { return x; }

// Compares a result with what it should be.
template <typename T> void compare(const char* what, const Array<T>& got, const std::vector<double>& want, double tolerance) {
    n_checks++;
    double largest = 1e-30, worst = 0;
    size_t at = 0;
    for (double w : want) largest = std::max(largest, std::fabs(w));
    for (size_t i = 0; i < want.size(); i++) {
        const double error = std::fabs(value(got[i]) - want[i]) / largest;
        if (!std::isnan(worst) && !(error <= worst)) worst = error, at = i;  // NaN is the worst.
    }
    if (got.n != want.size() || !(worst <= tolerance)) {
        n_failures++;
        printf("FAILED %s: [%zu] is %g and should be %g (error %.2g of the largest, allowed %.2g)\n", what, at, value(got[at]), want[at],
               worst, tolerance);
    }
}

// Runs `run(order, outputs...)` under three orders of the threads and demands the same bits each time.
template <typename T> bool same_bits(const Array<T>& a, const Array<T>& b) { return memcmp(a.get(), b.get(), a.n * sizeof(T)) == 0; }
template <typename Run> auto in_all_orders(const std::string& what, Run run) {
    auto result = run(Order::FORWARD);
    for (Order order : {Order::BACKWARD, Order::RANDOM}) {
        auto other = run(order);
        n_checks++;
        bool same = true;
        for (size_t i = 0; i < result.size(); i++) same &= same_bits(result[i], other[i]);
        if (!same) {
            n_failures++;
            printf("FAILED %s: depends on the order of the threads: a barrier is missing\n", what.c_str());
        }
    }
    return result;
}
template <typename T, typename... More> std::vector<Array<T>> list(Array<T> first, More... more) {
    std::vector<Array<T>> all;
    all.push_back(std::move(first));
    (all.push_back(std::move(more)), ...);
    return all;
}
template <typename T> Array<float> as_float(const Array<T>& from) {
    Array<float> a(from.n);
    for (size_t i = 0; i < from.n; i++) a[i] = float(value(from[i]));
    return a;
}


#include "attention.h"
#include "pointwise.h"
#include "rows.h"

int main() {
    check_all_rows<float>();
    check_all_rows<bf16>();
    check_pointwise<float>();
    check_pointwise<bf16>();
    check_optimizer();
    check_attention();
    check_attention_variants();
    printf("%d checks, %d failures\n", n_checks, n_failures);
    return n_failures != 0;
}
