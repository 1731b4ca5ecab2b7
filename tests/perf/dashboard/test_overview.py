"""What the first page and the roofline say of a small store, against values worked out here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sonew_perf.dashboard.documents import document
from tests.perf.dashboard.made import (
    ADAMW,
    BAND_1,
    BAND_4,
    DIRECTION,
    GPU,
    SMALL,
    UNTUNED,
    FakeIndex,
    a_point,
    a_run,
    a_series,
    comparison,
    content,
    entry,
    small_store,
    with_change,
)


def test_the_overview_puts_the_largest_loss_first_and_numbers_before_failures() -> None:
    slower = comparison("c1", [entry("torch step, band 1", "SLOWER", 1.1, 30.0), entry("other", "FASTER", 0.5, 99.0)])
    made = with_change()
    view = document(replace(made, comparisons=[slower]), "overview")
    kinds = [(item["kind"], item["ms"]) for item in view["attention"]]
    assert kinds == [("comparison", 3.0), ("regression", 2.0), ("failure", None), ("broken file", None)]
    assert [item["title"] for item in view["attention"][:2]] == ["torch step, band 1", BAND_1.title]
    assert view["attention"][1]["id"] == BAND_1.id
    assert view["attention"][3]["title"] == "torn.json"
    assert "/store" not in view["attention"][3]["text"]
    assert view["last_comparison"]["counts"] == {"SLOWER": 1, "FASTER": 1, "SAME": 0, "UNSURE": 0, "NO-DATA": 0}
    assert (view["last_run"]["points"], view["last_run"]["failed"]) == (5, 1)


def test_an_accepted_regression_needs_no_attention() -> None:
    for state, shown in (("open", True), ("accepted", False), ("fixed", False), ("ignored", False)):
        kinds = [item["kind"] for item in document(with_change(state=state), "overview")["attention"]]
        assert ("regression" in kinds) is shown, state


def test_attention_is_ten_lines_at_most() -> None:
    many = comparison("c1", [entry(f"case {number}", "SLOWER", 1.1, float(number + 1)) for number in range(30)])
    view = document(content(small_store(), comparisons=[many]), "overview")
    shown = view["attention"]
    assert [item["ms"] for item in shown[:8]] == pytest.approx([0.1 * number for number in range(30, 22, -1)])
    assert [item["kind"] for item in shown[8:]] == ["failure", "broken file"]  # which no number of losses hides
    assert view["attention_total"] == 32


def test_a_failure_stays_until_its_series_has_a_number_again() -> None:
    index = small_store()
    runs = [*index.runs(), a_run(3), a_run(4)]
    points = [point for one in index.series() for point in index.points(one.id)]
    later = [*points, a_point(ADAMW, runs[3], [2.0])]
    view = document(content(FakeIndex(runs[:4], index.series(), later)), "overview")
    assert [item["id"] for item in view["attention"] if item["kind"] == "failure"] == [BAND_4.id]
    assert view["heatmaps"][0]["cells"][1][1]["status"] == "failed"
    assert (view["last_run"]["points"], view["last_run"]["failed"]) == (1, 0)
    mended = [*later, a_point(BAND_4, runs[4], [8.0], {"AdamW fused": 4.0})]
    view = document(content(FakeIndex(runs, index.series(), mended)), "overview")
    assert [item["kind"] for item in view["attention"]] == []
    assert view["heatmaps"][0]["cells"][1][1]["ratio"] == 4.0


def test_the_noise_floor_is_the_newest_comparison_of_equals_and_planted_slowdowns_are_no_news() -> None:
    records = [
        comparison("aa1", [], mode="A/A", noise_floor=0.02),
        comparison("aa2", [], mode="A/A", noise_floor=0.013),
        comparison("aa3", [], mode="A/A", noise_floor=None),
        comparison("ab1", []),
        comparison("ab2", [], planted_slowdown=0.05),
    ]
    view = document(content(small_store(), comparisons=records), "overview")
    assert (view["noise_floor"]["comparison"], view["noise_floor"]["percent"]) == ("aa2", 1.3)
    assert view["last_comparison"]["id"] == "ab1"


def test_a_heatmap_has_plain_cases_by_band_and_size_with_failures_in_place() -> None:
    (found,) = document(content(small_store()), "overview")["heatmaps"]
    assert (found["kernel"], found["case"], found["baseline"], found["bands"]) == ("step", "SONew", "AdamW fused", [1, 4])
    assert [size["label"] for size in found["sizes"]] == ["64 Ki", "4 Mi"]
    (small, large), (none, failed) = found["cells"]
    assert (small["ratio"], small["unsure"]) == (1.002, True)  # its interval contains 1
    assert (large["ratio"], large["low"], large["unsure"], large["series"]) == (4.5, 4.455, False, BAND_1.id)
    assert none is None
    assert (failed["status"], failed["reason"], failed["ratio"]) == ("failed", "out of memory", None)


def test_surfaces_of_one_framework_have_a_heatmap_each() -> None:
    run = a_run(0)
    cases = [a_series(case=f"SONew band {band}, {path}", band=band, framework="jax") for band in (0, 1) for path in ("XLA", "Triton")]
    index = FakeIndex([run], cases, [a_point(series, run, [1.0], {"optax.adamw": 3.0}) for series in cases])
    maps = document(content(index), "overview")["heatmaps"]
    assert {(found["case"], found["baseline"], len(found["cells"])) for found in maps} == {
        ("SONew, XLA", "optax.adamw", 2),
        ("SONew, Triton", "optax.adamw", 2),
    }


def test_series_that_newer_runs_left_behind_are_one_line() -> None:
    runs = [a_run(0), a_run(40), a_run(41, GPU)]
    index = FakeIndex(
        runs, [BAND_1, BAND_4, ADAMW], [a_point(BAND_1, runs[0], [1.0]), a_point(BAND_4, runs[0], [1.0]), a_point(ADAMW, runs[1], [1.0])]
    )
    (item,) = document(content(index), "overview")["attention"]
    assert (item["kind"], item["text"]) == ("stale", "2 series not measured in the last 30 days of runs")


def test_the_roofline_divides_counted_work_by_measured_time_of_one_run() -> None:
    newest, oldest = document(content(small_store()), "roofline")["devices"]
    runs = [run.id for run in small_store().runs()]
    assert (newest["run"], oldest["run"]) == (runs[1], runs[0])  # the last run has no copy
    assert {point["run"] for point in newest["points"]} == {runs[1]}
    points = {point["series"]: point for point in newest["points"]}
    assert set(points) == {BAND_1.id, BAND_4.id, UNTUNED.id, DIRECTION.id}
    direction = points[DIRECTION.id]
    moved, flops = 4 * 8, 3 + 8 + 3 + 2 + 2 + 3 + 1 + 5 + 7  # g, m, two rows; m, two rows, u; the operations of band 1 by hand
    assert direction["intensity"] == pytest.approx(flops / moved, rel=1e-4)
    assert direction["gflops"] == pytest.approx(flops * 4194304 / 4e-3 / 1e9, rel=1e-4)
    assert direction["share"] == pytest.approx((moved / 4.0) / (8 / 1.5), rel=1e-4)  # the copy of the same run took 1.5 ms
    assert newest["copy_gbps"] == pytest.approx(8 * 4194304 / 1.5e-3 / 1e9, rel=1e-4)
    assert oldest["copy_gbps"] == pytest.approx(8 * 4194304 / 0.5e-3 / 1e9, rel=1e-4)
    small = next(point for point in oldest["points"] if point["series"] == SMALL.id)
    assert small["share"] is None  # no copy of as few elements
    assert newest["flops_gflops"] is None
    assert {point["bound"] for point in newest["points"]} == {None}


def test_a_measured_compute_roof_says_what_bounds_a_case() -> None:
    index = small_store()
    run = index.runs()[1]
    roof = a_series("roof", "peak flops", workload="", elements=0)
    points = [*(point for one in index.series() for point in index.points(one.id)), a_point(roof, run, [1.0], gflops=20.0)]
    newest, oldest = document(content(FakeIndex(index.runs(), [*index.series(), roof], points)), "roofline")["devices"]
    bound = {point["series"]: point["bound"] for point in newest["points"]}
    # the copy moves 22.4 GB/s, so the roofs meet at 0.89 operations per byte; the direction does 1.06.
    assert (bound[DIRECTION.id], bound[BAND_4.id]) == ("compute", "compute")
    assert (newest["flops_gflops"], oldest["flops_gflops"]) == (20.0, None)
