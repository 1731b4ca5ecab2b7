"""Block mathematics of one band: how far chains reach, the corrections, factor and apply. Derivation: kernels/README.md.

A *block* is a vector of lanes; lane l stands for the element `first - BAND + l` of a piece, so the first BAND lanes are
the halo on the left. A *window* is the packed lower triangle of a column's (BAND + 1) x (BAND + 1) matrix A: entry
(q, r), r <= q, stands at q (q + 1) / 2 + r and couples the elements j + q and j + r.

Fused multiply-adds are written out and automatic fusion is off, so that the bits do not depend on the compiler's taste.
"""

import triton
import triton.language as tl

from sonew_kernels.spec import Column, Slot

COLUMNS: tl.constexpr = tl.constexpr(len(Column))
PARAM: tl.constexpr = tl.constexpr(int(Column.PARAM))
GRAD: tl.constexpr = tl.constexpr(int(Column.GRAD))
MOMENTUM: tl.constexpr = tl.constexpr(int(Column.MOMENTUM))
STATS: tl.constexpr = tl.constexpr(int(Column.STATS))
COUNT: tl.constexpr = tl.constexpr(int(Column.COUNT))
LENGTH: tl.constexpr = tl.constexpr(int(Column.LENGTH))
START: tl.constexpr = tl.constexpr(int(Column.START))
TOTAL: tl.constexpr = tl.constexpr(int(Column.TOTAL))
CHAIN: tl.constexpr = tl.constexpr(int(Column.CHAIN))
OFFSET: tl.constexpr = tl.constexpr(int(Column.OFFSET))
FIRST_TILE: tl.constexpr = tl.constexpr(int(Column.FIRST_TILE))
FIRST_UPDATE_TILE: tl.constexpr = tl.constexpr(int(Column.FIRST_UPDATE_TILE))
ACTIVE: tl.constexpr = tl.constexpr(int(Column.ACTIVE))
SEED: tl.constexpr = tl.constexpr(int(Column.SEED))

LR: tl.constexpr = tl.constexpr(int(Slot.LR))
WEIGHT_DECAY: tl.constexpr = tl.constexpr(int(Slot.WEIGHT_DECAY))
BETA1: tl.constexpr = tl.constexpr(int(Slot.BETA1))
ONE_MINUS_BETA1: tl.constexpr = tl.constexpr(int(Slot.ONE_MINUS_BETA1))
LOG_BETA1: tl.constexpr = tl.constexpr(int(Slot.LOG_BETA1))
BETA2: tl.constexpr = tl.constexpr(int(Slot.BETA2))
ONE_MINUS_BETA2: tl.constexpr = tl.constexpr(int(Slot.ONE_MINUS_BETA2))
LOG_BETA2: tl.constexpr = tl.constexpr(int(Slot.LOG_BETA2))
EPS: tl.constexpr = tl.constexpr(int(Slot.EPS))
EPS_REL: tl.constexpr = tl.constexpr(int(Slot.EPS_REL))
GAMMA: tl.constexpr = tl.constexpr(int(Slot.GAMMA))
GAIN: tl.constexpr = tl.constexpr(int(Slot.GAIN))
SKIP: tl.constexpr = tl.constexpr(int(Slot.SKIP))


@triton.jit
def joined_cells(rows, row):
    """Cells of the given rows of a table whose int64 come as pairs of int32, low half first: JAX by default has no int64."""
    return rows.to(tl.pointer_type(tl.int64), bitcast=True) + row * COLUMNS


@triton.jit
def correction(count, log_beta):
    """1 - beta^count = -expm1(count log beta) in float64: a series where the exponential would cancel, (reference.correction)."""
    x = count.to(tl.float64) * log_beta.to(tl.float64)
    series = x * 0.0 + 1.0
    for term in tl.static_range(9, 1, -1):
        series = 1.0 + x * series / term
    return tl.where(x > -0.125, -x * series, 1.0 - tl.exp(x)).to(tl.float32)


@triton.jit
def chain_reach(lane, first, start, total, chain, BAND: tl.constexpr, CHAINED: tl.constexpr):
    """How many elements the chain of each lane's element still has, this one included; 0 for lanes outside the tensor.

    Element j + k lies in the chain of j exactly where reach > k. Capped, so that int32 holds it: only 0..BAND matters.
    """
    cap = 1 << 24
    origin = start + first - BAND  # position of lane 0 in its tensor, negative left of the tensor's start
    left = tl.minimum(total - origin, cap).to(tl.int32) - lane
    if CHAINED:
        length = tl.maximum(tl.minimum(chain, total), 1)
        ahead = length - (origin + BAND * length) % length  # elements from lane 0 to the next chain start
        short = tl.minimum(length, cap).to(tl.int32)
        past = lane - tl.minimum(ahead, cap).to(tl.int32)
        in_chain = tl.where(past < 0, -past, short - past % short)
        left = tl.minimum(left, in_chain)
    before = tl.minimum(tl.maximum(-origin, 0), BAND).to(tl.int32)
    return tl.where(lane < before, 0, left)


@triton.jit
def columns(window, momentum, reach, gain, gamma, BAND: tl.constexpr):
    """Factor each lane's window and apply D L^T. Returns ((z, L[j+1, j] z, ..., L[j+b, j] z) of the column at each lane, whether it held).

    Elimination from the farthest neighbour to the nearest, the column's own element last (reference.factor). Where any
    pivot is at or below gamma times its diagonal entry, or NaN, L[j+q, j] = 0 and 1 / D = A_jj; A_jj <= 0 gives D = 0.
    `window` has a decoupled 1 on the diagonal beyond the chain's end, `momentum[q]` is the momentum at j + q, and
    `gain` scales z: it holds the corrections that window and momentum leave out.
    """
    damped = window
    sound = reach == reach
    weights = ()
    for q in tl.static_range(BAND, 0, -1):
        pivot = window[q * (q + 1) // 2 + q]
        sound = sound & (pivot > gamma * damped[q * (q + 1) // 2 + q])
        inverse = -1.0 / pivot
        row = ()
        for s in tl.static_range(q):
            row = row + (window[q * (q + 1) // 2 + s] * inverse,)
        rest = ()
        for s in tl.static_range(q):
            for r in tl.static_range(s + 1):
                rest = rest + (tl.fma(row[s], window[q * (q + 1) // 2 + r], window[s * (s + 1) // 2 + r]),)
        window = rest
        weights = row + weights
    sound = sound & (window[0] > gamma * damped[0])

    y = momentum[0]
    solved = ()
    lower = ()
    for q in tl.static_range(1, BAND + 1):
        value = weights[q * (q - 1) // 2]
        for r in tl.static_range(1, q):
            value = tl.fma(weights[q * (q - 1) // 2 + r], solved[r - 1], value)
        solved = solved + (value,)
        lower = lower + (tl.where(sound, value, 0.0),)
        y = tl.fma(lower[q - 1], momentum[q], y)
    pivot = tl.where(sound, window[0], damped[0])
    z = tl.where(damped[0] <= 0.0, y * 0.0, (y * gain) / pivot)
    scaled = (z,)
    for q in tl.static_range(1, BAND + 1):
        scaled = scaled + (tl.where(reach > q, lower[q - 1] * z, 0.0),)
    return scaled, sound


@triton.jit
def spread(scaled, lane, BAND: tl.constexpr):
    """Apply L: u_i = z_i + sum over q of (L[j+q, j] z_j) at j = i - q, exchanged between lanes; exact from lane BAND on."""
    u = scaled[0]
    for q in tl.static_range(1, BAND + 1):
        u = u + tl.gather(scaled[q], tl.maximum(lane - q, 0), 0)
    return u
