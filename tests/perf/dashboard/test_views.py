"""Each view of a small store against values worked out here."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from sonew_perf.dashboard.documents import UnknownViewError, document, names
from sonew_perf.dashboard.views.meta import meta
from sonew_perf.dashboard.views.plain import even_places, flat, plain
from sonew_perf.records.model import Point
from tests.perf.dashboard import demo
from tests.perf.dashboard.made import (
    ADAMW,
    BAND_1,
    BAND_4,
    COPY,
    CPU,
    HOSTILE,
    UNTUNED,
    FakeIndex,
    a_history,
    a_point,
    a_run,
    comparison,
    content,
    entry,
    small_store,
    with_change,
)


def test_a_run_counts_its_points_by_status_newest_first() -> None:
    rows = document(content(small_store()), "runs")
    assert [row["date"][:10] for row in rows] == ["2026-09-03", "2026-09-02", "2026-09-01"]
    assert [(row["points"], row["failed"], row["skipped"]) for row in rows] == [(5, 1, 1), (6, 0, 0), (7, 0, 0)]
    assert rows[0]["details"] == {"device": CPU.device, "threads": "2", "torch": "2.13.0", "python": "3.11.7", "governor": "performance"}
    assert rows[0]["file"] == "2.json"


def test_the_list_of_series_has_the_last_number_and_the_status_of_the_newest_run() -> None:
    rows = {row["id"]: row for row in document(with_change(), "series")}
    assert (rows[BAND_1.id]["last"], rows[BAND_1.id]["status"], rows[BAND_1.id]["spark"]) == (7.0, "done", [5.0, 6.0, 7.0])
    assert rows[BAND_1.id]["change"] == 1.4
    assert (rows[BAND_4.id]["last"], rows[BAND_4.id]["status"], rows[BAND_4.id]["points"]) == (8.0, "failed", 3)
    assert rows[BAND_4.id]["last_date"][:10] == "2026-09-03"
    assert rows[BAND_4.id]["change"] is None
    assert rows[BAND_1.id]["title"] == "SONew band 1: step, one tensor, 4194304 elements, float32, torch"


def test_a_long_history_becomes_a_short_spark_that_ends_with_the_last_number() -> None:
    runs = [a_run(number) for number in range(300)]
    index = FakeIndex(runs, [BAND_1], [a_point(BAND_1, run, [float(1 + place)]) for place, run in enumerate(runs)])
    (row,) = document(content(index), "series")
    assert len(row["spark"]) == 40
    assert row["spark"][-1] == 300.0


def test_one_series_has_a_value_per_run_in_every_column() -> None:
    view = document(with_change(), f"series/{BAND_4.id}")
    points = view["points"]
    assert {len(column) for name, column in points.items() if name != "ratio"} == {3}
    assert points["median"] == [8.0, 8.0, None]
    assert points["ratio"] == {"AdamW fused": [4.0, 4.0, None]}
    assert points["status"] == ["done", "done", "failed"]
    assert points["reason"][2] == "out of memory"
    moved = 4194304 * 4 * 17  # band 4 moves 17 words: g, m, 5 rows; m, 5 rows, u; u, p, p
    assert view["bytes_moved"] == moved
    assert points["gbps"][0] == pytest.approx(moved / 8e-3 / 1e9, rel=1e-4)
    copies = [8 * 4194304 / ms / 1e6 for ms in (0.5, 1.5)]  # each run beside its own copy, which the last one lacks
    assert points["copy_gbps"] == [*(pytest.approx(speed, rel=1e-4) for speed in copies), None]
    assert view["judged"] is False
    assert len(view["samples"]) == 2
    assert {one["id"] for one in view["siblings"]} == {ADAMW.id, COPY.id, BAND_1.id, UNTUNED.id}


def test_places_of_levels_and_changes_count_failed_runs() -> None:
    index = small_store()
    runs = index.runs()
    failed = Point(series=BAND_1.id, run=runs[0].id, status="failed")
    points = [failed, *(point for point in index.points(BAND_1.id) if point.run != runs[0].id)]
    fake = FakeIndex(runs, [BAND_1], points)
    history = a_history(fake, BAND_1, place=1, ratio=7 / 6, low=6.0)
    view = document(content(fake, analyses={BAND_1.id: history}), f"series/{BAND_1.id}")
    assert [(level["first"], level["last"]) for level in view["levels"]] == [(1, 1), (2, 2)]
    assert view["points"]["median"][view["changes"][0]["index"]] == 7.0


def test_only_the_newest_runs_bring_samples_facts_and_commands() -> None:
    runs = [a_run(number, command=f"sonew-perf run {number}") for number in range(35)]
    index = FakeIndex(runs, [BAND_1], [a_point(BAND_1, run, [1.0, 2.0], config={"block": 1024}) for run in runs])
    view = document(content(index), f"series/{BAND_1.id}")
    newest = [run.id for run in runs[5:]]
    assert list(view["samples"]) == list(view["facts"]) == list(view["repro"]) == newest
    assert view["repro"][runs[-1].id] == "sonew-perf run 34"
    assert view["facts"][runs[-1].id] == {"config": '{"block": 1024}'}


def test_a_change_is_a_regression_with_its_loss_and_its_ticket() -> None:
    (row,) = document(
        with_change(state="accepted", note="a better direction", author="me", date="2026-10-01T00:00:00+00:00"), "regressions"
    )
    assert (row["series"], row["direction"], row["ratio"], row["ms"]) == (BAND_1.id, "slower", 1.4, 2.0)
    assert (row["state"], row["note"], row["author"], row["since"]) == ("accepted", "a better direction", "me", "2026-10-01T00:00:00+00:00")
    (fresh,) = document(with_change(), "regressions")
    assert (fresh["state"], fresh["since"][:10]) == ("open", "2026-09-03")


def test_a_comparison_finds_the_series_of_its_cases() -> None:
    entries = [
        entry("torch step, band 1, 4194304 elements", "SAME", 1.0, 5.0),
        entry("SONew band 4", "SAME", 1.0, 5.0, band=4),
        entry("AdamW fused", "SAME", 1.0, 5.0, band=None),
        entry("SONew band 8", "NO-DATA", None, None, band=8),
    ]
    record = comparison("c1", [{**one, "ratios": [1.0] * 500} for one in entries])
    view = document(content(small_store(), comparisons=[record]), "comparisons/c1")
    assert [one["series"] for one in view["entries"]] == [BAND_1.id, BAND_4.id, ADAMW.id, None]
    assert {len(one["ratios"]) for one in view["entries"]} == {200}
    assert view["counts"] == {"SLOWER": 0, "FASTER": 0, "SAME": 3, "UNSURE": 0, "NO-DATA": 1}
    (row,) = document(content(small_store(), comparisons=[record]), "comparisons")
    assert (row["base"], row["head"], row["machine"]) == ("main~3", "main", CPU.id)


def test_an_empty_store_has_every_view() -> None:
    made = content(FakeIndex())
    views = {name: document(made, name) for name in names(made)}
    nothing = {"last_run": None, "last_comparison": None, "noise_floor": None}
    assert views["overview"] == {**nothing, "attention": [], "attention_total": 0, "heatmaps": []}
    assert views["roofline"] == {"devices": []}
    assert views["convergence"] == {"races": []}
    assert [views[name] for name in ("series", "comparisons", "regressions", "runs")] == [[]] * 4
    assert meta(made, mode="server", generated="")["runs"] == 0


def test_what_is_not_there_is_named() -> None:
    for name in ("series/none", "comparisons/none", "secrets/none", "none"):
        with pytest.raises(UnknownViewError, match="none"):
            document(content(small_store()), name)


def test_meta_counts_and_names_no_folder() -> None:
    view = meta(with_change(), mode="server", generated="2026-10-01T00:00:00+00:00")
    assert (view["runs"], view["series"], view["analysed"]) == (3, 7, {"done": 0, "total": 7})
    assert view["machines"] == [{"id": CPU.id, "name": CPU.name, "device": CPU.device, "type": "cpu", "threads": 2, "runs": 3}]
    assert view["problems"] == [{"path": "torn.json", "reason": "torn.json is no record: torn"}]


def every_number(value: Any) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in every_number(item)]
    if isinstance(value, list):
        return [number for item in value for number in every_number(item)]
    return [value] if isinstance(value, int | float) else []


def test_every_number_of_a_full_store_is_finite_and_hostile_text_is_kept_as_text() -> None:
    made = demo.store()
    views = {name: document(made, name) for name in names(made)}
    assert all(math.isfinite(number) for number in every_number(views))
    assert json.loads(json.dumps(views, allow_nan=False)) == views
    assert any(row["label"] == HOSTILE for row in views["runs"])
    assert any(HOSTILE in row["title"] for row in views["series"])


def test_plain_values_are_finite_short_and_of_json() -> None:
    value = {1: (math.nan, math.inf, 1.23456789), "x": [None, True, "text", 12345678], "y": a_run}
    made = plain(value)
    assert made["1"] == [None, None, 1.2346]
    assert plain([2**53, 2**53 + 1, -(10**400), 1e300]) == [2**53, None, None, 1e300]
    assert made["x"] == [None, True, "text", 12345678]
    assert isinstance(made["y"], str)
    assert flat({"a": None, "b": [], "c": 1.23456789, "d": {"x": 1}, "e": "é", "f": True}) == {
        "c": "1.2346",
        "d": '{"x": 1}',
        "e": "é",
        "f": "true",
    }


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 1), (5, 5), (5, 1), (100, 7), (3, 0)])
def test_evenly_spaced_places_include_both_ends(count: int, most: int) -> None:
    places = even_places(count, most)
    assert len(places) == min(count, most)
    assert places == sorted(set(places))
    if most > 1 and count:
        assert (places[0], places[-1]) == (0, count - 1)
