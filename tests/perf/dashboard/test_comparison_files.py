"""Comparison files from anywhere: what is one is shown, what is none is a problem with a name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.dashboard.comparisons import comparison_files, read_comparisons
from tests.perf.dashboard.made import HOSTILE, comparison, entry, side


def write(folder: Path, name: str, value: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_comparisons_of_the_store_and_committed_ones_are_read_by_date(tmp_path: Path) -> None:
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    write(store / "compares", "b.json", comparison("b", [entry("x", "SAME", 1.0, 2.0)], date="2026-10-02T00:00:00+00:00"))
    write(baselines / "compares", "2026-10-01-box.json", comparison("a", [], date="2026-10-01T00:00:00+00:00"))
    write(baselines, "2026-10-01-box-step.json", {"schema_version": 1, "entries": []})
    write(store / "compares", "same.json", comparison("a", [entry("y", "SAME", 1.0, 2.0)], date="2026-10-03T00:00:00+00:00"))
    records, problems = read_comparisons(comparison_files(store, baselines))
    assert problems == []
    assert [(record["comparison"]["id"], len(record["entries"])) for record in records] == [("a", 0), ("b", 1)]


def test_no_folder_has_no_comparisons(tmp_path: Path) -> None:
    assert read_comparisons(comparison_files(tmp_path / "none", None)) == ([], [])
    assert read_comparisons(comparison_files(tmp_path / "none", tmp_path / "nothing")) == ([], [])


BROKEN: list[tuple[str, Any]] = [
    ("torn", json.dumps(comparison("a", []))[:100]),
    ("no object", [1]),
    ("version", {**comparison("a", []), "schema_version": 2}),
    ("id", comparison("../../etc/passwd", [])),
    ("mode", comparison("a", [], mode="C")),
    ("date", comparison("a", [], date="yesterday")),
    ("side", comparison("a", [], base="main")),
    ("entries", {**comparison("a", []), "entries": "none"}),
    ("verdict", comparison("a", [entry("x", "BAD", 1.0, 2.0)])),
    ("text for a number", comparison("a", [entry("x", "SAME", 1.0, 2.0, low="<b>")])),
    ("not finite", json.dumps(comparison("a", [entry("x", "SAME", 1.0, 2.0, p=1.0)])).replace('"p": 1.0', '"p": NaN')),
    ("ratios", comparison("a", [entry("x", "SAME", 1.0, 2.0, ratios=["1"])])),
    ("launches of a case", comparison("a", [entry("x", "SAME", 1.0, 2.0, launches=[1.5])])),
    ("launches", comparison("a", [], launches=[3])),
    ("rounds", comparison("a", [], rounds=10**400)),
    ("local changes", comparison("a", [], head={**side("main", ""), "modified": "<b>"})),
    ("band", comparison("a", [entry("x", "SAME", 1.0, 2.0, band="1")])),
]


@pytest.mark.parametrize(("name", "value"), BROKEN, ids=[name for name, _ in BROKEN])
def test_a_file_that_is_no_comparison_is_a_problem_and_hides_no_other(tmp_path: Path, name: str, value: object) -> None:
    bad = write(tmp_path / "compares", "bad.json", value)
    write(tmp_path / "compares", "good.json", comparison("good", []))
    records, problems = read_comparisons(comparison_files(tmp_path, None))
    assert [record["comparison"]["id"] for record in records] == ["good"], name
    assert [problem.path for problem in problems] == [str(bad)]
    assert problems[0].reason


def test_what_a_record_says_of_its_sides_and_launches_is_kept(tmp_path: Path) -> None:
    head = {"spec": "main@off", "title": "main", "commit": "b" * 40, "modified": True, "diff": "9f8e", "tuning": "off", "store": "1a2b"}
    said = entry("x", "SAME", 1.0, 2.0, launches=[11, 11, 11], plans=[[{"block": 8}], []])
    write(tmp_path / "compares", "a.json", comparison("a", [said], head=head, load=0.5, planted_slowdown=0.05))
    ((record,), problems) = read_comparisons(comparison_files(tmp_path, None))
    assert problems == []
    about = record["comparison"]
    assert about["head"] == {**head, "commit_date": ""}
    assert (about["rounds"], about["launches"], about["seconds"], about["load"], about["planted_slowdown"]) == (33, 3, 512.0, 0.5, 0.05)
    assert (record["entries"][0]["launches"], record["entries"][0]["plans"]) == ([11, 11, 11], '[[{"block": 8}], []]')


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "compares").mkdir()
    os.mkfifo(tmp_path / "compares" / "pipe.json")
    records, problems = read_comparisons(comparison_files(tmp_path, None))
    assert records == []
    assert "no regular file" in problems[0].reason


def test_markup_in_a_name_is_kept_as_the_text_that_it_is(tmp_path: Path) -> None:
    write(tmp_path / "compares", "a.json", comparison("a", [entry(HOSTILE, "SAME", 1.0, 2.0)], title=HOSTILE))
    ((record,), problems) = read_comparisons(comparison_files(tmp_path, None))
    assert problems == []
    assert (record["comparison"]["title"], record["entries"][0]["case"]) == (HOSTILE, HOSTILE)
