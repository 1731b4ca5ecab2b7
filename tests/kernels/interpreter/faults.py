"""The faults that the tests of the kernels must notice: name, what is changed where, and the check of the battery that fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.kernels.interpreter.mutants import Fault

FAULTS: Final[Mapping[str, tuple[str, Fault]]] = {
    # corrections and chains
    "series with the wrong sign": ("counts", Fault("band", "-x * series, 1.0", "x * series, 1.0")),
    "series too short": ("counts", Fault("band", "static_range(9, 1, -1)", "static_range(4, 1, -1)")),
    "chains reach one element too far": ("steps", Fault("band", ".to(tl.int32) - lane\n", ".to(tl.int32) - lane + 1\n")),
    "chains end one element early": ("steps", Fault("band", ".to(tl.int32) - lane\n", ".to(tl.int32) - lane - 1\n")),
    "first chain of a tile too long": ("chains", Fault("band", "ahead = length -", "ahead = 1 + length -")),
    "later chains too short": ("chains", Fault("band", "short - past % short", "short - 1 - past % short")),
    "chains ignored": ("chains", Fault("band", "left = tl.minimum(left, in_chain)", "left = left")),
    "columns before the tensor": ("steps", Fault("band", "tl.where(lane < before, 0, left)", "left")),
    # factor
    "no pivot rule": ("pivots", Fault("band", "sound = sound & (pivot > gamma * damped[q * (q + 1) // 2 + q])", "sound = sound")),
    "no last pivot rule": ("pivots", Fault("band", "sound = sound & (window[0] > gamma * damped[0])", "sound = sound")),
    "pivots without gamma": ("pivots", Fault("band", "pivot > gamma * damped[q * (q + 1) // 2 + q]", "pivot > 0.0")),
    "last pivot without gamma": ("pivots", Fault("band", "window[0] > gamma * damped[0]", "window[0] > 0.0")),
    "NaN pivot accepted": ("pivots", Fault("band", "& (window[0] > gamma * damped[0])", "& ~(window[0] <= gamma * damped[0])")),
    "sign of the weights": ("steps", Fault("band", "inverse = -1.0 / pivot", "inverse = 1.0 / pivot")),
    "elimination of the wrong row": (
        "steps",
        Fault("band", "tl.fma(row[s], window[q * (q + 1) // 2 + r]", "tl.fma(row[s], window[q * (q + 1) // 2 + s]"),
    ),
    "no back substitution": ("steps", Fault("band", "tl.fma(weights[q * (q - 1) // 2 + r], solved[r - 1], value)", "value")),
    "fallback keeps its couplings": ("pivots", Fault("band", "tl.where(sound, value, 0.0)", "value")),
    "fallback keeps its pivot": ("pivots", Fault("band", "tl.where(sound, window[0], damped[0])", "window[0]")),
    "dead diagonal divides": ("small_and_large", Fault("band", "damped[0] <= 0.0", "damped[0] < 0.0")),
    # apply
    "sign of psi": ("steps", Fault("band", "y = tl.fma(lower[q - 1], momentum[q], y)", "y = tl.fma(-lower[q - 1], momentum[q], y)")),
    "momentum not shifted": ("steps", Fault("band", "lower[q - 1], momentum[q], y", "lower[q - 1], momentum[0], y")),
    "sign in the second half": ("steps", Fault("band", "lower[q - 1] * z", "-lower[q - 1] * z")),
    "couplings beyond the chain": ("broken_numbers", Fault("band", "tl.where(reach > q, lower[q - 1] * z, 0.0)", "lower[q - 1] * z")),
    "gather one lane too far": ("steps", Fault("band", "tl.maximum(lane - q, 0)", "tl.maximum(lane - q - 1, 0)")),
    "no gather": ("steps", Fault("band", "tl.gather(scaled[q], tl.maximum(lane - q, 0), 0)", "scaled[q]")),
    "corrections left off": ("steps", Fault("band", "(y * gain) / pivot", "y / pivot")),
    # accumulate
    "momentum of the wrong gradient": ("steps", Fault("window", "gain1 * gradient[q])", "gain1 * gradient[0])")),
    "products not shifted": ("steps", Fault("window", "(gain2 * gradient[q]) * gradient[r]", "(gain2 * gradient[q]) * gradient[q]")),
    "rows of the window swapped": ("steps", Fault("window", "place[r][0] + (q - r) * place[r][1]", "place[r][0] + r * place[r][1]")),
    "no halo on the left": ("steps", Fault("window", "mask = reach > q\n", "mask = (reach > q) & (lane + q >= BAND)\n")),
    "no halo on the right": ("steps", Fault("window", "mask = reach > q\n", "mask = (reach > q) & (lane + q < BAND + TILE)\n")),
    "averages beyond the chain": ("broken_numbers", Fault("window", "tl.where(reach > q, mean, 0.0)", "mean")),
    "old values of the left halo read from the new ones": ("steps", Fault("window", "inside = (lane >= BAND) & (lane", "inside = (lane")),
    "right halo read from the state": (
        "hazards",
        Fault("window", "inside = (lane >= BAND) & (lane < BAND + TILE)", "inside = lane >= BAND"),
    ),
    "left record off by one": ("steps", Fault("window", "edge = record + (lane +", "edge = record + (lane + 1 +")),
    "right record off by one": ("steps", Fault("window", "RECORD - TILE, 0)", "RECORD - TILE + 1, 0)")),
    "statistics from the record's momentum": ("steps", Fault("window", "edge + 2 * BAND)", "edge)")),
    "record's rows too close": ("steps", Fault("window", "tl.where(inside, length, 2 * BAND)", "tl.where(inside, length, BAND)")),
    "record of the end off by one": (
        "pieces",
        Fault("window", "end_record + (lane + (first - length))", "end_record + (lane + (first - length + 1))"),
    ),
    "state beyond the piece": ("pieces", Fault("window", "inside = inside & ~beyond", "inside = inside")),
    "outer gradients swapped": ("pieces", Fault("window", "BAND + element - length)", "element - length)")),
    "piece ends one element late": (
        "pieces",
        Fault("window", "before, beyond = element < 0, element >= length", "before, beyond = element < 0, element > length"),
    ),
    "wide band, one gradient for all": ("wide_band", Fault("window", "take_row(gradients, offset, q)", "take_row(gradients, offset, 0)")),
    "wide band, rows of the window reversed": ("wide_band", Fault("window", "rows + (q - near) * stride", "rows + near * stride")),
    "wide band, diagonal of the wrong lane": ("wide_band", Fault("window", "take_row(squares, offset, q)", "take_row(squares, offset, 0)")),
    # direction
    "first owned lane left out": ("steps", Fault("direction", "owned = (lane >= BAND)", "owned = (lane > BAND)")),
    "one element past the end owned": ("steps", Fault("direction", "& (lane < BAND + to_end)\n", "& (lane <= BAND + to_end)\n")),
    "eps_rel left off": ("steps", Fault("direction", "1.0 + tl.load(hyper + EPS_REL)", "1.0")),
    "eps left off": ("steps", Fault("direction", "stretch, eps * correction2)", "stretch, 0.0)")),
    "eps uncorrected": ("steps", Fault("direction", "stretch, eps * correction2)", "stretch, eps)")),
    "corrections exchanged": (
        "steps",
        Fault("direction", "= 1.0 / correction1, 1.0 / correction2", "= 1.0 / correction2, 1.0 / correction1"),
    ),
    "gain without the momentum's correction": ("steps", Fault("direction", "correction2 * unbias1, gamma", "correction2, gamma")),
    "gain without the statistics' correction": ("steps", Fault("direction", "correction2 * unbias1, gamma", "unbias1, gamma")),
    "no decoupled 1 beyond the chain": ("small_and_large", Fault("direction", "tl.where(reach > q, diagonal, 1.0)", "diagonal")),
    "statistics stored from the wrong row": (
        "steps",
        Fault("direction", "rows + (window[k * (k + 1) // 2],)", "rows + (window[k * (k + 1) // 2 + k],)"),
    ),
    "momentum of the wrong lane stored": ("steps", Fault("direction", "rows = (fresh[0],)", "rows = (fresh[BAND],)")),
    "target with the uncorrected variance": (
        "grafts",
        Fault("direction", "momentum / (tl.sqrt(variance * unbias2)", "momentum / (tl.sqrt(variance)"),
    ),
    "rmsprop with the uncorrected variance": (
        "grafts",
        Fault("direction", "grad / (tl.sqrt(variance * unbias2)", "grad / (tl.sqrt(variance)"),
    ),
    "parity graft corrected": (
        "grafts",
        Fault("direction", "target = momentum / (tl.sqrt(variance) ", "target = momentum / (tl.sqrt(variance * unbias2) "),
    ),
    "target with the uncorrected momentum": ("grafts", Fault("direction", "fresh[0] * unbias1, window[0]", "fresh[0], window[0]")),
    "norm of the target for that of u": (
        "steps",
        Fault("direction", "tl.store(partial, sum_of_squares(u, owned))", "tl.store(partial, sum_of_squares(target, owned))"),
    ),
    "norms over the halo": ("steps", Fault("direction", "tl.where(mask, wide * wide, 0.0)", "wide * wide")),
    "squares in float32": ("small_and_large", Fault("direction", "wide = x.to(tl.float64)", "wide = x")),
    "border record of another tensor": ("steps", Fault("direction", "edges + (tile + row) * RECORD", "edges + tile * RECORD")),
    "end record of another tensor": (
        "pieces_in_a_table",
        Fault("direction", "edges + (first_tile + row + last) * RECORD", "edges + (first_tile + last) * RECORD"),
    ),
    "outer gradients of another tensor": ("pieces_in_a_table", Fault("direction", "outer + row * (2 * BAND)", "outer")),
    "corrections of another tensor": ("steps", Fault("direction", "corrections + 2 * row,", "corrections,")),
    "direction: inactive tensors stepped": ("inactive", Fault("direction", "tl.load(cells + ACTIVE) != 0", "tl.load(cells + ACTIVE) >= 0")),
    # stochastic rounding
    "state: cut instead of rounded": ("rounded_state", Fault("direction", "bits & 0xFFFF)", "bits & 0)")),
    "state: noise of the wrong rows": (
        "rounded_state",
        Fault("direction", "noise_keys(seed, count, row // 2)", "noise_keys(seed, count, row)"),
    ),
    "state: one half of the noise for both rows": ("rounded_state", Fault("direction", ">> (16 * (row % 2))", ">> 0")),
    "state: noise without the count": ("rounded_state", Fault("direction", "noise_keys(seed, count, row", "noise_keys(seed, seed, row")),
    "state: noise without the seed": ("rounded_state", Fault("direction", "noise_keys(seed, count, row", "noise_keys(count, count, row")),
    "state: noise of the tile's own index": (
        "tiles",
        Fault(
            "direction",
            "state_to_storage(rows[row], start + element,",
            "state_to_storage(rows[row], tl.arange(0, element.shape[0]).to(tl.int64),",
        ),
    ),
    "state: noise of the piece's own index": (
        "pieces",
        Fault("direction", "state_to_storage(rows[row], start + element,", "state_to_storage(rows[row], element,"),
    ),
    "wide band: rows stored off by one": (
        "wide_band",
        Fault("direction", "tl.where(row == k, rows[k][None, :], values)", "tl.where(row == k, rows[k - 1][None, :], values)"),
    ),
    "wide band: noise of one row for all": (
        "wide_band",
        Fault("direction", "start + element[None, :], row, seed", "start + element[None, :], row * 0, seed"),
    ),
    "parameters: cut instead of rounded": ("rounded_parameters", Fault("update", "start + element) & 0xFFFF)", "start + element) & 0)")),
    "parameters: noise of the momentum": ("rounded_parameters", Fault("update", "PARAM_ROW // 2)", "0)")),
    "parameters: noise of the piece's own index": (
        "rounded_parameters",
        Fault("update", "second_key, start + element)", "second_key, element)"),
    ),
    "parameters: noise of the wrong half": ("rounded_parameters", Fault("update", "start + element) & 0xFFFF)", "start + element) >> 16)")),
    "noise of another mixture": ("rounded_state", Fault("storage", "0x21F0AAAD + (second", "0x21F0AAAF + (second")),
    "noise without the high word": ("pieces", Fault("storage", "(element >> 32)", "(element >> 63)")),
    "NaN rounded like a number": ("broken_numbers", Fault("storage", "tl.where(x != x, 0x7FC0, raised)", "raised")),
    "NaN to nearest like a number": (
        "broken_numbers",
        Fault("storage", "tl.where(x != x, (bits >> 16) | 0x40, rounded >> 16)", "rounded >> 16"),
    ),
    "ties away from even": ("updates", Fault("storage", "0x7FFF + ((bits >> 16) & 1)", "0x8000")),
    "to nearest: cut": ("updates", Fault("storage", "0x7FFF + ((bits >> 16) & 1)", "0")),
    # prologue
    "count not advanced": ("counts", Fault("prologue", "mask=mask, other=0) + 1", "mask=mask, other=0)")),
    "correction of the wrong beta": ("counts", Fault("prologue", "tl.load(hyper + LOG_BETA2)", "tl.load(hyper + LOG_BETA1)")),
    "correction one step late": (
        "counts",
        Fault("prologue", "correction(count, tl.load(hyper + LOG_BETA1))", "correction(count - 1, tl.load(hyper + LOG_BETA1))"),
    ),
    "every program counts": ("counts", Fault("prologue", "first = active & (index == 0)", "first = active")),
    "borders off by one": ("counts", Fault("prologue", "element = border - BAND + position", "element = border - BAND + position + 1")),
    "half of each record": ("counts", Fault("prologue", "position < 2 * BAND", "position < BAND")),
    "record without rows": ("counts", Fault("prologue", "stats + k * length + element", "stats + element")),
    "record shifted by a row": ("counts", Fault("prologue", "record + (k + 1) * 2 * BAND", "record + k * 2 * BAND")),
    "record of a tensor's start written": ("counts", Fault("prologue", "mask = active & (index > 0)", "mask = active & (index >= 0)")),
    "records of two tensors mixed up": ("counts", Fault("prologue", "edges + (tile + row) *", "edges + tile *")),
    "border of another tile": ("counts", Fault("prologue", "border = index * TILE", "border = tile * TILE")),
    "prologue: inactive tensors counted": ("inactive", Fault("prologue", "mask=inside, other=0) != 0)", "mask=inside, other=0) >= 0)")),
    # signals
    "loss scale and sign ignored": ("signals", Fault("window", "return g * gain", "return g")),
    "prologue: skip ignored": ("signals", Fault("prologue", "tl.where(tl.load(hyper + SKIP) == 0.0, tile_count, 0)", "tile_count")),
    "direction: skip ignored": ("signals", Fault("direction", " & (tl.load(hyper + SKIP) == 0.0)", "")),
    "update: skip ignored": ("signals", Fault("update", " & (tl.load(hyper + SKIP) == 0.0)", "")),
    "rate of zero writes": ("signals", Fault("update", " & (rate != 0.0)", "")),
    "sound columns counted": ("signals", Fault("direction", "owned & ~sound", "owned & sound")),
    "columns of neighbours counted": ("signals", Fault("direction", "(owned & ~sound)", "(~sound)")),
    # norms and update
    "scale applied once": ("updates", Fault("update", "(u * scale) * scale", "u * scale")),
    "scale without its second root": ("norms", Fault("norms", "tl.sqrt(tl.sqrt(ratio))", "tl.sqrt(ratio)")),
    "zero direction with a scale": ("norms", Fault("norms", "tl.where(u_square == 0.0, 0.0,", "tl.where(u_square == 0.0, 1.0,")),
    "infinite direction with a scale": ("norms", Fault("norms", " + (u_square - u_square)", "")),
    "one norm for both": ("norms", Fault("norms", "partials + 2 * index + 1,", "partials + 2 * index,")),
    "a round of the sums left out": ("norms", Fault("norms", "begin + part * BLOCK", "begin + BLOCK")),
    "last tile left out": ("norms", Fault("norms", "(tl.load(cells + LENGTH) + TILE - 1) // TILE", "tl.load(cells + LENGTH) // TILE")),
    "sums of another tensor": ("norms", Fault("norms", "partials + 2 * tl.load(cells + FIRST_TILE)", "partials")),
    "norms: inactive tensors scaled": ("inactive", Fault("norms", "tl.load(cells + ACTIVE) != 0", "tl.load(cells + ACTIVE) >= 0")),
    "weight decay grows": ("updates", Fault("update", "tl.fma(decay, p, grafted)", "tl.fma(-decay, p, grafted)")),
    "decay not scaled by lr": (
        "updates",
        Fault("update", "tl.fma(-lr, tl.fma(decay, p, grafted), p)", "tl.fma(-lr, grafted, tl.fma(-decay, p, p))"),
    ),
    "lr ignored": ("updates", Fault("update", "rate = tl.load(lr)", "rate = 1.0 + 0.0 * tl.load(lr)")),
    "steps uphill": ("updates", Fault("update", "tl.fma(-lr,", "tl.fma(lr,")),
    "one element past the end stepped": ("steps", Fault("update", "stored, mask=element < length)", "stored, mask=element <= length)")),
    "update tiles overlap": ("updates", Fault("update", "first = tile * BLOCK", "first = tile * (BLOCK - 1)")),
    "update tile of another tensor": ("updates", Fault("update", "tile - tl.load(cells + FIRST_UPDATE_TILE)", "tile")),
    "direction of another tensor": ("updates", Fault("update", "direction + tl.load(cells + OFFSET)", "direction")),
    "scale of another tensor": ("updates", Fault("update", "tl.load(scales + row)", "tl.load(scales)")),
    "aligned path reads the parameter twice": (
        "updates",
        Fault("update", "tl.multiple_of(direction + element, LINE)", "tl.multiple_of(param + element, LINE)"),
    ),
    "update: inactive tensors stepped": ("inactive", Fault("update", "tl.load(cells + ACTIVE) != 0", "tl.load(cells + ACTIVE) >= 0")),
}
