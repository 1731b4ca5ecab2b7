"""From the files of a store to its views, and what happens to them when files come and go."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.dashboard.catalogue import Catalogue
from sonew_perf.dashboard.documents import document, names
from sonew_perf.history import set_ticket
from sonew_perf.records.model import Point
from sonew_perf.records.runs import BASELINES, write_run
from tests.perf.dashboard.files import identified, write_store
from tests.perf.dashboard.made import CPU, FakeIndex, a_point, a_run, a_series, comparison, content, entry
from tests.perf.records.made import Step, made_run, make_store, step_entry


def view(catalogue: Catalogue, name: str) -> Any:
    return json.loads(catalogue.body(name)[1])


def test_a_store_of_files_has_the_views_of_what_was_written(tmp_path: Path) -> None:
    machine = identified(CPU)
    where: dict[str, Any] = {"machine": machine.id}
    adamw, copy = a_series(case="AdamW fused", **where), a_series(case="copy", **where)
    ours = [a_series(case=f"SONew band {band}", band=band, **where) for band in (1, 4)]
    runs = [a_run(number, machine, path=str(tmp_path / "runs")) for number in range(3)]
    points = [Point(series=ours[1].id, run=runs[2].id, status="failed", reason="out of memory")]
    for place, run in enumerate(runs):
        points.append(a_point(adamw, run, [2.0, 2.1, 2.3], {"AdamW fused": 1.0}))
        points.append(a_point(copy, run, [0.5, 0.6], {"AdamW fused": 0.3}))
        points.append(a_point(ours[0], run, [4.0 + place, 5.0 + place, 7.0 + place], {"AdamW fused": 2.5, "copy": 9.0}, state_bytes=12))
        if place < 2:
            points.append(a_point(ours[1], run, [8.0], {"AdamW fused": 4.0}))
    compared = comparison("c1", [entry("torch step, band 1", "SLOWER", 1.1, 5.0)])
    made = content(FakeIndex(runs, [adamw, copy, *ours], points), comparisons=[compared])
    write_store(made, tmp_path)
    catalogue = Catalogue(tmp_path, None)
    wanted, found = ({name: document(one, name) for name in names(made)} for one in (made, catalogue.content))
    catalogue.close()
    broken = [item for item in found["overview"]["attention"] if item["kind"] == "broken file"]  # the store has them besides
    wanted["overview"]["attention"] += broken
    wanted["overview"]["attention_total"] += len(broken)
    for one in (wanted, found):
        for row in (*one["runs"], one["overview"]["last_run"]):
            row.pop("file")
        for name in [name for name in one if name.startswith("series/")]:
            one[name].pop("facts")  # a record has more of them
            one[name]["siblings"].sort(key=lambda row: row["id"])
        one["series"].sort(key=lambda row: row["id"])
        for device in one["roofline"]["devices"]:
            device["points"].sort(key=lambda row: row["series"])
    assert found == wanted


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every view of a fresh clone: the committed records and an empty store."""
    catalogue = Catalogue(tmp_path_factory.mktemp("empty"), BASELINES)
    catalogue.analyse_all()
    views = {name: view(catalogue, name) for name in ["meta", *names(catalogue.content)]}
    catalogue.close()
    return views


def test_a_fresh_clone_has_something_in_every_view(committed: dict[str, Any]) -> None:
    assert committed["meta"]["problems"] == []
    assert {run["origin"] for run in committed["runs"]} == {"baseline"}
    assert all(run["pinned"] for run in committed["runs"])
    assert committed["roofline"]["devices"][0]["points"]
    assert any(found["kernel"] == "step" and found["framework"] == "torch" for found in committed["overview"]["heatmaps"])


def test_a_committed_comparison_is_shown_and_is_no_broken_record(tmp_path: Path) -> None:
    committed = tmp_path / "baselines" / "compares"
    committed.mkdir(parents=True)
    (committed / "2026-11-01-box.json").write_text(json.dumps(comparison("c1", [entry("x", "SAME", 1.0, 2.0)])), encoding="utf-8")
    (committed / "torn.json").write_text("{", encoding="utf-8")
    catalogue = Catalogue(tmp_path / "store", committed.parent)
    assert [row["id"] for row in view(catalogue, "comparisons")] == ["c1"]
    assert [problem["path"] for problem in view(catalogue, "meta")["problems"]] == ["torn.json"]
    catalogue.close()


def test_committed_training_says_what_the_readme_says_of_it(committed: dict[str, Any]) -> None:
    """perf/README.md: best rates 3.6e-3 (66.97) for SONew band 1 and 1.2e-3 (106.84) for AdamW; 37 % below."""
    runs = [one for race in committed["convergence"]["races"] for one in race["runs"]]
    best = [one for one in runs if one["run"] == "2026-11-22-epyc2-training" and one["best"]]
    finals = {label: [one["final"] for one in best if one["label"] == label] for label in ("SONew band 1", "AdamW")}
    assert {one["lr"] for one in best if one["label"] == "SONew band 1"} == {3.6e-3}
    assert {label: round(sum(losses) / 3, 2) for label, losses in finals.items()} == {"SONew band 1": 66.97, "AdamW": 106.84}


def test_committed_speed_says_what_the_readme_says_of_it(committed: dict[str, Any]) -> None:
    """perf/README.md, the run of 2026-11-22: band 1 took 7.38 ms, 2.0 times fused AdamW; band 4 took 15.1 ms, 4.2 times."""
    for band, ms, ratio in ((1, 7.38, 2.0), (4, 15.1, 4.2)):
        case = {"case": f"SONew band {band}", "kernel": "step", "elements": 4194304, "measure": "time", "variant": "", "framework": "torch"}
        machines = [committed[f"series/{row['id']}"]["points"] for row in committed["series"] if case.items() <= row.items()]
        (points,) = (points for points in machines if "2026-11-22-epyc2-step" in points["run"])
        place = points["run"].index("2026-11-22-epyc2-step")
        assert points["median"][place] == pytest.approx(ms, rel=5e-3)
        assert points["ratio"]["AdamW fused"][place] == pytest.approx(ratio, rel=0.02)


def test_new_runs_leave_what_was_found_in_place_until_it_is_found_anew(tmp_path: Path) -> None:
    make_store(tmp_path, series=6, runs=20, step=Step(series=3, run=12, ratio=1.4))
    catalogue = Catalogue(tmp_path, None)
    assert view(catalogue, "regressions") == []
    assert view(catalogue, "meta")["analysed"] == {"done": 0, "total": 6}
    catalogue.analyse_all()
    (found,) = view(catalogue, "regressions")
    assert view(catalogue, "meta")["analysed"] == {"done": 6, "total": 6}
    set_ticket(tmp_path, found["id"], "ignored")
    catalogue.refresh()
    assert [row["state"] for row in view(catalogue, "regressions")] == ["ignored"]
    assert view(catalogue, "meta")["analysed"] == {"done": 6, "total": 6}  # only a ticket changed
    write_run(tmp_path, made_run(50), [step_entry("AdamW fused", 65536, [1.0])])
    catalogue.refresh()
    assert [row["id"] for row in view(catalogue, "regressions")] == [found["id"]]
    assert view(catalogue, "meta")["analysed"] == {"done": 0, "total": 6}
    first_bad = tmp_path / "runs" / f"{found['first_bad']}.json"
    first_bad.unlink()
    catalogue.refresh()
    assert view(catalogue, "regressions") == []  # its runs are no longer there to point at
    catalogue.close()


def test_histories_are_analysed_in_the_background(tmp_path: Path) -> None:
    make_store(tmp_path, series=6, runs=20, step=Step(series=3, run=12, ratio=1.4))
    catalogue = Catalogue(tmp_path, None)
    catalogue.analyse_meanwhile()
    deadline = time.monotonic() + 60
    while catalogue.revision()["analysed"]["done"] < 6:
        assert time.monotonic() < deadline
    assert len(view(catalogue, "regressions")) == 1
    catalogue.close()


def test_a_failure_is_listed_until_its_series_is_measured_again(tmp_path: Path) -> None:
    failed = step_entry("SONew band 8", 65536, [], status="failed", reason="out of memory", samples_ms=None)
    write_run(tmp_path, made_run(1), [step_entry("SONew band 8", 65536, [1.0]), step_entry("copy", 65536, [1.0])])
    write_run(tmp_path, made_run(2), [failed, step_entry("copy", 65536, [1.0])])
    write_run(tmp_path, made_run(3), [step_entry("copy", 65536, [1.0])])
    catalogue = Catalogue(tmp_path, None)
    listed = view(catalogue, "overview")["attention"]
    assert [(item["kind"], item["text"]) for item in listed] == [("failure", "out of memory")]
    write_run(tmp_path, made_run(4), [step_entry("SONew band 8", 65536, [1.0])])
    catalogue.refresh()
    assert view(catalogue, "overview")["attention"] == []
    catalogue.close()


def test_broken_tickets_are_a_problem_and_hide_nothing(tmp_path: Path) -> None:
    make_store(tmp_path, series=2, runs=1)
    (tmp_path / "tickets.json").write_text("[", encoding="utf-8")
    catalogue = Catalogue(tmp_path, None)
    assert [problem["path"] for problem in view(catalogue, "meta")["problems"]] == ["tickets.json"]
    assert len(view(catalogue, "runs")) == 1
    catalogue.close()
