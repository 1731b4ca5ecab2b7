"""One tile of a piece: accumulate, factor and apply in one pass over the state; state, direction and partial norms are stored.

In-place hazards. Between programs: a tile reads momentum and stats of its own elements only, its neighbours' from the
border records that the prologue saved. Inside a program: warps are not ordered, so every load stands before the barrier and every
store after it.
"""

import triton
import triton.language as tl

from sonew_kernels.band import (
    BETA1,
    BETA2,
    EPS,
    EPS_REL,
    GAIN,
    GAMMA,
    ONE_MINUS_BETA1,
    ONE_MINUS_BETA2,
    chain_reach,
    columns,
    spread,
)
from sonew_kernels.spec import Graft
from sonew_kernels.storage import BFLOAT16, noise, noise_keys, to_bfloat16_stochastically, to_storage
from sonew_kernels.window import UNROLLED, advance

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
    outer,
    corrections,
    hyper,
    momentum_out,
    stats_out,
    direction,
    partial,
    fallen,
    tile,
    length,
    start,
    total,
    chain,
    seed,
    count,
    BAND: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAFT: tl.constexpr,
    CHAINED: tl.constexpr,
    PIECES: tl.constexpr,
    STATE_STORAGE: tl.constexpr,
    DIRECTION_STORAGE: tl.constexpr,
    COUNTED: tl.constexpr,
):
    """One tile of a piece (math: reference.direction).

    Args:
        grad, momentum, stats: the piece; momentum_out, stats_out, direction: where the results go (may be the inputs).
        record: the tile's left border record, the right one follows. end_record: the record of the piece's end.
        outer: the piece's outer gradients.
        corrections: 1 - beta1^count, 1 - beta2^count. hyper: `spec.Slot`.
        partial: two float64, sum of u^2 and of a^2. fallen: one float64, columns that fell back; written where COUNTED.
        tile: the tile's index in the piece; it owns BLOCK - BAND elements. length, start, total, chain, seed: `spec.Column`, int64.
        count: this step's number.
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

    gradient, fresh, window = advance(
        grad,
        momentum,
        stats,
        record,
        end_record,
        outer,
        lane,
        first,
        length,
        reach,
        tl.load(hyper + GAIN),
        beta1,
        gain1,
        beta2,
        gain2,
        BAND,
        TILE,
        PIECES,
    )

    tl.debug_barrier()

    element = first - BAND + lane
    rows = (fresh[0],)
    for k in tl.static_range(BAND + 1):
        rows = rows + (window[k * (k + 1) // 2],)
    store_state(rows, momentum_out, stats_out, element, length, owned, start, seed, count, STATE_STORAGE, BAND)

    # Corrections cancel in L and scale D: the window stays uncorrected, its damping and z take them up.
    damped = ()
    for q in tl.static_range(BAND + 1):
        for r in tl.static_range(q):
            damped = damped + (window[q * (q + 1) // 2 + r],)
        diagonal = tl.fma(window[q * (q + 1) // 2 + q], stretch, eps * correction2)
        damped = damped + (tl.where(reach > q, diagonal, 1.0),)
    scaled, sound = columns(damped, fresh, reach, correction2 * unbias1, gamma, BAND)
    u = spread(scaled, lane, BAND)
    tl.store(direction + element, to_storage(u, direction, DIRECTION_STORAGE), mask=owned)

    target = graft_target(gradient, fresh[0] * unbias1, window[0], unbias2, GRAFT)
    tl.store(partial, sum_of_squares(u, owned))
    tl.store(partial + 1, sum_of_squares(target, owned))
    if COUNTED:
        tl.store(fallen, tl.sum((owned & ~sound).to(tl.int32), 0).to(tl.float64))


@triton.jit
def store_state(rows, momentum, stats, element, length, mask, start, seed, count, STATE_STORAGE: tl.constexpr, BAND: tl.constexpr):
    """Write the new momentum, then the new stats row by row; bfloat16 is rounded stochastically."""
    if BAND <= UNROLLED:
        for row in tl.static_range(BAND + 2):
            home = momentum + element if row == 0 else stats + (row - 1) * length + element
            tl.store(home, state_to_storage(rows[row], start + element, row, seed, count, STATE_STORAGE), mask=mask)
    else:  # one two-dimensional store, as in `window.advance`
        row = tl.arange(0, 32)[:, None]
        values = rows[0][None, :]
        for k in tl.static_range(1, BAND + 2):
            values = tl.where(row == k, rows[k][None, :], values)
        home = tl.where(row == 0, momentum + element[None, :], stats + (row - 1) * length + element[None, :])
        stored = state_to_storage(values, start + element[None, :], row, seed, count, STATE_STORAGE)
        tl.store(home, stored, mask=(row < BAND + 2) & mask[None, :])


@triton.jit
def state_to_storage(values, element, row, seed, count, STATE_STORAGE: tl.constexpr):
    """Values of the given row or rows (0: momentum, k + 1: row k of stats) as they are stored; `element` is their place in the tensor."""
    if STATE_STORAGE == BFLOAT16:
        first, second = noise_keys(seed, count, row // 2)
        bits = noise(first, second, element) >> (16 * (row % 2))
        values = to_bfloat16_stochastically(values, bits & 0xFFFF)
    return values


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
