"""The compiled CPU backend on tensors of more than 2^31 elements: their last segments, as no such tensor is in memory."""

from __future__ import annotations

from typing import Final

import pytest
import torch

from sonew.backends.cpu_torch import StepGroup
from sonew.config import Chain, Hyper, LaunchConfig, Plan, Problem
from sonew_kernels.spec import Column
from tests.huge import BEYOND, Huge, tail_start
from tests.sonew.cpu_groups import SMALL, Group

F32, BF16 = torch.float32, torch.bfloat16
BAND: Final = 2
SEGMENT: Final = SMALL["segment"]
SEGMENTS: Final = 4  # that run, the tensor's last ones


def huge_group(length: int, chain: Chain, kind: torch.dtype) -> tuple[Huge, StepGroup, int]:
    """A huge tensor with everything of type `kind`, the step group over its last segments, and the first of their elements.

    The map of the tiles holds those segments alone: a tensor's first tile may have a negative number.
    """
    hyper = Hyper(band=BAND, lr=0.3, weight_decay=0.1, eps=1e-3, chain=chain, stochastic_rounding=True)
    start = tail_start(length, 1 if chain == "tensor" else int(chain), (SEGMENTS + 1) * SEGMENT)
    tail = Group((length - start,), hyper, dtype=kind, state=kind, scratch=kind)
    huge = Huge.of(length, tail)
    problem = tail.plan().problem
    kinds = {name: getattr(problem, name) for name in ("param_dtype", "grad_dtype", "state_dtype", "direction_dtype")}
    huge_problem = Problem(device="cpu", band=BAND, total=length, median=length, **kinds)
    plan = Plan(problem=huge_problem, backend="cpu", config=LaunchConfig.of("cpu", SMALL), provenance="test")
    stepper = StepGroup([huge.leaf], plan, direction=huge.direction)
    before = -(-length // SEGMENT) - SEGMENTS
    stepper.table.rows[0, [Column.FIRST_TILE, Column.FIRST_UPDATE_TILE]] = -before
    stepper._group.tile_count = stepper._group.update_tile_count = SEGMENTS
    stepper.set_hyper(hyper)
    stepper.bind([huge.grad])
    return huge, stepper, before * SEGMENT


def check(huge: Huge, stepper: StepGroup, first: int) -> None:
    def run() -> None:
        for phase in (stepper.prologue, stepper.direction, stepper.norms, stepper.update):
            phase()

    huge.check(stepper.table, run, first=first, stepped=first)


@pytest.mark.parametrize(
    ("length", "chain", "kind"),
    [(2**31 + BEYOND, "tensor", F32), (2**32 + BEYOND, 1000, F32), (2**32 + BEYOND, "tensor", BF16)],
)
def test_the_last_segments_of_a_huge_tensor_step_like_the_reference(length: int, chain: Chain, kind: torch.dtype) -> None:
    check(*huge_group(length, chain, kind))


@pytest.mark.parametrize("column", [Column.FIRST_TILE, Column.FIRST_UPDATE_TILE])
def test_a_first_element_cut_to_32_bits_is_caught(column: Column) -> None:
    """Segments that lie 2^32 elements too early: the comparison above can fail."""
    huge, stepper, first = huge_group(2**32 + SEGMENTS * SEGMENT + BEYOND, "tensor", F32)
    assert first >= 2**32, "less the 2^32 it must still lie in the tensor"
    stepper.table.rows[0, column] += 2**32 // SEGMENT
    with pytest.raises(AssertionError):
        check(huge, stepper, first)
