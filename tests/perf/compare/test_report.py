from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sonew_perf.compare import report
from sonew_perf.compare.comparison import Settings, compare
from sonew_perf.compare.record import document, make_record, store_record
from sonew_perf.compare.rounds import Limits
from sonew_perf.compare.sides import Side
from sonew_perf.errors import RecordError
from sonew_perf.records.machines import machine_of
from tests.perf.compare.played import Played, case, drawn

MACHINE = machine_of({"device": "a CPU", "type": "cpu", "threads": 2})
HOSTILE = "main|<b>\x1b[31m`"


def _record(*, itself: bool = False, base: str = "v1") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cases = [case("a"), case("bb"), case("ccc"), case("dddd")]
    names = [each.name for each in cases]
    slower = {} if itself else {names[1]: 1.08, names[2]: 0.9}
    broken = frozenset({names[3]})
    settings = Settings(launches=4, rounds=12)
    launch = lambda _: Played(drawn(rng, names, 12, scatter=0.005), slower, broken).entered()  # noqa: E731  # a factory
    return make_record(
        compare(cases, launch, settings, Limits(time.monotonic() + 3600)),
        base=Side(spec=base, commit="a" * 40),
        head=Side(spec=".", commit="b" * 40, modified=True),
        settings=settings,
        itself=itself,
        slowdown=0.0,
        machine=MACHINE,
        load=0.1,
        seconds=3.21,
        command="sonew-perf compare v1",
    )


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return _record()


def _shown(record: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(report.table(record))
    return stream.getvalue()


def test_the_table_shows_what_needs_attention_first(record: dict[str, Any]) -> None:
    lines = [line for line in _shown(record).splitlines() if "elements" in line]
    assert [next(word for word in line.split() if word.isupper() and len(word) > 3) for line in lines] == [
        "SLOWER",
        "NO-DATA",
        "FASTER",
        "SAME",
    ]
    assert "1.08" in lines[0]


def test_the_record_says_what_was_compared_and_keeps_every_ratio(record: dict[str, Any]) -> None:
    read = json.loads(document(record))
    assert read == record
    about = read["comparison"]
    assert (about["base"]["commit"], about["head"]["title"]) == ("a" * 40, "working tree (modified) bbbbbbbbb")
    assert (about["mode"], about["noise_floor"], about["machine"]["id"]) == ("A/B", None, MACHINE.id)
    slower = next(entry for entry in read["entries"] if entry["verdict"] == "SLOWER")
    assert len(slower["ratios"]) == sum(slower["launches"]) == 2 * 4 * 12
    assert float(np.median(slower["ratios"])) == pytest.approx(slower["ratio"], rel=1e-4)
    missing = next(entry for entry in read["entries"] if entry["verdict"] == "NO-DATA")
    assert (missing["ratio"], missing["reason"]) == (None, "no such kernel")


def test_the_conclusion_counts_and_states_what_could_be_seen(record: dict[str, Any]) -> None:
    lines = report.conclusion(record)
    assert lines[0] == "1 SLOWER, 1 FASTER, 1 SAME, 1 NO-DATA"
    assert "19 times of 20" in lines[1]
    assert any(line.endswith("no such kernel") for line in lines)
    itself = report.conclusion(_record(itself=True))
    assert any(line.startswith("Noise floor: equals differed by up to 0.") for line in itself)


def test_markdown_is_a_table_that_no_name_can_break_out_of() -> None:
    text = report.markdown(_record(base=HOSTILE))
    assert "\x1b" not in text
    assert "<b>" not in text.replace(r"\<b\>", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert {line.count("|") for line in rows} == {7}
    assert "\x1b" not in _shown(_record(base=HOSTILE))


def test_a_record_is_stored_where_the_dashboard_looks_and_an_unusable_place_is_named(tmp_path: Path, record: dict[str, Any]) -> None:
    path = store_record(tmp_path, record)
    assert path == tmp_path / "compares" / f"{record['comparison']['id']}.json"
    assert json.loads(path.read_text()) == record
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot be written"):
        store_record(tmp_path / "file", record)
