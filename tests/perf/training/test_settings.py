from __future__ import annotations

from typing import Any

import pytest

from sonew.errors import InvalidConfigError
from sonew_perf.training.methods import METHODS
from sonew_perf.training.settings import RANGES, Settings, as_entry, known
from sonew_perf.training.tasks.table import TASKS


@pytest.mark.parametrize(
    ("method", "band", "expected"),
    [
        ("adam", None, (4.14e-3, 0.836, 0.976, 6.5e-7)),
        ("sonew", 0, (4.14e-3, 0.836, 0.976, 6.5e-7)),
        ("sonew", 1, (6.17e-3, 0.816, 0.938, 3.6e-6)),
        ("sonew", 4, (1.66e-2, 0.844, 0.993, 6.2e-8)),
        ("sonew", 8, (1.66e-2, 0.844, 0.993, 6e-8)),
        ("soap", None, (6e-3, 0.9, 0.95, 1e-8)),
    ],
)
def test_the_reference_settings_are_those_of_the_measured_runs(method: str, band: int | None, expected: tuple[float, ...]) -> None:
    assert tuple(known("autoencoder", method, band)[name] for name in ("lr", "beta1", "beta2", "eps")) == expected


def test_a_band_without_a_reference_takes_the_nearest_narrower_one() -> None:
    for band, like in ((2, 1), (3, 1), (5, 4), (16, 8)):
        assert known("autoencoder", "sonew", band) == known("autoencoder", "sonew", like)
    assert known("autoencoder", "adagrad", None) == {}
    assert known("nothing", "sonew", 4) == {}


def test_every_reference_is_a_setting_that_its_method_takes() -> None:
    for task in TASKS:
        for method, row in METHODS.items():
            for band in (0, 1, 2, 4, 8, 16) if row.has_band else (None,):
                assert set(known(task, method, band)) <= set(row.uses)


@pytest.mark.parametrize("ranges", list(RANGES))
def test_every_setting_that_a_method_searches_has_a_range_of_allowed_values(ranges: str) -> None:
    for row in METHODS.values():
        assert set(row.searched) <= set(row.uses)
        for name in row.searched:
            found = RANGES[ranges][name]
            assert found.low < found.high
            for end in (found.low, found.high):
                Settings(**{name: 1 - end if found.complement else end})  # type: ignore[arg-type]  # numbers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": 0.0}, r"lr=0\.0 is not allowed: .* above 0\. Pass for example --lr"),
        ({"lr": float("nan")}, r"lr=nan is not allowed"),
        ({"lr": float("inf")}, r"lr=inf is not allowed"),
        ({"beta1": 1.0}, r"beta1=1\.0 is not allowed: it must lie in \[0, 1\)\. Pass for example --set beta1=0\.9"),
        ({"beta2": -0.1}, r"beta2=-0\.1 is not allowed: .*--set beta2=0\.9"),
        ({"beta2": float("nan")}, r"beta2=nan is not allowed"),
        ({"eps": -1e-8}, r"eps=-1e-08 is not allowed: .* not below 0\. Pass for example --set eps=1e-6"),
        ({"weight_decay": float("inf")}, r"weight_decay=inf is not allowed: .*--set weight_decay=1e-6"),
        ({"layers": "some"}, r"layers='some' is not one of \['all', 'no-embeddings'\]\. Pass for example --set layers=all"),
        ({"idea": "some"}, r"idea='some' is not one of \['none', .*--set idea=none"),
    ],
)
def test_what_no_optimizer_takes_is_refused_with_the_fix(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        Settings(**given)


def test_the_borders_of_the_ranges_are_allowed() -> None:
    assert Settings(beta1=0.0, beta2=0.0, eps=0.0, weight_decay=0.0, layers="no-embeddings").beta1 == 0.0


def test_a_record_holds_the_settings_that_a_method_uses() -> None:
    settings = Settings(lr=0.5, beta1=0.25, beta2=0.125, chain=8)
    assert as_entry(settings, ("lr", "beta1", "chain")) == {"lr": 0.5, "beta1": 0.25, "chain": 8}
