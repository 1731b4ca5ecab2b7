"""Whole models on several ranks: DDP and FSDP2 train as one process does, checkpoints change hands, a NaN stops everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew.torch import SONew
from tests.distributed import models
from tests.distributed.workers import Workers
from tests.expected import gradients, parameters, take_step
from tests.tolerances import assert_close

STEPS = 6
Everything = dict[str, dict[str, np.ndarray]]


def alone(steps: int = STEPS, **settings: Any) -> Everything:
    """The same training in one process."""
    model = models.make_model()
    optimizer = SONew(model.parameters(), **models.SETTINGS | settings)
    models.learn(model, optimizer, range(steps))
    return models.everything(model, optimizer)


def compare(found: Everything, expected: Everything, row: str) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for what, value in values.items():
            assert_close(found[name][what], value, row, context=f"{what} of {name}")


@pytest.mark.parametrize(("ranks", "hybrid"), [(1, False), (2, False), (3, False), (4, False), (4, True)])
def test_fsdp2_trains_like_one_process(workers: Workers, ranks: int, hybrid: bool) -> None:
    """Gradients are averaged over ranks, in another order than in one batch: the rounding of that, and no more."""
    expected = alone(backend="cpu")
    for found in workers.run("models.fsdp2", ranks, steps=STEPS, hybrid=hybrid, backend="cpu"):
        compare(found, expected, "float32")


@pytest.mark.parametrize("ranks", [2, 3])
def test_ddp_trains_like_one_process(workers: Workers, ranks: int) -> None:
    expected = alone(backend="cpu")
    answers = workers.run("models.ddp", ranks, steps=STEPS, backend="cpu")
    for found in answers:
        compare(found, expected, "float32")
        compare(found, answers[0], "exact")


@pytest.mark.parametrize(("saving", "loading"), [(4, 2), (2, 3), (2, 2)])
def test_a_checkpoint_changes_hands(workers: Workers, saving: int, loading: int, tmp_path: Path) -> None:
    """Saved on some ranks, loaded on others: the same bits of parameters, state and counts; training goes on as if nothing was."""
    saved = workers.run("models.save", saving, folder=str(tmp_path), steps=4, backend="cpu")
    straight = workers.run("models.fsdp2", loading, steps=7, backend="cpu")
    for loaded, finished in workers.run("models.load", loading, folder=str(tmp_path), steps=[4, 5, 6], backend="cpu"):
        compare(loaded, saved[0], "exact")
        compare(finished, straight[0], "exact" if saving == loading else "float32")


@pytest.mark.parametrize("how", ["guard", "found_inf", "total_norm"])
def test_a_nan_on_one_rank_stops_all(workers: Workers, how: str) -> None:
    assert workers.run("models.poisoned", 3, where=1, how=how) == [(True, 1, True)] * 3


def test_one_rank_plans_for_all(workers: Workers) -> None:
    answers = workers.run("models.planned_once", 3, backend="cpu")
    assert sum(made for made, _, _ in answers) == 1
    assert len({provenance for _, provenance, _ in answers}) == 1
    assert answers[0][1]


def test_a_plan_that_fails_fails_on_all_ranks(workers: Workers) -> None:
    answers = workers.run("models.planned_once", 2, backend="triton")
    assert sum(made for made, _, _ in answers) == 1
    assert all("backend='triton' cannot step" in error for _, _, error in answers)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("shard 1", ["UnsupportedProblemError", "(4, 6)", "Shard(1)", "band=0"]),
        ("shard 1, stochastic", ["UnsupportedProblemError", "stochastic rounding", "Shard(0)"]),
        ("whole gradient", ["UnsupportedProblemError", "DTensor has a gradient of type Tensor"]),
        ("whole parameter", ["UnsupportedProblemError", "Tensor has a gradient of type DTensor"]),
        ("state cut otherwise", ["InvalidConfigError", "momentum", "sharded like it"]),
        ("fsdp1", ["UnsupportedProblemError", "FSDP1", "fully_shard"]),
        ("fsdp1, original parameters", ["UnsupportedProblemError", "FSDP1", "fully_shard"]),
    ],
)
def test_what_cannot_be_exact_is_refused(workers: Workers, case: str, words: list[str]) -> None:
    first, second = workers.run("models.refused", 2, case=case)
    assert first == second
    assert all(word in first for word in words), first


def test_counters_of_shards_add_up(workers: Workers) -> None:
    params = parameters((7, 5), (40,))
    optimizer = SONew(params, lr=0.1, gamma=0.9, counters=True, backend="cpu")
    for row in gradients(params, band=1)[:4]:
        take_step(optimizer, params, row)
    expected = [(t.columns, t.fallen, t.direction) for t in optimizer.read_counters().tensors]
    answers = workers.run("models.counters", 3)
    for i, (columns, fallen, direction) in enumerate(expected):
        assert sum(answer[i][0] for answer in answers) == columns
        assert sum(answer[i][1] for answer in answers) == fallen > 0
        for answer in answers:
            assert_close(np.array(answer[i][2]), np.array(direction), "norms")


@pytest.mark.parametrize(("broadcast", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_a_full_state_dict_goes_in_and_out(workers: Workers, broadcast: bool, dtype: str) -> None:
    """As torch's helpers gather and hand it out: whole tensors, and after the load the same bits, float32 beside bfloat16 too."""
    answers = workers.run("models.full_state", 3, steps=3, broadcast=broadcast, dtype=dtype, backend="cpu")
    for before, after, kinds in answers:
        compare(after, before, "exact")
        assert kinds == ["Tensor"]


def test_an_overflow_on_one_rank_under_a_scaler(workers: Workers) -> None:
    assert workers.run("models.scaled", 2, where=1) == [(True, 1, True, 2.0**9)] * 2


def test_state_may_move_and_autograd_sees_steps(workers: Workers) -> None:
    for moved, stayed, seen in workers.run("models.moved", 2):
        assert seen
        for one, other in zip(moved, stayed, strict=True):
            for name, value in other.items():
                assert_close(one[name], value, "exact", context=name)
