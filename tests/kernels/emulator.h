// Runs CUDA kernels on the processor, to check their arithmetic and indexing where there is no GPU (x86-64, one thread).
//
// A block's threads are fibers that run until they meet a barrier. What would go unnoticed on one processor is made visible:
// - the order in which the fibers run between two barriers is a parameter: a kernel that lacks a barrier gives other results
//   under another order;
// - shared memory starts as NaN; it and every array are separate allocations for AddressSanitizer to guard;
// - a barrier that not all threads reach ends the program, as does a misaligned matrix or vector load.
// Matrix fragments are spread over the lanes of a warp like those of the hardware, though not in its layout.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define SHARED_MEMORY(NAME) unsigned char* NAME = emulator::shared

struct Dim { unsigned x = 1, y = 1, z = 1; };
inline Dim threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

struct float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {0x7fff};
    return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // To nearest, ties to even.
}

namespace emulator {

enum class Order { FORWARD, BACKWARD, RANDOM };

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "block (%u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, what);
    exit(1);
}

constexpr size_t STACK_BYTES = 128 << 10;

// Where a fiber is.
enum class State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
    void* stack_pointer;
    State state;
    unsigned n_shuffles;
    std::unique_ptr<unsigned char[]> stack;
};

inline unsigned char* shared;
inline std::vector<Fiber> fibers;
inline int current;
inline void* scheduler_stack_pointer;
inline std::function<void()> body;
inline std::vector<double> shuffle_slots;  // Two of 32 for each warp: one may still be read while the other is written.

#if defined(__SANITIZE_ADDRESS__)
inline const void* scheduler_stack;
inline size_t scheduler_stack_size;
#endif

// Saves what a function must preserve and the stack, and goes on with another stack.
extern "C" void emulator_switch(void** save, void* to);
#ifdef EMULATOR_MAIN
asm(R"(
.text
.globl emulator_switch
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
#endif

inline void to_scheduler(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(state == State::DONE ? nullptr : &fake, scheduler_stack, scheduler_stack_size);
#endif
    emulator_switch(&fiber.stack_pointer, scheduler_stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    body();
    to_scheduler(State::DONE);
    abort();
}

inline void run_fiber(int index) {
    current = index;
    threadIdx.x = index;
    Fiber& fiber = fibers[index];
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), STACK_BYTES);
#endif
    emulator_switch(&scheduler_stack_pointer, fiber.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

inline void prepare(Fiber& fiber) {
    if (!fiber.stack) fiber.stack.reset(new unsigned char[STACK_BYTES]);
    const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.stack.get()) + STACK_BYTES) & ~uintptr_t(15);
    void** stack = reinterpret_cast<void**>(top) - 2;
    *stack = reinterpret_cast<void*>(&fiber_main);  // Where the first switch returns to; the stack is then as after a call.
    for (int i = 0; i < 6; i++) *--stack = nullptr;
    fiber.stack_pointer = stack;
    fiber.state = State::READY;
    fiber.n_shuffles = 0;
}

// Lets those of [first, last) go on that wait at this barrier, if all of them do.
inline bool open_barrier(int first, int last, State barrier) {
    for (int i = first; i < last; i++)
        if (fibers[i].state != barrier) return false;
    for (int i = first; i < last; i++) fibers[i].state = State::READY;
    return true;
}

inline void run_block(Order order, std::mt19937& random) {
    const int n = blockDim.x;
    if (fibers.size() < size_t(n)) fibers.resize(n);
    shuffle_slots.assign(n * 2, NAN);
    for (int i = 0; i < n; i++) prepare(fibers[i]);
    std::vector<int> turn(n);
    for (int i = 0; i < n; i++) turn[i] = order == Order::BACKWARD ? n - 1 - i : i;
    for (;;) {
        if (order == Order::RANDOM) std::shuffle(turn.begin(), turn.end(), random);
        bool progress = false, all_done = true;
        for (int i : turn)
            if (fibers[i].state == State::READY) run_fiber(i), progress = true;
        for (int warp = 0; warp < n; warp += 32) progress |= open_barrier(warp, warp + 32, State::AT_WARP_BARRIER);
        progress |= open_barrier(0, n, State::AT_BLOCK_BARRIER);
        for (int i = 0; i < n; i++) all_done &= fibers[i].state == State::DONE;
        if (all_done) return;
        if (!progress) fail("some threads wait at a barrier that others never reach");
    }
}

// Runs a kernel over a grid; `shared_bytes` as given at a launch.
template <typename Kernel> void launch(Order order, Dim grid, unsigned n_threads, size_t shared_bytes, Kernel kernel) {
    std::mt19937 random(7);
    gridDim = grid;
    blockDim = {n_threads};
    body = kernel;
    std::unique_ptr<unsigned char, decltype(&free)> memory(
        static_cast<unsigned char*>(shared_bytes ? aligned_alloc(128, shared_bytes) : nullptr), &free);
    shared = memory.get();
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = {x, y, 0};
            if (shared) memset(shared, 0xff, shared_bytes);
            run_block(order, random);
        }
}

}  // namespace emulator

inline void __syncthreads() { emulator::to_scheduler(emulator::State::AT_BLOCK_BARRIER); }
inline void __syncwarp() { emulator::to_scheduler(emulator::State::AT_WARP_BARRIER); }

template <typename S> S __shfl_xor_sync(uint32_t, S x, int mask) {
    using namespace emulator;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    double* slots = &shuffle_slots[warp * 64 + fibers[thread].n_shuffles++ % 2 * 32];
    slots[lane] = x;
    __syncwarp();
    return S(slots[lane ^ mask]);
}

namespace nvcuda::wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major };

// What a lane holds of a 16 x 16 matrix: of the accumulator eight numbers of one row, of the factors what these need.
template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment;
template <typename Layout> struct fragment<matrix_a, 16, 16, 16, __nv_bfloat16, Layout> { float row[16]; };
template <typename Layout> struct fragment<matrix_b, 16, 16, 16, __nv_bfloat16, Layout> { float columns[16][8]; };
template <> struct fragment<accumulator, 16, 16, 16, float> { float part[8]; };

inline int own_row() { return threadIdx.x % 32 / 2; }
inline int own_column() { return threadIdx.x % 2 * 8; }

inline void check(const void* from, int stride, size_t number_bytes) {
    if (reinterpret_cast<uintptr_t>(from) % 32) emulator::fail("a matrix does not start at a multiple of 32 bytes");
    if (stride * number_bytes % 16) emulator::fail("a matrix's stride is not a multiple of 16 bytes");
}

// Lanes may be apart when they call the hardware's loads and stores: these synchronise nothing that others can rely on.
template <typename Layout>
void load_matrix_sync(fragment<matrix_a, 16, 16, 16, __nv_bfloat16, Layout>& to, const __nv_bfloat16* from, int stride) {
    check(from, stride, 2);
    constexpr bool rows = std::is_same_v<Layout, row_major>;
    for (int k = 0; k < 16; k++) to.row[k] = __bfloat162float(from[rows ? own_row() * stride + k : k * stride + own_row()]);
}
template <typename Layout>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, __nv_bfloat16, Layout>& to, const __nv_bfloat16* from, int stride) {
    check(from, stride, 2);
    constexpr bool rows = std::is_same_v<Layout, row_major>;
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) {
            const int column = own_column() + j;
            to.columns[k][j] = __bfloat162float(from[rows ? k * stride + column : column * stride + k]);
        }
}
using Sum = fragment<accumulator, 16, 16, 16, float>;
inline void load_matrix_sync(Sum& to, const float* from, int stride, layout_t) {
    check(from, stride, 4);
    for (int j = 0; j < 8; j++) to.part[j] = from[own_row() * stride + own_column() + j];
}
inline void store_matrix_sync(float* to, const Sum& from, int stride, layout_t) {
    check(to, stride, 4);
    for (int j = 0; j < 8; j++) to[own_row() * stride + own_column() + j] = from.part[j];
}
inline void fill_fragment(Sum& to, float value) {
    for (float& x : to.part) x = value;
}
template <typename A, typename B> void mma_sync(Sum& d, const A& a, const B& b, const Sum& c) {
    for (int j = 0; j < 8; j++) {
        float sum = c.part[j];
        for (int k = 0; k < 16; k++) sum += a.row[k] * b.columns[k][j];
        d.part[j] = sum;
    }
}

}  // namespace nvcuda::wmma
