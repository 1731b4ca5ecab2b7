"""Direction: accumulate, factor and apply in one pass over the state; writes state, direction and partial norms.

In-place hazards. Between programs: a tile reads momentum and stats of its own elements only, its neighbours' from the
border records that the prologue saved. Inside a program: warps are not ordered, so every load stands before the barrier and every
store after it.
"""

import triton
import triton.language as tl

from sonew_kernels.band import (
    ACTIVE,
    BETA1,
    BETA2,
    CHAIN,
    COLUMNS,
    EPS,
    EPS_REL,
    FIRST_TILE,
    GAMMA,
    GRAD,
    LENGTH,
    MOMENTUM,
    OFFSET,
    ONE_MINUS_BETA1,
    ONE_MINUS_BETA2,
    START,
    STATS,
    TOTAL,
    chain_reach,
    columns,
    spread,
    storage_pointer,
)
from sonew_kernels.spec import Graft

GRAFT_EPS: tl.constexpr = tl.constexpr(1e-8)
ADAM: tl.constexpr = tl.constexpr(int(Graft.ADAM))
ADAM_UNCORRECTED: tl.constexpr = tl.constexpr(int(Graft.ADAM_UNCORRECTED))
RMSPROP: tl.constexpr = tl.constexpr(int(Graft.RMSPROP))


@triton.jit
def direction_block(
    grad,
    momentum,
    stats,
    record,
    end_record,
    corrections,
    hyper,
    momentum_out,
    stats_out,
    direction,
    partial,
    tile,
    length,
    start,
    total,
    chain,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One tile of a piece (math: reference.direction).

    Args:
        grad, momentum, stats: the piece; momentum_out, stats_out, direction: where the results go (may be the inputs).
        record: the tile's left border record, the right one follows. end_record: the record of the piece's end.
        corrections: 1 - beta1^count, 1 - beta2^count. hyper: `spec.Slot`.
        partial: two float64, sum of u^2 and of a^2.
        tile: the tile's index in the piece; it owns BLOCK - BAND elements. length, start, total, chain: `spec.Column`, int64.
        CHAINED: some chain may end inside its tensor. PIECES: some piece is not a whole tensor.
    """
    TILE: tl.constexpr = BLOCK - BAND
    lane = tl.arange(0, BLOCK)
    first = tile * TILE
    to_end = tl.minimum(length - first, BLOCK).to(tl.int32)
    owned = (lane >= BAND) & (lane < BAND + to_end)
    reach = tl.where(lane < BAND + to_end, chain_reach(lane, first, start, total, chain, BAND, CHAINED), 0)

    beta1, gain1 = tl.load(hyper + BETA1), tl.load(hyper + ONE_MINUS_BETA1)
    beta2, gain2 = tl.load(hyper + BETA2), tl.load(hyper + ONE_MINUS_BETA2)
    eps, stretch, gamma = tl.load(hyper + EPS), 1.0 + tl.load(hyper + EPS_REL), tl.load(hyper + GAMMA)
    correction1, correction2 = tl.load(corrections), tl.load(corrections + 1)
    unbias1, unbias2 = 1.0 / correction1, 1.0 / correction2

    gradient = ()
    fresh = ()
    window = ()
    place = ()
    for q in tl.static_range(BAND + 1):
        g = load_gradient(grad, record, end_record, lane + q, first, length, reach > q, BAND, PIECES)
        where, rows, stride = old_values(momentum, stats, record, end_record, lane + q, first, length, BAND, BLOCK, PIECES)
        gradient = gradient + (g,)
        place = place + ((rows, stride),)
        fresh = fresh + (tl.fma(beta1, tl.load(where, mask=reach > q, other=0.0), gain1 * g),)
        for r in tl.static_range(q + 1):
            old = tl.load(place[r][0] + (q - r) * place[r][1], mask=reach > q, other=0.0)
            mean = tl.fma(beta2, old, (gain2 * g) * gradient[r])
            if r == 0:
                mean = tl.where(reach > q, mean, 0.0)
            window = window + (mean,)

    tl.debug_barrier()

    element = first - BAND + lane
    tl.store(momentum_out + element, fresh[0], mask=owned)
    for k in tl.static_range(BAND + 1):
        tl.store(stats_out + k * length + element, window[k * (k + 1) // 2], mask=owned)

    # Corrections cancel in L and scale D: the window stays uncorrected, its damping and z take them up.
    damped = ()
    for q in tl.static_range(BAND + 1):
        for r in tl.static_range(q):
            damped = damped + (window[q * (q + 1) // 2 + r],)
        diagonal = tl.fma(window[q * (q + 1) // 2 + q], stretch, eps * correction2)
        damped = damped + (tl.where(reach > q, diagonal, 1.0),)
    u = spread(columns(damped, fresh, reach, correction2 * unbias1, gamma, BAND), lane, BAND)
    tl.store(direction + element, u, mask=owned)

    target = graft_target(gradient[0], fresh[0] * unbias1, window[0], unbias2, GRAFT)
    tl.store(partial, sum_of_squares(u, owned))
    tl.store(partial + 1, sum_of_squares(target, owned))


@triton.jit
def old_values(momentum, stats, record, end_record, lane, first, length, BAND: tl.constexpr, BLOCK: tl.constexpr, PIECES: tl.constexpr):
    """Where the old values at the given lanes lie: in the tensor inside the tile, in a border record outside it.

    Returns (pointers to momentum, pointers to stats row 0, elements from one row to the next).
    """
    TILE: tl.constexpr = BLOCK - BAND
    RECORD: tl.constexpr = (BAND + 3) * 2 * BAND
    element = first - BAND + lane
    if BAND == 0:
        place, rows, stride = momentum + element, stats + element, length
    else:
        edge = record + (lane + tl.where(lane >= BLOCK, RECORD - TILE, 0))
        inside = (lane >= BAND) & (lane < BLOCK)
        if PIECES:
            beyond = element >= length
            edge = tl.where(beyond, end_record + (lane + (first - length)), edge)
            inside = inside & ~beyond
        place = tl.where(inside, momentum + element, edge)
        rows = tl.where(inside, stats + element, edge + 2 * BAND)
        stride = tl.where(inside, length, 2 * BAND)
    return place, rows, stride


@triton.jit
def load_gradient(grad, record, end_record, lane, first, length, mask, BAND: tl.constexpr, PIECES: tl.constexpr):
    """Gradient in float32 at the given lanes, 0 outside the mask; from the border records only beyond the piece."""
    element = first - BAND + lane
    if PIECES and BAND > 0:
        before, beyond = element < 0, element >= length
        g = tl.load(grad + element, mask=mask & ~before & ~beyond, other=0.0).to(tl.float32)
        field = (BAND + 2) * 2 * BAND
        pointer = tl.where(before, record + (field + lane), end_record + (field + lane + (first - length)))
        g = tl.where(before | beyond, tl.load(pointer, mask=mask & (before | beyond), other=0.0), g)
    else:
        g = tl.load(grad + element, mask=mask, other=0.0).to(tl.float32)
    return g


@triton.jit
def graft_target(grad, momentum, variance, unbias2, GRAFT: tl.constexpr):
    """The direction whose norm is taken over (reference.graft_target); `momentum` is corrected, `variance` is stats row 0 as stored."""
    if GRAFT == ADAM:
        target = momentum / (tl.sqrt(variance * unbias2) + GRAFT_EPS)
    elif GRAFT == ADAM_UNCORRECTED:
        target = momentum / (tl.sqrt(variance) + GRAFT_EPS)
    elif GRAFT == RMSPROP:
        target = grad / (tl.sqrt(variance * unbias2) + GRAFT_EPS)
    else:
        target = grad
    return target


@triton.jit
def sum_of_squares(x, mask):
    """Sum of squares in float64, where no square of a finite float32 overflows."""
    wide = x.to(tl.float64)
    return tl.sum(tl.where(mask, wide * wide, 0.0), 0)


@triton.jit
def direction_table(
    rows,
    tiles,
    hyper,
    corrections,
    edges,
    direction,
    partials,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    GRAD_STORAGE: tl.constexpr,
):
    """Direction phase of a group, one tile per program; inactive tensors are left alone."""
    TILE: tl.constexpr = BLOCK - BAND
    RECORD: tl.constexpr = (BAND + 3) * 2 * BAND
    tile = tl.program_id(0).to(tl.int64)
    row = tl.load(tiles + tile).to(tl.int64)
    cells = rows + row * COLUMNS
    if tl.load(cells + ACTIVE) != 0:
        length = tl.load(cells + LENGTH)
        first_tile = tl.load(cells + FIRST_TILE)
        momentum = tl.load(cells + MOMENTUM).to(tl.pointer_type(tl.float32))
        stats = tl.load(cells + STATS).to(tl.pointer_type(tl.float32))
        last = tl.maximum((length + TILE - 1) // TILE, 1)
        direction_block(
            storage_pointer(tl.load(cells + GRAD), GRAD_STORAGE),
            momentum,
            stats,
            edges + (tile + row) * RECORD,
            edges + (first_tile + row + last) * RECORD,
            corrections + 2 * row,
            hyper,
            momentum,
            stats,
            direction + tl.load(cells + OFFSET),
            partials + 2 * tile,
            tile - first_tile,
            length,
            tl.load(cells + START),
            tl.load(cells + TOTAL),
            tl.load(cells + CHAIN),
            BAND,
            BLOCK,
            GRAFT,
            CHAINED,
            PIECES,
        )


@triton.jit
def direction_direct(
    grad,
    momentum,
    stats,
    edges,
    corrections,
    hyper,
    momentum_out,
    stats_out,
    direction,
    partials,
    length,
    start,
    total,
    chain,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Direction phase of one leaf, one tile per program; the outputs may be the inputs."""
    TILE: tl.constexpr = BLOCK - BAND
    RECORD: tl.constexpr = (BAND + 3) * 2 * BAND
    tile = tl.program_id(0).to(tl.int64)
    size = tl.full((), length, tl.int64)
    last = tl.maximum((size + TILE - 1) // TILE, 1)
    direction_block(
        grad,
        momentum,
        stats,
        edges + tile * RECORD,
        edges + last * RECORD,
        corrections,
        hyper,
        momentum_out,
        stats_out,
        direction,
        partials + 2 * tile,
        tile,
        size,
        tl.full((), start, tl.int64),
        tl.full((), total, tl.int64),
        tl.full((), chain, tl.int64),
        BAND,
        BLOCK,
        GRAFT,
        CHAINED,
        PIECES,
    )
