"""When a search ends: pure functions of the finished trials."""

from __future__ import annotations

import pytest

from sonew_autotune.measure import Ratio
from sonew_autotune.search.results import Record
from sonew_autotune.search.stopping import ROOF_BYTES, Rules, stop_of, trials_without_progress
from sonew_autotune.trials.outcome import Failure


def _records(*ratios: float | None, roof: float | None = None) -> list[Record]:
    """None: a failure."""
    return [
        Record({"block": index}, failure=Failure("compile", "no"))
        if ratio is None
        else Record({"block": index}, Ratio(ratio, ratio, ratio), roof_share=roof)
        for index, ratio in enumerate(ratios)
    ]


@pytest.mark.parametrize(
    ("ratios", "since"),
    [((), 0), ((1.0,), 0), ((1.0, 0.9), 0), ((1.0, 0.9, 0.95, None), 2), ((1.0, 0.999, 0.998), 2), ((None, None), 2)],
)
def test_progress_is_a_new_best_beyond_noise(ratios: tuple[float | None, ...], since: int) -> None:
    assert trials_without_progress(_records(*ratios)) == since


@pytest.mark.parametrize(
    ("records", "arguments", "kind"),
    [
        (_records(1.0, 0.9), {}, None),
        (_records(1.0, 0.9, 0.8), {"points": 3}, "every point"),
        (_records(1.0, 0.9, 0.8), {"wanted": 3}, "trials"),
        (_records(1.0, 0.9, 0.95, 0.95), {"rules": Rules(patience=2)}, "stalled"),
        (_records(1.0, 0.9, 0.95, 0.95), {"rules": Rules(patience=3)}, None),
        (_records(1.0, 0.9, 0.95, 0.95), {"rules": Rules(patience=2), "exhaustive": True}, None),
        (_records(1.0, 1.0, 0.9, roof=0.96), {"rules": Rules(bytes_moved=ROOF_BYTES)}, "roof"),
        (_records(1.0, 0.9, roof=0.96), {"rules": Rules(bytes_moved=ROOF_BYTES)}, None),
        (_records(1.0, 1.0, 0.9, roof=1.4), {"rules": Rules(bytes_moved=ROOF_BYTES)}, None),
        (_records(1.0, 1.0, 0.9, roof=0.94), {"rules": Rules(bytes_moved=ROOF_BYTES)}, None),
        (_records(1.0, 1.0, 0.9, roof=1.4), {"rules": Rules(bytes_moved=ROOF_BYTES - 1)}, None),
    ],
)
def test_the_reason_to_stop(records: list[Record], arguments: dict[str, object], kind: str | None) -> None:
    stop = stop_of(records, **{"wanted": 10, "points": 20, "exhaustive": False, "rules": Rules(), **arguments})  # type: ignore[arg-type]
    assert (stop.kind if stop is not None else None) == kind
    assert stop is None or stop.why
