"""The update kernels against the same float32 operations in torch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from sonew_kernels.spec import Slot, Storage
from sonew_kernels.update import update_direct
from tests.kernels.interpreter.harness import SENTINEL, Group


def stepped(param: torch.Tensor, u: torch.Tensor, scale: torch.Tensor, hyper: Hyper) -> torch.Tensor:
    """The update in float32, rounded to the parameter's type by torch."""
    lr, decay = (torch.tensor(value, dtype=torch.float32) for value in (hyper.lr, hyper.weight_decay))
    p = param.float()
    return (-lr * (decay * p + (u * scale) * scale) + p).to(param.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_update_is_exact_in_every_storage_type(dtype: torch.dtype) -> None:
    """Full and partial tiles, empty and inactive tensors; values of all sizes, ties and NaN round as torch rounds them."""
    hyper = Hyper(band=1, lr=0.37, weight_decay=0.25)
    group = Group((600, 0, 1, 256, 33), hyper, param_dtype=dtype, steps=1)
    table = group.stepper.table
    rng = np.random.default_rng(3)
    for i, size in enumerate(group.sizes):
        sizes = 10.0 ** rng.uniform(-6, 4, size)
        offset = int(table.rows[i, 9])
        table.direction[offset : offset + size] = torch.from_numpy((rng.standard_normal(size) * sizes).astype(np.float32))
    table.direction[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    table.scales.copy_(torch.from_numpy(rng.uniform(0.5, 2, 5)))
    ties = torch.arange(64, dtype=torch.float32) * 2.0**-9 + 1  # halfway between neighbouring bfloat16 numbers, and others
    group.leaves[3].param[:64] = 0
    table.direction[int(table.rows[3, 9]) :][:64] = ties / -0.37
    table.scales[3] = 1.0
    group.stepper.bind([*group.grads[:4], None])
    before = [leaf.param.clone() for leaf in group.leaves]
    group.stepper.update()

    for i in range(4):
        offset = int(table.rows[i, 9])
        u = table.direction[offset : offset + group.sizes[i]]
        want = stepped(before[i], u, table.scales[i], hyper)
        torch.testing.assert_close(group.leaves[i].param, want, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(group.leaves[4].param, before[4])
    assert group.intact()


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_aligned_and_unaligned_paths_agree(offset: int) -> None:
    """A full tile steps alike whether its addresses are multiples of 16 bytes (0 and 4 elements off) or not (1)."""
    hyper = Hyper(lr=0.1, weight_decay=0.5)
    group = Group((4,), hyper, steps=1)
    rng = np.random.default_rng(0)
    storage, u = (torch.from_numpy(rng.standard_normal(64 + 8).astype(np.float32)) for _ in range(2))
    out = torch.full((64 + 8,), SENTINEL)
    scale = torch.tensor([1.5])
    param, direction, new = (t[offset : offset + 64] for t in (storage, u, out))
    hyper_slots, zero = group.stepper.table.hyper, torch.zeros((), dtype=torch.int32)
    float32 = {"STORAGE": int(Storage.FLOAT32), "DIRECTION_STORAGE": int(Storage.FLOAT32), "STOCHASTIC": False}
    update_direct[(2,)](param, direction, scale, hyper_slots, hyper_slots[int(Slot.LR)], zero, zero, new, 50, 0, **float32, BLOCK=32)

    assert torch.equal(new[:50], stepped(param[:50], direction[:50], scale, hyper))
    assert (out[:offset] == SENTINEL).all()
    assert (out[offset + 50 :] == SENTINEL).all()
