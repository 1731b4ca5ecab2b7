"""The exported file holds everything it needs and what the views say, and fits."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import random
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.dashboard.catalogue import Catalogue
from sonew_perf.dashboard.documents import document, names
from sonew_perf.dashboard.export import STEPS, ExportError, Thinning, export_file, fitting, spread, thin
from sonew_perf.dashboard.page import PageError, file_page, plotly, script
from sonew_perf.dashboard.sharing import expanded
from sonew_perf.records import machines
from sonew_perf.records.runs import write_run
from tests.perf.dashboard import demo
from tests.perf.dashboard.made import CPU, HOSTILE, FakeIndex, a_point, a_run, a_series, comparison, content, entry
from tests.perf.records.made import made_run, make_store, step_entry

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Document(HTMLParser):
    """The elements of a page with their attributes and, of scripts, their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, series=6, runs=5)
    write_run(folder, made_run(30, label=f"</script>{HOSTILE}"), [step_entry("copy", 65536, [1.0, 1.1])])
    return folder


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    path = store / "page.html"
    export_file(path, store, None, generated=NOW)
    return path.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    """The views in a page."""
    (text,) = (text for attributes, text in Document(page).scripts if attributes.get("id") == "data")
    return expanded(json.loads(gzip.decompress(base64.b64decode(text))))


def test_the_file_has_every_view_as_the_server_gives_it(page: str, store: Path) -> None:
    catalogue = Catalogue(store, None)
    catalogue.analyse_all()
    found = data_of(page)
    views = {name: json.loads(catalogue.body(name)[1]) for name in names(catalogue.content)}
    catalogue.close()
    about = found.pop("meta")
    assert found == views
    assert (about["mode"], about["generated"], about["runs"]) == ("export", NOW.isoformat(), 6)
    assert about["rule"] == "This file keeps, of each series, every run of the history, and every sample of each of the newest 30 runs."


def test_the_same_store_gives_the_same_bytes(page: str, store: Path, tmp_path: Path) -> None:
    again = tmp_path / "folder" / "again.html"
    export_file(again, store, None, generated=NOW)
    assert again.read_text(encoding="utf-8") == page


def test_only_the_scripts_that_the_policy_names_can_run(page: str) -> None:
    found = Document(page)
    (policy,) = (attributes["content"] or "" for tag, attributes in found.elements if tag == "meta" and attributes.get("http-equiv"))
    running = [text for attributes, text in found.scripts if attributes.get("type") is None]
    (packed,) = (text for attributes, text in found.scripts if attributes.get("id") == "plotly")
    running.append(gzip.decompress(base64.b64decode(packed)).decode())  # with the first chart
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert running[1:] == [plotly()]
    assert len(hashes) == 2
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert "http" not in policy


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    loads = [
        value
        for _, attributes in Document(page).elements
        for name, value in attributes.items()
        if name in {"src", "href", "action", "data", "srcset"}
    ]
    assert loads == ["data:,"]
    assert 'data-mode="export"' in page
    assert "<!-- " not in page.replace(script(), "")


def test_numbers_that_no_float_holds_stop_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonew_perf.dashboard.page.plotly", lambda: "")
    huge = 10**400
    told = {"kind": "training run", "task": "autoencoder", "method": "sonew", "band": 1, "lr": 0.1}
    told |= {"seed": 0, "steps": 2, "batch": 10, "wall_s": 1.0, "optimizer_s": 0.5}
    machine = machines.describe(CPU)
    write_run(tmp_path, made_run(1), [{**told, "machine": machine, "losses": [1.0, None]}])
    write_run(tmp_path, made_run(2), [{**told, "machine": machine, "losses": [huge]}])
    write_run(tmp_path, made_run(3), [{**told, "machine": machine, "loss": huge}])
    record = comparison("c1", [entry("x", "SAME", 1.0, 2.0, more=huge)], more=huge)
    record["comparison"]["base"]["more"] = huge
    (tmp_path / "compares").mkdir()
    (tmp_path / "compares" / "c1.json").write_text(json.dumps(record), encoding="utf-8")
    export_file(tmp_path / "page.html", tmp_path, None)
    views = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [problem["reason"].partition(": ")[2][:12] for problem in views["meta"]["problems"]] == ["losses is a ", "loss is 1000"]
    assert [line["loss"] for line in views["convergence"]["races"][0]["lines"]] == [[1.0, None]]
    assert "more" not in json.dumps(views["comparisons/c1"])


def test_names_with_markup_stay_inside_the_data(page: str) -> None:
    assert HOSTILE not in page
    assert data_of(page)["runs"][0]["label"] == f"</script>{HOSTILE}"


def test_a_script_that_would_end_its_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonew_perf.dashboard.page.script", lambda: "const x = '</SCRIPT>';")
    with pytest.raises(PageError, match="markup that ends an inline script"):
        file_page(b"{}")


def test_what_does_not_fit_is_thinned_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonew_perf.dashboard.page.plotly", lambda: "")
    steps = STEPS[0], Thinning(3, 5), Thinning(2, 0, 20)
    rng, series, runs = random.Random(3), a_series(band=1), [a_run(number) for number in range(60)]
    made = content(FakeIndex(runs, [series], [a_point(series, run, [rng.random() for _ in range(30)]) for run in runs]))
    limit = 10**9
    for step in steps:  # each is smaller than the one before, and the first that fits is taken
        found, kept = fitting(made, limit, "now", steps)
        assert kept == step
        assert len(found) <= limit
        assert data_of(found)["meta"]["rule"] == step.rule
        limit = len(found) - 1
    with pytest.raises(ExportError, match="sonew-perf gc"):
        fitting(made, limit, "now", steps)


def test_samples_are_left_out_before_points() -> None:
    for before, after in itertools.pairwise(STEPS):
        assert (after.runs, after.samples, after.points) != (before.runs, before.samples, before.points)
        assert after.runs <= before.runs
        assert after.samples <= before.samples
        assert after.points <= before.points
        assert after.points == before.points or after.samples == before.samples == 0


def test_thinning_keeps_the_newest_runs_and_the_extremes() -> None:
    made = demo.store()
    series = next(row for row in document(made, "regressions") if row["ratio"] < 1.1 and row["kernel"] == "step")["series"]
    view = document(made, f"series/{series}")
    kept = thin(view, Thinning(runs=3, samples=5, points=30))
    newest = view["points"]["run"][-3:]
    assert list(kept["samples"]) == list(kept["facts"]) == list(kept["repro"]) == newest
    for run in newest:
        assert len(kept["samples"][run]) <= 5
        assert {min(view["samples"][run]), max(view["samples"][run])} <= set(kept["samples"][run])
    assert kept["points"]["median"] == view["points"]["median"][-30:]
    assert kept["points"]["ratio"]["copy"] == view["points"]["ratio"]["copy"][-30:]
    (change,) = kept["changes"]
    assert kept["points"]["run"][change["index"]] == change["first_bad"]
    assert [(level["first"], level["last"]) for level in kept["levels"]] == [(0, change["index"] - 1), (change["index"], 29)]


@pytest.mark.parametrize("most", [2, 5, 20])
def test_a_spread_of_samples_is_in_their_order_with_both_extremes(most: int) -> None:
    values = [float((7 * place) % 31) for place in range(31)]
    kept = spread(values, most)
    places = [values.index(value) for value in kept]
    assert places == sorted(places)
    assert {0.0, 30.0} <= set(kept)
    assert len(kept) <= most
    assert spread(values[:2], most) == values[:2]


def test_a_file_that_cannot_be_written_is_a_clear_error(store: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"cannot be written.*pass --export"):
        export_file(blocked / "page.html", store, None)
