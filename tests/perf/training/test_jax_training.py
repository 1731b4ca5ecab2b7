"""The process that trains in JAX: it agrees with torch, and whatever ends it is told."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from sonew.errors import InvalidConfigError
from sonew_perf.errors import MeasurementError
from sonew_perf.training.jax import ask
from sonew_perf.training.jax.ask import train_in_jax
from sonew_perf.training.jax.request import PRECISIONS, check_trains_in_jax
from sonew_perf.training.loop import train
from sonew_perf.training.methods import METHODS
from sonew_perf.training.tasks import autoencoder
from sonew_perf.training.tasks.data import Data
from tests.perf.training.made import CPU, DATA, WIDTH, make_run

RUN: Final = make_run(task="autoencoder", framework="jax", steps=6, batch=10)


def agree(data: Data, **settings: Any) -> None:
    """Six steps on the same data, in JAX's process and in torch."""
    run = make_run(task="autoencoder", framework="jax", steps=6, **settings)
    told: list[tuple[int, float]] = []
    ours = train_in_jax(run, data, "cpu", told=lambda *mean: told.append(mean))
    theirs = train(replace(run, framework="torch"), data, CPU)
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert ours["loss"] < 0.99 * ours["losses"][0]
    assert set(ours) == set(theirs)
    assert [number for number, _ in told] == [0, 1]
    assert [loss for _, loss in told] == pytest.approx(ours["losses"], rel=1e-5)
    assert [ours[name] for name in ("losses_every", "fallback")] == [theirs[name] for name in ("losses_every", "fallback")]


def test_jax_and_torch_see_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In three layers of a few units, which compile fast."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # in half the time
    monkeypatch.setattr(autoencoder, "SHAPES", ((2, WIDTH), (2,), (4, 2), (4,), (WIDTH, 4), (WIDTH,)))
    monkeypatch.setattr(autoencoder, "CODE_WIDTH", 2)
    agree(DATA, batch=5, lr=0.05, eps=1e-3)


@pytest.mark.full
@pytest.mark.parametrize(
    "settings", [{"method": "sonew", "eps": 1e-4}, {"method": "adam", "beta1": 0.8, "eps": 1e-6}], ids=["sonew", "adam"]
)
def test_jax_and_torch_see_the_same_losses_of_the_papers_model(folder: Path, settings: dict[str, Any]) -> None:
    agree(autoencoder.load(folder), batch=10, lr=2e-3, **settings)


@pytest.fixture
def _answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs these lines instead."""
    monkeypatch.setattr(ask, "CHILD", ("-c", "import json, os, sys, threading\n" + "\n".join(request.param)))


def saying(**answer: Any) -> str:
    return f"print({json.dumps(answer)!r}, flush=True)"


RESULT: Final = {"loss": 1 / 3, "losses": [200 / 3, None], "state_bytes": 12}


@pytest.mark.parametrize("_answers", [[saying(mean=0, loss=200 / 3), saying(mean=1, loss=None), saying(result=RESULT)]], indirect=True)
@pytest.mark.usefixtures("_answers")
def test_an_answer_has_six_digits_and_a_mean_that_is_no_number_is_told_as_one() -> None:
    told: list[float] = []
    entry = train_in_jax(RUN, DATA, "cpu", told=lambda _mean, loss: told.append(loss))
    assert entry == {"loss": 0.333333, "losses": [66.6667, None], "state_bytes": 12}
    assert told[0] == 200 / 3
    assert math.isnan(told[1])


@pytest.mark.parametrize(
    ("_answers", "error", "said"),
    [
        (["sys.exit('first\\nno memory left')"], MeasurementError, r"trains SONew band 1, JAX ended with status 1 .*: no memory left$"),
        (
            ["print('{\"result\": {\"lo', end='', flush=True)", "os._exit(3)"],
            MeasurementError,
            "status 3 and without a result: it said nothing",
        ),
        ([saying(failed="RuntimeError: no GPU", refused=False), "sys.exit(1)"], MeasurementError, "result: RuntimeError: no GPU$"),
        ([saying(failed="graft='x' is not allowed", refused=True), "sys.exit(1)"], InvalidConfigError, "^graft='x' is not allowed$"),
    ],
    indirect=["_answers"],
)
@pytest.mark.usefixtures("_answers")
def test_a_process_without_a_result_is_an_error_with_its_reason(error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        train_in_jax(RUN, DATA, "cpu")


@pytest.mark.parametrize("_answers", [["threading.Event().wait()"]], indirect=True)
@pytest.mark.usefixtures("_answers")
def test_what_ends_the_run_ends_its_process(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w") as errors, pytest.raises(KeyboardInterrupt), ask._started([], "cpu", errors) as process:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("_answers", [[saying(mean=0, loss=1.0), "threading.Event().wait()"]], indirect=True)
@pytest.mark.usefixtures("_answers")
def test_what_is_raised_by_who_hears_a_mean_ends_the_run() -> None:
    def stop(_mean: int, _loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_jax(RUN, DATA, "cpu", told=stop)


@pytest.mark.parametrize(
    ("method", "changed", "said"),
    [
        (
            "soap",
            {},
            r"method='soap' is not allowed with framework='jax': it must be one of \['sonew', 'adam', .*'muon'\]. Pass --framework torch.",
        ),
        (
            "adam",
            {"precision": "bf16-state"},
            r"precision='bf16-state' is not .* one of \['fp32', 'bf16'\]. Pass --precision fp32 or --framework torch",
        ),
        ("sonew", {"precision": "bf16-rounded"}, r"precision='bf16-rounded' is not .* one of \['fp32', 'bf16-state', 'bf16'\]"),
        ("sonew", {"idea": "pivot-floor"}, r"idea='pivot-floor' is not .* one of \['none'\]. Pass --set idea=none or"),
        ("sonew", {"band": 5}, r"band=5 is not allowed with framework='jax' on a CPU: it must be at most 4, .* Pass --band 4"),
    ],
)
def test_what_jax_does_not_train_is_refused_with_the_fix(method: str, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        train_in_jax(make_run(method, task="autoencoder", framework="jax", **changed), DATA, "cpu")


def test_a_wide_band_is_left_to_the_kernels_of_a_gpu() -> None:
    check_trains_in_jax(make_run(band=8), "cuda")
    check_trains_in_jax(make_run(band=4), "cpu")


def test_without_jax_the_fix_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonew_perf.training.jax.request.installed_version", lambda _package: "not installed")
    with pytest.raises(InvalidConfigError, match=r"framework='jax' is not allowed here: .*pip install 'sonew\[jax\]'"):
        check_trains_in_jax(RUN, "cpu")


def test_methods_and_precisions_are_among_those_of_torch() -> None:
    listed: dict[str, Sequence[str]] = {name: row.precisions for name, row in METHODS.items()}
    assert all(set(precisions) <= set(listed[method]) for method, precisions in PRECISIONS.items())
