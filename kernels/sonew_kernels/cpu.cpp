// The four phases of a SONew step on a CPU, for one band size (-DBAND). The mathematics: kernels/README.md.
//
// Memory: `Group` holds the addresses of the buffers that spec.py describes; COLUMN_*, SLOT_*, GRAFT_* and STORAGE_* are its
// enumerations, passed on the command line. A tile of the map is a *segment* of a piece, taken by one thread.
//
// No thread touches what another one writes: a segment reads the old momentum and stats of other elements only from the
// border records, which the prologue copied before any segment started. Gradients are read-only and read in place.
//
// Inside a segment the work marches through blocks that stay in the cache: accumulate the elements [first, first + n), then factor
// and apply the columns [first - LAG, first - LAG + n). What a later block needs is carried over. Ends that are no whole block
// are staged in padded buffers and take the same loops as everything else.
#include <algorithm>
#include <utility>

#include "cpu_block.h"

// Declared by hand so that any compiler calls the OpenMP runtime that torch has loaded: a second runtime would bring a
// second pool of threads, and idle pools spin against each other.
extern "C" void GOMP_parallel(void (*body)(void*), void* argument, unsigned threads, unsigned flags);

constexpr int MAX_BLOCK = 2048;
constexpr int LINE = 16;                       // floats of a cache line
constexpr int RECORD = (BAND + 3) * 2 * BAND;  // floats of a border record
constexpr int64_t PARALLEL_WORK = 1 << 15;     // elements; below this, waking the team costs more than it gains

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
    int64_t tensors, tile_count, update_tile_count, elements, segment, block, threads, graft, param_storage, grad_storage;
};

struct Segment {  // elements [begin, end) of a piece; positions count from the piece's first element
    const int64_t* row;
    int64_t begin, end, length, start, total;
    float *before, *left, *right, *after;  // border records of the segment and of the piece
    float *momentum, *stats;

    Segment(const Group& group, int64_t tile) : row(group.rows + group.tiles[tile] * int64_t(COLUMNS)) {
        length = row[COLUMN_LENGTH], start = row[COLUMN_START], total = row[COLUMN_TOTAL];
        const int64_t index = tile - row[COLUMN_FIRST_TILE], tiles = (length + group.segment - 1) / group.segment;
        begin = index * group.segment, end = std::min(begin + group.segment, length);
        before = group.edges + (row[COLUMN_FIRST_TILE] + group.tiles[tile]) * RECORD, after = before + tiles * RECORD;
        left = before + index * RECORD, right = left + RECORD;
        momentum = (float*)row[COLUMN_MOMENTUM], stats = (float*)row[COLUMN_STATS];
    }
    bool exists(int64_t i) const { return start + i >= 0 && start + i < total; }
    // Field 0 of an element that this segment does not own; field f follows at f * 2 * BAND.
    const float* record(int64_t i) const {
        if (i < 0) return before + BAND + i;
        if (i >= length) return after + BAND + i - length;
        return i < begin ? left + BAND + i - begin : right + BAND + i - end;
    }
};

// Elements left in the chain of each of [first, first + n): 1 before the tensor, so that nothing links across its start.
void measure(const Segment& s, int32_t* room, int64_t first, int64_t n) {
    const int64_t chain = s.row[COLUMN_CHAIN], from = s.start + first;
    int64_t i = 0;
    for (; i < n && from + i < 0; ++i) room[i] = 1;
    int64_t end = ((from + i) / chain + 1) * chain;
    for (; i < n; end += chain) {
        const int64_t stop = std::min(end, s.total);
        for (const int64_t last = std::clamp(end - from, i, n); i < last; ++i) {
            room[i] = int32_t(std::clamp<int64_t>(stop - from - i, 0, 1 << 30));
        }
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
// segment reads, become decoupled ones (so columns before the tensor get psi = 0 and link to nothing). Then the segment's own
// state goes home.
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
        w.momentum[p] = w.floor[p] = 0.0f;
        for (int k = 0; k <= BAND; ++k) w.stats[k * w.stride + p] = k == 0 ? 1.0f : 0.0f;
    }
    const int64_t begin = std::clamp(s.begin, first, first + n), end = std::clamp(s.end, begin, first + n);
    for (int k = -1; k <= BAND; ++k) {
        float* home = k < 0 ? s.momentum : s.stats + k * s.length;
        const float* from = k < 0 ? w.old_momentum : w.old_stats + k * w.stride;
        std::memcpy(home + begin, from + begin - first, (end - begin) * sizeof(float));
    }
}

using Accumulate = void (*)(const Numbers&, const Workspace&, int64_t, int64_t, const float*, float*, float*, int64_t);
constexpr Accumulate ACCUMULATE[2][GRAFTS] = {
    {accumulate<0, false>, accumulate<1, false>, accumulate<2, false>, accumulate<3, false>, accumulate<4, false>},
    {accumulate<0, true>, accumulate<1, true>, accumulate<2, true>, accumulate<3, true>, accumulate<4, true>},
};

void march(const Group& group, const Segment& s, const Workspace& w, const Numbers& numbers, double* sums) {
    const bool masked = s.row[COLUMN_CHAIN] < s.total;
    const Accumulate accumulate = ACCUMULATE[masked][group.graft];
    float* u = group.direction + s.row[COLUMN_OFFSET];
    const auto* grad = (const void*)s.row[COLUMN_GRAD];
    const auto staged = [&](int64_t at, int64_t first, int64_t n) {
        if (masked) measure(s, w.room + at, first, n);
        stage(group, s, w, first, n);
        accumulate(numbers, w, at, n, w.grad, w.old_momentum, w.old_stats, w.stride);
        settle(s, w, at, first, n);
    };
    if (LAG > 0) staged(LAG, s.begin - LAG, LAG);
    int64_t n = 0;
    for (int64_t first = s.begin; first - LAG < s.end; first += n) {
        if (first + group.block <= s.end && first + group.block + BAND <= s.length) {
            n = group.block;
            const bool wide = group.grad_storage == STORAGE_FLOAT32;
            if (!wide) widen(group.grad_storage, w.grad, grad, first, n + BAND);
            if (masked) measure(s, w.room + 2 * LAG, first, n);
            accumulate(numbers, w, 2 * LAG, n, wide ? (const float*)grad + first : w.grad, s.momentum + first, s.stats + first, s.length);
        } else {
            n = std::min(group.block, (s.end + LAG - first + W - 1) / W * W);
            staged(2 * LAG, first, n);
        }
        masked ? factor<true>(numbers, w, n) : factor<false>(numbers, w, n);
        const int64_t low = std::max(first - LAG, s.begin), high = std::min(first - LAG + n, s.end), at = 2 * LAG + low - first;
        apply(w, at, high - low, u + low);
        add_squares(sums, u + low, w.guide + at, high - low);
        for (int row = 0; row < CARRIED_ROWS; ++row) {
            float* start = w.momentum + row * w.stride;
            std::memmove(start, start + n, 2 * LAG * sizeof(float));
        }
    }
}

void direction(const Group& group, int64_t tile) {
    double* sums = group.partials + 2 * tile;
    sums[0] = sums[1] = 0.0;
    const Segment s(group, tile);
    if (s.row[COLUMN_ACTIVE] == 0 || s.length == 0) return;
    const float* hyper = group.hyper;
    const float correction1 = group.corrections[2 * group.tiles[tile]], correction2 = group.corrections[2 * group.tiles[tile] + 1];
    const Numbers numbers = {
        spread(hyper[SLOT_BETA1]), spread(hyper[SLOT_ONE_MINUS_BETA1]), spread(hyper[SLOT_BETA2]), spread(hyper[SLOT_ONE_MINUS_BETA2]),
        spread(1.0f / correction1), spread(1.0f / correction2), spread(correction2), spread(1.0f + hyper[SLOT_EPS_REL]),
        spread(correction2 * hyper[SLOT_EPS]), spread(hyper[SLOT_GAMMA]),
    };
    alignas(64) float rows[(CARRIED_ROWS + STAGED_ROWS) * (MAX_BLOCK + 2 * LAG + 2 * LINE)];
    Workspace w;
    w.stride = group.block + 2 * LAG + 2 * LINE;
    float* next = rows;
    const auto take = [&](int count) { return std::exchange(next, next + count * w.stride); };
    w.momentum = take(1), w.stats = take(BAND + 1), w.floor = take(1), w.link = take(BAND), w.z = take(1), w.guide = take(1);
    w.room = (int32_t*)take(1);
    w.grad = take(1), w.old_momentum = take(1), w.old_stats = take(BAND + 1);
    march(group, s, w, numbers, sums);
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
    const int64_t low = s.begin - BAND, n = std::min(s.begin + BAND, s.length) - low;
    for (int field = 0; field < BAND + 2; ++field) {
        const float* from = field == 0 ? s.momentum : s.stats + (field - 1) * s.length;
        std::memcpy(s.left + field * 2 * BAND, from + low, n * sizeof(float));
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
    const int64_t copied = group->tile_count * 2 * BAND * (BAND + 2);
    if (copied > 0) for_tiles(*group, group->tile_count, copied, [=](int64_t tile) { keep_border(*group, tile); });
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
        const double scale = own == 0.0 ? 0.0 : std::sqrt(std::sqrt(wanted / own)) + (own - own);  // NaN where |u| is not finite
        group->scales[tensor] = group->graft == GRAFT_NONE ? 1.0f : float(scale);
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
