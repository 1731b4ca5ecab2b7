"""Sharded tensors with the GPU's kernels: two interpreted ranks and one process, the same bits of state and direction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.distributed.test_sharded_steps import alone, compare
from tests.distributed.workers import Workers


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    pool = Workers(2, tmp_path_factory.mktemp("ranks"))
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({"band": 2, "chain": 3, "weight_decay": 0.1}, "norms"),
        ({"band": 1, "graft": "none"}, "exact"),
        pytest.param({"band": 1}, "norms", marks=pytest.mark.full),
        pytest.param({"band": 4, "graft": "none"}, "exact", marks=pytest.mark.full),
    ],
    ids=str,
)
def test_two_ranks_step_like_one_process(workers: Workers, settings: dict[str, Any], row: str) -> None:
    shapes = ((5, 4), (1,), (3,), (0,))
    common: dict[str, Any] = {"lr": 0.1, "eps": 1e-6, "backend": "triton", "tuning": "off", **settings}
    answers = workers.run("ranks.sharded_steps", 2, shapes=shapes, placements=[["s0"]] * 4, mesh_shape=(2,), steps=4, **common)
    for found, counts in answers:
        compare(found, alone(shapes, steps=4, **common), row=row)
        assert counts["all_to_all_single"] == 1
