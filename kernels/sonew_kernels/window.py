"""Windows: every lane's new momentum and the packed window of its new statistics, formed from the old state by shifted loads."""

import triton
import triton.language as tl

from sonew_kernels.spec import LARGEST_UNROLLED_LOAD

UNROLLED: tl.constexpr = tl.constexpr(LARGEST_UNROLLED_LOAD)


@triton.jit
def advance(
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
    gain,
    beta1,
    gain1,
    beta2,
    gain2,
    BAND: tl.constexpr,
    TILE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Accumulate what each lane's column needs (math: reference.accumulate).

    Returns (gradient at j, the new momentum at j..j+b, the packed window of the new stats); 0 beyond the chain.
    """
    gradient = ()
    old_momentum = ()
    old_window = ()
    if BAND <= UNROLLED:
        place = ()
        for q in tl.static_range(BAND + 1):
            mask = reach > q
            gradient = gradient + (load_gradient(grad, outer, lane + q, first, length, mask, gain, BAND, PIECES),)
            where, rows, stride = old_values(momentum, stats, record, end_record, lane + q, first, length, BAND, TILE, PIECES)
            place = place + ((rows, stride),)
            old_momentum = old_momentum + (tl.load(where, mask=mask, other=0.0).to(tl.float32),)
            for r in tl.static_range(q + 1):
                old = tl.load(place[r][0] + (q - r) * place[r][1], mask=mask, other=0.0).to(tl.float32)
                old_window = old_window + (old,)
    else:
        # By rows, in two-dimensional blocks: compile time grows with the number of loads times the square of the code.
        offset = tl.arange(0, 32)[:, None]
        lanes = lane[None, :] + offset
        mask = (offset <= BAND) & (reach[None, :] > offset)
        where, rows, stride = old_values(momentum, stats, record, end_record, lanes, first, length, BAND, TILE, PIECES)
        gradients = load_gradient(grad, outer, lanes, first, length, mask, gain, BAND, PIECES)
        averages = tl.load(where, mask=mask, other=0.0).to(tl.float32)
        squares = tl.load(rows, mask=mask, other=0.0).to(tl.float32)
        for q in tl.static_range(BAND + 1):
            gradient = gradient + (take_row(gradients, offset, q),)
            old_momentum = old_momentum + (take_row(averages, offset, q),)
            if q > 0:
                near = tl.arange(0, 4 if q <= 4 else (8 if q <= 8 else 16))[:, None]
                lanes = lane[None, :] + near
                _, rows, stride = old_values(momentum, stats, record, end_record, lanes, first, length, BAND, TILE, PIECES)
                mask = (near < q) & (reach > q)[None, :]
                block = tl.load(tl.max_contiguous(rows + (q - near) * stride, (1, 2)), mask=mask, other=0.0).to(tl.float32)
                for r in tl.static_range(q):
                    old_window = old_window + (take_row(block, near, r),)
            old_window = old_window + (take_row(squares, offset, q),)

    fresh = ()
    window = ()
    for q in tl.static_range(BAND + 1):
        fresh = fresh + (tl.fma(beta1, old_momentum[q], gain1 * gradient[q]),)
        for r in tl.static_range(q + 1):
            mean = tl.fma(beta2, old_window[q * (q + 1) // 2 + r], (gain2 * gradient[q]) * gradient[r])
            if r == 0:
                mean = tl.where(reach > q, mean, 0.0)
            window = window + (mean,)
    return gradient[0], fresh, window


@triton.jit
def take_row(block, position, ROW: tl.constexpr):
    """Row ROW of a block (rows, lanes) whose rows lie in one thread: its bits plus zeros, which the compiler leaves out."""
    bits = block.to(tl.int32, bitcast=True)
    return tl.sum(tl.where(position == ROW, bits, 0), 0).to(tl.float32, bitcast=True)


@triton.jit
def old_values(momentum, stats, record, end_record, lane, first, length, BAND: tl.constexpr, TILE: tl.constexpr, PIECES: tl.constexpr):
    """Where the old values at the given lanes lie: in the tensor inside the tile, in a border record outside it.

    Returns (pointers to momentum, pointers to stats row 0, elements from one row to the next).
    """
    RECORD: tl.constexpr = (BAND + 2) * 2 * BAND
    element = first - BAND + lane
    if BAND == 0:
        place, rows, stride = momentum + element, stats + element, length
    else:
        edge = record + (lane + tl.where(lane >= BAND + TILE, RECORD - TILE, 0))
        inside = (lane >= BAND) & (lane < BAND + TILE)
        if PIECES:
            beyond = element >= length
            edge = tl.where(beyond, end_record + (lane + (first - length)), edge)
            inside = inside & ~beyond
        place = tl.where(inside, momentum + element, edge)
        rows = tl.where(inside, stats + element, edge + 2 * BAND)
        stride = tl.where(inside, length, 2 * BAND)
        if len(lane.shape) == 2:
            # Lanes are to be spread over the threads; Triton 3.6 would choose the rows. That pairs of lanes are neighbours in memory is
            # not so where a pair lies on both sides of a border, but it can widen no access: entries are aligned to themselves only,
            # and tests/kernels/compiled/test_traffic.py holds the widths.
            place, rows = tl.max_contiguous(place, (1, 2)), tl.max_contiguous(rows, (1, 2))
    return place, rows, stride


@triton.jit
def load_gradient(grad, outer, lane, first, length, mask, gain, BAND: tl.constexpr, PIECES: tl.constexpr):
    """Gradient times `gain` in float32 at the given lanes, 0 outside the mask; beyond the piece from `spec.outer_gradients`."""
    element = first - BAND + lane
    if PIECES and BAND > 0:
        before, beyond = element < 0, element >= length
        g = tl.load(grad + element, mask=mask & ~before & ~beyond, other=0.0).to(tl.float32)
        pointer = outer + tl.where(before, BAND + element, BAND + element - length)
        g = tl.where(before | beyond, tl.load(pointer, mask=mask & (before | beyond), other=0.0), g)
    else:
        g = tl.load(grad + element, mask=mask, other=0.0).to(tl.float32)
    return g * gain
