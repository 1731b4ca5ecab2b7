"""The update kernels against the same float32 operations in torch, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonew.config import Hyper
from tests.kernels.interpreter.harness import SENTINEL, Group, config

UPDATE_BLOCK = config().as_dict()["update_block"]


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
    size, hyper = UPDATE_BLOCK + 50, Hyper(lr=0.1, weight_decay=0.5)
    group = Group((size,), hyper, steps=1)
    storage = torch.full((size + 8,), SENTINEL)
    param = storage[offset : offset + size]
    group.leaves[0] = replace(group.leaves[0], param=param)
    group.stepper = group.make_stepper()
    rng, table = np.random.default_rng(0), group.stepper.table
    assert storage.data_ptr() % 16 == table.direction.data_ptr() % 16 == 0
    for tensor in (param, table.direction[:size]):
        tensor.copy_(torch.from_numpy(rng.standard_normal(size).astype(np.float32)))
    table.scales.fill_(1.5)
    want = stepped(param, table.direction[:size], table.scales[0], hyper)
    group.stepper.update()

    assert torch.equal(param, want)
    assert (storage[:offset] == SENTINEL).all()
    assert (storage[offset + size :] == SENTINEL).all()
