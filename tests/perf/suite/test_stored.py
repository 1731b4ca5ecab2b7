from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sonew_perf.records.files import Entry
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Run
from sonew_perf.records.runs import record_text, write_run
from sonew_perf.suite.groups import Group
from sonew_perf.suite.stored import earlier_points, outcomes, stored_ratios
from tests.perf.suite.made import MACHINE, RUN, host_group, step_group, timed

GROUP = step_group(1)
ELSEWHERE = {**MACHINE, "device": "Other CPU"}
ON_GPU = {**MACHINE, "device": "Some GPU", "type": "cuda"}
ADAMW = "AdamW fused"


def _timed(ratio: float, machine: Mapping[str, object] = MACHINE, group: Group = GROUP) -> list[Entry]:
    return [{**entry, "group": group.name, "machine": dict(machine)} for entry in timed(group, ratio=ratio)]


def _commit(folder: Path, day: int, entries: Sequence[Entry], machine: Mapping[str, object]) -> None:
    run = replace(RUN, date=f"2026-01-{day:02}T00:00:00+00:00", machine=machine_of(machine))
    folder.mkdir(exist_ok=True)
    (folder / f"2026-01-{day:02}.json").write_text(record_text(run, entries, named=False))


def _store(folder: Path, day: int, entries: Sequence[Entry], **about: object) -> Run:
    run = replace(RUN, id=f"202601{day:02}T000000Z-00000000", date=f"2026-01-{day:02}T00:00:00+00:00", **about)  # type: ignore[arg-type]  # as named
    write_run(folder, run, entries)
    return run


def _ratios(store: Path, baselines: Path, entries: Sequence[Entry]) -> list[tuple[float | None, bool]]:
    earlier = earlier_points(store, baselines)
    assert earlier.problem == ""
    return [(one.ratios.get(ADAMW), one.elsewhere) for one in stored_ratios(RUN, entries, earlier)]


def test_this_machines_newest_number_comes_before_the_committed_ones_of_others(tmp_path: Path) -> None:
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    assert _ratios(store, baselines, _timed(9.0)) == [(None, False)] * 4
    _commit(baselines, 2, _timed(2.0, ELSEWHERE), ELSEWHERE)
    _commit(baselines, 5, _timed(5.0, ON_GPU), ON_GPU)  # a GPU's ratio says nothing of a CPU's
    _commit(baselines, 1, _timed(1.0, ELSEWHERE), ELSEWHERE)
    assert _ratios(store, baselines, _timed(9.0)) == [(2.0, True)] * 4
    assert _ratios(store, baselines, _timed(9.0, {**ON_GPU, "device": "Other GPU"})) == [(5.0, True)] * 4
    assert _ratios(store, baselines, _timed(9.0, group=step_group(8))[-1:]) == [(None, False)]
    _commit(baselines, 3, _timed(3.0, {**ELSEWHERE, "threads": 4}), {**ELSEWHERE, "threads": 4})
    assert _ratios(store, baselines, _timed(9.0)) == [(3.0, True)] * 4  # the newest, whoever's it is
    _store(store, 1, _timed(4.0))
    assert _ratios(store, baselines, _timed(9.0)) == [(4.0, False)] * 4
    _store(store, 2, [{**entry, "status": "failed", "reason": "no"} for entry in _timed(8.0)])
    assert _ratios(store, baselines, _timed(9.0)) == [(4.0, False)] * 4  # a failure is no number


def test_a_stores_own_number_of_another_machine_is_not_taken_for_a_committed_one(tmp_path: Path) -> None:
    _store(tmp_path, 1, _timed(4.0, ELSEWHERE), machine=machine_of(ELSEWHERE))
    assert _ratios(tmp_path, tmp_path / "none", _timed(9.0)) == [(None, False)] * 4


def test_outcomes_are_of_the_same_sources_and_the_newest_that_says_more_than_a_skip(tmp_path: Path) -> None:
    about = {"commit": "a" * 40, "modified": False}
    skipped = [{**entry, "status": "skipped", "reason": "JAX is not installed"} for entry in _timed(1.0)]
    failed = [*_timed(1.0)[:-1], {**_timed(1.0)[-1], "status": "failed", "reason": "wrong"}]
    now = replace(RUN, commit="a" * 40, modified=False)
    assert outcomes(tmp_path, now) == {}
    _store(tmp_path, 1, skipped, **about)
    assert outcomes(tmp_path, now) == {GROUP.name: {"skipped"}}
    _store(tmp_path, 2, failed, **about)
    assert outcomes(tmp_path, now) == {GROUP.name: {"done", "failed"}}
    _store(tmp_path, 3, [*_timed(1.0), *_timed(1.0, group=host_group())], **about)
    _store(tmp_path, 4, skipped, **about)
    assert outcomes(tmp_path, now) == {GROUP.name: {"done"}, host_group().name: {"done"}}
    assert outcomes(tmp_path, replace(now, diff="b" * 12, modified=True)) == {}
    assert outcomes(tmp_path, replace(now, machine=machine_of(ELSEWHERE))) == {}
    assert outcomes(tmp_path, replace(now, commit="", modified=None)) == {}
