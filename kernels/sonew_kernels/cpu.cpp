// The four phases of a SONew step on a CPU, for one band size (-DBAND). The mathematics: kernels/README.md.
//
// Memory: `Group` holds the addresses of the buffers that spec.py describes; COLUMN_*, SLOT_*, GRAFT_* and STORAGE_* are its
// enumerations, passed on the command line. A tile of the map is a *segment* of a piece, taken by one thread.
//
// No thread touches what another one writes: a segment reads the old momentum and stats of other elements only from the
// border records, which the prologue copied before any segment started.
//
// Inside a segment the work marches through blocks that stay in the first-level cache: accumulate the elements
// [first, first + n), factor the columns [first - LAG, first - LAG + n), apply the same ones. The lag is at least BAND, so every
// window is complete, and a whole number of vectors, so every stream stays aligned. What a later block needs is carried over.
//
// Every element goes through the same vector instructions whatever the block, the segment or the thread: ends that are no
// whole vector are staged in padded buffers and take the same, never inlined, functions. So results are equal bit by bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// Declared by hand so that any compiler calls the OpenMP runtime that torch has loaded: a second runtime would bring a
// second pool of threads, and idle pools spin against each other.
extern "C" void GOMP_parallel(void (*body)(void*), void* argument, unsigned threads, unsigned flags);

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif
constexpr int LAG = BAND == 0 ? 0 : (W < 8 ? 8 : W);
constexpr int MAX_BLOCK = 2048;
constexpr int LINE = 16;                      // floats of a cache line
constexpr int64_t PARALLEL_WORK = 1 << 15;  // elements; below this, waking the team costs more than it gains
constexpr float GRAFT_EPS = 1e-8f;
static_assert(BAND >= 0 && BAND <= 8 && LAG >= BAND);

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t Int __attribute__((vector_size(W * 4)));
typedef uint32_t Bits __attribute__((vector_size(W * 4)));
typedef uint16_t Half __attribute__((vector_size(W * 2)));
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define SINGLE __attribute__((noinline))  // one body in the machine code: one way to round

struct Group {  // the same fields in the same order: sonew/backends/cpu_torch.py
    const int64_t* rows;
    const int32_t* tiles;
    const int32_t* update_tiles;
    const float* hyper;
    float* corrections;
    float* edges;
    float* direction;
    double* partials;
    float* scales;
    int64_t tensors, tile_count, update_tile_count, elements, segment, block, prefetch, threads, graft, param_storage, grad_storage;
};

template <class V, class T> INLINE V load(const T* from) { V v; std::memcpy(&v, from, sizeof v); return v; }
template <class V, class T> INLINE void store(T* to, V v) { std::memcpy(to, &v, sizeof v); }
INLINE Vec spread(float x) { return x - Vec{}; }
INLINE Int linked(Int room, int offset) { return room > offset; }
INLINE Vec vector(const float* from) { return load<Vec>(from); }

template <int I, int END, class F> INLINE void unroll(F&& f) {
    if constexpr (I < END) {
        f(std::integral_constant<int, I>{});
        unroll<I + 1, END>(f);
    }
}

struct Numbers {  // one tensor's numbers of this step; undo1, undo2: reciprocals of the corrections
    Vec beta1, rest1, beta2, rest2, undo1, undo2, damp, eps, gamma;
};

// Rows of `stride` floats. In every row position p belongs to element first - 2 LAG + p.
struct Workspace {
    int64_t stride;
    float *momentum, *stats, *link, *z, *guide;  // corrected m; damped A (BAND + 1 rows); psi_q z (BAND rows); D y; graft's a
    int32_t* room;                               // elements left in the chain, itself included; only for masked chains
    float *grad, *old_momentum, *old_stats;      // staging of ends: position p belongs to element first + p
};
constexpr int CARRIED_ROWS = 2 * BAND + 5, STAGED_ROWS = BAND + 3;

struct Ahead {  // the next block's streams, asked for while this block computes
    const float *g, *m, *h;
    int64_t step;
    INLINE void touch(int64_t i) const {
        __builtin_prefetch(g + i, 0, 2);
        __builtin_prefetch(m + i, 0, 2);
        unroll<0, BAND + 1>([&](auto k) INLINE_LAMBDA { __builtin_prefetch(h + k * step + i, 0, 2); });
    }
};

INLINE Vec root(Vec x) {
    for (int lane = 0; lane < W; ++lane) x[lane] = std::sqrt(x[lane]);
    return x;
}

template <int GRAFT> INLINE Vec guide(Vec g, Vec mean, Vec square, Vec undo2) {
    const Vec eps = spread(GRAFT_EPS);
    if constexpr (GRAFT == GRAFT_ADAM) return mean / (root(square * undo2) + eps);
    if constexpr (GRAFT == GRAFT_ADAM_UNCORRECTED) return mean / (root(square) + eps);
    if constexpr (GRAFT == GRAFT_SGD) return g;
    if constexpr (GRAFT == GRAFT_RMSPROP) return g / (root(square * undo2) + eps);
    return Vec{};
}

// One row of the loop: m and H of n elements move on in place; corrected and damped copies go to the workspace.
template <int GRAFT, bool MASKED>
SINGLE void accumulate(const Numbers& numbers, const Workspace& w, int64_t at, int64_t n, const float* g, float* m, float* h, int64_t step) {
    const Numbers c = numbers;
    const Workspace to = w;
    for (int64_t i = 0; i < n; i += W) {
        const Vec g0 = vector(g + i);
        Vec mean = c.beta1 * vector(m + i) + c.rest1 * g0;
        store(m + i, mean);
        mean *= c.undo1;
        store(to.momentum + at + i, mean);
        const Int room = MASKED ? load<Int>(to.room + at + i) : Int{};
        Vec square;
        unroll<0, BAND + 1>([&](auto k) INLINE_LAMBDA {
            Vec row = c.beta2 * vector(h + k * step + i) + c.rest2 * (g0 * vector(g + i + k));
            if constexpr (MASKED) row = linked(room, k) ? row : Vec{};
            store(h + k * step + i, row);
            if constexpr (k == 0) square = row;
            store(to.stats + k * to.stride + at + i, k == 0 ? row * c.damp + c.eps : row * c.undo2);
        });
        store(to.guide + at + i, guide<GRAFT>(g0, mean, square, c.undo2));
    }
}

// psi, D and y of n columns: from the farthest neighbour to the nearest, the column itself last.
template <bool MASKED>
SINGLE void factor(const Numbers& numbers, const Workspace& workspace, int64_t n, Ahead ahead) {
    const Vec gamma = numbers.gamma, one = spread(1.0f);
    const Workspace w = workspace;
    for (int64_t i = LAG; i < LAG + n; i += W) {
        ahead.touch(i - LAG);
        const Int room = MASKED ? load<Int>(w.room + i) : Int{};
        Vec a[BAND + 1][BAND + 1], ratio[BAND + 1][BAND + 1], psi[BAND + 1], diagonal[BAND + 1];
        unroll<0, BAND + 1>([&](auto q) INLINE_LAMBDA {
            unroll<0, q + 1>([&](auto r) INLINE_LAMBDA {
                a[q][r] = vector(w.stats + (q - r) * w.stride + i + r);
                if constexpr (MASKED && q > 0) a[q][r] = linked(room, q) ? a[q][r] : (q == r ? one : Vec{});
            });
            diagonal[q] = a[q][q];
        });
        Int sound = Int{} - 1;
        unroll<0, BAND>([&](auto before) INLINE_LAMBDA {
            constexpr int q = BAND - before;
            Int above = a[q][q] > gamma * diagonal[q];
            if constexpr (MASKED) above |= ~linked(room, q);
            sound &= above;
            unroll<0, q>([&](auto r) INLINE_LAMBDA { ratio[q][r] = a[q][r] / a[q][q]; });
            unroll<0, q>([&](auto s) INLINE_LAMBDA {
                unroll<0, s + 1>([&](auto r) INLINE_LAMBDA { a[s][r] -= ratio[q][s] * a[q][r]; });
            });
        });
        sound &= a[0][0] > gamma * diagonal[0];
        const Vec inverse = sound ? a[0][0] : diagonal[0];
        const Vec d = diagonal[0] <= Vec{} ? Vec{} : one / inverse;
        Vec y = vector(w.momentum + i);
        unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA {
            psi[q] = ratio[q][0];
            unroll<1, q>([&](auto r) INLINE_LAMBDA { psi[q] -= ratio[q][r] * psi[r]; });
        });
        unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA {
            Vec neighbour = vector(w.momentum + i + q);
            psi[q] = sound ? psi[q] : Vec{};
            if constexpr (MASKED) {
                psi[q] = linked(room, q) ? psi[q] : Vec{};
                neighbour = linked(room, q) ? neighbour : Vec{};
            }
            y -= psi[q] * neighbour;
        });
        const Vec z = d * y;
        store(w.z + i, z);
        unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA {
            Vec link = psi[q] * z;
            if constexpr (MASKED) link = linked(room, q) ? link : Vec{};
            store(w.link + (q - 1) * w.stride + i, link);
        });
    }
}

// u of n elements from position `at` on.
SINGLE void apply(const Workspace& workspace, int64_t at, int64_t n, float* u) {
    const Workspace w = workspace;
    float end[W];
    for (int64_t i = 0; i < n; i += W) {
        Vec x = vector(w.z + at + i);
        unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA { x -= vector(w.link + (q - 1) * w.stride + at + i - q); });
        store(i + W <= n ? u + i : end, x);
    }
    std::memcpy(u + n / W * W, end, n % W * sizeof(float));
}

// In double, so that no finite value overflows.
void add_squares(double* sums, const float* u, const float* guide, int64_t n) {
    double own = 0.0, wanted = 0.0;
#pragma omp simd reduction(+ : own, wanted)
    for (int64_t i = 0; i < n; ++i) {
        own += double(u[i]) * u[i];
        wanted += double(guide[i]) * guide[i];
    }
    sums[0] += own, sums[1] += wanted;
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

struct Segment {  // elements [begin, end) of a piece; positions count from the piece's first element
    const int64_t* row;
    int64_t begin, end, length, start, total;
    const float *left, *right, *before, *after;  // border records of the segment and of the piece
    float *momentum, *stats;

    Segment(const Group& group, int64_t tile) : row(group.rows + group.tiles[tile] * int64_t(COLUMNS)) {
        length = row[COLUMN_LENGTH], start = row[COLUMN_START], total = row[COLUMN_TOTAL];
        const int64_t index = tile - row[COLUMN_FIRST_TILE], tiles = (length + group.segment - 1) / group.segment;
        begin = index * group.segment, end = std::min(begin + group.segment, length);
        before = group.edges + (row[COLUMN_FIRST_TILE] + group.tiles[tile]) * int64_t((BAND + 3) * 2 * BAND);
        after = before + tiles * (BAND + 3) * 2 * BAND;
        left = before + index * (BAND + 3) * 2 * BAND, right = left + (BAND + 3) * 2 * BAND;
        momentum = (float*)row[COLUMN_MOMENTUM], stats = (float*)row[COLUMN_STATS];
    }
    bool masked() const { return row[COLUMN_CHAIN] < total; }
    bool exists(int64_t i) const { return start + i >= 0 && start + i < total; }
    // Field 0 of an element that this segment does not own; field f follows at f * 2 * BAND.
    const float* record(int64_t i) const {
        if (i < 0) return before + BAND + i;
        if (i >= length) return after + BAND + i - length;
        return i < begin ? left + BAND + i - begin : right + BAND + i - end;
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

// Elements left in the chain of each of [first, first + n): 1 before the tensor, so that nothing links across its start.
void measure(const Segment& s, int32_t* room, int64_t first, int64_t n) {
    const int64_t chain = s.row[COLUMN_CHAIN], from = s.start + first;
    int64_t i = 0;
    for (; i < n && from + i < 0; ++i) room[i] = 1;
    int64_t end = ((from + i) / chain + 1) * chain;
    for (; i < n; end += chain) {
        const int64_t stop = std::min(end, s.total);
        for (const int64_t last = std::clamp(end - from, i, n); i < last; ++i) room[i] = int32_t(std::clamp<int64_t>(stop - from - i, 0, 1 << 30));
    }
}

// Gradient and old state of [first, first + n), n a whole number of vectors, gathered from the segment and its records.
void stage(const Group& group, const Segment& s, const Workspace& w, int64_t first, int64_t n) {
    std::fill_n(w.grad, n + BAND, 0.0f);
    const int64_t low = std::clamp<int64_t>(0, first, first + n + BAND), high = std::clamp(s.length, low, first + n + BAND);
    widen(group.grad_storage, w.grad + low - first, (const void*)s.row[COLUMN_GRAD], low, high - low);
    const int64_t begin = std::clamp(s.begin, first, first + n), end = std::clamp(s.end, begin, first + n);
    const int64_t near = std::max(s.begin - BAND, first), far = std::min(s.end + 2 * BAND, first + n + BAND);
    for (int field = 0; field < BAND + 2; ++field) {
        float* to = field == 0 ? w.old_momentum : w.old_stats + (field - 1) * w.stride;
        const float* from = field == 0 ? s.momentum : s.stats + (field - 1) * s.length;
        std::fill_n(to, n, 0.0f);
        std::memcpy(to + begin - first, from + begin, (end - begin) * sizeof(float));
        const auto halo = [&](int64_t i) { if (s.exists(i)) to[i - first] = s.record(i)[field * 2 * BAND]; };
        for (int64_t i = near; i < begin; ++i) halo(i);
        for (int64_t i = std::max(end, first); i < std::min(s.end + BAND, first + n); ++i) halo(i);
    }
    for (int64_t i = near; i < far; ++i) {
        const bool elsewhere = (i < 0 && i >= -BAND) || (i >= s.length && i < s.length + BAND);
        if (elsewhere && s.exists(i)) w.grad[i - first] = s.record(i)[(BAND + 2) * 2 * BAND];
    }
}

// After a staged accumulate: what links past the tensor's end is 0, and elements that do not exist, or that no window of this
// segment reads, become decoupled ones. Then the segment's own state goes home.
void settle(const Segment& s, const Workspace& w, int64_t at, int64_t first, int64_t n) {
    const int64_t past = s.total - s.start;
    for (int k = 1; k <= BAND; ++k) {
        for (int64_t i = std::max(past - k, first); i < std::min(past, first + n); ++i) {
            w.stats[k * w.stride + at + i - first] = w.old_stats[k * w.stride + i - first] = 0.0f;
        }
    }
    const int64_t low = std::max(s.begin - BAND, -s.start), high = std::min(s.end + BAND, past);
    for (int64_t i = first; i < first + n; ++i) {
        if (i >= low && i < high) continue;
        const int64_t p = at + i - first;
        w.momentum[p] = 0.0f;
        for (int k = 0; k <= BAND; ++k) w.stats[k * w.stride + p] = k == 0 ? 1.0f : 0.0f;
    }
    const int64_t begin = std::clamp(s.begin, first, first + n), end = std::clamp(s.end, begin, first + n);
    for (int k = -1; k <= BAND; ++k) {
        float* home = k < 0 ? s.momentum : s.stats + k * s.length;
        const float* from = k < 0 ? w.old_momentum : w.old_stats + k * w.stride;
        std::memcpy(home + begin, from + begin - first, (end - begin) * sizeof(float));
    }
}

template <int GRAFT, bool MASKED> void march(const Group& group, const Segment& s, const Workspace& w, const Numbers& numbers, double* sums) {
    float* u = group.direction + s.row[COLUMN_OFFSET];
    const auto staged = [&](int64_t at, int64_t first, int64_t n) {
        if constexpr (MASKED) measure(s, w.room + at, first, n);
        stage(group, s, w, first, n);
        accumulate<GRAFT, MASKED>(numbers, w, at, n, w.grad, w.old_momentum, w.old_stats, w.stride);
        settle(s, w, at, first, n);
    };
    if (LAG > 0) staged(LAG, s.begin - LAG, LAG);
    int64_t n = 0;
    for (int64_t first = s.begin; first - LAG < s.end; first += n) {
        if (first + group.block <= s.end && first + group.block + BAND <= s.length) {
            n = group.block;
            const float* g = (const float*)s.row[COLUMN_GRAD] + first;
            if (group.grad_storage != STORAGE_FLOAT32) {
                widen(group.grad_storage, w.grad, (const void*)s.row[COLUMN_GRAD], first, n + BAND);
                g = w.grad;
            }
            if constexpr (MASKED) measure(s, w.room + 2 * LAG, first, n);
            accumulate<GRAFT, MASKED>(numbers, w, 2 * LAG, n, g, s.momentum + first, s.stats + first, s.length);
        } else {
            n = std::min(group.block, (s.end + LAG - first + W - 1) / W * W);
            staged(2 * LAG, first, n);
        }
        const float* ahead = (const float*)s.row[COLUMN_GRAD] + first + n;
        factor<MASKED>(numbers, w, n, {ahead, s.momentum + first + n, s.stats + first + n, s.length});
        if (s.start + first == 0) {  // the columns before the tensor
            for (int row = 0; row < BAND; ++row) std::fill_n(w.link + row * w.stride + LAG, LAG, 0.0f);
        }
        const int64_t low = std::max(first - LAG, s.begin), high = std::min(first - LAG + n, s.end);
        const int64_t at = 2 * LAG + low - first;
        apply(w, at, high - low, u + low);
        add_squares(sums, u + low, w.guide + at, high - low);
        for (int row = 0; row < CARRIED_ROWS; ++row) std::memmove(w.momentum + row * w.stride, w.momentum + row * w.stride + n, 2 * LAG * sizeof(float));
    }
}

template <int GRAFT> void march(const Group& group, const Segment& s, const Workspace& w, const Numbers& numbers, double* sums) {
    if (s.masked()) return march<GRAFT, true>(group, s, w, numbers, sums);
    march<GRAFT, false>(group, s, w, numbers, sums);
}

using March = void (*)(const Group&, const Segment&, const Workspace&, const Numbers&, double*);
constexpr March MARCHES[GRAFTS] = {march<0>, march<1>, march<2>, march<3>, march<4>};

void direction(const Group& group, int64_t tile) {
    double* sums = group.partials + 2 * tile;
    sums[0] = sums[1] = 0.0;
    const Segment s(group, tile);
    if (s.row[COLUMN_ACTIVE] == 0 || s.length == 0) return;
    const float* hyper = group.hyper;
    const float undo1 = 1.0f / group.corrections[2 * group.tiles[tile]], undo2 = 1.0f / group.corrections[2 * group.tiles[tile] + 1];
    const Numbers numbers = {
        spread(hyper[SLOT_BETA1]), spread(hyper[SLOT_ONE_MINUS_BETA1]), spread(hyper[SLOT_BETA2]), spread(hyper[SLOT_ONE_MINUS_BETA2]),
        spread(undo1), spread(undo2), spread(undo2 * (1.0f + hyper[SLOT_EPS_REL])), spread(hyper[SLOT_EPS]), spread(hyper[SLOT_GAMMA]),
    };
    alignas(64) float rows[(CARRIED_ROWS + STAGED_ROWS) * (MAX_BLOCK + 2 * LAG + 2 * LINE)];
    Workspace w;
    w.stride = group.block + 2 * LAG + 2 * LINE;
    float* next = rows;
    const auto take = [&](int count) { return std::exchange(next, next + count * w.stride); };
    w.momentum = take(1), w.stats = take(BAND + 1), w.link = take(BAND), w.z = take(1), w.guide = take(1);
    w.room = (int32_t*)take(1);
    w.grad = take(1), w.old_momentum = take(1), w.old_stats = take(BAND + 1);
    MARCHES[group.graft](group, s, w, numbers, sums);
}

// Tiles are dealt out one by one: bits do not depend on who takes which. The team's size stays torch's own, because the
// runtime ends and remakes threads whenever it changes.
template <class Body> void for_tiles(const Group& group, int64_t tiles, int64_t work_items, Body body) {
    struct Job { Body body; int64_t tiles, next; } job{body, tiles, 0};
    const auto work = [](void* argument) {
        auto& job = *(Job*)argument;
        for (int64_t tile; (tile = __atomic_fetch_add(&job.next, 1, __ATOMIC_RELAXED)) < job.tiles;) job.body(tile);
    };
    if (group.threads < 2 || tiles < 2 || work_items < PARALLEL_WORK) return work(&job);
    GOMP_parallel(work, &job, unsigned(group.threads), 0);
}

// Copies the old state around a segment's left border, and what of it lies past the first border, into the records.
void keep_border(const Group& group, int64_t tile) {
    const Segment s(group, tile);
    if (s.row[COLUMN_ACTIVE] == 0 || s.begin == 0) return;
    float* record = const_cast<float*>(s.left);
    const int64_t low = s.begin - BAND, n = std::min(s.begin + BAND, s.length) - low;
    for (int field = 0; field < BAND + 2; ++field) {
        const float* from = field == 0 ? s.momentum : s.stats + (field - 1) * s.length;
        std::memcpy(record + field * 2 * BAND, from + low, n * sizeof(float));
    }
}

template <int STORAGE> void update(const Group& group, int64_t tile) {
    using S = Stored<STORAGE>;
    const int64_t tensor = group.update_tiles[tile], *row = group.rows + tensor * int64_t(COLUMNS);
    if (row[COLUMN_ACTIVE] == 0) return;
    const int64_t begin = (tile - row[COLUMN_FIRST_UPDATE_TILE]) * group.segment, n = std::min(group.segment, row[COLUMN_LENGTH] - begin);
    auto* p = (typename S::Type*)row[COLUMN_PARAM] + begin;
    const float* u = group.direction + row[COLUMN_OFFSET] + begin;
    const Vec scale = spread(group.scales[tensor]), lr = spread(group.hyper[SLOT_LR]), decay = spread(group.hyper[SLOT_WEIGHT_DECAY]);
    typename S::Type end[W] = {};
    float last[W] = {};
    const int64_t whole = n / W * W;
    std::memcpy(end, p + whole, (n - whole) * sizeof *end);
    std::memcpy(last, u + whole, (n - whole) * sizeof *last);
    for (int64_t i = 0; i < n; i += W) {
        auto* at = i < whole ? p + i : end;
        const Vec x = S::get(at), step = vector(i < whole ? u + i : last) * scale * scale;
        S::put(at, x - lr * (step + decay * x));
    }
    std::memcpy(p + whole, end, (n - whole) * sizeof *end);
}

#pragma GCC visibility push(default)
extern "C" {

void sonew_prologue(const Group* group) {
    for (int64_t tensor = 0; tensor < group->tensors; ++tensor) {
        const int64_t* row = group->rows + tensor * int64_t(COLUMNS);
        if (row[COLUMN_ACTIVE] == 0) continue;
        const double count = ++*(int32_t*)row[COLUMN_COUNT];
        group->corrections[2 * tensor] = float(-std::expm1(count * group->hyper[SLOT_LOG_BETA1]));
        group->corrections[2 * tensor + 1] = float(-std::expm1(count * group->hyper[SLOT_LOG_BETA2]));
    }
    if (BAND > 0) for_tiles(*group, group->tile_count, group->tile_count * 2 * BAND * (BAND + 2), [=](int64_t tile) { keep_border(*group, tile); });
}

void sonew_direction(const Group* group) {
    for_tiles(*group, group->tile_count, group->elements, [=](int64_t tile) { direction(*group, tile); });
}

void sonew_norms(const Group* group) {
    for (int64_t tensor = 0, tile = 0; tensor < group->tensors; ++tensor) {
        double own = 0.0, wanted = 0.0;
        for (; tile < group->tile_count && group->tiles[tile] == tensor; ++tile) {
            own += group->partials[2 * tile];
            wanted += group->partials[2 * tile + 1];
        }
        group->scales[tensor] = group->graft == GRAFT_NONE ? 1.0f : own == 0.0 ? 0.0f : float(std::sqrt(std::sqrt(wanted / own)));
    }
}

// Backwards: the direction written last is still in the cache.
void sonew_update(const Group* group) {
    const int64_t last = group->update_tile_count - 1;
    for_tiles(*group, last + 1, group->elements, [=](int64_t tile) {
        if (group->param_storage == STORAGE_FLOAT32) return update<STORAGE_FLOAT32>(*group, last - tile);
        if (group->param_storage == STORAGE_BFLOAT16) return update<STORAGE_BFLOAT16>(*group, last - tile);
        update<STORAGE_FLOAT16>(*group, last - tile);
    });
}

}  // extern "C"
#pragma GCC visibility pop
