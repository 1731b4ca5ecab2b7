// The four phases of a SONew step on a CPU, for one band size (-DBAND). The mathematics: kernels/README.md.
//
// Memory: `Group` holds the addresses of the buffers that spec.py describes; COLUMN_*, SLOT_*, GRAFT_* and STORAGE_* are its
// enumerations, NOISE_* the constants of sonew/rounding.py, all passed on the command line. A tile of the map is a *segment* of
// a piece, taken by one thread.
//
// No thread touches what another one writes: a segment reads the old momentum and stats of other elements only from the
// border records, which the prologue copied before any segment started. Gradients are read-only and read in place.
//
// Inside a segment the work marches through blocks that stay in the cache: accumulate the elements [first, first + n), then factor
// and apply the columns [first - LAG, first - LAG + n). What a later block needs is carried over. Ends that are no whole block, and
// all blocks of a bfloat16 state, are staged in padded float32 buffers and take the same loops as everything else.
#include <algorithm>
#include <numeric>

#include "cpu_block.h"

// Declared by hand so that any compiler calls the OpenMP runtime that torch has loaded: a second runtime would bring a
// second pool of threads, and idle pools spin against each other.
extern "C" void GOMP_parallel(void (*body)(void*), void* argument, unsigned threads, unsigned flags);

constexpr int MAX_BLOCK = 2048;
constexpr int LINE = 16;                       // floats of a cache line
constexpr int ROWS = BAND + 2;                 // of state: momentum, stats 0..BAND
constexpr int RECORD = ROWS * 2 * BAND;        // elements of a border record
constexpr int64_t PARALLEL_WORK = 1 << 15;     // elements; below this, waking the team costs more than it gains

struct Group {  // the same fields in the same order: sonew/backends/cpu_torch.py
    const int64_t* rows;
    const int32_t* tiles;
    const int32_t* update_tiles;
    const float* hyper;
    float* corrections;
    void* edges;
    const float* outer;
    void* direction;
    double* partials;
    float* scales;
    int64_t tensors, tile_count, update_tile_count, elements, segment, block, threads, graft;
    int64_t param_storage, grad_storage, state_storage, direction_storage, stochastic, counted;
};

// Element `at` of an array, and the bytes of one.
int64_t width(int64_t storage) { return storage == STORAGE_FLOAT32 ? sizeof(float) : sizeof(uint16_t); }
char* place(int64_t storage, const void* base, int64_t at) { return (char*)base + at * width(storage); }

struct Segment {  // elements [begin, end) of a piece; positions count from the piece's first element
    const int64_t* row;
    int64_t tensor, begin, end, length, start, total;
    int64_t left, right, after;  // where the border records of the segment and of the piece's end start, in elements
    const void* state[ROWS];

    Segment(const Group& group, int64_t tile) : row(group.rows + group.tiles[tile] * int64_t(COLUMNS)), tensor(group.tiles[tile]) {
        length = row[COLUMN_LENGTH], start = row[COLUMN_START], total = row[COLUMN_TOTAL];
        const int64_t index = tile - row[COLUMN_FIRST_TILE], tiles = (length + group.segment - 1) / group.segment;
        begin = index * group.segment, end = std::min(begin + group.segment, length);
        left = (tile + tensor) * RECORD, right = left + RECORD, after = left + (tiles - index) * RECORD;
        state[0] = (const void*)row[COLUMN_MOMENTUM];
        for (int k = 0; k <= BAND; ++k) state[k + 1] = place(group.state_storage, (const void*)row[COLUMN_STATS], k * length);
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

// Gradient and old state of [first, first + n), n a whole number of vectors, gathered from the segment and its records. Elements
// that do not exist, or that no window of this segment reads, are 0.
void stage(const Group& group, const Segment& s, const Workspace& w, int64_t first, int64_t n) {
    const int64_t stop = first + n, reach = stop + BAND, past = s.total - s.start;
    const auto grad = [&](const float* from, int64_t origin, int64_t low, int64_t high) {
        low = std::max({low, first, -s.start}), high = std::min({high, reach, past});
        if (low < high) std::memcpy(w.grad + low - first, from + low - origin, (high - low) * sizeof(float));
    };
    std::fill_n(w.grad, n + BAND, 0.0f);
    const int64_t low = std::clamp<int64_t>(0, first, reach), high = std::clamp(s.length, low, reach);
    widen(group.grad_storage, w.grad + low - first, (const void*)s.row[COLUMN_GRAD], low, high - low);
    const float* outer = group.outer + s.tensor * 2 * BAND;
    grad(outer, -BAND, -BAND, 0);
    grad(outer + BAND, s.length, s.length, s.length + BAND);

    const int64_t begin = std::clamp(s.begin, first, stop), end = std::clamp(s.end, begin, stop);
    const int64_t near = std::clamp(std::max(s.begin - BAND, -s.start), first, begin);
    const int64_t far = std::clamp(std::min(s.end + BAND, past), end, stop), inner = std::clamp(s.length, end, far);
    for (int field = 0; field < ROWS; ++field) {
        float* to = w.old(field);
        const auto halo = [&](int64_t record, int64_t border, int64_t low, int64_t high) {
            const int64_t from = record + field * 2 * BAND + BAND + low - border;
            widen(group.state_storage, to + low - first, group.edges, from, high - low);
        };
        std::fill_n(to, near - first, 0.0f);
        halo(s.left, s.begin, near, begin);
        widen(group.state_storage, to + begin - first, s.state[field], begin, end - begin);
        halo(s.right, s.end, end, inner);
        halo(s.after, s.length, inner, far);
        std::fill_n(to + far - first, stop - far, 0.0f);
    }
}

// The segment's own state of [first, first + n) goes home from the staging rows.
void send_home(const Group& group, const Segment& s, const Workspace& w, int64_t first, int64_t n) {
    const int64_t begin = std::clamp(s.begin, first, first + n), count = std::clamp(s.end, begin, first + n) - begin;
    const float* bits = w.grad;  // the gradient has done its work: its place serves the noise
    for (int field = 0; field < ROWS; ++field) {
        const float* from = w.old(field) + begin - first;
        void* home = place(group.state_storage, s.state[field], begin);
        if (group.state_storage == STORAGE_FLOAT32) {
            std::memcpy(home, from, count * sizeof(float));
            continue;
        }
        if (field % 2 == 0) {
            const Noise noise(s.row[COLUMN_SEED], *(const int32_t*)s.row[COLUMN_COUNT], field);
            for (int64_t i = 0; i < count; i += W) store(w.grad + i, noise(s.start + begin + i));
        }
        const int shift = field % 2 * 16;
        narrow((uint16_t*)home, from, count, [=](uint16_t* to, Vec x, int64_t i) INLINE_LAMBDA {
            Stored<STORAGE_BFLOAT16>::put(to, x, load<Bits>(bits + i) >> shift & 0xffff);
        });
    }
}

// After a staged accumulate: what links past the tensor's end is 0, and elements that do not exist, or that no window of this
// segment reads, become decoupled ones, so that columns before the tensor get psi = 0 and link to nothing.
void settle(const Segment& s, const Workspace& w, int64_t at, int64_t first, int64_t n) {
    const int64_t past = s.total - s.start, stop = first + n;
    for (int k = 1; k <= BAND; ++k) {
        for (int64_t i = std::max(past - k, first); i < std::min(past, stop); ++i) {
            w.stats[k * w.stride + at + i - first] = w.old_stats[k * w.stride + i - first] = 0.0f;
        }
    }
    const int64_t low = std::clamp(std::max(s.begin - BAND, -s.start), first, stop);
    const int64_t high = std::clamp(std::min(s.end + BAND, past), low, stop);
    const auto decouple = [&](int64_t from, int64_t to) {
        for (float* row : {w.momentum, w.floor}) std::fill_n(row + at + from - first, to - from, 0.0f);
        for (int k = 0; k <= BAND; ++k) std::fill_n(w.stats + k * w.stride + at + from - first, to - from, k == 0 ? 1.0f : 0.0f);
    };
    decouple(first, low);
    decouple(high, stop);
}

using Accumulate = void (*)(const Numbers&, const Workspace&, int64_t, int64_t, const float*, float*, float*, int64_t);
constexpr Accumulate ACCUMULATE[2][GRAFTS] = {
    {accumulate<0, false>, accumulate<1, false>, accumulate<2, false>, accumulate<3, false>, accumulate<4, false>},
    {accumulate<0, true>, accumulate<1, true>, accumulate<2, true>, accumulate<3, true>, accumulate<4, true>},
};

INLINE void nearest(uint16_t* to, Vec x, int64_t) { Stored<STORAGE_BFLOAT16>::put(to, x); }

void march(const Group& group, const Segment& s, const Workspace& w, const Numbers& numbers, double* sums, double* fallen) {
    const bool masked = s.row[COLUMN_CHAIN] < s.total, in_place = group.state_storage == STORAGE_FLOAT32;
    const Accumulate accumulate = ACCUMULATE[masked][group.graft];
    const auto* grad = (const void*)s.row[COLUMN_GRAD];
    const auto staged = [&](int64_t at, int64_t first, int64_t n) {
        stage(group, s, w, first, n);
        accumulate(numbers, w, at, n, w.grad, w.old_momentum, w.old_stats, w.stride);
        settle(s, w, at, first, n);
        send_home(group, s, w, first, n);
    };
    const auto inside = [&](int64_t first, int64_t n) {
        const float* g = (const float*)grad + first;
        if (group.grad_storage != STORAGE_FLOAT32) widen(group.grad_storage, w.grad, grad, first, n + BAND), g = w.grad;
        if (in_place) return accumulate(numbers, w, 2 * LAG, n, g, (float*)s.state[0] + first, (float*)s.state[1] + first, s.length);
        for (int field = 0; field < ROWS; ++field) widen(group.state_storage, w.old(field), s.state[field], first, n);
        accumulate(numbers, w, 2 * LAG, n, g, w.old_momentum, w.old_stats, w.stride);
        send_home(group, s, w, first, n);
    };
    if (masked && LAG > 0) measure(s, w.room + LAG, s.begin - LAG, LAG);
    if (LAG > 0) staged(LAG, s.begin - LAG, LAG);
    int64_t n = 0;
    for (int64_t first = s.begin; first - LAG < s.end; first += n) {
        const bool whole = first + group.block <= s.end && first + group.block + BAND <= s.length;
        n = whole ? group.block : std::min(group.block, (s.end + LAG - first + W - 1) / W * W);
        if (masked) measure(s, w.room + 2 * LAG, first, n);
        whole ? inside(first, n) : staged(2 * LAG, first, n);
        masked ? factor<true>(numbers, w, n) : factor<false>(numbers, w, n);
        const int64_t low = std::max(first - LAG, s.begin), high = std::min(first - LAG + n, s.end), at = 2 * LAG + low - first;
        void* home = place(group.direction_storage, group.direction, s.row[COLUMN_OFFSET] + low);
        const bool wide = group.direction_storage == STORAGE_FLOAT32;
        float* u = wide ? (float*)home : w.grad;  // the gradient has done its work
        apply(w, at, high - low, u);
        add_squares(sums, u, w.guide + at, high - low);
        if (group.counted) *fallen = std::accumulate(w.floor + at, w.floor + at + (high - low), *fallen);
        if (!wide) narrow((uint16_t*)home, u, high - low, nearest);
        for (int row = 0; row < CARRIED_ROWS; ++row) {
            float* start = w.momentum + row * w.stride;
            std::memmove(start, start + n, 2 * LAG * sizeof(float));
        }
    }
}

void direction(const Group& group, int64_t tile) {
    double *sums = group.partials + 2 * tile, *fallen = group.partials + 2 * group.tile_count + tile;
    sums[0] = sums[1] = *fallen = 0.0;
    const Segment s(group, tile);
    if (s.row[COLUMN_ACTIVE] == 0 || s.length == 0) return;
    const float* hyper = group.hyper;
    const float correction1 = group.corrections[2 * group.tiles[tile]], correction2 = group.corrections[2 * group.tiles[tile] + 1];
    const Numbers numbers = {
        spread(hyper[SLOT_BETA1]), spread(hyper[SLOT_ONE_MINUS_BETA1]), spread(hyper[SLOT_BETA2]), spread(hyper[SLOT_ONE_MINUS_BETA2]),
        spread(1.0f / correction1), spread(1.0f / correction2), spread(correction2), spread(1.0f + hyper[SLOT_EPS_REL]),
        spread(correction2 * hyper[SLOT_EPS]), spread(hyper[SLOT_GAMMA]), spread(hyper[SLOT_GAIN]),
    };
    alignas(64) float rows[(CARRIED_ROWS + STAGED_ROWS) * (MAX_BLOCK + 2 * LAG + 2 * LINE)];
    Workspace w;
    w.stride = group.block + 2 * LAG + 2 * LINE;
    float* next = rows;
    const auto take = [&](int count) { return std::exchange(next, next + count * w.stride); };
    w.momentum = take(1), w.stats = take(BAND + 1), w.floor = take(1), w.link = take(BAND), w.z = take(1), w.guide = take(1);
    w.room = (int32_t*)take(1);
    w.grad = take(1), w.old_momentum = take(1), w.old_stats = take(BAND + 1);
    march(group, s, w, numbers, sums, fallen);
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
    const int64_t storage = group.state_storage, low = s.begin - BAND, n = std::min(s.begin + BAND, s.length) - low;
    for (int field = 0; field < ROWS; ++field) {
        std::memcpy(place(storage, group.edges, s.left + field * 2 * BAND), place(storage, s.state[field], low), n * width(storage));
    }
}

template <int PARAM, int DIRECTION, bool STOCHASTIC> void update(const Group& group, int64_t tile) {
    using S = Stored<PARAM>;
    using U = Stored<DIRECTION>;
    const int64_t tensor = group.update_tiles[tile], *row = group.rows + tensor * int64_t(COLUMNS);
    if (row[COLUMN_ACTIVE] == 0) return;
    const int64_t begin = (tile - row[COLUMN_FIRST_UPDATE_TILE]) * group.segment, n = std::min(group.segment, row[COLUMN_LENGTH] - begin);
    auto* p = (typename S::Type*)row[COLUMN_PARAM] + begin;
    const auto* u = (const typename U::Type*)group.direction + row[COLUMN_OFFSET] + begin;
    const Vec scale = spread(group.scales[tensor]), lr = spread(group.hyper[SLOT_LR]), decay = spread(group.hyper[SLOT_WEIGHT_DECAY]);
    const Noise noise(row[COLUMN_SEED], *(const int32_t*)row[COLUMN_COUNT], NOISE_PARAM_ROW);
    typename S::Type end[W] = {};
    typename U::Type last[W] = {};
    const int64_t whole = n / W * W;
    std::memcpy(end, p + whole, (n - whole) * sizeof *end);
    std::memcpy(last, u + whole, (n - whole) * sizeof *last);
    for (int64_t i = 0; i < n; i += W) {
        auto* at = i < whole ? p + i : end;
        const Vec x = S::get(at), step = U::get(i < whole ? u + i : last) * scale * scale, moved = x - lr * (step + decay * x);
        if constexpr (STOCHASTIC) {
            S::put(at, moved, noise(row[COLUMN_START] + begin + i) & 0xffff);
        } else {
            S::put(at, moved);
        }
    }
    std::memcpy(p + whole, end, (n - whole) * sizeof *end);
}

template <int PARAM, bool STOCHASTIC = false> void update(const Group& group, int64_t tile) {
    if (group.direction_storage == STORAGE_FLOAT32) return update<PARAM, STORAGE_FLOAT32, STOCHASTIC>(group, tile);
    update<PARAM, STORAGE_BFLOAT16, STOCHASTIC>(group, tile);
}

bool skipped(const Group* group) { return group->hyper[SLOT_SKIP] != 0.0f; }

#pragma GCC visibility push(default)
extern "C" {

void sonew_prologue(const Group* group) {
    if (skipped(group)) return;
    for (int64_t tensor = 0; tensor < group->tensors; ++tensor) {
        const int64_t* row = group->rows + tensor * int64_t(COLUMNS);
        if (row[COLUMN_ACTIVE] == 0) continue;
        const double count = ++*(int32_t*)row[COLUMN_COUNT];
        group->corrections[2 * tensor] = float(-std::expm1(count * group->hyper[SLOT_LOG_BETA1]));
        group->corrections[2 * tensor + 1] = float(-std::expm1(count * group->hyper[SLOT_LOG_BETA2]));
    }
    const int64_t copied = group->tile_count * RECORD;
    if (copied > 0) for_tiles(*group, group->tile_count, copied, [=](int64_t tile) { keep_border(*group, tile); });
}

void sonew_direction(const Group* group) {
    if (skipped(group)) return;
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
    if (skipped(group) || group->hyper[SLOT_LR] == 0.0f) return;  // lr = 0 keeps every bit, of -0 and beside NaN too
    const int64_t last = group->update_tile_count - 1;
    for_tiles(*group, last + 1, group->elements, [=](int64_t tile) {
        if (group->param_storage == STORAGE_FLOAT32) return update<STORAGE_FLOAT32>(*group, last - tile);
        if (group->param_storage == STORAGE_BFLOAT16) {
            return group->stochastic ? update<STORAGE_BFLOAT16, true>(*group, last - tile) : update<STORAGE_BFLOAT16>(*group, last - tile);
        }
        update<STORAGE_FLOAT16>(*group, last - tile);
    });
}

}  // extern "C"
#pragma GCC visibility pop
