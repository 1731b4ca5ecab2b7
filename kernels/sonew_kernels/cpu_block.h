// The four loops over a block: accumulate, factor, apply, squares. They read and write the workspace, which stays in the cache.
//
// Each loop is one body in the machine code (SINGLE) and knows nothing of segments or threads, so an element is rounded in
// the same way wherever it lies.
#pragma once

#include "cpu_vector.h"

#define SINGLE __attribute__((noinline))

// Columns lag behind elements: by at least BAND, so that windows are complete, and by whole vectors, so that streams stay aligned.
constexpr int LAG = BAND == 0 ? 0 : (BAND + W - 1) / W * W < 8 ? 8 : (BAND + W - 1) / W * W;
constexpr float GRAFT_EPS = 1e-8f;
static_assert(BAND >= 0 && LAG >= BAND && LAG % W == 0);

// One tensor's numbers of this step. The factors see A times correction2, so that off-diagonals are the stats as they stand: the
// ratios psi do not change, and D takes correction2 in its numerator.
struct Numbers {
    Vec beta1, rest1, beta2, rest2, undo1, undo2, correction2, damp, eps, gamma, gain;
};

// Rows of `stride` floats; in the carried rows position p belongs to element first - 2 LAG + p, in the staged ones to first + p.
struct Workspace {
    int64_t stride;
    // carried from block to block
    float* momentum;  // corrected m
    float* stats;     // A correction2, BAND + 1 rows
    float* floor;     // gamma A correction2: a pivot must be above; once the column is factored, 1 if it fell back, else 0
    float* link;      // psi_q z, BAND rows
    float* z;         // D y
    float* guide;     // the graft's direction
    int32_t* room;    // elements left in the chain, itself included; only where chains end inside the tensor
    // staging of ends and of narrow types
    float *grad, *old_momentum, *old_stats;

    float* old(int field) const { return field == 0 ? old_momentum : old_stats + (field - 1) * stride; }
};
constexpr int CARRIED_ROWS = 2 * BAND + 6, STAGED_ROWS = BAND + 3;

INLINE Int linked(Int room, int offset) { return room > offset; }

template <int GRAFT> INLINE Vec guide(Vec g, Vec mean, Vec square, Vec undo2) {
    const Vec eps = spread(GRAFT_EPS);
    if constexpr (GRAFT == GRAFT_ADAM) return mean / (root(square * undo2) + eps);
    if constexpr (GRAFT == GRAFT_ADAM_UNCORRECTED) return mean / (root(square) + eps);
    if constexpr (GRAFT == GRAFT_SGD) return g;
    if constexpr (GRAFT == GRAFT_RMSPROP) return g / (root(square * undo2) + eps);
    return Vec{};
}

// m and H of n elements move on in place; what the other loops need goes to position `at` of the workspace.
template <int GRAFT, bool MASKED>
SINGLE void accumulate(
    const Numbers& numbers, const Workspace& w, int64_t at, int64_t n, const float* g, float* m, float* h, int64_t step) {
    const Numbers c = numbers;
    const Workspace to = w;
    for (int64_t i = 0; i < n; i += W) {
        const Vec g0 = c.gain * vector(g + i);
        Vec mean = c.beta1 * vector(m + i) + c.rest1 * g0;
        store(m + i, mean);
        mean *= c.undo1;
        store(to.momentum + at + i, mean);
        const Int room = MASKED ? load<Int>(to.room + at + i) : Int{};
        Vec square;
        unroll<0, BAND + 1>([&](auto k) INLINE_LAMBDA {
            Vec row = c.beta2 * vector(h + k * step + i) + c.rest2 * (g0 * (c.gain * vector(g + i + k)));
            if constexpr (MASKED) row = linked(room, k) ? row : Vec{};
            store(h + k * step + i, row);
            if constexpr (k == 0) {
                square = row;
                row = row * c.damp + c.eps;
                store(to.floor + at + i, c.gamma * row);
            }
            store(to.stats + k * to.stride + at + i, row);
        });
        store(to.guide + at + i, guide<GRAFT>(g0, mean, square, c.undo2));
    }
}

// z and the links of the columns i..i+W-1 from psi, the last pivot and whether all pivots were above their floors.
template <bool MASKED>
INLINE void finish(const Numbers& numbers, const Workspace& w, int64_t i, Int room, Vec* psi, Vec diagonal, Vec pivot, Int sound) {
    const Vec d = diagonal <= Vec{} ? Vec{} : numbers.correction2 / (sound ? pivot : diagonal);
    Vec y = vector(w.momentum + i);
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
    store(w.floor + i, sound ? Vec{} : spread(1.0f));
    unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA {
        Vec link = psi[q] * z;
        if constexpr (MASKED) link = linked(room, q) ? link : Vec{};
        store(w.link + (q - 1) * w.stride + i, link);
    });
}

// Factor n columns: elimination of the window from the farthest neighbour to the nearest, the column itself last. Row by row, so that
// the row at work stays in registers however large the window is.
template <bool MASKED>
SINGLE void factor(const Numbers& given, const Workspace& workspace, int64_t n) {
    const Vec one = spread(1.0f);
    const Numbers numbers = given;
    const Workspace w = workspace;
    for (int64_t i = LAG; i < LAG + n; i += W) {
        const Int room = MASKED ? load<Int>(w.room + i) : Int{};
        Vec a[BAND + 1][BAND + 1], ratio[BAND + 1][BAND + 1], psi[BAND + 1];
        const Vec diagonal = vector(w.stats + i);
        Int sound = Int{} - 1;
        unroll<0, BAND + 1>([&](auto before) INLINE_LAMBDA {
            constexpr int s = BAND - before;
            unroll<0, s + 1>([&](auto r) INLINE_LAMBDA {
                a[s][r] = vector(w.stats + (s - r) * w.stride + i + r);
                if constexpr (MASKED && s > 0) a[s][r] = linked(room, s) ? a[s][r] : (s == r ? one : Vec{});
            });
            unroll<0, before>([&](auto done) INLINE_LAMBDA {
                constexpr int q = BAND - done;
                unroll<0, s + 1>([&](auto r) INLINE_LAMBDA { a[s][r] -= ratio[q][s] * a[q][r]; });
            });
            Int above = a[s][s] > vector(w.floor + i + s);
            if constexpr (MASKED && s > 0) above |= ~linked(room, s);
            sound &= above;
            const Vec inverse = one / a[s][s];  // one division per row; a single quotient is formed as such
            unroll<0, s>([&](auto r) INLINE_LAMBDA { ratio[s][r] = s == 1 ? a[s][r] / a[s][s] : a[s][r] * inverse; });
        });
        unroll<1, BAND + 1>([&](auto q) INLINE_LAMBDA {
            psi[q] = ratio[q][0];
            unroll<1, q>([&](auto r) INLINE_LAMBDA { psi[q] -= ratio[q][r] * psi[r]; });
        });
        finish<MASKED>(numbers, w, i, room, psi, diagonal, a[0][0], sound);
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
