"""Correctness before speed: a candidate steps small awkward tensors beside the float64 reference, among poisoned memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch

from sonew import reference, rounding
from sonew.backends.table import Leaf, direction_elements
from sonew.config import Chain, Hyper, chain_length
from sonew.dispatch import load_step_group, step
from sonew.layout import MOMENTUM, STATS, state_layout
from sonew_autotune.problems import Case, plan_with
from sonew_kernels.spec import SPECS

STEPS: Final = 3
LONG: Final = 2**17  # longer tensors take two steps: float64 truth is slow, and the second step already reads old borders
GUARD: Final = 64  # elements of NaN on both sides of every buffer: a read poisons the result, a write is seen
LARGEST_CHECKED: Final = 2**20
# Largest error as a share of the buffer's largest magnitude. float32: rounding of a damped, well-conditioned step, with room;
# narrower buffers: twice their unit in the last place, since a sum may round to the other neighbour.
TOLERANCE: Final[Mapping[str, float]] = {"float32": 2e-4, "bfloat16": 2**-7, "float16": 2**-10}
PRIME: Final = 1009


class WrongResultError(Exception):
    """A candidate's result differs from the reference; the message says where and by how much."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """One tensor through the steps: inputs, and its state and parameter afterwards in float64."""

    param: torch.Tensor
    grads: tuple[torch.Tensor | None, ...]
    final: dict[str, torch.Tensor]
    count: int


def check_lengths(tile: int, band: int) -> tuple[int, ...]:
    """Lengths around every edge a kernel can have: none, one, the window's, a prime, and both sides of a tile border.

    Long tiles get one tensor with one border: what is special at their edges is the same code as at those of short tiles.
    """
    two_borders = 2 * tile + band + 3
    around = (tile - 1, tile + 1, two_borders) if two_borders <= LONG else (min(tile, LARGEST_CHECKED) + band + 3,)
    return (0, 1, max(1, band), band + 1, PRIME, *around)


def _hyper(band: int, chain: Chain) -> Hyper:
    """Settings under which three steps are well conditioned: few gradients make a singular window, damping lifts it."""
    return Hyper(lr=0.5, beta1=0.8, beta2=0.9, eps=1e-3, eps_rel=0.5, weight_decay=0.1, band=band, chain=chain)


def _stored(rows: np.ndarray, seed: int, count: int, first_row: int) -> np.ndarray:
    """Rows of new state as bfloat16 keeps them."""
    index = np.arange(rows.shape[-1], dtype=np.int32)
    seed_key, count_key = (np.array([number], dtype=np.int32) for number in (seed, count))
    noise = [rounding.noise(seed_key, count_key, first_row + k, index) for k in range(len(rows))]
    rounded: np.ndarray = rounding.round_to_bfloat16(np, rows.astype(np.float32), np.stack(noise))
    return rounded.astype(np.float64)


@lru_cache(maxsize=64)
def _expected(length: int, band: int, chain: Chain, param_dtype: str, grad_dtype: str, state_dtype: str, *, gap: bool) -> _Expected:
    """The float64 truth for one tensor, by numpy on one thread; with a gap it has no gradient in the second step.

    The tensor's seed of stochastic rounding is its length.
    """
    generator = torch.Generator().manual_seed(length)
    stored, grad_type = getattr(torch, param_dtype), getattr(torch, grad_dtype)
    param = torch.randn(length, generator=generator).to(stored)
    every = [torch.randn(length, generator=generator).to(grad_type) for _ in range(STEPS)]
    idle = {1} if gap else ({2} if length > LONG else set())
    grads = tuple(None if number in idle else grad for number, grad in enumerate(every))
    hyper = _hyper(band, chain_length(chain, (length,)))
    layout = state_layout((length,), band)
    final = [param.double().numpy(), *(np.zeros(layout[name].shape) for name in (MOMENTUM, STATS))]
    present = [grad.double().numpy() for grad in grads if grad is not None]
    for count, grad in enumerate(present, start=1):
        final = list(reference.step(np, final[0], grad, final[1], final[2], np.asarray(float(count)), hyper))
        final[0] = torch.from_numpy(final[0]).to(stored).double().numpy()
        if state_dtype == "bfloat16":
            final[1:] = [_stored(final[1][None], length, count, 0)[0], _stored(final[2], length, count, 1)]
    named = zip(("param", MOMENTUM, STATS), map(torch.from_numpy, final), strict=True)
    return _Expected(param, grads, dict(named), len(present))


class _Arena:
    """Buffers between stretches of NaN that must survive untouched."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._guards: list[torch.Tensor] = []

    def place(self, values: torch.Tensor, *, shift: int = 0) -> torch.Tensor:
        """A contiguous copy of `values` on the device with guards around it; `shift` elements off alignment."""
        whole = torch.full((values.numel() + 2 * GUARD + shift,), torch.nan, dtype=values.dtype, device=self._device)
        inner = whole[GUARD + shift : GUARD + shift + values.numel()].view(values.shape)
        inner.copy_(values)
        self._guards += [whole[: GUARD + shift], whole[GUARD + shift + values.numel() :]]
        return inner

    def breaches(self) -> int:
        """Guard elements that were written."""
        return sum(int((~guard.isnan()).sum()) for guard in self._guards)


def _compare(name: str, length: int, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    if want.numel() == 0:
        return
    error = (got.double().cpu() - want).abs()
    error = torch.where(error.isnan(), torch.inf, error)
    allowed = tolerance * float(want.abs().max())
    worst = int(error.argmax())
    if not float(error.flatten()[worst]) <= allowed:
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), want.shape))
        msg = (
            f"{name} of a tensor of {length} elements differs from the reference at {place}: got {float(got.flatten()[worst]):.7g}, "
            f"expected {float(want.flatten()[worst]):.7g} (allowed error {allowed:.2g})"
        )
        raise WrongResultError(msg)


def check_config(case: Case, backend: str, kernel: str, config: Mapping[str, int], *, lengths: Sequence[int] | None = None) -> None:
    """Step a group of awkward tensors with a configuration and hold it to the reference.

    Args:
        case: device, band, chain and dtypes are used; its shapes are not.
        backend: the backend's name.
        kernel: its kernel family.
        config: the point that is checked.
        lengths: of the tensors; by default around the configuration's own tile.

    Raises:
        WrongResultError: a value is off, or memory outside a buffer was written.
        Exception: whatever the backend raises while it compiles or launches.
    """
    spec = SPECS[kernel]
    tiles = {spec.tile(config, case.band), spec.update_tile(config, case.band)}
    chosen = (
        tuple(lengths) if lengths is not None else tuple(dict.fromkeys(n for tile in sorted(tiles) for n in check_lengths(tile, case.band)))
    )
    method = (case.band, case.chain, case.param_dtype, case.grad_dtype, case.state_dtype)
    state_dtype, direction_dtype = (getattr(torch, name) for name in (case.state_dtype, case.direction_dtype))
    expected = [_expected(length, *method, gap=length == PRIME) for length in chosen]
    arena = _Arena(case.device)
    shifts = [index % 2 for index in range(len(chosen))]  # every second tensor is unaligned
    leaves = []
    for length, shift, truth in zip(chosen, shifts, expected, strict=True):
        momentum, stats = (arena.place(torch.zeros(shape, dtype=state_dtype)) for shape in ((length,), (case.band + 1, length)))
        count = torch.zeros((), dtype=torch.int32, device=case.device)
        leaves.append(Leaf(arena.place(truth.param, shift=shift), momentum, stats, count, chain_length(case.chain, (length,)), length))
    scratch = torch.full((direction_elements(chosen),), torch.nan, dtype=direction_dtype, device=case.device)
    plan = plan_with(case, backend, kernel, config)
    group = load_step_group(plan)(leaves, plan, direction=scratch)
    group.set_hyper(_hyper(case.band, case.chain))
    for number in range(STEPS):
        placed = [
            None if (grad := truth.grads[number]) is None else arena.place(grad, shift=shift)
            for shift, truth in zip(shifts, expected, strict=True)
        ]
        group.bind(placed)
        step(group)
    if case.device == "cuda":
        torch.cuda.synchronize()
    loosest = max(TOLERANCE[name] for name in (case.param_dtype, case.state_dtype, case.direction_dtype))
    for length, leaf, truth in zip(chosen, leaves, expected, strict=True):
        if int(leaf.count) != truth.count:
            msg = f"count of a tensor of {length} elements is {int(leaf.count)}, expected {truth.count}"
            raise WrongResultError(msg)
        _compare("momentum", length, leaf.momentum, truth.final["momentum"], TOLERANCE[case.state_dtype])
        _compare("stats", length, leaf.stats, truth.final["stats"], TOLERANCE[case.state_dtype])
        _compare("param", length, leaf.param, truth.final["param"], loosest)
    if breaches := arena.breaches():
        msg = f"{breaches} elements outside the tensors were written"
        raise WrongResultError(msg)
