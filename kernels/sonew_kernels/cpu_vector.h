// Vectors of the widest kind the CPU has, and the storage types as vectors of float32.
//
// Vectors are explicit (GCC and clang extension), so that the hot loops need no luck with a vectoriser, and so that each formula is
// one sequence of instructions: together with the never inlined loops of cpu_block.h this is what makes results equal bit by bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX512F__)
constexpr int W = 16;  // floats of a vector
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t Int __attribute__((vector_size(W * 4)));
typedef uint32_t Bits __attribute__((vector_size(W * 4)));
typedef uint16_t Half __attribute__((vector_size(W * 2)));

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

template <class V, class T> INLINE V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V, class T> INLINE void store(T* to, V v) { std::memcpy(to, &v, sizeof v); }
INLINE Vec vector(const float* from) { return load<Vec>(from); }
INLINE Vec spread(float x) { return x - Vec{}; }
template <class V, int... LANE> INLINE V count_up(std::integer_sequence<int, LANE...>) { return V{LANE...}; }
INLINE Vec root(Vec x) {
    for (int lane = 0; lane < W; ++lane) x[lane] = std::sqrt(x[lane]);
    return x;
}

// f(0), ..., with compile-time indices: arrays of vectors indexed by them stay in registers.
template <int I, int END, class F> INLINE void unroll(F&& f) {
    if constexpr (I < END) {
        f(std::integral_constant<int, I>{});
        unroll<I + 1, END>(f);
    }
}

template <int STORAGE> struct Stored;
template <> struct Stored<STORAGE_FLOAT32> {
    typedef float Type;
    static INLINE Vec get(const float* from) { return vector(from); }
    static INLINE void put(float* to, Vec x) { store(to, x); }
};
template <> struct Stored<STORAGE_BFLOAT16> {
    typedef uint16_t Type;
    static INLINE Vec get(const uint16_t* from) { return (Vec)(__builtin_convertvector(load<Half>(from), Bits) << 16); }
    static INLINE void put(uint16_t* to, Vec x) {
        const Bits bits = (Bits)x, even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        store(to, __builtin_convertvector(x == x ? even : (bits >> 16 | 0x40), Half));
    }
    // Up or down as 16 random bits say (sonew.rounding.round_to_bfloat16).
    static INLINE void put(uint16_t* to, Vec x, Bits noise) {
        const Bits bits = (Bits)x, size = bits & 0x7fffffff, quiet = size > 0x7f800000 ? Bits{} + 0x400000 : Bits{};
        store(to, __builtin_convertvector((size < 0x7f800000 ? bits + noise : bits | quiet) >> 16, Half));
    }
};
template <> struct Stored<STORAGE_FLOAT16> {
    typedef uint16_t Type;
    // The exponents' bases differ by 112: a multiplication moves them and makes half's denormals normal.
    static INLINE Vec get(const uint16_t* from) {
        const Bits half = __builtin_convertvector(load<Half>(from), Bits), size = (half & 0x7fff) << 13;
        const Bits finite = (Bits)((Vec)size * spread(0x1p112f)), special = size | 0x7f800000;
        return (Vec)(((half & 0x7fff) >= 0x7c00 ? special : finite) | (half & 0x8000) << 16);
    }
    // Below half's smallest normal an addition rounds at its last place; above, the carry of the rounding does.
    static INLINE void put(uint16_t* to, Vec x) {
        const Bits bits = (Bits)x, size = bits & 0x7fffffff, base = (Bits)spread(0.5f);
        const Bits small = (Bits)((Vec)size + spread(0.5f)) - base;
        const Bits normal = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
        Bits half = size < (113u << 23) ? small : normal;
        half = half > 0x7c00 ? Bits{} + 0x7c00 : half;
        half = size > 0x7f800000 ? (size >> 13 & 0x3ff) | 0x7e00 : half;
        store(to, __builtin_convertvector(half | (bits >> 16 & 0x8000), Half));
    }
};

// The noise of stochastic rounding, bit by bit that of sonew/rounding.py: the keys of one hash, which serves two rows.
struct Noise {
    uint32_t first, second;

    template <class T> static INLINE T mix(T x) {
        x = (x ^ x >> 16) * NOISE_MULTIPLIER0;
        x = (x ^ x >> 15) * NOISE_MULTIPLIER1;
        return x ^ x >> 15;
    }
    Noise(int64_t seed, int32_t count, int row)
        : first(mix(uint32_t(seed) ^ mix(uint32_t(count) * NOISE_STRIDE + uint32_t(row / 2)))), second(mix(first + NOISE_STRIDE)) {}

    // Of the elements index, index + 1, ...: the low half of each lane is an even row's, the high half the next row's.
    INLINE Bits operator()(uint64_t index) const {
        const uint32_t low = uint32_t(index), high = uint32_t(index >> 32);
        const Bits at = low + count_up<Bits>(std::make_integer_sequence<int, W>{});
        Bits x = at ^ first;
        x = (x ^ x >> 16) * NOISE_MULTIPLIER0 + (second + high * NOISE_STRIDE) + (at < low ? Bits{} + NOISE_STRIDE : Bits{});
        x = (x ^ x >> 15) * NOISE_MULTIPLIER1;
        return x ^ x >> 15;
    }
};

template <int STORAGE> void widen(float* to, const void* from, int64_t first, int64_t n) {
    using S = Stored<STORAGE>;
    const auto* source = (const typename S::Type*)from + first;
    typename S::Type end[W] = {};
    alignas(64) float wide[W];
    for (int64_t i = 0; i + W <= n; i += W) store(to + i, S::get(source + i));
    std::memcpy(end, source + n / W * W, n % W * sizeof *end);
    store(wide, S::get(end));
    std::memcpy(to + n / W * W, wide, n % W * sizeof *wide);
}

// Elements [first, first + n) of an array as float32.
inline void widen(int64_t storage, float* to, const void* from, int64_t first, int64_t n) {
    if (n <= 0) return;
    if (storage == STORAGE_FLOAT32) return void(std::memcpy(to, (const float*)from + first, n * sizeof(float)));
    if (storage == STORAGE_BFLOAT16) return widen<STORAGE_BFLOAT16>(to, from, first, n);
    widen<STORAGE_FLOAT16>(to, from, first, n);
}

// put(to, from) for each vector of n elements; the last, ragged one goes through a buffer, so that nothing past it is written.
template <class Put> INLINE void narrow(uint16_t* to, const float* from, int64_t n, Put put) {
    int64_t i = 0;
    for (; i + W <= n; i += W) put(to + i, vector(from + i), i);
    if (i == n) return;
    alignas(64) float wide[W] = {};
    uint16_t end[W];
    std::memcpy(wide, from + i, (n - i) * sizeof *wide);
    put(end, vector(wide), i);
    std::memcpy(to + i, end, (n - i) * sizeof *end);
}
