// Vectors of the widest kind the CPU has, and the storage types as vectors of float32.
//
// Vectors are explicit (GCC and clang extension), so that the hot loops need no luck with a vectoriser, and so that each formula is
// one sequence of instructions: together with the never inlined loops of cpu_block.h this is what makes results equal bit by bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

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

// The gradient of the piece's elements [first, first + n) as float32.
void widen(int64_t storage, float* to, const void* from, int64_t first, int64_t n) {
    if (n <= 0) return;
    if (storage == STORAGE_FLOAT32) return widen<STORAGE_FLOAT32>(to, from, first, n);
    if (storage == STORAGE_BFLOAT16) return widen<STORAGE_BFLOAT16>(to, from, first, n);
    widen<STORAGE_FLOAT16>(to, from, first, n);
}
