"""The search of hyperparameters: what is tried, counted, kept and said. Training is a formula."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from sonew_perf.cli import app
from sonew_perf.cli.searching import find_runs
from sonew_perf.errors import MeasurementError
from sonew_perf.records import files
from sonew_perf.records.reading import read_record
from sonew_perf.suite.keeping import Place
from sonew_perf.training import search as searching
from sonew_perf.training.asked import Asked, make_runs, settings_of
from sonew_perf.training.found import PRUNE_AFTER_TRIALS, Found, Trial, search_entry
from sonew_perf.training.loop import Told
from sonew_perf.training.running import unfinished_path
from sonew_perf.training.runs import Run
from sonew_perf.training.search import search
from sonew_perf.training.settings import RANGES, Settings
from sonew_perf.training.tasks.data import Data

CPU = torch.device("cpu")
DATA = Data(name="four examples", sha256="0" * 64, values=np.zeros((4, 784), np.uint8), examples=4)
MEANS = 8
ASKED = Asked(methods=("sonew", "adam"), steps=MEANS, batch=4, search=5, ranges="narrow", seeds=(3, 4))
SONEW = ("sonew", 1)
BEST = Settings(lr=1e-2, beta1=0.9, beta2=0.98, eps=1e-7)


def loss_of(settings: Settings) -> float:
    """50 at BEST, one more for every decade away from it."""
    away = [math.log10(getattr(settings, name) / getattr(BEST, name)) for name in ("lr", "eps")]
    away += [math.log10((1 - getattr(settings, name)) / (1 - getattr(BEST, name))) for name in ("beta1", "beta2")]
    return 50 + math.hypot(*away)


class Trainer:
    """In the place of `train_one`: keeps what it trains.

    Args:
        raise_in: a call that is interrupted. diverges: whether a run does.
    """

    def __init__(self, *, raise_in: int | None = None, diverges: Callable[[Run], bool] = lambda _: False) -> None:
        self.runs: list[Run] = []
        self.raise_in, self.diverges = raise_in, diverges

    def __call__(self, run: Run, _data: Data, _device: torch.device, *, counters: bool, told: Told) -> dict[str, Any]:
        assert not counters
        self.runs.append(run)
        if len(self.runs) == self.raise_in:
            raise KeyboardInterrupt
        if self.diverges(run):
            told(0, math.nan)
            return {"losses": [None] * MEANS}
        losses = [loss_of(run.settings) + MEANS - 1 - mean for mean in range(MEANS)]
        for mean, loss in enumerate(losses):
            told(mean, loss)
        return {"losses": losses}


class Heard:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.known: list[Trial] = []
        self.new: list[Trial] = []
        self.means: list[int] = []
        self.said: list[str] = []

    def resume(self, trials: Sequence[Trial]) -> None:
        self.known += trials

    def mean(self, number: int, _loss: float) -> None:
        self.means.append(number)

    def trial(self, trial: Trial) -> None:
        self.new.append(trial)

    def warn(self, text: str) -> None:
        self.said.append(text)


def _search(
    folder: Path, *, variant: tuple[str, int | None] = SONEW, report: Heard | None = None, data: Data = DATA, **changed: Any
) -> Found:
    return search(replace(ASKED, **changed), data, CPU, variant, folder, report or Heard())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """Puts a trainer in the place of training."""

    def place(**how: Any) -> Trainer:
        trainer = Trainer(**how)
        monkeypatch.setattr(searching, "train_one", trainer)
        return trainer

    return place


def test_a_search_begins_with_the_reference_and_stays_inside_the_ranges(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trainer, heard = trained(), Heard()
    found = _search(tmp_path, report=heard)
    assert trainer.runs[0] == make_runs(ASKED, DATA)[0]
    assert len(trainer.runs) == ASKED.search == len(found.trials) == found.fresh
    assert (heard.new, heard.known, heard.said) == (list(found.trials), [], [])
    assert heard.means == [*range(MEANS)] * len(found.trials)
    for run, trial in zip(trainer.runs, found.trials, strict=True):
        assert trial.settings == {name: getattr(run.settings, name) for name in ("lr", "beta1", "beta2", "eps")}
        for name, at in RANGES["narrow"].items():
            if name in trial.settings:
                value = 1 - trial.settings[name] if at.complement else trial.settings[name]
                assert at.low * 0.999 <= value <= at.high * 1.001
        assert run.seed == 3
    best = min(trainer.runs, key=lambda run: loss_of(run.settings))
    assert found.run == best
    assert found.value == pytest.approx(loss_of(best.settings))
    assert found.study.startswith("autoencoder-sonew-band1-fp32-torch-")
    assert (tmp_path / "training" / f"{found.study}.journal").is_file()


def test_a_reference_outside_the_ranges_is_clipped_and_said(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trainer, heard = trained(), Heard()
    _search(tmp_path, report=heard, ranges="paper", search=1)
    (run,) = trainer.runs
    assert run.settings == replace(settings_of(ASKED, *SONEW), beta1=0.9)
    assert heard.said == ["SONew band 1: the reference's beta1=0.816 lies outside [0.9, 0.999]: the search begins at 0.9"]


def test_given_settings_are_not_varied(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trainer = trained()
    found = _search(tmp_path, given=("eps=0.5", "chain=row"), search=3)
    assert {(run.settings.eps, run.settings.chain) for run in trainer.runs} == {(0.5, "row")}
    assert set(found.searched) == {"lr", "beta1", "beta2"}
    entry = search_entry(found, ASKED, DATA, CPU)
    assert (entry["fixed"]["eps"], entry["hyper"]["eps"]) == (0.5, 0.5)
    assert set(entry["searched"]) == {"lr", "beta1", "beta2"}


def test_an_interrupted_search_goes_on_and_a_larger_one_takes_over_a_smaller(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    first = trained(raise_in=3)
    with pytest.raises(KeyboardInterrupt):
        _search(tmp_path)
    second, heard = trained(), Heard()
    found = _search(tmp_path, report=heard)
    assert second.runs[0] == first.runs[2]
    assert (len(found.trials), found.fresh) == (5, 3)
    assert heard.known + heard.new == list(found.trials)
    assert len(heard.known) == 2
    assert len({run.settings.lr for run in first.runs[:2] + second.runs}) == 5
    third = trained()
    assert _search(tmp_path).trials == found.trials
    assert third.runs == []
    larger = _search(tmp_path, search=6)
    assert (larger.trials[:5], larger.fresh, larger.study) == (found.trials, 1, found.study)
    assert _search(tmp_path).trials == found.trials  # a smaller budget is what it says, whatever else is known


CHANGES: list[dict[str, Any]] = [
    {"steps": 9},
    {"batch": 2},
    {"precision": "bf16"},
    {"schedule_epochs": 50},
    {"lr_rule": "constant"},
    {"seeds": (5,)},
    {"ranges": "paper"},
    {"given": ("eps=1e-3",)},
    {"given": ("gamma=0.1",)},
]


def test_trials_of_anything_else_are_another_study(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trained()
    names = [_search(tmp_path, **{"search": 1} | changed).study for changed in [{}, *CHANGES]]
    names += [_search(tmp_path, variant=variant, search=1).study for variant in (("sonew", 2), ("adam", None))]
    names.append(_search(tmp_path, data=replace(DATA, sha256="1" * 64), search=1).study)
    assert len(set(names)) == len(CHANGES) + 4
    assert _search(tmp_path, search=1, methods=("adam", "sonew"), seeds=(3, 8)).study == names[0]


def test_bad_trials_are_pruned_and_count(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trained()
    found = _search(tmp_path, search=12)
    pruned = [trial for trial in found.trials if trial.outcome == "pruned"]
    assert sum(found.outcomes.values()) == len(found.trials) == 12
    assert found.outcomes == {"finished": 12 - len(pruned), "pruned": len(pruned)}
    assert len(pruned) >= 2
    assert [trial.outcome for trial in found.trials[:PRUNE_AFTER_TRIALS]] == ["finished"] * PRUNE_AFTER_TRIALS
    assert all(MEANS / 4 < trial.means < MEANS for trial in pruned)  # neither in the warm-up nor when it is over anyway
    assert found.value == min(trial.value for trial in found.trials if trial.outcome == "finished" and trial.value is not None)


def test_what_is_bad_at_the_last_mean_only_is_finished(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trained()
    found = _search(tmp_path, search=7, steps=1)
    assert found.outcomes == {"finished": 7}


def test_diverged_runs_are_trials_and_no_crash(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    calls = itertools.count()
    trained(diverges=lambda _: next(calls) in {0, 2})
    found = _search(tmp_path)
    assert [trial.outcome for trial in found.trials] == ["diverged", "finished", "diverged", "finished", "finished"]
    assert [trial.value for trial in found.trials if trial.outcome == "diverged"] == [None, None]

    trained(diverges=lambda _: True)
    with pytest.raises(MeasurementError, match=r"none of the 5 trials of Adam came to its end.*a larger --search"):
        _search(tmp_path, variant=("adam", None))


def test_an_entry_says_what_was_searched_how_and_what_came_out(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trained()
    found = _search(tmp_path)
    entry = search_entry(found, ASKED, DATA, CPU)
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    assert (entry["kind"], entry["method"], entry["band"], entry["seed"], entry["ranges"]) == ("training search", "sonew", 1, 3, "narrow")
    assert entry["searched"]["beta1"] == {"low": 0.05, "high": 0.25, "complement": True}
    assert (entry["value"], entry["hyper"]["lr"]) == (found.value, found.settings.lr)
    assert (entry["sampler"], entry["pruner"]) == ("tpe", {"name": "median", "after_trials": 5, "after_means": 2})
    assert entry["outcomes"] == {"finished": 5}
    assert [(trial["settings"], trial["value"]) for trial in entry["trials"]] == [(trial.settings, trial.value) for trial in found.trials]
    assert entry["date"] == max(trial.date for trial in found.trials)
    assert entry["machine"]["type"] == "cpu"
    again = search_entry(_search(tmp_path), ASKED, DATA, CPU)
    assert again == entry


def _find(place: Place, asked: Asked = ASKED) -> list[Run]:
    return find_runs(asked, DATA, CPU, place, label="")


def test_the_runs_of_a_command_have_the_best_settings_of_each_variant_and_every_seed(
    tmp_path: Path, trained: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained()
    runs = _find(Place(store=tmp_path))
    assert [(run.method, run.seed) for run in runs] == [("sonew", 3), ("adam", 3), ("sonew", 4), ("adam", 4)]
    for run in runs:
        tried = [other.settings for other in trainer.runs if other.method == run.method]
        assert run.settings == min(tried, key=loss_of)
        assert len(tried) == ASKED.search  # as many for each method
    said = capsys.readouterr().err
    assert "SONew band 1, trial 1 of 5: lr 0.00617, beta1 0.816, beta2 0.938, eps 3.6e-06: loss 51." in said
    assert said.count("(5 finished)") == 2


def test_without_a_search_the_runs_are_those_of_the_reference(tmp_path: Path) -> None:
    asked = replace(ASKED, search=None)
    assert _find(Place(store=tmp_path), asked) == make_runs(asked, DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_kept_in_the_record_once(tmp_path: Path, trained: Callable[..., Trainer]) -> None:
    trained()
    place = Place(output=tmp_path / "x.json", store=tmp_path / "store")
    runs = _find(place)
    beside = unfinished_path(place.folder, runs, DATA, CPU)
    entries = files.read_entries(tmp_path / "x.json")
    assert [(entry["kind"], entry["method"]) for entry in entries] == [("training search", "sonew"), ("training search", "adam")]
    assert files.read_entries(beside) == entries
    assert [path.name for path in beside.parent.glob("*.json")] == [beside.name]
    beside.unlink()  # as when the runs have come to their end
    assert _find(place) == runs
    assert files.read_entries(tmp_path / "x.json") == entries
    assert not beside.exists()  # the store has it
    _find(place, replace(ASKED, search=6))
    assert [len(entry["trials"]) for entry in files.read_entries(tmp_path / "x.json")] == [6, 6]


def test_a_search_that_was_interrupted_later_is_still_handed_to_the_store(
    tmp_path: Path, trained: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(raise_in=7)
    with pytest.raises(typer.Exit) as ended:
        _find(Place(store=tmp_path))
    assert ended.value.exit_code == 130
    assert f"trials that ended are kept in {tmp_path / 'training'}: the same command goes on" in capsys.readouterr().err
    trained()
    runs = _find(Place(store=tmp_path))
    assert [entry["method"] for entry in files.read_entries(unfinished_path(tmp_path, runs, DATA, CPU))] == ["sonew", "adam"]
    assert "SONew band 1, trial" not in capsys.readouterr().err


def test_the_command_searches_trains_and_keeps_both_in_one_record(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "perf"))
    path = tmp_path / "x.json"
    how = ["--method", "sonew", "--batch", "20", "--steps", "2", "--lr-rule", "constant", "--search", "2", "--ranges", "narrow"]
    done = CliRunner().invoke(app, ["train", "--data", str(folder), *how, "--output", str(path)])
    assert done.exit_code == 0, done.output
    searched, run = files.read_entries(path)
    assert (searched["kind"], run["kind"]) == ("training search", "training run")
    assert run["hyper"] == searched["hyper"]
    assert run["losses"][-1] == pytest.approx(min(trial["value"] for trial in searched["trials"]), rel=1e-4)
    assert len(read_record(path, origin="store").results) == 1
