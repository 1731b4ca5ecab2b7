from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sonew.torch import SONew
from sonew_perf.errors import DataError
from sonew_perf.training import autoencoder
from sonew_perf.training import runs as training
from sonew_perf.training.idx import ImageSet, read_images
from sonew_perf.training.runs import Run, batches, grid, train, train_all

CPU = torch.device("cpu")
RUN = Run(method="sonew", band=1, lr=3e-3, seed=0, steps=4, batch=10)


@pytest.fixture
def images(folder: Path) -> ImageSet:
    return read_images(folder / "train-images-idx3-ubyte")


def test_an_epoch_shows_every_image_once_in_an_order_of_the_seed() -> None:
    first, again, other = (torch.stack(list(batches(12, 4, 6, seed))) for seed in (0, 0, 1))
    for epoch in (first[:3], first[3:], other[:3]):
        assert sorted(epoch.flatten().tolist()) == list(range(12))
    assert torch.equal(first, again)
    assert not torch.equal(first[:3], first[3:])
    assert not torch.equal(first, other)


def test_images_that_fill_no_batch_sit_an_epoch_out() -> None:
    shown = torch.stack(list(batches(11, 4, 4, 0)))
    assert shown.shape == (4, 4)
    assert len(set(shown[:2].flatten().tolist())) == 8


def test_the_grid_has_every_combination_whole_seeds_first_and_no_band_without_need() -> None:
    runs = grid(["sonew", "adamw"], [1, 4], [1e-3, 3e-3], range(2), steps=300, batch=1000)
    assert len(runs) == len(set(runs)) == (2 + 1) * 2 * 2
    assert [run.seed for run in runs] == [0] * 6 + [1] * 6
    assert list(dict.fromkeys(run.label for run in runs)) == ["SONew band 1", "SONew band 4", "AdamW"]


def _by_hand(optimizer_of: training.Method, run: Run, pixels: np.ndarray) -> list[float]:
    """The training loop written out."""
    model = autoencoder.build(run.seed, CPU)
    optimizer = optimizer_of.build(list(model.parameters()), run.lr, run.band)
    losses = []
    for chosen in batches(len(pixels), run.batch, run.steps, run.seed):
        value = autoencoder.loss(model, torch.from_numpy(pixels[chosen.numpy()] / 255).to(torch.float32))
        model.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("method", ["sonew", "adamw"])
def test_a_run_records_the_loss_of_every_step_and_the_mean_of_the_last(
    images: ImageSet, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert training.LAST_STEPS == 20
    monkeypatch.setattr(training, "LAST_STEPS", 4)
    run = dataclasses.replace(RUN, method=method, steps=6)
    entry = train(run, torch.from_numpy(images.pixels.copy()), CPU)
    losses = _by_hand(training.METHODS[method], run, images.pixels)
    assert entry["losses"] == pytest.approx(losses, rel=1e-4)
    assert entry["loss"] == pytest.approx(sum(losses[2:]) / 4, rel=1e-4)
    assert losses[-1] < losses[0]
    assert 0 < entry["optimizer_s"] < entry["wall_s"]


def test_methods_start_alike_and_share_every_setting_but_the_band() -> None:
    params = [torch.zeros(3, requires_grad=True)]
    ours = training.METHODS["sonew"].build(params, 2e-3, 4)
    theirs = training.METHODS["adamw"].build(params, 2e-3, 0)
    for name in ("lr", "betas", "eps", "weight_decay"):
        assert ours.param_groups[0][name] == theirs.param_groups[0][name]
    defaults = SONew(params).defaults
    assert {name: defaults[name] for name in training.HYPER} == {**training.HYPER, "betas": tuple(training.HYPER["betas"])}
    assert ours.param_groups[0]["band"] == 4


def test_a_run_that_diverged_has_no_loss(images: ImageSet) -> None:
    entry = train(dataclasses.replace(RUN, method="adamw", lr=1e38), torch.from_numpy(images.pixels.copy()), CPU)
    assert entry["loss"] is None
    assert entry["losses"][0] is not None
    assert entry["losses"][-1] is None


def test_the_plan_of_the_optimizer_is_recorded(images: ImageSet) -> None:
    pixels = torch.from_numpy(images.pixels.copy())
    (plan,) = train(RUN, pixels, CPU)["plans"]
    assert plan["provenance"].startswith(("analytic default (no stored entry fits", "nothing to tune"))
    assert train(dataclasses.replace(RUN, method="adamw"), pixels, CPU)["plans"] == []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    """Runs that were really trained; training itself is replaced by a number made from the run."""
    trained: list[Run] = []

    def fake(run: Run, _pixels: torch.Tensor, _device: torch.device) -> dict[str, object]:
        trained.append(run)
        return {"loss": run.lr + run.seed}

    monkeypatch.setattr(training, "train", fake)
    return iter([trained])


def test_recorded_runs_are_not_trained_again(images: ImageSet, counted: Iterator[list[Run]]) -> None:
    trained = next(counted)
    runs = grid(["sonew", "adamw"], [1], [1e-3, 3e-3], range(2), steps=4, batch=10)
    first = list(train_all(runs, images, CPU, []))
    assert trained == runs
    assert all(new for _, new in first)
    record = [entry for entry, _ in first]
    del record[5]
    second = list(train_all(runs, images, CPU, record))
    assert trained[8:] == [runs[5]]
    assert [entry["loss"] for entry, _ in second] == [run.lr + run.seed for run in runs]
    assert [new for _, new in second] == [False] * 5 + [True] + [False] * 2


@pytest.mark.parametrize("changed", [{"lr": 4e-3}, {"steps": 5}, {"batch": 9}, {"band": 2}, {"seed": 1}, {"method": "adamw"}])
def test_a_run_with_another_setting_is_another_run(images: ImageSet, counted: Iterator[list[Run]], changed: dict[str, object]) -> None:
    trained = next(counted)
    ((entry, _),) = train_all([RUN], images, CPU, [])
    other = dataclasses.replace(RUN, **changed)  # type: ignore[arg-type]  # parametrised
    list(train_all([other], images, CPU, [entry]))
    assert trained == [RUN, other]


@pytest.mark.parametrize("changed", [{"machine": {"device": "another"}}, {"images": {"count": 40, "sha256": "0"}}, {"lr_rule": "linear"}])
def test_a_result_from_elsewhere_is_not_reused(images: ImageSet, counted: Iterator[list[Run]], changed: dict[str, object]) -> None:
    trained = next(counted)
    ((entry, _),) = train_all([RUN], images, CPU, [])
    list(train_all([RUN], images, CPU, [entry | changed]))
    assert trained == [RUN, RUN]


def test_images_that_do_not_suit_are_refused_with_the_fix(images: ImageSet) -> None:
    with pytest.raises(DataError, match=r"batch=41 is not allowed with 40 images.*--batch 40"):
        training.check_images(images, 41)
    with pytest.raises(DataError, match=r"100 pixels, the autoencoder takes 784"):
        training.check_images(ImageSet(np.zeros((40, 100), np.uint8), ""), 10)


def test_the_clock_adds_up_its_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 1.5, 10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = training.StepClock(CPU)
    for _ in range(2):
        with clock.span():
            pass
    assert math.isclose(clock.seconds(), 2.5)
