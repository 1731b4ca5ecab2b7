"""Sharded tensors are stepped as whole ones: state bit for bit, parameters to the rounding of their norms, on any number of ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sonew.torch import SONew
from tests.distributed.workers import Workers
from tests.expected import gradients, parameters, take_step
from tests.tolerances import assert_close

SHAPES = ((7, 5), (3,), (1,), (0,), (2, 3, 4), (64,), (13, 1), (), (4, 8))
SHARD = [["s0"] if shape else ["r"] for shape in SHAPES]
STEPS = 6


def alone(shapes: Any, *, steps: int, dtype: str = "float32", **settings: Any) -> list[dict[str, torch.Tensor]]:
    """The same steps in this process on whole tensors."""
    params = parameters(*shapes, dtype=getattr(torch, dtype))
    optimizer = SONew(params, **settings)
    for row in gradients(params, band=settings["band"])[:steps]:
        take_step(optimizer, params, [grad.to(param.dtype) for grad, param in zip(row, params, strict=True)])
    return [
        {"param": param.detach().float(), **{name: value.float() for name, value in optimizer.state[param].items()}} for param in params
    ]


def compare(found: Any, expected: Any, *, row: str = "norms") -> None:
    """State to the last bit; parameters within the rounding of norms that are summed in another order."""
    for i, (got, want) in enumerate(zip(found, expected, strict=True)):
        for name, value in want.items():
            assert_close(got[name], value, row if name == "param" else "exact", context=f"{name} of tensor {i}")


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("reference", {"band": 1}),
        ("cpu", {"band": 1, "weight_decay": 0.1}),
        ("cpu", {"band": 4, "graft": "rmsprop"}),
        ("reference", {"band": 4, "graft": "sgd"}),
        ("cpu", {"band": 2, "chain": 3}),
        ("cpu", {"band": 2, "chain": "row", "decoupled_weight_decay": False, "weight_decay": 0.1}),
        ("cpu", {"band": 0, "maximize": True}),
    ],
    ids=str,
)
def test_shard_0_steps_like_whole_tensors(workers: Workers, ranks: int, backend: str, settings: dict[str, Any]) -> None:
    """Uneven shards, empty ones, ones shorter than the band, tensors of no dimension."""
    common: dict[str, Any] = {"lr": 0.1, "eps": 1e-6, "backend": backend, **settings}
    answers = workers.run("ranks.sharded_steps", ranks, shapes=SHAPES, placements=SHARD, mesh_shape=(ranks,), steps=STEPS, **common)
    expected = alone(SHAPES, steps=STEPS, **common)
    for found, counts in answers:
        compare(found, expected)
        cut = int(ranks > 1)
        assert counts["all_to_all_single"] == int(cut and settings["band"] > 0)
        assert counts["all_reduce"] == cut
        assert counts["broadcast"] == counts["all_gather_into_tensor"] == counts["reduce_scatter_tensor"] == 0
        assert counts["launch groups"] == (2 if cut else 1)
        assert counts["new plans"] == 0


def test_row_chains_cross_no_border(workers: Workers) -> None:
    """No halo is exchanged where every row is whole; with plain tensors and replicas no collective at all."""
    shapes = ((7, 5), (2, 3, 4))
    common: dict[str, Any] = {"lr": 0.1, "eps": 1e-6, "backend": "cpu", "band": 2, "chain": "row"}
    for kinds, reduced in ((["s0"], 1), (["r"], 0)):
        answers = workers.run("ranks.sharded_steps", 3, shapes=shapes, placements=[kinds] * 2, mesh_shape=(3,), steps=STEPS, **common)
        for found, counts in answers:
            compare(found, alone(shapes, steps=STEPS, **common))
            assert counts.pop("launch groups") == 1
            assert {name for name, count in counts.items() if count} == ({"all_reduce"} if reduced else set())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_directions_are_the_same_bits(workers: Workers, backend: str) -> None:
    """Without grafting no norm is summed, so parameters agree to the last bit too."""
    common: dict[str, Any] = {"lr": 0.1, "eps": 1e-6, "backend": backend, "band": 2, "graft": "none"}
    answers = workers.run("ranks.sharded_steps", 3, shapes=SHAPES, placements=SHARD, mesh_shape=(3,), steps=STEPS, **common)
    for found, counts in answers:
        compare(found, alone(SHAPES, steps=STEPS, **common), row="exact")
        assert counts["all_reduce"] == 0


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_noise_of_bfloat16_state_knows_no_shard(workers: Workers, backend: str) -> None:
    common: dict[str, Any] = {
        "lr": 0.1,
        "eps": 1e-6,
        "backend": backend,
        "band": 1,
        "graft": "none",
        "stochastic_rounding": True,
        "seed": 7,
    }
    common |= {"state_dtype": "bfloat16", "dtype": "bfloat16"}
    answers = workers.run("ranks.sharded_steps", 4, shapes=SHAPES, placements=SHARD, mesh_shape=(4,), steps=STEPS, **common)
    for found, _ in answers:
        compare(found, alone(SHAPES, steps=STEPS, **common), row="exact")


@pytest.mark.parametrize(
    ("mesh_shape", "kinds", "settings"),
    [
        ((2, 2), ["r", "s0"], {"band": 2}),  # HSDP
        ((2, 2), ["s0", "s0"], {"band": 2}),
        ((2, 2), ["t0x2", "s0"], {"band": 2}),  # FSDP2 over tensor parallelism on the same dimension
        ((2, 2), ["s0", "r"], {"band": 4}),
        ((2,), ["s1"], {"band": 0}),
        ((2,), ["s1"], {"band": 1, "chain": 4}),
        ((2, 2), ["s0", "s1"], {"band": 1, "chain": 2}),
        ((3,), ["s0"], {"band": 3, "chain": "row"}),
    ],
    ids=str,
)
def test_other_layouts_that_are_exact(workers: Workers, mesh_shape: tuple[int, ...], kinds: list[str], settings: dict[str, Any]) -> None:
    shapes = ((9, 8), (4, 16), (2, 8))
    common: dict[str, Any] = {"lr": 0.1, "eps": 1e-6, "backend": "cpu", **settings}
    ranks = mesh_shape[0] * (mesh_shape[1] if len(mesh_shape) > 1 else 1)
    answers = workers.run("ranks.sharded_steps", ranks, shapes=shapes, placements=[kinds] * 3, mesh_shape=mesh_shape, steps=STEPS, **common)
    for found, _ in answers:
        compare(found, alone(shapes, steps=STEPS, **common))
