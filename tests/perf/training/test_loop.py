"""One run, against a training loop written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch documents it there

from sonew.errors import InvalidConfigError
from sonew.torch import SONew
from sonew_perf.errors import DataError
from sonew_perf.training.loop import finite, mean_every, train
from sonew_perf.training.runs import Run
from sonew_perf.training.tasks import autoencoder, autoencoder_torch
from sonew_perf.training.tasks.data import Data, batches
from sonew_perf.training.tasks.table import TASKS, Task
from tests.perf.training.made import CPU, DATA, EXAMPLES, TASK, evaluate, loss, make_run, pick, small_model

pytestmark = pytest.mark.usefixtures("_small_task")

FIELDS: Final = {
    *("loss", "losses", "losses_every", "wall_s", "optimizer_s", "step_s", "optimizer_step_s", "state_bytes", "fallback", "plans", "date"),
}


def by_hand(model: torch.nn.Module, optimizer: torch.optim.Optimizer, run: Run, rates: list[float]) -> tuple[list[float], float]:
    """The loss of every step before its update, and the result; the rates are absolute."""
    values, losses = torch.from_numpy(DATA.values), []
    for rate, chosen in zip(rates, batches(EXAMPLES, run.batch, run.steps, run.seed), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        value = loss(model, values[chosen].to(torch.float32) / 255)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses, evaluate(model, values, torch.from_numpy(DATA.held_out))


RATES: Final = {  # of a peak of 0.02 in a schedule of 8 steps, epochs of 4
    "constant": [0.02] * 7,
    "steps": [0.02, *np.linspace(0.02, 0, 8)[:6]],
    "epochs": [0.0] * 4 + [0.005] * 3,
}


@pytest.mark.parametrize("rule", list(RATES))
@pytest.mark.parametrize("method", ["sonew", "adam"])
def test_a_run_is_the_training_loop_written_out(method: str, rule: str) -> None:
    run = make_run(method, beta1=0.8, beta2=0.95, eps=1e-6, lr_rule=rule, steps=7, seed=3)
    model = small_model(3)
    optimizer = (SONew if method == "sonew" else torch.optim.Adam)(model.parameters(), betas=(0.8, 0.95), eps=1e-6)
    losses, result = by_hand(model, optimizer, run, RATES[rule])
    entry = train(run, DATA, CPU)
    assert entry["losses"] == pytest.approx([np.mean(losses[at : at + 2]) for at in (0, 2, 4, 6)], rel=1e-5)
    assert entry["losses_every"] == 2
    assert entry["loss"] == pytest.approx(result, rel=1e-5)
    assert entry["loss"] < evaluate(small_model(3), torch.from_numpy(DATA.values), torch.from_numpy(DATA.held_out))


@pytest.mark.parametrize("method", ["sonew", "adam"])
def test_bfloat16_trains_in_bfloat16_throughout(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.nn.Module] = []

    def looked_at(model: torch.nn.Module, *others: Any) -> float:
        seen.append(model)
        return evaluate(model, *others)

    monkeypatch.setitem(TASKS, "small", replace(TASK, evaluate=looked_at))
    run = make_run(method, precision="bf16", steps=8, lr=0.05)
    entry = train(run, DATA, CPU)
    assert {param.dtype for param in seen[0].parameters()} == {torch.bfloat16}
    model = small_model().to(torch.bfloat16)
    narrow: dict[str, Any] = {"state_dtype": "bfloat16", "direction_dtype": "bfloat16"} if method == "sonew" else {"fused": True}
    optimizer = (SONew if method == "sonew" else torch.optim.Adam)(model.parameters(), betas=(0.9, 0.99), **narrow)
    losses, result = by_hand(model, optimizer, run, [0.05] * 8)
    assert entry["losses"] == pytest.approx([np.mean(losses[at : at + 2]) for at in (0, 2, 4, 6)], rel=1e-5)
    assert entry["loss"] == pytest.approx(result, rel=1e-5)
    assert entry["losses"][-1] < 0.8 * entry["losses"][0]


def test_narrow_state_alone_leaves_the_model_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    types: set[torch.dtype] = set()

    def noted(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        types.update(param.dtype for param in model.parameters())
        return loss(model, batch)

    monkeypatch.setitem(TASKS, "small", replace(TASK, loss=noted))
    entry = train(make_run(precision="bf16-state"), DATA, CPU)
    assert types == {torch.float32}
    assert entry["state_bytes"] == 2 * 53 * 3 + 4 * 4


def test_an_entry_has_every_field() -> None:
    entry = train(make_run("adam"), DATA, CPU)
    assert set(entry) == FIELDS
    assert 0 < entry["optimizer_s"] < entry["wall_s"]
    assert 0 < entry["optimizer_step_s"] < entry["step_s"] < entry["wall_s"]
    assert entry["state_bytes"] == 53 * 8 + 4 * 4
    assert (entry["fallback"], entry["plans"]) == (None, [])
    assert datetime.fromisoformat(entry["date"]).utcoffset() is not None


def test_the_plan_of_the_optimizer_is_recorded() -> None:
    (plan,) = train(make_run(), DATA, CPU)["plans"]
    assert plan["provenance"].startswith(("analytic default (no stored entry fits", "nothing to tune"))


@pytest.mark.parametrize(("gamma", "share"), [(1e3, 1), (0.0, 0)])
def test_columns_that_fall_back_are_counted_by_layer_at_every_mean(gamma: float, share: int) -> None:
    entry = train(make_run(steps=6, gamma=gamma, eps=1.0), DATA, CPU, counters=True)
    assert entry["fallback"] == {"layers": dict.fromkeys(("0.weight", "0.bias", "2.weight", "2.bias"), [share] * 3)}
    assert train(make_run("adam"), DATA, CPU, counters=True)["fallback"] is None


def test_means_are_told_as_they_come_and_what_is_raised_ends_the_run() -> None:
    told: list[tuple[int, float]] = []
    entry = train(make_run(steps=5), DATA, CPU, told=lambda *mean: told.append(mean))
    assert [(number, finite(value)) for number, value in told] == list(enumerate(entry["losses"]))

    def stop(number: int, _loss: float) -> None:
        told.append((number, 0.0))
        if number == 1:
            raise KeyboardInterrupt

    told.clear()
    with pytest.raises(KeyboardInterrupt):
        train(make_run(steps=8), DATA, CPU, told=stop)
    assert [number for number, _ in told] == [0, 1]


def test_a_run_that_diverged_ends_with_nulls_and_without_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its third step's loss is no number: the second mean is null, and what would follow is not trained."""
    steps: list[float] = []

    def breaks(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        value = loss(model, batch)
        steps.append(value.item())
        return value * math.nan if len(steps) == 3 else value

    monkeypatch.setitem(TASKS, "small", replace(TASK, loss=breaks))
    entry = train(make_run("sgd", steps=7, beta1=0.0), DATA, CPU)
    assert entry["losses"] == [pytest.approx(np.mean(steps[:2]), rel=1e-5), None, None, None]
    assert entry["loss"] is None
    assert len(steps) == 4


def test_an_optimizer_that_finds_no_eigenvectors_ends_its_run_as_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its third step, as SOAP and Shampoo do with matrices that are no longer finite."""
    steps = itertools.count()

    def step(_self: object) -> None:
        if next(steps) == 2:
            raise LinAlgError

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    told: list[float] = []
    entry = train(make_run("adam", steps=7), DATA, CPU, told=lambda _number, mean: told.append(mean))
    assert (len(entry["losses"]), entry["losses"][1:], entry["loss"], next(steps)) == (4, [None] * 3, None, 3)
    assert told[0] == pytest.approx(entry["losses"][0], rel=1e-5)
    assert math.isnan(told[1])


def test_a_run_whose_last_step_goes_too_far_has_its_losses_but_no_result() -> None:
    entry = train(make_run("sgd", steps=1, lr=1e30, beta1=0.0), DATA, CPU)
    assert entry["losses"] == [pytest.approx(4.0, abs=3.0)]
    assert entry["loss"] is None


@pytest.mark.parametrize(("examples", "batch", "means", "every"), [(22, 5, 2, 2), (22, 5, 1, 4), (22, 5, 10, 1), (60_000, 1000, 1, 60)])
def test_a_mean_is_over_an_equal_part_of_an_epoch(examples: int, batch: int, means: int, every: int) -> None:
    task: Task = replace(TASK, means=means)
    assert mean_every(task, replace(DATA, examples=examples), batch) == every


def test_numbers_are_kept_with_six_digits_and_never_as_infinity() -> None:
    assert [finite(value) for value in (1 / 3, 123456.78, math.inf, math.nan)] == [0.333333, 123457.0, None, None]


def test_the_real_task_is_trained_as_written_out(folder: Path) -> None:
    """Three steps of the autoencoder, without the table's functions."""
    data = autoencoder.load(folder)
    run = make_run(task="autoencoder", steps=3, batch=10, lr=3e-3)
    model = autoencoder_torch.build(0, data)
    optimizer = SONew(model.parameters(), lr=3e-3)
    losses = []
    for chosen in batches(40, 10, 3, 0):
        images = torch.from_numpy(data.values[chosen]).float() / 255
        value = torch.nn.functional.binary_cross_entropy_with_logits(model(images), images, reduction="none").sum(1).mean()
        model.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    entry = train(run, data, CPU)
    assert entry["losses"] == pytest.approx([np.mean(losses)], rel=1e-4)
    assert losses[-1] < losses[0]
    assert entry["state_bytes"] == 3 * 4 * 2_837_314 + 16 * 4


def test_what_cannot_be_trained_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"batch=23 is not allowed with 22 examples: .*--batch 22"):
        train(make_run(batch=23), DATA, CPU)
    with pytest.raises(InvalidConfigError, match=r"precision='bf16-state' is not allowed with adam"):
        train(make_run("adam", precision="bf16-state"), DATA, CPU)


def test_the_data_is_left_as_it_is() -> None:
    values = DATA.values.copy()
    values.setflags(write=False)
    data: Data = replace(DATA, values=values)
    before = values.copy()
    assert train(make_run(steps=2), data, CPU)["losses"] == train(make_run(steps=2), DATA, CPU)["losses"]
    np.testing.assert_array_equal(values, before)
    assert pick(torch.from_numpy(before), torch.tensor([0])).max() <= 1
