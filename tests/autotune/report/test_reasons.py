"""Why the winner won."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sonew.errors import BackendUnavailableError
from sonew_autotune.report import reasons
from sonew_autotune.report.studies import Study, read_study
from sonew_kernels.spec import SPECS
from tests.autotune.report.made import entry_of, key_of, raw_study, record_of


def study_of(kernel: str, winner: dict[str, int], **evidence: Any) -> Study:
    entry = entry_of(key_of(kernel), winner, **evidence)
    return read_study(raw_study(kernel, entry=entry.as_json()), ())


def test_on_a_cpu_the_parameters_that_differ_are_told_with_their_effect() -> None:
    single = record_of("cpu", {"segment": 16384, "block": 1024, "threads": 1}, 1)
    entry = entry_of(key_of("cpu"), {"segment": 65536, "block": 1024, "threads": 1})
    raw = raw_study(entry=entry.as_json())
    study = read_study(replace(raw, records=[*raw.records[6:], single.as_json()]), ())
    found = reasons.explain(study)

    assert [(each.name, each.before, each.after) for each in found.settings] == [("segment", 16384, 65536), ("threads", 0, 1)]
    assert found.settings[0].meaning == "elements one thread takes at a time"
    assert found.settings[0].winner is not None
    assert found.settings[0].winner.gain == pytest.approx(1.07, abs=0.03)
    assert found.settings[1].alone is not None
    assert "segment from 16384 to 65536 (elements one thread takes at a time); threads from 0 to 1" in found.about
    assert f"threads=1 {found.settings[1].alone.gain.median:.2f}x" in found.about
    assert (found.code, found.note) == ((), "")


def test_on_a_gpu_the_machine_code_is_compared() -> None:
    """The real compiler, for the one kernel whose parameters differ."""
    winner = {**SPECS["triton"].default(1), "update_block": 2048}
    found = reasons.explain(study_of("triton", winner))

    (difference,) = found.code
    assert difference.kernel == "update"
    changes = {change.name: (change.before, change.after) for change in difference.changes}
    assert changes["elements per thread"] == (8, 16)
    assert "In the machine code of the update kernel, what counts most: " in found.about
    assert "elements per thread from 8 to 16" in found.about
    assert found.note.startswith("Compiled here for cuda:90 by triton ")


def test_where_triton_does_not_compile_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        message = "triton is not installed: nothing can be compiled."
        raise BackendUnavailableError(message)

    monkeypatch.setattr(reasons, "find_triton", missing)
    found = reasons.explain(study_of("triton", {**SPECS["triton"].default(1), "block": 2048}))

    assert found.note == "The machine code cannot be compared here: triton is not installed: nothing can be compiled."
    assert found.code == ()
    assert found.about.startswith("The winner was faster")


def test_a_target_that_nobody_knows_is_a_line_as_well() -> None:
    key = key_of("triton", capability="cuda:7777")
    entry = entry_of(key, {**SPECS["triton"].default(1), "block": 2048})
    raw = raw_study("triton", subject=None, records=[], entry=entry.as_json())

    assert "cannot be compared here: target='cuda:7777' is not of the form" in reasons.explain(read_study(raw, ())).note


def test_nothing_is_explained_where_nothing_won() -> None:
    kept = study_of("cpu", SPECS["cpu"].default(1))
    empty = read_study(raw_study(records=[], decided=False), ())
    default_only = read_study(raw_study(records=[record_of("cpu", SPECS["cpu"].default(1), 1).as_json()], decided=False), ())

    assert reasons.explain(kept).about == "No candidate beat the default, so there is nothing to explain."
    assert reasons.explain(default_only).about == reasons.explain(kept).about
    assert reasons.explain(empty).about == "Nothing was timed against a known default, so there is nothing to explain."


def test_a_challenger_that_lost_is_called_one() -> None:
    challenger = {"config": {"segment": 65536, "block": 2048, "threads": 0}, "ratio_to_default": {"median": 0.99, "low": 0.9, "high": 1.1}}
    study = study_of("cpu", SPECS["cpu"].default(1), challenger=challenger)

    assert reasons.explain(study).about.startswith(
        "The default was kept; here is its best challenger. It differs from the default in segment"
    )
