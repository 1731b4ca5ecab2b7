"""The page of a study and the list of pages: what stands in them, that they need nothing else, and that foreign text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from sonew_autotune.report import page as page_module
from sonew_autotune.report.index import Listed, index_page
from sonew_autotune.report.page import CONTENTS, study_page
from sonew_autotune.report.reasons import explain
from sonew_autotune.report.studies import RawStudy, Study, read_study
from tests.autotune.report.made import key_of, raw_study, records_of
from tests.autotune.report.parsed import Node, contrast, figures, palette, parse

HOSTILE: Final = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[31m\ud800"
CSS: Final = Path(page_module.__file__).with_name("page.css").read_text(encoding="utf-8")


def study_of(raw: RawStudy | None = None) -> Study:
    return read_study(raw or raw_study(), ())


def page_of(study: Study) -> str:
    return study_page(study, explain(study, compiled=False), index="index.html")


def hostile_study() -> Study:
    """Everything that somebody else may write is hostile."""
    raw = raw_study(name=f"x{HOSTILE}", source=HOSTILE)
    renamed = {"segment": HOSTILE, "block": f"--{HOSTILE}", "threads": "threads"}

    def rename(config: dict[str, Any]) -> dict[str, Any]:
        return {renamed[name]: value for name, value in config.items()}

    records = []
    for record in raw.records:
        assert isinstance(record, dict)
        failure = record["failure"] and {"kind": HOSTILE, "message": f"{HOSTILE}\nsecond line"}
        records.append({**record, "config": rename(record["config"]), "failure": failure})
    assert isinstance(raw.subject, dict)
    assert isinstance(raw.entry, dict)
    subject = {
        "key": {**raw.subject["key"], "device": HOSTILE, "kernel": HOSTILE, "param_dtype": HOSTILE},
        "case": {"name": HOSTILE, "shapes": [[7]]},
        "default": rename(raw.subject["default"]),
        "space": rename(raw.subject["space"]),
    }
    evidence = {**raw.entry["evidence"], "stopped_because": HOSTILE, "search": HOSTILE, "versions": {HOSTILE: HOSTILE}, "date": HOSTILE}
    return study_of(replace(raw, subject=subject, records=records, entry={**raw.entry, "key": subject["key"], "evidence": evidence}))


@pytest.fixture(scope="module")
def text() -> str:
    return page_of(study_of())


@pytest.fixture(scope="module")
def page(text: str) -> Node:
    return parse(text)


def test_every_section_is_there_and_in_the_contents(page: Node) -> None:
    sections = page.one("main").all("section")

    assert [section.attributes["id"] for section in sections] == list(CONTENTS)
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [f"#{name}" for name in CONTENTS]
    assert len(page.all("h1")) == 1
    assert all(len(section.all("h2")) == 1 for section in sections)


def test_the_head_says_what_won_and_by_how_much(page: Node) -> None:
    verdict = page.one("p", **{"class": "verdict"})

    assert page.one("h1").text == "band 1, 4,194,304 elements, float32"
    assert re.fullmatch(
        r"tuned segment=65536 block=1024 threads=1: 1\.1\dx \(1\.1\d to 1\.1\d\) the default, 40 of 40 points tried; "
        r"stopped because no better candidate in the last 20 trials\.",
        " ".join([verdict.children[0].text, *verdict.words]),
    )
    facts = {node.one("dt").text: node.one("dd").words[0] for node in page.one("dl").all("div")}
    assert facts["Roofline share"] == "91%"
    assert facts["Peak memory"] == "96.0 MiB"
    assert (facts["Tried"], facts["Failed"]) == ("40", "8")


def test_every_chart_has_its_data_and_a_table(page: Node) -> None:
    places = page.all("div", **{"class": "chart"})

    assert [place.attributes["data-figure"] for place in places] == list(figures(page))
    assert len(places) == 9  # comparison, history, importance, three slices, pairs, failures, roofline
    assert all(len(place.attributes["aria-label"]) > 20 for place in places)
    for section in page.all("section"):
        charts = section.all("div", **{"class": "chart"})
        assert len([details for details in section.all("details") if details.all("table")]) >= len(charts)


def test_charts_are_figures_that_plotly_accepts(page: Node) -> None:
    """Its own validation, with a colour in place of each variable of the style sheet."""
    from plotly import graph_objects

    light, dark = palette(CSS)
    used: set[str] = set()

    def painted(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("--"):
            used.add(value)
            return light[value]
        if isinstance(value, list):
            return [painted(each) for each in value]
        return {name: painted(each) for name, each in value.items()} if isinstance(value, dict) else value

    kinds = [graph_objects.Figure(painted(figure)).data[0].type for figure in figures(page).values()]

    assert kinds == ["scatter", "scatter", "bar", "scatter", "scatter", "scatter", "heatmap", "bar", "scatter"]
    assert used <= set(dark)


def test_the_page_needs_nothing_else(page: Node, text: str) -> None:
    """No address is loaded, the policy forbids it, and only the two scripts that the policy names may run."""
    loading = [node for node in page.walk() if {"src", "srcset", "action", "data", "poster"} & set(node.attributes)]
    links = [node.attributes["href"] for node in page.walk() if "href" in node.attributes]
    style = "".join(page.one("style").words)
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    scripts = [node for node in page.all("script") if "type" not in node.attributes]

    assert loading == []
    assert all(link.startswith("#") or link == "index.html" for link in links)
    assert not page.all("link")
    assert "url(" not in style
    assert "@import" not in style
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert [f"'sha256-{base64.b64encode(hashlib.sha256(node.words[0].encode()).digest()).decode()}'" for node in scripts] == re.findall(
        r"'sha256-[^']+'", policy
    )
    assert len(scripts) == 2
    assert text.count("* plotly.js v") == 1
    assert "\r" not in text
    assert not [name for node in page.walk() for name in node.attributes if name.startswith("on")]


def test_foreign_text_is_shown_and_never_takes_part() -> None:
    hostile = hostile_study()
    text = page_of(hostile) + index_page([Listed(hostile, "page.html")])
    page = parse(page_of(hostile))

    assert text.count("<script>") == 3  # Plotly and the page's own, and the list's own
    assert not page.all("img")
    assert "alert(1)</script>" not in text
    assert page.one("h1").text.startswith(
        "band 1, </script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\\u202e\\x1b[31m\\ud800"
    )
    assert "second line" in page.one("section", id="failures").text
    shown = figures(page)
    assert any("&lt;/script&gt;" in str(figure) for figure in shown.values())
    assert not [figure for figure in shown.values() if "<img" in str(figure)]
    text.encode("utf-8")


def test_the_table_of_trials_has_every_trial(page: Node) -> None:
    table = page.one("table", **{"class": "sortable"})
    rows = table.rows()
    headings = [cell.text for cell in table.one("thead").all("th")]
    first, failed = (dict(zip(headings, row, strict=True)) for row in (rows[0], rows[4]))

    assert len(rows) == 40
    assert (first["segment"], first["block"], first["threads"]) == ("16384", "1024", "0")
    assert first["gain (95 %)"].startswith("0.99x (0.98 to 1.0")
    assert failed["outcome"] == "failed: compile"
    assert failed["gain (95 %)"] == "-"
    assert table.all("td", **{"data-order": "16384"})


def test_failures_are_told_by_kind_with_their_messages(page: Node) -> None:
    kinds, messages = (details.one("table").rows() for details in page.one("section", id="failures").all("details"))

    assert [row[:2] for row in kinds][:3] == [["compile", "1"], ["compile timeout", "1"], ["wrong", "1"]]
    assert kinds[2][2] == "its results differ from the reference"
    assert messages[0][1] == "compile"
    assert messages[0][3] == "Planted: the compile of trial 5"


def test_too_few_trials_are_said() -> None:
    page = parse(page_of(study_of(raw_study(count=8, decided=False))))

    assert page.one("section", id="importance").text.endswith("There are not enough trials: 6 timed ones, at least 12 are needed.")
    assert "There is no final comparison yet." in page.one("section", id="comparison").text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (raw_study(decided=False, records=[], running=1), "No trial has finished yet. 1 trial is under way."),
        (raw_study(decided=False, records=[r.as_json() for r in records_of("cpu", 40) if r.failure]), "No candidate could be timed: all 8"),
        (raw_study(decided=False, running=2, count=8), "with 1.08x (1.07 to 1.11) the default, 8 of 40 points tried. 2 trials are"),
        (raw_study(name="a name of no form", subject=None, records=[{}], decided=False), "No trial has finished yet."),
        (raw_study(records=[]), "segment=65536 block=1024 threads=1: 1.14x (1.13 to 1.15) the default, 0 of 40 points tried"),
    ],
    ids=["empty", "all failed", "under way", "unknown", "journal gone"],
)
def test_incomplete_studies_have_a_page(raw: RawStudy, expected: str) -> None:
    page = parse(page_of(study_of(raw)))

    assert expected in page.one("p", **{"class": "verdict"}).text


def test_the_list_has_a_row_per_study() -> None:
    listed = [
        Listed(study_of(), "one.html"),
        Listed(study_of(raw_study(count=8, decided=False)), "two.html"),
        Listed(study_of(raw_study("triton", records=[], decided=False)), "three.html"),
    ]
    page = parse(index_page(listed))
    rows = page.one("table").rows()

    assert [link.attributes["href"] for link in page.one("tbody").all("a")] == ["one.html", "two.html", "three.html"]
    assert [row[1] for row in rows] == ["tuned", "undecided", "undecided"]
    assert [row[2] for row in rows] == ["1.14x (1.13 to 1.15)", "1.08x (1.07 to 1.11)", "-"]
    assert [row[5] for row in rows] == ["40 of 40", "8 of 40", "0 of 294"]
    assert [row[6] for row in rows] == ["8", "2", "0"]
    assert rows[0][7] == "2026-11-27 12:00"
    assert len(page.all("svg")) == 2
    assert len(page.all("script")) == 1


def test_the_key_and_the_versions_are_told(page: Node) -> None:
    told = dict(page.one("section", id="provenance").one("table").rows())

    assert told["device"] == key_of("cpu").device
    assert told["source hash"] == key_of("cpu").source_hash
    assert told["version of torch"] == "2.13.0"
    assert told["decided on"] == "2026-11-27T12:00:00Z"


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart(theme: int) -> None:
    """WCAG AA: 4.5 for text, 3 for what a chart is drawn with."""
    colours = palette(CSS)[theme]
    texts = [(name, back) for name in ("--ink", "--muted", "--link") for back in ("--page", "--card")]
    texts += [("--good", "--good-back"), ("--ink", "--quiet-back"), ("--failed", "--alarm-back"), ("--failed", "--card")]
    texts += [("--ink", back) for back in ("--slower", "--even", "--faster")]
    drawn = [(name, "--card") for name in ("--best", "--default", "--adamw", "--copy", "--failed")]

    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in texts if contrast(colours[pair[0]], colours[pair[1]]) < 4.5}
    low |= {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in drawn if contrast(colours[pair[0]], colours[pair[1]]) < 3}
    assert low == {}
