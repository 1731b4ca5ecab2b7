"""Options of the command line, as runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sonew.errors import InvalidConfigError
from sonew_perf.errors import DataError
from sonew_perf.training import methods
from sonew_perf.training.asked import Asked, make_runs, read_setting, settings_of, variants
from sonew_perf.training.settings import Settings
from tests.perf.training.made import DATA

IMAGES = replace(DATA, examples=60_000)


def runs_of(**options: Any) -> list[Any]:
    return make_runs(Asked(**options), IMAGES)


def test_without_options_it_is_the_papers_benchmark() -> None:
    ours, adam = runs_of()
    assert (ours.task, ours.method, ours.band, ours.framework, ours.precision, ours.seed) == ("autoencoder", "sonew", 1, "torch", "fp32", 0)
    assert (ours.batch, ours.steps, ours.schedule_steps, ours.lr_rule) == (1000, 6000, 6000, "epochs")
    assert ours.settings == Settings(lr=6.17e-3, beta1=0.816, beta2=0.938, eps=3.6e-6)
    assert (adam.method, adam.band, adam.label) == ("adam", None, "Adam")
    assert adam.settings == Settings(lr=4.14e-3, beta1=0.836, beta2=0.976, eps=6.5e-7)
    assert adam == replace(ours, method="adam", uses=methods.METHODS["adam"].uses, name="Adam", settings=adam.settings)


@pytest.mark.parametrize(
    ("options", "steps", "schedule"),
    [
        ({"epochs": 5.0}, 300, 6000),
        ({"steps": 7}, 7, 6000),
        ({"epochs": 0.5, "schedule_epochs": 10.0}, 30, 600),
        ({"schedule_epochs": 10.0}, 600, 600),
        ({"epochs": 5.0, "batch": 500}, 600, 12000),
        ({"steps": 9000, "lr_rule": "constant"}, 9000, 6000),
        ({"epochs": 1e-9}, 1, 6000),
    ],
)
def test_how_long_a_run_and_its_schedule_are(options: dict[str, Any], steps: int, schedule: int) -> None:
    assert {(run.steps, run.schedule_steps) for run in runs_of(**options)} == {(steps, schedule)}


def test_the_grid_has_every_combination_whole_seeds_first_and_no_band_without_need() -> None:
    asked = Asked(methods=("sonew", "adamw"), bands=(1, 4), rates=(1e-3, 3e-3), seeds=(0, 1))
    runs = make_runs(asked, IMAGES)
    assert len(runs) == len(set(runs)) == (2 + 1) * 2 * 2
    assert [run.seed for run in runs] == [0] * 6 + [1] * 6
    assert [run.settings.lr for run in runs] == [1e-3, 3e-3] * 6
    assert list(dict.fromkeys(run.label for run in runs)) == ["SONew band 1", "SONew band 4", "AdamW"]
    assert variants(asked) == [("sonew", 1), ("sonew", 4), ("adamw", None)]


def test_what_a_search_found_takes_the_place_of_the_reference() -> None:
    asked = Asked(methods=("sonew", "adam"), bands=(1, 4), seeds=(0, 5))
    found = {("sonew", 4): Settings(lr=0.5, band=4), ("adam", None): Settings(lr=0.25)}
    runs = make_runs(asked, IMAGES, found)
    assert [(run.seed, run.label, run.settings.lr) for run in runs[:3]] == [
        (0, "SONew band 1", 6.17e-3),
        (0, "SONew band 4", 0.5),
        (0, "Adam", 0.25),
    ]
    assert runs[3:] == [replace(run, seed=5) for run in runs[:3]]


def test_a_setting_reaches_the_methods_that_take_it() -> None:
    asked = Asked(methods=("sonew", "adam", "sgd"), given=("eps=1e-3", "chain=row", "gamma=none"))
    ours, adam, sgd = (settings_of(asked, method, band) for method, band in variants(asked))
    assert (ours.eps, ours.chain, ours.gamma, ours.lr) == (1e-3, "row", None, 6.17e-3)
    assert (adam.eps, adam.chain, adam.lr) == (1e-3, "tensor", 4.14e-3)
    assert sgd == Settings()
    assert settings_of(asked, "sonew", 1, lr=0.5) == replace(ours, lr=0.5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eps=1e-6", 1e-6),
        ("weight_decay=0", 0.0),
        ("lr=0.5", 0.5),
        ("chain=row", "row"),
        ("chain=64", 64),
        ("gamma=none", None),
        ("gamma=0.5", 0.5),
        ("graft=sgd", "sgd"),
        ("layers=no-embeddings", "no-embeddings"),
    ],
)
def test_a_setting_is_read_as_its_type(text: str, value: object) -> None:
    name, read = read_setting(text)
    assert (name, read, type(read)) == (text.partition("=")[0], value, type(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eps", r"--set 'eps' is not allowed: it must be NAME=VALUE with one of \['lr', 'beta1', .*--set eps=1e-6"),
        ("epsilon=1", r"--set 'epsilon=1' is not allowed: .*--set eps=1e-6"),
        ("band=4", r"--set 'band=4' is not allowed: .*Pass --band\."),
        ("beta1=high", r"--set 'beta1=high' is not allowed: beta1 must be a number\. Pass for example --set beta1=0\.9"),
        ("eps=none", r"eps must be a number"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused_with_the_fix(text: str, said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        read_setting(text)
    with pytest.raises(InvalidConfigError, match=said):
        Asked(given=(text,))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"task": "text", "framework": "jax"},
            r"framework='jax' is not allowed with task='text', only \['torch'\]\. Pass --framework torch",
        ),
        ({"steps": 3, "epochs": 2.0}, r"steps=3 and epochs=2 are not allowed together: .*Pass one of them"),
        ({"epochs": 0.0}, r"epochs=0 is not allowed: .* above 0\. Pass for example --epochs 5"),
        ({"epochs": float("nan")}, r"epochs=nan is not allowed"),
        ({"schedule_epochs": float("inf")}, r"schedule_epochs=inf is not allowed: .*--schedule-epochs 5"),
        ({"framework": "jax", "counters": True}, r"--counters is not allowed with framework='jax'.*pass --framework torch"),
        ({"methods": ("adam", "sgd"), "given": ("gamma=1",)}, r"--set gamma is not allowed with \['adam', 'sgd'\], only .*--method sonew"),
        ({"given": ("eps=1", "lr=2", "eps=3")}, r"--set eps=3 is not allowed after another eps\. Pass one"),
        ({"given": ("lr=2",), "rates": (0.1, 0.2)}, r"--set lr is not allowed with --lr 0\.1: .*Leave one of them out"),
        ({"search": 2, "rates": (0.1,)}, r"--lr 0\.1 is not allowed with --search, which varies .*Leave one of them out"),
        (
            {"search": 2, "methods": ("sonew", "sgd"), "given": ("lr=2", "beta1=0.5")},
            r"--search is not allowed where --set gives all that it varies in sgd: \['lr', 'beta1'\]",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_data_is_read(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        Asked(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"steps": 9000},
            r"9000 steps are not allowed with a schedule of 6000: .*--schedule-epochs 150 or --lr-rule constant.* at most 6000",
        ),
        ({"precision": "bf16-state"}, r"precision='bf16-state' is not allowed with adam: .*--precision fp32"),
        (
            {"methods": ("sonew",), "given": ("idea=pivot-floor",), "precision": "bf16"},
            r"idea='pivot-floor' is tried in .*Leave out --framework",
        ),
        ({"methods": ("sonew",), "given": ("idea=pivot-floor",), "counters": True}, r"idea='pivot-floor' is tried in .* and --counters"),
        ({"rates": (0.0,)}, r"lr=0\.0 is not allowed"),
        ({"given": ("beta2=1",)}, r"beta2=1\.0 is not allowed: .*--set beta2=0\.9"),
        ({"given": ("graft=x",)}, r"graft='x' is not allowed: it must be one of"),
        ({"given": ("chain=0",), "methods": ("sonew",), "framework": "jax"}, r"chain=0 is not allowed: it must be"),
        ({"methods": ("sonew",), "given": ("idea=pivot-floor", "gamma=1")}, r"gamma=1\.0 is not allowed beside idea='pivot-floor'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        runs_of(**options)


def test_a_package_that_is_missing_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfigError, match="needs the package pytorch_optimizer"):
        runs_of(methods=("adam", "soap"))


def test_data_that_fills_no_batch_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"batch=1000 is not allowed with 22 examples: .*--batch 22"):
        make_runs(Asked(), DATA)
